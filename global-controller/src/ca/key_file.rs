//! The key file: one line, `tombolo-ca-key-1 <base64 of 32 bytes>`, 0600; or root's and readable by a group of ours, as a
//! Secret is in a pod.

use super::seal::{KEY_LEN, SealError, Vault};
use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use thiserror::Error;
use tombolo_mtls::Secret;

/// What the line begins with: another format would begin otherwise.
const HEAD: &str = "tombolo-ca-key-1 ";

/// Why the key file is not usable.
#[derive(Debug, Error)]
pub(crate) enum KeyFileError {
    /// The installation exists, its key file does not.
    #[error(
        "{path} is not there, but this installation was made with one; bring it back from your backup: without it no \
         certificate can be signed"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Others may read it.
    #[error(
        "{path} may be read or written by others (mode {mode:o}); `chmod 600 {path}` (640 at most where it is root's)"
    )]
    Open {
        /// Where it is.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not a key file.
    #[error("{path} is not a key file of Tombolo; give the one that the installation was made with")]
    Format {
        /// Where it is.
        path: PathBuf,
    },
    /// The file system.
    #[error("cannot read or write {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No randomness, or a key that the library refuses.
    #[error("cannot make a key")]
    Key {
        /// Why.
        source: SealError,
    },
}

impl Vault {
    /// Reads the key file; makes it where it is not there and `may_create` says that nothing was sealed yet.
    ///
    /// # Errors
    /// A [`KeyFileError`].
    pub(crate) fn from_file(path: &Path, may_create: bool) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(found) if is_open(found.mode(), found.uid()) => {
                return Err(KeyFileError::Open { path: path.to_owned(), mode: found.mode() & 0o777 });
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound && may_create => create(path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(KeyFileError::Missing { path: path.to_owned() });
            }
            Err(e) => return Err(io(e)),
        }
        let text = Secret::new(fs::read_to_string(path).map_err(io)?);
        let key = text.trim_end().strip_prefix(HEAD).and_then(|key| STANDARD.decode(key).ok());
        let key: [u8; KEY_LEN] = key
            .and_then(|key| key.try_into().ok())
            .ok_or_else(|| KeyFileError::Format { path: path.to_owned() })?;
        Self::new(&key).map_err(|source| KeyFileError::Key { source })
    }
}

/// Whether others than we, root, and a group that root gave it to can get at the file. The rule is PostgreSQL's for its key.
fn is_open(mode: u32, owner: u32) -> bool {
    let closed = if owner == 0 { 0o037 } else { 0o077 };
    mode & closed != 0
}

/// Writes a new key. The file is never there with less than its content, and never replaces one.
fn create(path: &Path) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let mut key = [0; KEY_LEN];
    rand::fill(&mut key).map_err(|_| KeyFileError::Key { source: SealError::Seal })?;
    let text = Secret::new(format!("{HEAD}{}\n", STANDARD.encode(key)));
    let new = path.with_extension(format!("new.{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::hard_link(&new, path));
    let removed = fs::remove_file(&new);
    match written {
        // another replica on this machine was first
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(io(e)),
        Ok(()) => removed.map_err(io),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Purpose;
    use std::os::unix::fs::PermissionsExt as _;
    use uuid::Uuid;

    #[test]
    fn a_group_may_read_only_what_is_roots() {
        for (mode, owner, open) in [
            (0o600, 65532, false),
            (0o400, 0, false),
            (0o440, 0, false),
            (0o640, 0, false),
            (0o440, 65532, true),
            (0o660, 0, true),
            (0o450, 0, true),
            (0o444, 0, true),
        ] {
            assert_eq!(is_open(mode, owner), open, "{mode:o} of {owner}");
        }
    }

    #[test]
    fn keeps_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        assert!(matches!(Vault::from_file(&path, false), Err(KeyFileError::Missing { .. })));
        let purpose = Purpose::Tls(Uuid::from_u128(1));
        let sealed =
            Vault::from_file(&path, true).unwrap().seal(purpose, &Secret::new("x".to_owned())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = Vault::from_file(&path, true).unwrap();
        assert_eq!(*again.open(purpose, &sealed).unwrap(), "x");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Vault::from_file(&path, true), Err(KeyFileError::Open { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "something").unwrap();
        assert!(matches!(Vault::from_file(&path, true), Err(KeyFileError::Format { .. })));
    }
}
