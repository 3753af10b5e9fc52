//! Keys of listeners that not every listener has: TLS, WebSocket, Unix sockets, proxies; and what fits together.

use std::path::PathBuf;

use rustls::pki_types::DnsName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{Listener, ListenerKind};
use super::tree::Path;
use super::units::ByteSize;

/// Most certificates of one listener.
const CERTIFICATES_MAX: usize = 1_000;
/// Permissions of a Unix socket where nothing is said: owner and group.
const DEFAULT_MODE: u32 = 0o660;

/// `[listeners.tls]`: what the listener shows, and whom it trusts. Files are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// The listener's certificate, with those of its issuers behind it.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// Whether clients show certificates. Default `none`.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// Certificates of the authorities that clients' certificates have to come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Lists of certificates that those authorities have revoked. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crl: Vec<PathBuf>,
    /// Oldest version that is spoken. Default `1.2`.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Other certificates, for clients that ask for a name. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sni: Vec<NamedCertificate>,
}

impl ListenerTls {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let named = self.sni.iter().flat_map(|named| [&named.certificate, &named.key]);
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).chain(&self.crl).chain(named)
    }

    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let named = self.sni.iter_mut().flat_map(|named| [&mut named.certificate, &mut named.key]);
        [&mut self.certificate, &mut self.key]
            .into_iter()
            .chain(&mut self.client_ca)
            .chain(&mut self.crl)
            .chain(named)
    }
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They aren't asked for one.
    #[default]
    None,
    /// They may; one that they show has to be good.
    Optional,
    /// They have to.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// A certificate for a name that clients ask for (SNI).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedCertificate {
    /// The name; `*.example.org` stands for every name one level below.
    pub name: String,
    /// The certificate, with those of its issuers behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// `[listeners.websocket]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerWebSocket {
    /// Path of the request. Default `/mqtt`.
    pub path: String,
    /// Origins of the pages that may connect. Default: all.
    pub origins: Vec<String>,
    /// Largest frame that is accepted; never less than the largest packet. Default 2 MiB, range 1 KiB to 512 MiB.
    #[schemars(range(min = 1_024, max = 536_870_912))]
    pub max_frame_size: ByteSize,
}

impl Default for ListenerWebSocket {
    fn default() -> Self {
        Self { path: "/mqtt".to_owned(), origins: Vec::new(), max_frame_size: ByteSize::mib(2) }
    }
}

/// Which Client Identifiers clients may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientIdRule {
    /// Any.
    #[default]
    Any,
    /// The user name.
    Username,
    /// The user name, alone or followed by `:` and anything.
    Prefix,
}

impl ClientIdRule {
    /// As the broker knows it.
    pub fn client_ids(self) -> broker::ClientIds {
        match self {
            Self::Any => broker::ClientIds::Any,
            Self::Username => broker::ClientIds::Username,
            Self::Prefix => broker::ClientIds::Prefix,
        }
    }
}

/// Who may take over a user's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionTakeover {
    /// That user.
    #[default]
    SameUser,
    /// Whoever names its Client Identifier.
    Anyone,
}

impl SessionTakeover {
    /// As the broker knows it.
    pub fn takeover(self) -> broker::Takeover {
        match self {
            Self::SameUser => broker::Takeover::SameUser,
            Self::Anyone => broker::Takeover::Anyone,
        }
    }
}

impl Listener {
    /// The permissions of its socket's file; `None`: `mode` says nothing that means permissions.
    pub fn socket_mode(&self) -> Option<u32> {
        match &self.mode {
            None => Some(DEFAULT_MODE),
            Some(text) => u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777),
        }
    }

    /// Whether only programs on this machine reach it.
    pub fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.ip().is_loopback())
    }

    /// Where it listens, in words.
    pub fn place(&self) -> String {
        match (&self.address, &self.path) {
            (Some(address), _) => address.to_string(),
            (None, Some(path)) => path.display().to_string(),
            (None, None) => "nowhere".to_owned(),
        }
    }

    /// The files and folders that it names.
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.path.iter_mut().chain(self.tls.iter_mut().flat_map(ListenerTls::files_mut))
    }
}

/// A fault of a listener's keys.
pub(super) struct Fault {
    pub(super) at: Path,
    pub(super) message: String,
    /// Something is missing: it may have been taken out for a fault of its own.
    pub(super) is_missing: bool,
}

/// Finds what doesn't fit together.
pub(super) fn check(at: &Path, listener: &Listener) -> Vec<Fault> {
    let mut faults = Vec::new();
    let kind = listener.kind.name();
    let mut missing = |key: &str| {
        let message = format!("listener \"{}\" of kind \"{kind}\" needs {key}", listener.name);
        faults.push(Fault { at: at.clone(), message, is_missing: true });
    };
    let is_unix = listener.kind == ListenerKind::Unix;
    if is_unix && listener.path.is_none() {
        missing("a `path`");
    }
    if !is_unix && listener.address.is_none() {
        missing("an `address`");
    }
    if matches!(listener.kind, ListenerKind::Tls | ListenerKind::Wss) && listener.tls.is_none() {
        missing("certificates, [listeners.tls]");
    }
    let mut fault = |key: &str, message: String| {
        let at = key.split('.').fold(at.clone(), Path::key);
        faults.push(Fault { at, message, is_missing: false });
    };
    let speaks_tls = matches!(listener.kind, ListenerKind::Tls | ListenerKind::Wss | ListenerKind::Auto);
    let speaks_websocket = matches!(listener.kind, ListenerKind::Ws | ListenerKind::Wss | ListenerKind::Auto);
    for (key, is_there, fits) in [
        ("address", listener.address.is_some(), !is_unix),
        ("path", listener.path.is_some(), is_unix),
        ("mode", listener.mode.is_some(), is_unix),
        ("proxy_protocol", !listener.proxy_protocol.is_empty(), !is_unix),
        ("tls", listener.tls.is_some(), speaks_tls),
        ("websocket", listener.websocket.is_some(), speaks_websocket),
    ] {
        if is_there && !fits {
            fault(key, format!("a listener of kind \"{kind}\" has no use for `{key}`"));
        }
    }
    if let Some(mode) = listener.mode.as_ref().filter(|_| listener.socket_mode().is_none()) {
        fault(
            "mode",
            format!("mode \"{mode}\" means no permissions; expected three octal digits, as in \"0660\""),
        );
    }
    if let Some(tls) = &listener.tls {
        check_tls(tls, &mut fault);
    }
    if let Some(websocket) = &listener.websocket {
        let path = &websocket.path;
        if !path.starts_with('/')
            || path.contains(|c: char| c == '?' || c == '#' || c.is_ascii_control() || c == ' ')
        {
            fault(
                "websocket.path",
                format!("websocket.path \"{path}\" is no path; expected one as \"/mqtt\""),
            );
        }
        let (least, most) = (ByteSize::kib(1), ByteSize::mib(512));
        let size = websocket.max_frame_size;
        if size < least || size > most {
            fault(
                "websocket.max_frame_size",
                format!("websocket.max_frame_size is {size}, must be between {least} and {most}"),
            );
        }
    }
    faults
}

fn check_tls(tls: &ListenerTls, fault: &mut dyn FnMut(&str, String)) {
    let asks = tls.client_certificates != ClientCertificates::None;
    if asks && tls.client_ca.is_none() {
        fault(
            "tls.client_certificates",
            "clients' certificates need tls.client_ca, which says whose are good".to_owned(),
        );
    }
    for (key, is_there) in [("client_ca", tls.client_ca.is_some()), ("crl", !tls.crl.is_empty())] {
        if is_there && !asks {
            fault(
                &format!("tls.{key}"),
                format!(
                    "tls.{key} has no use: clients aren't asked for certificates (tls.client_certificates)"
                ),
            );
        }
    }
    if tls.sni.len() >= CERTIFICATES_MAX {
        fault("tls.sni", format!("{} names, more than the limit of {}", tls.sni.len(), CERTIFICATES_MAX - 1));
    }
    for (number, named) in tls.sni.iter().enumerate() {
        let name = named.name.strip_prefix("*.").unwrap_or(&named.name);
        if DnsName::try_from(name).is_err() {
            fault("tls.sni", format!("tls.sni: \"{}\" is no name of a host", named.name));
        }
        if tls.sni.iter().take(number).any(|other| other.name.eq_ignore_ascii_case(&named.name)) {
            fault("tls.sni", format!("tls.sni: \"{}\" is named twice", named.name));
        }
    }
}
