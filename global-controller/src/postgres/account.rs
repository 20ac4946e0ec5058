//! As whom the server runs, and as whom we connect.

use super::Error;
use nix::unistd::{Uid, User, geteuid};

/// The user that the server runs as.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// Its user id.
    pub(super) uid: u32,
    /// Its group id.
    pub(super) gid: u32,
    /// Its name.
    pub(super) name: String,
    /// Our own name, as the kernel tells it the server.
    pub(super) we: String,
    /// Whether it is another one than ours: we are root.
    pub(super) drop: bool,
}

impl Account {
    /// Ourselves; when we are root, `postgres` or else `nobody`.
    pub(super) fn find() -> Result<Self, Error> {
        let us = geteuid();
        let we = user(us).ok_or(Error::NamelessUser { uid: us.as_raw() })?;
        let runs = if us.is_root() {
            let named = |name| User::from_name(name).ok().flatten();
            named("postgres").or_else(|| named("nobody")).ok_or(Error::NobodyToRunAs)?
        } else {
            we.clone()
        };
        Ok(Self {
            uid: runs.uid.as_raw(),
            gid: runs.gid.as_raw(),
            name: runs.name,
            we: we.name,
            drop: us.is_root(),
        })
    }
}

fn user(uid: Uid) -> Option<User> {
    User::from_uid(uid).ok().flatten()
}
