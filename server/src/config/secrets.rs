//! `${env:NAME}`, `${file:path}` and `${credential:NAME}`: values kept out of the file.
//!
//! A credential is a file that systemd puts into a folder of the service's own (`LoadCredential=`), and names by
//! `$CREDENTIALS_DIRECTORY`.
//!
//! Only a whole value can be one; inside a longer text it is an error, so that no secret ends up in the middle of
//! something that is printed. A literal `${` in a configuration value isn't needed anywhere and is refused with
//! the same message when it looks like one of these.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::source::Sources;
use super::tree::for_each_leaf;
use super::{ConfigError, Environment, MissingSecrets};

/// Largest file behind `${file:…}`, in bytes: a certificate chain fits, a mistake doesn't.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A value that came from outside the file, so that no message repeats it.
#[derive(Debug)]
pub(super) struct Secret {
    /// Where the reference stands.
    pub(super) span: Range<usize>,
    /// The reference, `${env:NAME}`.
    pub(super) reference: String,
    /// Whether nothing is behind it, and [`PLACEHOLDER`] stands for it.
    pub(super) is_missing: bool,
}

/// What stands for a value that isn't there.
const PLACEHOLDER: &str = "missing";

/// Replaces every reference in the tree.
pub(super) fn resolve(
    root: &mut DeTable<'_>,
    environment: &Environment,
    sources: &Sources,
    missing: MissingSecrets,
) -> (Vec<Secret>, Vec<ConfigError>) {
    let mut secrets = Vec::new();
    let mut errors = Vec::new();
    for_each_leaf(root, &mut |node| {
        let span = node.span();
        let DeValue::String(text) = node.get_mut() else { return };
        match value_of(text, environment, sources.folder()) {
            Ok(None) => {}
            Ok(Some(value)) => {
                secrets.push(Secret { span, reference: text.to_string(), is_missing: false });
                *text = Cow::Owned(value);
            }
            Err(SecretError { message, help, is_missing }) => {
                if !is_missing || missing == MissingSecrets::Refuse {
                    errors.push(ConfigError { place: sources.place(&span), message, help });
                }
                // The reference itself must not be read as a value; what stands for it is not to be judged.
                secrets.push(Secret { span, reference: text.to_string(), is_missing: true });
                *text = Cow::Borrowed(PLACEHOLDER);
            }
        }
    });
    (secrets, errors)
}

struct SecretError {
    message: String,
    help: Option<String>,
    /// Whether the reference is sound and nothing is behind it.
    is_missing: bool,
}

/// What a text stands for; `None` when it is no reference.
fn value_of(
    text: &str,
    environment: &Environment,
    folder: Option<&Path>,
) -> Result<Option<String>, SecretError> {
    if !["${env:", "${file:", "${credential:"].iter().any(|start| text.contains(start)) {
        return Ok(None);
    }
    let broken =
        |message: String, help: &str| SecretError { message, help: Some(help.to_owned()), is_missing: false };
    let missing = |message: String| SecretError { message, help: None, is_missing: true };
    let inner =
        text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|rest| !rest.contains('}'));
    let value = match inner.and_then(|inner| inner.split_once(':')) {
        Some(("env", name)) => match environment.get(name) {
            Some(value) => Ok(value.to_owned()),
            None => Err(missing(format!("environment variable \"{name}\" is not set"))),
        },
        Some(("file", path)) => read(&folder.unwrap_or(Path::new("")).join(path))
            .map_err(|why| missing(format!("\"{path}\" can't be read: {why}"))),
        Some(("credential", name)) => {
            let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
            match environment.get(CREDENTIALS).filter(|folder| !folder.is_empty()) {
                _ if !is_name => Err(broken(
                    format!("\"{name}\" can't be the name of a credential"),
                    "write the name that LoadCredential= gives it, without a path",
                )),
                Some(folder) => read(&Path::new(folder).join(name))
                    .map_err(|why| missing(format!("credential \"{name}\" can't be read: {why}"))),
                None => Err(missing(format!(
                    "credential \"{name}\": {CREDENTIALS} is not set, so systemd gave this service none"
                ))),
            }
        }
        _ => Err(broken(
            "`${env:…}`, `${file:…}` and `${credential:…}` stand only as a whole value".to_owned(),
            "put the whole text into the variable or the file",
        )),
    };
    value.map(Some)
}

/// The variable by which systemd says where the service's credentials are.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The text of a file without the newline at its end.
fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than the limit of {FILE_BYTES_MAX} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let kept = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(kept);
    Ok(text)
}
