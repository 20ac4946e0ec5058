//! Files and folders that are this user's alone. Another user who may write where the agent reads, or stands in its way with a
//! link, is refused rather than believed.

use nix::{fcntl::OFlag, unistd::geteuid};
use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Reads a secret; none where there is no file.
///
/// # Errors
/// What the file system says; a link, a file of somebody else, and one that others may read or write.
pub(crate) fn read_secret(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // Of the file that is open, not of whatever has the name by now.
    let meta = file.metadata()?;
    owned(&meta)?;
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(refused(&format!(
            "others may read or write it (mode {mode:o}); if none did, `chmod 600 {}`",
            path.display()
        )));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(Some(content))
}

/// A new file in a folder of our own, to be renamed over an older one. Nothing that has the name is written through: a leftover is
/// taken away, and who puts something there meanwhile is an error.
///
/// # Errors
/// What the file system says.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // With O_EXCL no link is followed either.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Puts this content in place of the file's, whole or not at all.
///
/// # Errors
/// What the file system says; then the file is as it was.
pub(crate) fn replace(path: &Path, beside: &Path, content: &[u8], sync: bool) -> io::Result<()> {
    replace_with(path, beside, sync, |out| out.write_all(content))
}

/// The same of a content that is never whole in memory.
///
/// # Errors
/// As [`replace`]; what `write` says.
pub(crate) fn replace_with(
    path: &Path,
    beside: &Path,
    sync: bool,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let write = || {
        let mut out = BufWriter::new(create(beside)?);
        write(&mut out)?;
        let file = out.into_inner()?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(beside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(beside)))
}

/// Makes the folder where there is none. Who may write in it could put another file or socket in the place of ours.
///
/// # Errors
/// What the file system says; a folder of somebody else, and one that others may write in.
pub(crate) fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let meta = fs::metadata(path)?;
    owned(&meta)?;
    if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(refused(&format!(
            "others may write in {} (mode {mode:o}); `chmod go-w {0}`, or name a folder of the agent's own",
            path.display()
        )));
    }
    Ok(())
}

fn owned(meta: &Metadata) -> io::Result<()> {
    check_owner(meta.uid(), geteuid().as_raw())
}

/// What is root's is as good as ours: who is root needs no file to do as he likes.
fn check_owner(owner: u32, own: u32) -> io::Result<()> {
    if owner == own || owner == 0 {
        return Ok(());
    }
    Err(refused(&format!(
        "it belongs to user {owner}, and the agent runs as user {own}; give it one of its own"
    )))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    #[test]
    fn whose_files_are_believed() {
        assert!(check_owner(1000, 1000).is_ok() && check_owner(0, 1000).is_ok());
        let error = check_owner(1001, 1000).unwrap_err().to_string();
        assert!(error.contains("belongs to user 1001") && check_owner(1000, 0).is_err(), "{error}");
    }

    #[test]
    fn a_secret_that_others_see_or_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(read_secret(&path).unwrap().is_none());
        create(&path).unwrap().write_all(b"x").unwrap();
        assert_eq!(read_secret(&path).unwrap().unwrap(), b"x");
        for mode in [0o640, 0o604, 0o620, 0o602] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read_secret(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{mode:o}: {error}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        read_secret(&path).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        read_secret(&link).unwrap_err();
    }

    #[test]
    fn what_breaks_off_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("a"), dir.path().join("a.new"));
        replace(&path, &beside, b"whole", true).unwrap();
        let broken = replace_with(&path, &beside, true, |out| {
            out.write_all(b"ha")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(broken.unwrap_err().to_string(), "no more");
        assert_eq!((fs::read(&path).unwrap(), beside.exists()), (b"whole".to_vec(), false));
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, beside, path) =
            (dir.path().join("victim"), dir.path().join(".f.new"), dir.path().join("f"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &beside).unwrap();
        replace(&path, &beside, b"new", false).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!((fs::read(&path).unwrap(), beside.exists()), (b"new".to_vec(), false));
    }

    #[test]
    fn a_folder_that_others_write_in_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        folder(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        for mode in [0o770, 0o707, 0o1777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = folder(&path).unwrap_err().to_string();
            assert!(error.contains("chmod go-w"), "{mode:o}: {error}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        folder(&path).unwrap();
    }
}
