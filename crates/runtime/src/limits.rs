//! What the system lets a process have at once.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Raises the soft limit of open files to the hard one and returns it. The soft limit (often 1,024) is kept low for the sake of programs that
/// use `select(2)`; a proxy with two sockets a connection is through with it after 500 connections.
///
/// # Errors
/// What the system says; the limit is then as it was.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// What every program does first: raises the limit, and says in the log where it could not, because a full table of files is seen much later.
pub fn prepare() {
    match raise_open_files() {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is; raise it with `ulimit -n` or LimitNOFILE=")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(4096) / 2, hard).unwrap();
        assert_eq!(raise_open_files().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
