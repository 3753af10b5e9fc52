//! `${env:NAME}` and `${file:path}`: values kept out of the file.
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
use super::{ConfigError, Environment};

/// Largest file behind `${file:…}`, in bytes: a certificate chain fits, a mistake doesn't.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A value that came from outside the file, so that no message repeats it.
#[derive(Debug)]
pub(super) struct Secret {
    /// Where the reference stands.
    pub(super) span: Range<usize>,
    /// The reference, `${env:NAME}`.
    pub(super) reference: String,
}

/// Replaces every reference in the tree.
pub(super) fn resolve(
    root: &mut DeTable<'_>,
    environment: &Environment,
    sources: &Sources,
) -> (Vec<Secret>, Vec<ConfigError>) {
    let mut secrets = Vec::new();
    let mut errors = Vec::new();
    for_each_leaf(root, &mut |node| {
        let span = node.span();
        let DeValue::String(text) = node.get_mut() else { return };
        match value_of(text, environment, sources.folder()) {
            Ok(None) => {}
            Ok(Some(value)) => {
                secrets.push(Secret { span, reference: text.to_string() });
                *text = Cow::Owned(value);
            }
            Err(SecretError { message, help }) => {
                errors.push(ConfigError { place: sources.place(&span), message, help });
                // The reference itself must not be read as a value.
                *text = Cow::Borrowed("");
            }
        }
    });
    (secrets, errors)
}

struct SecretError {
    message: String,
    help: Option<String>,
}

/// What a text stands for; `None` when it is no reference.
fn value_of(
    text: &str,
    environment: &Environment,
    folder: Option<&Path>,
) -> Result<Option<String>, SecretError> {
    if !text.contains("${env:") && !text.contains("${file:") {
        return Ok(None);
    }
    let fail =
        |message: String, help: Option<&str>| Err(SecretError { message, help: help.map(str::to_owned) });
    let inner =
        text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|rest| !rest.contains('}'));
    let reference = inner.and_then(|inner| inner.split_once(':'));
    match reference {
        Some(("env", name)) => match environment.get(name) {
            Some(value) => Ok(Some(value.to_owned())),
            None => fail(format!("environment variable \"{name}\" is not set"), None),
        },
        Some(("file", path)) => match read(&folder.unwrap_or(Path::new("")).join(path)) {
            Ok(value) => Ok(Some(value)),
            Err(why) => fail(format!("\"{path}\" can't be read: {why}"), None),
        },
        _ => fail(
            "`${env:…}` and `${file:…}` stand only as a whole value".to_owned(),
            Some("put the whole text into the variable or the file"),
        ),
    }
}

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
