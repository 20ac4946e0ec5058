//! The files: `<data>/postgres/{data,run,server.log,log,lock}`.

use super::{Error, account::Account, io_error, locate::Binaries, supervise};
use nix::unistd::{Gid, Uid, chown};
use sha2::{Digest as _, Sha256};
use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// A unix socket's path, with `/.s.PGSQL.5432` and the end mark, fits in 108 bytes.
const LONGEST_SOCKET: usize = 108 - "/.s.PGSQL.5432".len() - 1;

/// Where everything is.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// `<data>/postgres`.
    pub(super) base: PathBuf,
    /// The server's own data.
    pub(super) data: PathBuf,
    /// The folder of the socket.
    pub(super) socket: PathBuf,
    /// What the server says while it starts, and where it says the rest.
    pub(super) log: PathBuf,
    /// The folder of what it says then.
    pub(super) logs: PathBuf,
}

impl Layout {
    /// Makes the folders, 0700 and the server's user's.
    pub(super) fn prepare(data: &Path, account: &Account) -> Result<Self, Error> {
        fs::create_dir_all(data).map_err(io_error("make the folder", data))?;
        let base = fs::canonicalize(data).map_err(io_error("find", data))?;
        if account.drop {
            // our own secrets in it are 0600; the server only passes through
            let mode = fs::metadata(&base).map_err(io_error("look at", &base))?.permissions().mode();
            fs::set_permissions(&base, fs::Permissions::from_mode(mode | 0o011))
                .map_err(io_error("open", &base))?;
            check_way(&base, account)?;
        }
        let base = base.join("postgres");
        own(&base, account)?;
        let mut socket = base.join("run");
        if socket.as_os_str().len() > LONGEST_SOCKET {
            socket = short_socket(&base);
        }
        own(&socket, account)?;
        let logs = base.join("log");
        own(&logs, account)?;
        Ok(Self { data: base.join("data"), socket, log: base.join("server.log"), logs, base })
    }

    /// Runs `initdb` once. It works in a folder of another name first, so that a start that was cut off leaves nothing
    /// that looks complete.
    pub(super) fn initialise(&self, binaries: &Binaries, account: &Account) -> Result<(), Error> {
        let version = self.data.join("PG_VERSION");
        if version.exists() {
            let made = fs::read_to_string(&version).map_err(io_error("read", &version))?.trim().to_owned();
            if made != binaries.major.to_string() {
                let (data, bin) = (self.data.clone(), binaries.bin.clone());
                return Err(Error::OtherVersion { data, made, found: binaries.major, bin });
            }
            supervise::clear_the_way(&self.data)?;
        } else {
            let new = self.base.join("new");
            if new.exists() {
                fs::remove_dir_all(&new).map_err(io_error("remove", &new))?;
            }
            let mut initdb = supervise::command(binaries, "initdb", account);
            initdb.args(["-U", super::NAME, "-A", "peer", "--no-instructions", "--data-checksums"]);
            initdb.args(["-E", "UTF8", "--no-locale", "-D"]).arg(&new);
            let done = initdb.output().map_err(io_error("run", &binaries.bin.join("initdb")))?;
            if !done.status.success() {
                let stderr = String::from_utf8_lossy(&done.stderr).trim().to_owned();
                return Err(Error::Init { status: done.status, stderr });
            }
            fs::rename(&new, &self.data).map_err(io_error("rename", &new))?;
        }
        // written anew at each start: we may be another user this time
        self.write("pg_hba.conf", "local all all peer map=tombolo\n", account)?;
        self.write("pg_ident.conf", &format!("tombolo \"{}\" {}\n", account.we, super::NAME), account)
    }

    fn write(&self, name: &str, text: &str, account: &Account) -> Result<(), Error> {
        let path = self.data.join(name);
        fs::write(&path, text).map_err(io_error("write", &path))?;
        give(&path, account)
    }

    /// The last lines of what the server said.
    pub(super) fn log_tail(&self) -> String {
        let newest = || -> std::io::Result<PathBuf> {
            let mut newest = (fs::metadata(&self.log)?.modified()?, self.log.clone());
            for entry in fs::read_dir(&self.logs)? {
                let entry = entry?;
                newest = newest.max((entry.metadata()?.modified()?, entry.path()));
            }
            Ok(newest.1)
        };
        let read = || -> std::io::Result<String> {
            let mut file = fs::File::open(newest()?)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(2000)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).trim().to_owned())
        };
        read().unwrap_or_else(|error| format!("(not readable: {error})"))
    }
}

/// A folder under the temporary one, its name made from where the data is, so that a crash leaves one at most.
fn short_socket(base: &Path) -> PathBuf {
    let hash = Sha256::digest(base.as_os_str().as_encoded_bytes());
    let name = hash.iter().take(8).fold(String::from("tombolo-"), |mut name, byte| {
        // writing into a String does not fail
        let _ = write!(name, "{byte:02x}");
        name
    });
    std::env::temp_dir().join(name)
}

/// Makes a folder of the server's user's, or makes sure that the one there is.
fn own(path: &Path, account: &Account) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => give(path, account)?,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(io_error("make the folder", path)(source)),
    }
    let found = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
    if !found.is_dir() || found.uid() != account.uid {
        return Err(Error::Foreign { path: path.to_owned(), user: account.name.clone() });
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io_error("close", path))
}

fn give(path: &Path, account: &Account) -> Result<(), Error> {
    if !account.drop {
        return Ok(());
    }
    chown(path, Some(Uid::from_raw(account.uid)), Some(Gid::from_raw(account.gid)))
        .map_err(|errno| io_error("give away", path)(errno.into()))
}

/// Every folder on the way must let the server's user pass.
fn check_way(base: &Path, account: &Account) -> Result<(), Error> {
    for folder in base.ancestors() {
        let found = fs::metadata(folder).map_err(io_error("look at", folder))?;
        let bit = if found.uid() == account.uid {
            0o100
        } else if found.gid() == account.gid {
            0o010
        } else {
            0o001
        };
        if found.mode() & bit == 0 {
            return Err(Error::Closed { path: folder.to_owned(), user: account.name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_a_short_socket() {
        let long = PathBuf::from(format!("/{}", "x".repeat(120)));
        let socket = short_socket(&long);
        assert!(socket.as_os_str().len() <= LONGEST_SOCKET, "{}", socket.display());
        assert_ne!(socket, short_socket(Path::new("/other")));
    }
}
