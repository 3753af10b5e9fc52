//! Unix sockets.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::BACKLOG;

/// A Unix socket that listens. Its file goes with it.
pub(super) struct UnixSocket {
    socket: UnixListener,
    path: PathBuf,
    /// Device and number of the file: one that somebody else has put there stays.
    file: (u64, u64),
}

impl UnixSocket {
    /// Listens. A socket's file that was left over, where nobody listens any more, is replaced.
    pub(super) fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            Ok(_) if has_listener(path)? => return Err(io::ErrorKind::AddrInUse.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Under another name until its permissions are right: nobody else connects in between.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let socket = tokio::net::UnixSocket::new_stream()?;
        socket.bind(&fresh)?;
        let socket = socket.listen(BACKLOG)?;
        let moved = fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))
            .and_then(|()| fs::rename(&fresh, path))
            .and_then(|()| fs::symlink_metadata(path));
        match moved {
            Ok(file) => Ok(Self { socket, path: path.to_owned(), file: (file.dev(), file.ino()) }),
            Err(error) => {
                drop(fs::remove_file(&fresh));
                Err(error)
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }
}

fn has_listener(path: &Path) -> io::Result<bool> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "a socket's file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thousand_connections_may_wait_to_be_accepted() {
        let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let count = most.trim().parse().unwrap_or(1000).min(1000);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        let _socket = UnixSocket::bind(&path, 0o600).unwrap();
        // Nobody accepts; one for which there is no room is refused.
        let mut waiting = Vec::new();
        for _ in 0..count {
            waiting.push(UnixStream::connect(&path).await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_file_that_was_left_over_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        // What a process that was killed leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = UnixSocket::bind(&path, 0o660).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let (near, far) = tokio::join!(socket.accept(), UnixStream::connect(&path));
        near.unwrap();
        far.unwrap();
        assert_eq!(
            UnixSocket::bind(&path, 0o600).err().map(|error| error.kind()),
            Some(io::ErrorKind::AddrInUse)
        );
        drop(socket);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_no_socket_and_what_is_somebody_elses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        fs::write(&path, "precious").unwrap();
        let error = UnixSocket::bind(&path, 0o600).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

        let other = folder.path().join("other.sock");
        let socket = UnixSocket::bind(&other, 0o600).unwrap();
        fs::remove_file(&other).unwrap();
        fs::write(&other, "precious").unwrap();
        drop(socket);
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        assert!(UnixSocket::bind(&folder.path().join("nowhere/x.sock"), 0o600).is_err());
    }
}
