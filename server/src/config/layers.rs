//! The files of a configuration: the one that is named, and `conf.d/*.toml` beside it.
//!
//! Files of `conf.d` count in the order of their names, each over those before it: tables are merged, lists of tables
//! by the names of their entries, anything else is replaced. Names that begin with a dot are left alone: editors and
//! Kubernetes keep things there that are no configuration. Relative paths relate to the folder of the file that is named,
//! whichever file they stand in.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::ConfigErrors;

/// The folder of further files, beside the configuration.
const FOLDER: &str = "conf.d";
/// Most files in it that are read.
const FOLDER_FILES_MAX: usize = 1_000;
/// Largest file of a configuration, in bytes.
pub(super) const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One file's text.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// The files of a configuration as they are now, and their folder, which changes when one comes or goes. What can't be read
/// is told when it is read.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    let folder = folder_beside(path);
    let more = files_in(&folder).unwrap_or_default();
    [path.to_owned(), folder].into_iter().chain(more).collect()
}

/// Reads a configuration's files in the order in which they count.
pub(super) fn read(path: &Path) -> Result<Vec<Layer>, ConfigErrors> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ConfigErrors::Read { path, source }
    };
    let mut layers = vec![Layer { path: path.to_owned(), text: text_of(path).map_err(failed(path))? }];
    let folder = folder_beside(path);
    for path in files_in(&folder).map_err(failed(&folder))? {
        layers.push(Layer { text: text_of(&path).map_err(failed(&path))?, path });
    }
    Ok(layers)
}

/// Where the further files of a configuration are.
pub(super) fn folder_beside(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(FOLDER)
}

fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // What a link leads to counts, and one that leads nowhere is read, so that it is told of.
        if is_hidden || path.is_dir() || path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        files.push(path);
        if files.len() > FOLDER_FILES_MAX {
            let text = format!("it has more files than the limit of {FOLDER_FILES_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    files.sort();
    Ok(files)
}

fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        let text = format!("it is larger than the limit of {CONFIG_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(text)
}
