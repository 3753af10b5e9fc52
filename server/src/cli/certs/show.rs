//! `tidegate certs show`: what is in files of certificates, or in those of the configuration's listeners.
//!
//! Nothing of a key is ever shown, only whether it is a certificate's. Exit code 1 says that something is amiss, so that a
//! script may ask.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use access::authentication::CertificateSummary;
use clap::Args;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};

use crate::cli::format::iso_8601;
use crate::cli::output::{Output, notice};
use crate::cli::{ConfigArgs, Exit, Failure, without_control_characters};
use crate::config::{self, Environment, Listener};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const DAY_S: i64 = 24 * 3600;

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Files of certificates (PEM).
    #[arg(value_name = "FILE", required_unless_present = "listener")]
    files: Vec<PathBuf>,
    /// Say whether the key in this file (PEM) is that of the first certificate.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Show the certificates of the configuration's listeners instead, or of this one.
    #[arg(long, value_name = "NAME", num_args = 0..=1, conflicts_with_all = ["files", "key"])]
    listener: Option<Option<String>>,
    /// Print an object of JSON for each certificate.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// A file to show.
struct Source<'s> {
    /// What it is for; `None`: it was named on the command line.
    role: Option<String>,
    path: &'s Path,
    key: Option<&'s Path>,
}

pub(super) fn run(args: &ShowArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let Some(listener) = &args.listener else {
        let sources = args.files.iter().enumerate().map(|(at, path)| Source {
            role: None,
            path,
            key: args.key.as_deref().filter(|_| at == 0),
        });
        return show_all(sources, args.json);
    };
    let path = args.config.path(environment).or_else(|| outer.path(environment));
    let loaded = config::load(path.as_deref(), environment)
        .map_err(|errors| Failure::rendered(Exit::Refused, errors.render()))?;
    let of_it = |candidate: &&Listener| listener.as_ref().is_none_or(|name| *name == candidate.name);
    let sources: Vec<Source<'_>> =
        loaded.config.listeners.iter().filter(of_it).flat_map(of_listener).collect();
    if sources.is_empty() {
        let text = match listener {
            Some(name) => format!("there is no listener \"{name}\" that has certificates"),
            None => "no listener has certificates".to_owned(),
        };
        return Err(Failure::new(Exit::Failed, text));
    }
    show_all(sources.into_iter(), args.json)
}

fn of_listener(listener: &Listener) -> Vec<Source<'_>> {
    let Some(tls) = &listener.tls else { return Vec::new() };
    let role = |what: &str| Some(format!("listener \"{}\", {what}", listener.name));
    let own = Source { role: role("tls.certificate"), path: &tls.certificate, key: Some(&tls.key) };
    let named = tls.sni.iter().map(|named| Source {
        role: role(&format!("tls.sni \"{}\"", named.name)),
        path: &named.certificate,
        key: Some(&named.key),
    });
    let ca = tls.client_ca.iter().map(|path| Source { role: role("tls.client_ca"), path, key: None });
    std::iter::once(own).chain(named).chain(ca).collect()
}

fn show_all<'s>(sources: impl Iterator<Item = Source<'s>>, as_json: bool) -> Result<Exit, Failure> {
    let out = Output::stdout();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
    let mut exit = Exit::Success;
    for source in sources {
        let chain = match read_chain(source.path) {
            Ok(chain) => chain,
            Err(why) => {
                notice(&format!("{}: {why}", source.path.display()));
                exit = Exit::Failed;
                continue;
            }
        };
        let key = source.key.map(|key| (key, matches(&chain, key)));
        for (at, der) in chain.iter().enumerate() {
            let shown = Shown {
                source: &source,
                number: at + 1,
                of: chain.len(),
                summary: CertificateSummary::of(der),
                // The key is that of the first one; the others are its issuers'.
                key: key.as_ref().filter(|_| at == 0),
                now_s,
            };
            if !shown.is_good() {
                exit = Exit::Failed;
            }
            if as_json {
                out.json(&shown.json())?;
            } else {
                out.bytes(shown.text().as_bytes())?;
            }
        }
    }
    Ok(exit)
}

/// One certificate of a file.
struct Shown<'s> {
    source: &'s Source<'s>,
    number: usize,
    of: usize,
    /// `None`: it isn't understood.
    summary: Option<CertificateSummary>,
    key: Option<&'s (&'s Path, Result<(), String>)>,
    now_s: i64,
}

impl Shown<'_> {
    /// Whole days until it ends; negative when it has.
    fn days_left(&self, summary: &CertificateSummary) -> i64 {
        (summary.not_after_s - self.now_s).div_euclid(DAY_S)
    }

    fn is_good(&self) -> bool {
        let holds = self
            .summary
            .as_ref()
            .is_some_and(|summary| (summary.not_before_s..=summary.not_after_s).contains(&self.now_s));
        holds && self.key.is_none_or(|(_, outcome)| outcome.is_ok())
    }

    fn text(&self) -> String {
        let mut text = format!("{}", self.source.path.display());
        if self.of > 1 {
            let _infallible = write!(text, " ({} of {})", self.number, self.of);
        }
        if let Some(role) = &self.source.role {
            let _infallible = write!(text, ": {role}");
        }
        text.push('\n');
        let mut line = |name: &str, value: &str| {
            let _infallible = writeln!(text, "  {name:<12} {}", on_one_line(value));
        };
        let Some(summary) = &self.summary else {
            line("fault", "it is no certificate of X.509");
            return text;
        };
        line("subject", &summary.subject);
        let names = if summary.names.is_empty() { "none".to_owned() } else { summary.names.join(", ") };
        line("names", &names);
        line("issuer", &summary.issuer);
        line("serial", &summary.serial);
        line("fingerprint", &summary.fingerprint);
        line("authority", if summary.is_authority { "yes" } else { "no" });
        line("not before", &time(summary.not_before_s));
        let days = self.days_left(summary);
        let left = match days {
            _ if self.now_s > summary.not_after_s => format!("EXPIRED {} days ago", -days - 1),
            _ if self.now_s < summary.not_before_s => "NOT VALID YET".to_owned(),
            1 => "1 day left".to_owned(),
            days => format!("{days} days left"),
        };
        line("not after", &format!("{}, {left}", time(summary.not_after_s)));
        if let Some((path, outcome)) = self.key {
            let path = path.display();
            match outcome {
                Ok(()) => line("key", &format!("{path} is its key")),
                Err(why) => line("key", &format!("{path}: {why}")),
            }
        }
        text
    }

    fn json(&self) -> Value {
        let mut object = json!({
            "file": self.source.path.display().to_string(),
            "number": self.number,
            "role": self.source.role,
        });
        let more = match &self.summary {
            None => json!({ "error": "it is no certificate of X.509" }),
            Some(summary) => json!({
                "subject": summary.subject,
                "names": summary.names,
                "issuer": summary.issuer,
                "serial": summary.serial,
                "fingerprint": summary.fingerprint,
                "authority": summary.is_authority,
                "not_before": time(summary.not_before_s),
                "not_after": time(summary.not_after_s),
                "days_left": self.days_left(summary),
                "key_matches": self.key.map(|(_, outcome)| outcome.is_ok()),
                "key_error": self.key.and_then(|(_, outcome)| outcome.as_ref().err()),
            }),
        };
        if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
            object.extend(more);
        }
        object
    }
}

/// What stands in a certificate can't command a terminal, nor pass for another line.
fn on_one_line(text: &str) -> String {
    String::from_utf8_lossy(&without_control_characters(text.as_bytes())).replace('\n', "\\n")
}

/// Seconds since the epoch as an instant of RFC 3339; before the epoch, the epoch.
fn time(at_s: i64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(at_s).unwrap_or(0)));
    let text = iso_8601(at.unwrap_or(UNIX_EPOCH));
    // Certificates know whole seconds only.
    text.split_once('.').map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("it can't be read: {error}");
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("it holds no certificate in PEM".to_owned()),
        // It may be a key: nothing of it is repeated.
        Err(_) => Err("it is no PEM".to_owned()),
    }
}

/// Whether the key in a file is that of the first certificate.
fn matches(chain: &[CertificateDer<'static>], key: &Path) -> Result<(), String> {
    let bytes = read(key)?;
    let key =
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| "it holds no private key in PEM".to_owned())?;
    let provider = Arc::new(ring::default_provider());
    match CertifiedKey::from_der(chain.to_vec(), key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err("it is NOT its key".to_owned()),
        Err(_) => Err("it is no key that can be used".to_owned()),
    }
}
