//! A private PostgreSQL, so that the controller needs nothing set up: found on the machine, initialised once, run as a
//! child on a unix socket inside the data directory, as an unprivileged user when we are root.
//!
//! There is no password: the server asks the kernel who connects, and takes our own user only. It is stopped with us,
//! and also when we are killed (the kernel tells it, see [`supervise`]); should it crash, it is started again.

mod account;
mod layout;
mod locate;
mod supervise;

use account::Account;
use layout::Layout;
use nix::fcntl::{Flock, FlockArg};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};
use thiserror::Error;

/// Why there is no private PostgreSQL.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// No server binaries.
    #[error(
        "no PostgreSQL server found; install the package postgresql (15 or later), name the folder of its programs in \
         TOMBOLO_PG_BIN, or give a server of your own in DATABASE_URL"
    )]
    NotFound,
    /// The binaries' version cannot be read.
    #[error("{program} does not say its version; check TOMBOLO_PG_BIN")]
    NoVersion {
        /// What was asked.
        program: PathBuf,
    },
    /// Older than what the schema needs.
    #[error("PostgreSQL {found} in {bin} is too old; install 15 or later")]
    TooOld {
        /// Its major version.
        found: u32,
        /// Where it is.
        bin: PathBuf,
    },
    /// The data was written by another major version.
    #[error(
        "the data in {data} was made by PostgreSQL {made}, but the server in {bin} is version {found}; set TOMBOLO_PG_BIN \
         to a PostgreSQL {made}, or move the data with pg_dump and restore into a server of your own (DATABASE_URL)"
    )]
    OtherVersion {
        /// The data directory.
        data: PathBuf,
        /// The version that made it.
        made: String,
        /// The version found.
        found: u32,
        /// Where that is.
        bin: PathBuf,
    },
    /// We are root and there is nobody to run as.
    #[error(
        "PostgreSQL refuses to run as root, and this machine has neither a user postgres nor nobody; run the controller as an ordinary user"
    )]
    NobodyToRunAs,
    /// Our user has no name.
    #[error(
        "user id {uid} has no name on this machine, and PostgreSQL needs one; add it to /etc/passwd, or give a server of your own in DATABASE_URL"
    )]
    NamelessUser {
        /// The user id.
        uid: u32,
    },
    /// The user that PostgreSQL runs as cannot enter a folder above the data.
    #[error(
        "{path} cannot be entered by the user {user}, as which PostgreSQL runs; choose another --data, or `chmod o+x {path}`"
    )]
    Closed {
        /// The folder.
        path: PathBuf,
        /// The user.
        user: String,
    },
    /// Another process holds the data directory.
    #[error("another controller runs on {data}; stop it first")]
    InUse {
        /// The data directory.
        data: PathBuf,
    },
    /// A folder in a shared place that is not ours.
    #[error(
        "{path} is not a folder of the user {user}; remove it, or choose a shorter --data so that it is not needed"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it should be.
        user: String,
    },
    /// A file or folder.
    #[error("cannot {action} {path}")]
    Io {
        /// What failed.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}): {stderr}")]
    Init {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The server ended while it started.
    #[error("PostgreSQL ended while it started; its log {log} ends with: {tail}")]
    Ended {
        /// The log file.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// The server did not answer in time.
    #[error("PostgreSQL does not answer after {waited:?}; see its log {log}")]
    Silent {
        /// How long we waited.
        waited: Duration,
        /// The log file.
        log: PathBuf,
        /// The last failure.
        source: sqlx::Error,
    },
    /// A first query failed.
    #[error("the private PostgreSQL refuses to make our database")]
    Database {
        /// The cause.
        source: sqlx::Error,
    },
}

/// How long a start may take: recovery after a crash reads the log of changes again.
const START: Duration = Duration::from_secs(60);

/// The database and the role in it.
const NAME: &str = "tombolo";

/// A running private server.
#[derive(Debug)]
pub(crate) struct Embedded {
    server: supervise::Server,
    options: PgConnectOptions,
    /// Held for as long as the server may run; the kernel lets go of it when we die.
    _lock: Flock<File>,
}

impl Embedded {
    /// Starts the server over `<data>/postgres`; makes it there first where it is not yet.
    ///
    /// # Errors
    /// See [`Error`]; each says what to do.
    pub(crate) async fn start(data: &Path, bin: Option<PathBuf>) -> Result<Self, Error> {
        let account = Account::find()?;
        let binaries = locate::find(bin)?;
        let layout = Layout::prepare(data, &account)?;
        let lock = lock(&layout)?;
        let prepared = {
            let (layout, account, binaries) = (layout.clone(), account.clone(), binaries.clone());
            // initdb takes half a second of another process's time
            tokio::task::spawn_blocking(move || layout.initialise(&binaries, &account))
        };
        prepared.await.map_err(|e| io_error("prepare", &layout.base)(io::Error::other(e)))??;
        let mut server = supervise::Server::start(&layout, &binaries, &account)?;
        let options = PgConnectOptions::new_without_pgpass().socket(&layout.socket).username(NAME);
        wait(&mut server, &layout, &options).await?;
        tracing::info!(version = binaries.major, data = %layout.base.display(), "private PostgreSQL is up");
        Ok(Self { server, options: options.database(NAME), _lock: lock })
    }

    /// How to connect.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Stops the server cleanly. Connections that are still open are cut.
    pub(crate) async fn stop(self) {
        let server = self.server;
        if tokio::task::spawn_blocking(move || server.stop()).await.is_err() {
            tracing::warn!("the private PostgreSQL's thread ended early");
        }
    }
}

/// One controller on one data directory: the second would see a server that is not its own.
fn lock(layout: &Layout) -> Result<Flock<File>, Error> {
    let path = layout.base.join("lock");
    let file = File::create(&path).map_err(io_error("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| Error::InUse { data: layout.base.clone() })
}

/// Waits until the server answers, and makes our database where it is not there yet.
async fn wait(
    server: &mut supervise::Server,
    layout: &Layout,
    options: &PgConnectOptions,
) -> Result<(), Error> {
    let admin = options.clone().database("postgres").disable_statement_logging();
    let began = Instant::now();
    let mut connection = loop {
        match PgConnection::connect_with(&admin).await {
            Ok(connection) => break connection,
            Err(_) if server.ended() => {
                return Err(Error::Ended { log: layout.log.clone(), tail: layout.log_tail() });
            }
            Err(source) if began.elapsed() > START => {
                return Err(Error::Silent { waited: START, log: layout.log.clone(), source });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(15)).await,
        }
    };
    let made = sqlx::raw_sql("CREATE DATABASE tombolo").execute(&mut connection).await;
    match made {
        Ok(_) => {}
        // it is there already
        Err(e) if e.as_database_error().is_some_and(|e| e.code().as_deref() == Some("42P04")) => {}
        Err(source) => return Err(Error::Database { source }),
    }
    connection.close().await.map_err(|source| Error::Database { source })
}

/// Says on what an operation failed.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
