//! `tidegate certs dev`: an authority, a server's and a client's certificate for development.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::cli::{Exit, Failure, Output};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long certificates hold, in days: the authority's, and those that it issues.
const AUTHORITY_DAYS: u32 = 3_650;
const ISSUED_DAYS: u32 = 365;
/// What is made.
const FILES: [&str; 6] = ["ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key"];

#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Folder for the files; made if it isn't there.
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    out: PathBuf,
    /// Another name or address of the server, beside localhost; may be repeated.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Common Name of the client's certificate.
    #[arg(long, value_name = "NAME", default_value = "client")]
    client: String,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &DevArgs) -> Result<Exit, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, error.to_string());
    let there = FILES.iter().map(|name| args.out.join(name)).find(|path| path.exists());
    if let Some(path) = there.filter(|_| !args.force) {
        let text = format!("{} is there already; --force replaces it, and the others", path.display());
        return Err(Failure::new(Exit::Refused, text));
    }
    fs::create_dir_all(&args.out)
        .map_err(|error| failed(&format!("{} can't be made: {error}", args.out.display())))?;
    let made = make(args).map_err(|error| failed(&format!("the certificates can't be made: {error}")))?;
    for (name, text) in FILES.iter().zip(&made) {
        let path = args.out.join(name);
        write(&path, text)
            .map_err(|error| failed(&format!("{} can't be written: {error}", path.display())))?;
    }
    let out = Output::stdout();
    for name in FILES {
        out.line(&args.out.join(name).display().to_string())?;
    }
    Ok(Exit::Success)
}

/// Makes everything, in the order of [`FILES`].
fn make(args: &DevArgs) -> Result<[String; 6], rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Tidegate authority for development");
    hold(&mut params, AUTHORITY_DAYS);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let names =
        ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().chain(args.names.iter().cloned());
    let mut params = CertificateParams::new(names.collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let [server, server_key] = issue(params, &authority)?;

    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, args.client.as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let [client, client_key] = issue(params, &authority)?;

    Ok([authority.pem(), authority.key().serialize_pem(), server, server_key, client, client_key])
}

fn issue(
    mut params: CertificateParams,
    authority: &CertifiedIssuer<'_, KeyPair>,
) -> Result<[String; 2], rcgen::Error> {
    let key = KeyPair::generate()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    hold(&mut params, ISSUED_DAYS);
    Ok([params.signed_by(&key, authority)?.pem(), key.serialize_pem()])
}

/// From yesterday on: other machines' clocks may be behind.
fn hold(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
}

/// Writes a file; a key for its owner alone from its first byte on.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let is_key = path.extension().is_some_and(|extension| extension == "key");
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mode = if is_key { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::load_text;
    use crate::tls::Certificates;

    fn args(out: &Path, force: bool) -> DevArgs {
        let (out, names, client) = (out.to_owned(), vec!["broker.local".to_owned()], "client".to_owned());
        DevArgs { out, names, client, force }
    }

    #[test]
    fn what_is_made_can_be_used_and_is_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("certs");
        run(&args(&out, false)).unwrap();
        for name in FILES {
            let mode = fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, if name.ends_with(".key") { 0 } else { mode & 0o044 }, "{name}");
        }
        let text = "[[listeners]]\nname = 'x'\nkind = 'tls'\naddress = '127.0.0.1:1'\n[listeners.tls]\n\
                    certificate = 'certs/server.pem'\nkey = 'certs/server.key'\nclient_certificates = 'required'\n\
                    client_ca = 'certs/ca.pem'\n";
        let path = folder.path().join("tidegate.toml");
        let loaded = load_text(text, Some(&path), &crate::config::Environment::default()).unwrap();
        Certificates::load(&loaded.config).unwrap();

        let before = fs::read(out.join("ca.pem")).unwrap();
        let refused = run(&args(&out, false)).unwrap_err();
        assert_eq!(refused.exit(), Exit::Refused);
        assert!(refused.text().contains("--force"), "{}", refused.text());
        assert_eq!(fs::read(out.join("ca.pem")).unwrap(), before);
        run(&args(&out, true)).unwrap();
        assert_ne!(fs::read(out.join("ca.pem")).unwrap(), before);
    }
}
