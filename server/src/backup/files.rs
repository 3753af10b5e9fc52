//! The configuration's files in a backup: which there are, what they may be called, and how they are written out.
//!
//! They are taken by whoever can read them, and written where whoever asks can write: the gateway itself neither reads nor
//! writes files because a backup says so. A name stands for a place in a folder that is made for it, and is one of few forms, so
//! that none leads anywhere else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::entry::FileRecord;

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most files of one backup.
pub const FILES_MAX: usize = 10_000;
/// What the main file is called.
const MAIN: &str = "tidegate.toml";
/// Folders beside it.
const FOLDERS: [&str; 2] = ["conf.d", "rules.d"];
/// Longest name of a file in one, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// Whether a file of a backup may be called so: `tidegate.toml`, or a plain name in `conf.d` or `rules.d`.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    let is_plain = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
        name.len() <= NAME_BYTES_MAX
            && name.len() > ".toml".len()
            && name.ends_with(".toml")
            && !name.starts_with('.')
            && name.bytes().all(allowed)
    };
    match name.split_once('/') {
        None => name == MAIN,
        Some((folder, name)) => FOLDERS.contains(&folder) && is_plain(name),
    }
}

/// Reads files: the main one, those of `conf.d`, those of the rules folder.
///
/// # Errors
/// What the system says of a file, with its path; a name that can't be in a backup is one.
pub fn collect(
    main: Option<&Path>,
    conf_d: &[PathBuf],
    rules: &[PathBuf],
) -> Result<Vec<FileRecord>, (PathBuf, io::Error)> {
    let main = main.map(|path| (MAIN.to_owned(), path));
    let within = |folder: &'static str| {
        move |path: &'_ PathBuf| {
            format!("{folder}/{}", path.file_name().unwrap_or_default().to_string_lossy())
        }
    };
    let [conf_folder, rules_folder] = FOLDERS.map(within);
    let conf_d = conf_d.iter().map(|path| (conf_folder(path), path.as_path()));
    let rules = rules.iter().map(|path| (rules_folder(path), path.as_path()));
    let mut files = Vec::new();
    for (name, path) in main.into_iter().chain(conf_d).chain(rules) {
        let failed = |error| (path.to_owned(), error);
        if !is_file_name(&name) {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidFilename,
                "its name can't be in a backup",
            )));
        }
        if files.len() == FILES_MAX {
            let text = format!("it is one more than the limit of {FILES_MAX} files");
            return Err(failed(io::Error::new(io::ErrorKind::QuotaExceeded, text)));
        }
        let mut text = String::new();
        let opened = File::open(path).map_err(failed)?;
        opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            let text = format!("it is larger than the limit of {FILE_BYTES_MAX} bytes");
            return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        files.push(FileRecord { name, text });
    }
    Ok(files)
}

/// A folder that files of a backup are written into, made for it and for its owner alone.
#[derive(Debug)]
pub struct FilesInto {
    folder: PathBuf,
}

impl FilesInto {
    /// Makes the folder.
    ///
    /// # Errors
    /// What the system says; that it is there already among it.
    pub fn make(folder: &Path) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder.create(folder)?;
        FOLDERS.iter().try_for_each(|within| builder.create(folder.join(within)))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes a file. Its name was found good when it was read.
    ///
    /// # Errors
    /// What the system says; that there is one of the name among it.
    pub fn write(&self, file: &FileRecord) -> io::Result<()> {
        if !is_file_name(&file.name) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidFilename,
                "that is no name of a file of a backup",
            ));
        }
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(self.folder.join(&file.name));
        let mut out = opened?;
        out.write_all(file.text.as_bytes())?;
        out.sync_all()
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// What the system says.
    pub fn undo(self) -> io::Result<()> {
        fs::remove_dir_all(self.folder)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for good in ["tidegate.toml", "conf.d/10-tls.toml", "rules.d/a.b_c@1+x.toml"] {
            assert!(is_file_name(good), "{good}");
        }
        let long = format!("rules.d/{}.toml", "x".repeat(NAME_BYTES_MAX - 5));
        assert!(is_file_name(&long) && !is_file_name(&long.replace("rules.d/", "rules.d/x")));
        for bad in [
            "",
            "/",
            "x.toml",
            "/etc/passwd",
            "../tidegate.toml",
            "./tidegate.toml",
            "conf.d",
            "conf.d/",
            "conf.d/.toml",
            "conf.d/.x.toml",
            "conf.d/..",
            "conf.d/../x.toml",
            "conf.d/x/y.toml",
            "conf.d//x.toml",
            "rules.d/x",
            "rules.d/x.toml/",
            "rules.d/x.toml\0",
            "rules.d/x\n.toml",
            "rules.d\\x.toml",
            "data/x.toml",
            "rules.d/ü.toml",
        ] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_was_collected_is_written_out_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("my.toml"), "a = 1\n").unwrap();
        fs::write(path("x.toml"), "b = 2\n").unwrap();
        let files = collect(Some(&path("my.toml")), &[path("x.toml")], &[path("x.toml")]).unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["tidegate.toml", "conf.d/x.toml", "rules.d/x.toml"]);
        let into = FilesInto::make(&path("out")).unwrap();
        files.iter().for_each(|file| into.write(file).unwrap());
        for (name, text) in [("tidegate.toml", "a = 1\n"), ("conf.d/x.toml", "b = 2\n")] {
            let written = path("out").join(name);
            assert_eq!(fs::read_to_string(&written).unwrap(), text);
            assert_eq!(fs::metadata(&written).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(path("out")).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(FilesInto::make(&path("out")).is_err(), "a folder that is there isn't touched");
        assert!(into.write(&files[0]).is_err(), "nor is a file");
        let outside = FileRecord { name: "../out.toml".into(), text: String::new() };
        assert!(into.write(&outside).is_err());
        into.undo().unwrap();
        assert!(!path("out").exists());
    }

    #[test]
    fn files_that_a_backup_can_not_have_are_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
        fs::write(path("most.toml"), "#".repeat(limit)).unwrap();
        assert_eq!(collect(Some(&path("most.toml")), &[], &[]).unwrap().len(), 1);
        fs::write(path("more.toml"), "#".repeat(limit + 1)).unwrap();
        fs::write(path("a b.toml"), "").unwrap();
        fs::write(path("bytes.toml"), [0xff]).unwrap();
        for name in ["more.toml", "a b.toml", "bytes.toml", "missing.toml"] {
            let (told, _) = collect(None, &[], &[path(name)]).unwrap_err();
            assert_eq!(told, path(name));
        }
        fs::write(path("most.toml"), "").unwrap();
        let many = vec![path("most.toml"); FILES_MAX];
        assert_eq!(collect(None, &[], &many).unwrap().len(), FILES_MAX);
        assert!(collect(Some(&path("most.toml")), &[], &many).is_err());
    }
}
