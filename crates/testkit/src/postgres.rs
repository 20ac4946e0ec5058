//! A throwaway PostgreSQL: one server per test process, one database per test. It listens on a unix socket only, runs without root's rights, and
//! does not care for the disk (no fsync: what it acknowledged survives its own crash, not the machine's). It is gone, with its files, when the test process ends, however that ends.

use crate::wait;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid, User},
};
use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// Generous: initdb of many tests at once on a small machine.
const START: Duration = Duration::from_secs(120);

/// A database of its own. It is dropped with this.
pub struct Database {
    name: String,
    url: String,
}

impl Database {
    /// A new, empty database on the server of this process, which the first call starts.
    ///
    /// # Panics
    /// When there is no PostgreSQL, or it does not start: with what it wrote.
    #[must_use]
    pub fn create() -> Self {
        Self::create_from("template0")
    }

    /// A copy of this database: for tests that migrate once and start from there. Nobody may be connected to it.
    ///
    /// # Panics
    /// When it can't be copied.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::create_from(&self.name)
    }

    fn create_from(template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let server = server();
        server.sql("postgres", &format!("create database {name} template {template}"));
        let url = format!("postgres://tombolo@localhost/{name}?host={}", server.socket.display());
        Self { name, url }
    }

    /// Its URL, for sqlx and psql alike.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs SQL with psql and gives what it printed (unaligned, rows only).
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, sql: &str) -> String {
        server().sql(&self.name, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server is thrown away anyhow; this only keeps the disk small. `force` ends what a test left connected.
        let _ = server()
            .psql("postgres", &format!("drop database if exists {} with (force)", self.name))
            .output();
    }
}

/// Kills the server of this process without a word, with all that was connected, and waits until it is back: it recovers from its log.
///
/// # Panics
/// When there is none, or it does not come back.
pub fn crash() {
    let server = server();
    let pid = || fs::read_to_string(server.base.join("pid")).unwrap_or_default().trim().parse::<i32>().ok();
    let old = pid().expect("a server runs");
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap_or_else(|error| panic!("kill {old}: {error}"));
    wait::until_ok_blocking("PostgreSQL is back", START, || {
        let output = server.psql("postgres", "select 1").output().map_err(|error| error.to_string())?;
        let back = output.status.success() && pid() != Some(old);
        if back { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
}

struct Server {
    bin: PathBuf,
    base: PathBuf,
    socket: PathBuf,
    /// Holds the pipe whose end tells the server's shell that this process is gone.
    _shell: Child,
}

impl Server {
    /// Server programs brought from a package registry come without psql; then the machine's own serves.
    fn psql(&self, database: &str, sql: &str) -> Command {
        let beside = self.bin.join("psql");
        let mut command = Command::new(if beside.exists() { beside } else { "psql".into() });
        command
            .env("LC_ALL", "C.UTF-8")
            .env("PGHOST", &self.socket)
            .env("PGUSER", "tombolo")
            .env_remove("PGPORT");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        String::from_utf8_lossy(&must(&mut self.psql(database, sql)).stdout).trim_end().to_owned()
    }
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

fn start() -> Server {
    let bin = find();
    let owner = owner();
    // The path of a unix socket may have 107 bytes, so not below the build's own folders.
    let base = std::env::temp_dir().join(format!("tombolo-pg-{}", std::process::id()));
    let (data, socket) = (base.join("data"), base.join("run"));
    remove_leftovers();
    for dir in [&base, &data, &socket] {
        let made = fs::create_dir_all(dir)
            .and_then(|()| fs::set_permissions(dir, PermissionsExt::from_mode(0o700)))
            .and_then(|()| chown(dir, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())));
        made.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
    let initdb =
        ["-U", "tombolo", "-A", "peer", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions", "-D"];
    must(as_owner(&owner, &bin.join("initdb")).args(initdb).arg(&data));
    let me =
        User::from_uid(Uid::effective()).ok().flatten().map_or_else(|| "root".to_owned(), |user| user.name);
    let written = fs::write(data.join("pg_hba.conf"), "local all all peer map=tombolo\n")
        .and_then(|()| fs::write(data.join("pg_ident.conf"), format!("tombolo {me} tombolo\n")));
    written.unwrap_or_else(|error| panic!("{}: {error}", data.display()));

    // The shell outlives this process by as long as it takes to stop the server and remove its files: `cat` ends when the pipe to it does.
    // A server that crashed starts again, as under systemd.
    let script = r#"trap : INT TERM
        base=$1; shift
        while [ ! -e "$base/over" ]; do
            "$@" </dev/null >>"$base/log" 2>&1 & echo $! >"$base/pid"; wait; sleep 0.1
        done & keeper=$!
        cat >/dev/null
        touch "$base/over"; kill -QUIT "$(cat "$base/pid")" 2>/dev/null; wait $keeper; rm -rf "$base""#;
    let settings = [
        "listen_addresses=",
        "fsync=off",
        "full_page_writes=off",
        "max_connections=200",
        "shared_buffers=32MB",
        "jit=off",
        "logging_collector=off",
    ];
    let mut shell = as_owner(&owner, Path::new("/bin/sh"));
    shell
        .args(["-c", script, "sh"])
        .arg(&base)
        .arg(bin.join("postgres"))
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(&socket);
    shell.args(settings.iter().flat_map(|setting| ["-c", setting]));
    let shell =
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn();
    let log = base.join("log");
    let server =
        Server { bin, base, socket, _shell: shell.unwrap_or_else(|error| panic!("/bin/sh: {error}")) };
    wait::until_ok_blocking("PostgreSQL answers", START, || {
        let output = server.psql("postgres", "select 1").output();
        let output =
            output.map_err(|error| format!("psql: {error} (install the package postgresql-client)"))?;
        let log = || fs::read_to_string(&log).unwrap_or_default();
        if output.status.success() { Ok(()) } else { Err(log() + &String::from_utf8_lossy(&output.stderr)) }
    });
    server
}

/// The newest PostgreSQL of the machine.
fn find() -> PathBuf {
    if let Some(dir) = std::env::var_os("TOMBOLO_PG_BIN") {
        return dir.into();
    }
    let version = |path: &PathBuf| -> Option<u32> { path.parent()?.file_name()?.to_str()?.parse().ok() };
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    installed
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .max_by_key(version)
        .expect("no PostgreSQL server found: install the package postgresql, or set TOMBOLO_PG_BIN to its bin folder")
}

struct Owner {
    uid: Uid,
    gid: Gid,
}

/// PostgreSQL refuses to run as root.
fn owner() -> Owner {
    if !Uid::effective().is_root() {
        return Owner { uid: Uid::effective(), gid: Gid::effective() };
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(|user| Owner { uid: user.uid, gid: user.gid })
        .expect("as root, PostgreSQL runs as the user postgres or nobody, and there is neither")
}

fn as_owner(owner: &Owner, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null());
    if Uid::effective().is_root() {
        command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
    }
    command
}

/// Folders of test processes that are gone and whose shell was killed too.
fn remove_leftovers() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("tombolo-pg-")?.parse::<u32>().ok());
        // A server that still stops removes its files itself.
        let postmaster = fs::read_to_string(entry.path().join("data/postmaster.pid")).unwrap_or_default();
        let server = postmaster.lines().next().and_then(|line| line.parse().ok());
        let lives = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
        if pid.is_some_and(|pid| !lives(pid)) && !server.is_some_and(lives) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn must(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_per_test() {
        let (one, two) = (Database::create(), Database::create());
        one.sql("create table t(n int); insert into t values (7)");
        assert_eq!(one.sql("select n from t"), "7");
        assert_eq!(two.sql("select count(*) from pg_tables where tablename = 't'"), "0");
        assert_eq!(one.copy().sql("select n from t"), "7");
        let by_url = Command::new(server().psql("x", "x").get_program())
            .args([one.url(), "-Atc", "select n from t"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&by_url.stdout).trim(), "7", "{by_url:?}");
        // What was acknowledged survives a crash of the server.
        crash();
        assert_eq!(one.sql("select n from t"), "7");
    }
}
