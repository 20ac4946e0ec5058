//! The controller and its database.

use crate::{agent::Door, parts::SOON};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use tombolo_testkit::{
    postgres::Database,
    process::{Program, binary},
};
use tombolo_tests::scale::{Usage, rows};

/// The program, and all it stands on.
pub(crate) struct Site {
    program: Program,
    database: Database,
    postmaster: u32,
    api: SocketAddr,
    dir: tempfile::TempDir,
    http: reqwest::Client,
}

/// The controller's program: of the folder `TOMBOLO_BIN`, or built with this.
fn program() -> PathBuf {
    let folder = std::env::var_os("TOMBOLO_BIN").filter(|folder| !folder.is_empty());
    folder.map_or_else(
        || binary("tombolo-controller"),
        |folder| PathBuf::from(folder).join("tombolo-controller"),
    )
}

/// What it was measured on.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let load = read("/proc/loadavg");
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = commit
        .map_or_else(|_| "unknown".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    format!(
        "commit {commit}; {cores} cores of {}; load of the last 1, 5 and 15 minutes, this included: {}; controller: {}; PostgreSQL without fsync",
        model.trim_start_matches([' ', '\t', ':']),
        load.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
        if program().to_string_lossy().contains("release") { "release build" } else { "debug build" },
    )
}

impl Site {
    pub(crate) async fn start() -> Self {
        let database = tokio::task::spawn_blocking(Database::create).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("database-url"), database.url()).unwrap();
        let program = launch(&dir, "127.0.0.1:0".parse().unwrap()).await;
        let api = program.address("api");
        let postmaster = postmaster(&database);
        // of plain HTTP: nothing is believed by it
        let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
        Self { program, database, postmaster, api, dir, http }
    }

    pub(crate) fn door(&self) -> Door {
        let fingerprint = self.program.ready()["ca_fingerprint"].as_str().unwrap().to_owned();
        Door { server: self.api, fingerprint }
    }

    pub(crate) fn owner(&self) -> String {
        fs::read_to_string(self.dir.path().join("owner-token")).unwrap().trim().to_owned()
    }

    /// Kills the controller, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// Starts it again at the same address; how long it took to be ready.
    pub(crate) async fn again(&mut self) -> Duration {
        let began = Instant::now();
        self.program = launch(&self.dir, self.api).await;
        began.elapsed()
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.program.pid()).expect("the controller runs")
    }

    /// CPU of all of PostgreSQL.
    pub(crate) fn database_cpu(&self) -> Duration {
        Usage::of_family(self.postmaster)
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.program.address("admin"));
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// Rows written so far, by table.
    pub(crate) fn writes(&self) -> BTreeMap<String, u64> {
        rows(&self.database.sql("select relname, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables"))
    }
}

/// PostgreSQL's first process: what all others are children of.
fn postmaster(database: &Database) -> u32 {
    // psql holds a connection for as long as it runs; one that the controller holds does as well
    let pids = database.sql("select pid from pg_stat_activity where application_name = 'tombolo-controller'");
    let pid = pids.lines().find_map(|line| line.trim().parse().ok()).expect("the controller is connected");
    Usage::parent(pid).expect("a process of PostgreSQL has a parent")
}

async fn launch(dir: &tempfile::TempDir, listen: SocketAddr) -> Program {
    let path = |name: &str| dir.path().join(name);
    let ready = path("ready.json");
    let mut command = Command::new(program());
    command.args(["serve", "--admin", "127.0.0.1:0", "--listen"]).arg(listen.to_string());
    for (option, file) in [
        ("--data", "controller"),
        ("--database-url-file", "database-url"),
        ("--ca-key-file", "ca.key"),
        ("--owner-token-file", "owner-token"),
        ("--ready-file", "ready.json"),
    ] {
        command.arg(option).arg(path(file));
    }
    Program::start("controller", command, &ready, SOON).await
}
