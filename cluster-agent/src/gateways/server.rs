//! The unix socket: HTTP/2 in clear, for processes of the agent's own user and of root.

use super::{connection, peer::Peer, problem::Problem, routes::Context};
use crate::private;
use http::Request;
use hyper::body::Incoming;
use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tombolo_runtime::task;

/// How long after a failed accept the next one is tried (no file descriptors left, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Why the socket can't be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// The file system says no.
    #[error("can't listen for gateways on {}; give another --gateway-socket", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Its folder is another's, or open to others.
    #[error("the folder of the --gateway-socket {} can't be used", path.display())]
    Folder {
        /// The socket.
        path: PathBuf,
        /// Why not, and what to do.
        #[source]
        source: io::Error,
    },
    /// Something else is there.
    #[error("{} is there and is no socket; give another --gateway-socket", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
}

/// The bound socket.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds the socket; its directory is made where there is none. What a dead agent left is taken away: that no
    /// living one is there is known from the lock on its data directory.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let io = |source| BindError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            private::folder(parent).map_err(|source| BindError::Folder { path: path.to_owned(), source })?;
        }
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(BindError::NoSocket { path: path.to_owned() });
            }
            Ok(_) => fs::remove_file(path).map_err(io)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves gateways until the draining; then their feeds end with a goodbye.
    pub async fn run(self, context: Context) {
        let stop = context.stop.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.signaled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let context = context.clone();
                    task::spawn("gateway connection", serve(stream, context));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the gateway socket could not accept; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a process of this user may be a gateway.
fn is_allowed(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

async fn serve(stream: UnixStream, context: Context) {
    let own = nix::unistd::geteuid().as_raw();
    let uid = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(error) => {
            tracing::warn!(error = %error, "the kernel does not say who connected; the connection is closed");
            return;
        }
    };
    let stop = context.stop.clone();
    let respond = move |request: Request<Incoming>| {
        let context = context.clone();
        async move {
            if is_allowed(uid, own) {
                context.respond(request, Peer::Process).await
            } else {
                Problem::stranger(uid, own).into_response()
            }
        }
    };
    connection::serve(stream, respond, std::future::pending(), &stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_connect() {
        assert!(is_allowed(1000, 1000) && is_allowed(0, 1000));
        assert!(!is_allowed(1001, 1000) && !is_allowed(1000, 0));
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/agent.sock");
        let first = Listener::bind(&path).unwrap();
        let mode = fs::metadata(path.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let second = Listener::bind(&path).unwrap();
        drop((first, second));
        fs::write(&path, "x").unwrap();
        assert!(matches!(Listener::bind(&path), Err(BindError::NoSocket { .. })));
        fs::remove_file(&path).unwrap();
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert!(
            matches!(&error, BindError::Folder { source, .. } if source.to_string().contains("chmod go-w"))
        );
    }
}
