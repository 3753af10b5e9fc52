//! Certificates for a server and whoever comes to it, and for strangers to both.

use std::path::Path;

use crate::certificates::{Authority, Identity};

/// The name that the certificate of a client is for.
pub const CLIENT_NAME: &str = "gateway";

/// What is trusted and shown in TLS between a server on `127.0.0.1` and its clients.
#[derive(Debug)]
pub struct Certificates {
    authority: Authority,
    stranger: Authority,
    /// What the server shows.
    pub server: Identity,
    client: Identity,
    strange_client: Identity,
}

impl Certificates {
    /// Makes them in a folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let [ours, theirs] = ["ours", "theirs"].map(|name| folder.join(name));
        std::fs::create_dir(&ours).unwrap();
        std::fs::create_dir(&theirs).unwrap();
        let (authority, stranger) =
            (Authority::named(&ours, "authority of the server"), Authority::named(&theirs, "a stranger"));
        Self {
            server: authority.issue("server", "127.0.0.1", 1),
            client: authority.issue("client", CLIENT_NAME, 2),
            strange_client: stranger.issue("client", CLIENT_NAME, 2),
            authority,
            stranger,
        }
    }

    /// The file of the authority that both sides trust.
    #[must_use]
    pub fn ca_file(&self) -> std::path::PathBuf {
        self.authority.certificate()
    }

    /// `tls` of a connector that trusts the server and shows nothing.
    #[must_use]
    pub fn without_client(&self) -> String {
        tls(&self.authority, None, "")
    }

    /// `tls` of a connector that trusts the server and is trusted.
    #[must_use]
    pub fn mutual(&self) -> String {
        tls(&self.authority, Some(&self.client), "")
    }

    /// `tls` of connectors that can't get through, whatever the server wants to see, with what they say of it. `alert`: what
    /// the server answers to the certificate of a stranger.
    #[must_use]
    pub fn refused(&self, alert: &'static str) -> [(String, &'static str); 3] {
        let other_name = ", server_name = \"other.example\"";
        [
            (tls(&self.stranger, Some(&self.client), ""), "invalid peer certificate: UnknownIssuer"),
            (tls(&self.authority, Some(&self.client), other_name), "certificate not valid for name"),
            (tls(&self.authority, Some(&self.strange_client), ""), alert),
        ]
    }
}

fn tls(trusted: &Authority, shown: Option<&Identity>, more: &str) -> String {
    let shown = shown.map_or_else(String::new, |identity| {
        let Identity { certificate, key } = identity;
        format!(", client_cert_file = \"{}\", client_key_file = \"{}\"", certificate.display(), key.display())
    });
    format!("\ntls = {{ ca_file = \"{}\"{shown}{more} }}", trusted.certificate().display())
}
