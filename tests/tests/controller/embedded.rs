//! The program on its private PostgreSQL: killed, started again, and asked for what it cannot do.

use crate::support::SOON;
use serde_json::json;
use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tombolo_testkit::{
    process::{Program, binary},
    wait,
};

fn serve(data: &Path) -> Command {
    let mut command = bare(data);
    command.arg("--owner-token-file").arg(data.join("owner"));
    command
}

/// One that shows the owner's token.
fn bare(data: &Path) -> Command {
    let mut command = Command::new(binary("tombolo-controller"));
    command.env_remove("DATABASE_URL").args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--log-format",
        "text",
        "--data",
    ]);
    command.arg(data).arg("--ready-file").arg(ready(data));
    command
}

fn ready(data: &Path) -> PathBuf {
    data.join("ready.json")
}

async fn start(data: &Path) -> Program {
    Program::start("controller", serve(data), &ready(data), SOON).await
}

/// A controller that must not start: what it says.
async fn refused(mut command: Command) -> String {
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stderr, .. } = tokio::time::timeout(SOON, ended).await.expect("it ends").unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

/// A folder that the user that PostgreSQL runs as may enter.
fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

async fn call(program: &Program, data: &Path, method: &str, path: &str, body: serde_json::Value) -> u16 {
    let token = std::fs::read_to_string(data.join("owner")).unwrap();
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let url = format!("https://{}/api/v1{path}", program.address("api"));
    let request = client.request(method.parse().unwrap(), url).bearer_auth(token.trim());
    let request = if body.is_null() { request } else { request.json(&body) };
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_comes_back_with_everything() {
    let folder = folder();
    let data = folder.path();
    let mut first = start(data).await;
    let fingerprint = first.ready()["ca_fingerprint"].clone();
    assert_eq!(call(&first, data, "POST", "/organizations", json!({ "name": "acme" })).await, 201);
    let postmaster = std::fs::read_to_string(data.join("postgres/data/postmaster.pid")).unwrap();
    let pid = postmaster.lines().next().unwrap();
    assert_ne!(std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0, "PostgreSQL runs as root");
    for secret in ["owner", "ca.key"] {
        assert_eq!(std::fs::metadata(data.join(secret)).unwrap().mode() & 0o777, 0o600, "{secret}");
    }
    // the kernel tells PostgreSQL; whether it is still stopping or gone, the next start gets along with it
    first.kill();
    let mut second = start(data).await;
    assert_eq!(second.ready()["ca_fingerprint"], fingerprint);
    assert_eq!(call(&second, data, "GET", "/organizations/acme", json!(null)).await, 200);
    assert_ne!(std::fs::read_to_string(data.join("postgres/data/postmaster.pid")).unwrap(), postmaster);

    // while it runs nobody else may
    let said = refused(serve(data)).await;
    assert!(said.contains("another controller runs on"), "{said}");
    assert!(second.stop(SOON).await.success());
    assert!(!data.join("postgres/data/postmaster.pid").exists(), "PostgreSQL was stopped cleanly");
    assert!(!ready(data).exists());

    // a pid file whose number belongs to somebody else by now (to this test)
    let stale = format!("{}\n{}\n1\n5432\n", std::process::id(), data.join("postgres/data").display());
    std::fs::write(data.join("postgres/data/postmaster.pid"), stale).unwrap();
    let mut third = start(data).await;
    assert_eq!(call(&third, data, "GET", "/organizations/acme", json!(null)).await, 200);
    assert!(third.stop(SOON).await.success());

    // the pools are for life, the key file is needed, and so is the right PostgreSQL
    let mut other = serve(data);
    other.args(["--vip-pool", "10.0.0.0/8"]);
    let said = refused(other).await;
    assert!(said.contains("--vip-pool 240.0.0.0/4"), "{said}");
    std::fs::rename(data.join("ca.key"), data.join("away")).unwrap();
    let said = refused(serve(data)).await;
    assert!(said.contains("ca.key is not there"), "{said}");
    std::fs::rename(data.join("away"), data.join("ca.key")).unwrap();
    std::fs::write(data.join("postgres/data/PG_VERSION"), "9\n").unwrap();
    let said = refused(serve(data)).await;
    assert!(said.contains("was made by PostgreSQL 9"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_token_is_shown_once() {
    let folder = folder();
    let data = folder.path();
    let mut first = Program::start("controller", bare(data), &ready(data), SOON).await;
    let token = |text: &str| text.split_whitespace().find(|word| word.starts_with("tmb_")).map(str::to_owned);
    let shown =
        wait::until("the token", SOON, || std::future::ready(token(&first.stdout())), Option::is_some).await;
    std::fs::write(data.join("owner"), shown.unwrap()).unwrap();
    assert_eq!(call(&first, data, "GET", "/owner-tokens", json!(null)).await, 200);
    assert!(!first.stderr().contains("tmb_"), "the log has a token");
    assert!(first.stop(SOON).await.success());

    let mut second = Program::start("controller", bare(data), &ready(data), SOON).await;
    assert_eq!(call(&second, data, "GET", "/owner-tokens", json!(null)).await, 200);
    assert!(second.stop(SOON).await.success());
    assert_eq!((second.stdout().as_str(), token(&second.stderr())), ("", None), "nothing is shown again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_token_may_be_given() {
    let folder = folder();
    let data = folder.path();
    let given = || {
        let mut command = bare(data);
        command.arg("--given-owner-token-file").arg(data.join("owner"));
        command
    };
    // a token that can be guessed is none
    std::fs::write(data.join("owner"), "tmb_secret\n").unwrap();
    let said = refused(given()).await;
    assert!(said.contains("32 random bytes") && !said.contains("tmb_secret"), "{said}");
    std::fs::write(data.join("owner"), format!("tmb_{}Q\n", "A".repeat(42))).unwrap();
    let mut first = Program::start("controller", given(), &ready(data), SOON).await;
    assert_eq!(call(&first, data, "GET", "/owner-tokens", json!(null)).await, 200);
    assert!(first.stop(SOON).await.success());
    assert_eq!(first.stdout(), "", "it is shown");
    // it is needed at the first start only
    std::fs::rename(data.join("owner"), data.join("away")).unwrap();
    let mut second = Program::start("controller", given(), &ready(data), SOON).await;
    std::fs::rename(data.join("away"), data.join("owner")).unwrap();
    assert_eq!(call(&second, data, "GET", "/owner-tokens", json!(null)).await, 200);
    assert!(second.stop(SOON).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_dies_is_started_again() {
    let folder = folder();
    let data = folder.path();
    let mut program = start(data).await;
    assert_eq!(call(&program, data, "POST", "/organizations", json!({ "name": "acme" })).await, 201);
    let pid = || -> i32 {
        let file = std::fs::read_to_string(data.join("postgres/data/postmaster.pid")).unwrap_or_default();
        file.lines().next().and_then(|line| line.parse().ok()).unwrap_or(0)
    };
    let before = pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(before), nix::sys::signal::Signal::SIGKILL).unwrap();
    let look = || async {
        match pid() {
            now if now == before || now == 0 => 0,
            _ => call(&program, data, "GET", "/organizations/acme", json!(null)).await,
        }
    };
    wait::until("it answers again", SOON, look, |status| *status == 200).await;
    assert!(program.stop(SOON).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_path_and_missing_programs() {
    let folder = folder();
    let long =
        folder.path().join("a-folder-with-a-very-long-name-that-leaves-no-room-for-the-socket-of-a-database");
    std::fs::create_dir(&long).unwrap();
    let mut program = start(&long).await;
    assert_eq!(call(&program, &long, "GET", "/organizations", json!(null)).await, 200);
    assert!(program.stop(SOON).await.success());

    let mut without = serve(folder.path());
    without.env("TOMBOLO_PG_BIN", folder.path());
    let said = refused(without).await;
    assert!(said.contains("postgres"), "{said}");
    let mut wrong = serve(folder.path());
    wrong.env("DATABASE_URL", "mysql://x").args(["--vip-pool", "10.0.0.0/30"]);
    let said = refused(wrong).await;
    assert!(said.contains("does not begin with postgres://") && said.contains("--vip-pool"), "{said}");
}

/// A statement of somebody who may speak to the private PostgreSQL: the last line of its answer.
async fn sql(data: &Path, statements: &str) -> String {
    let found = Command::new("bash").args(["-c", "ls -d /usr/lib/postgresql/*/bin/psql | tail -1"]).output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    let program = if found.is_empty() { "psql" } else { found.trim() };
    let mut command = Command::new(program);
    command.arg("-h").arg(data.join("postgres/run")).args(["-U", "tombolo", "-XAtq", "tombolo"]);
    command.args(["-c", statements]);
    let said = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8(said.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
}

/// All that the private PostgreSQL wrote, in bytes.
fn logged(data: &Path) -> u64 {
    let days = std::fs::read_dir(data.join("postgres/log")).unwrap().map(|file| file.unwrap().path());
    let start = ["server.log", "server.log.1"].map(|name| data.join("postgres").join(name));
    days.chain(start).map(|path| std::fs::metadata(path).map_or(0, |found| found.len())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_logs_has_a_bound() {
    let folder = folder();
    let data = folder.path();
    let mut program = start(data).await;
    // a file a day, and no more of them than days of a week
    let file = sql(data, "SELECT pg_current_logfile()").await;
    let name = Path::new(&file).file_name().and_then(|name| name.to_str()).unwrap().to_owned();
    let day = name.strip_prefix("server-").and_then(|name| name.strip_suffix(".log")).unwrap();
    assert!(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].contains(&day), "{file}");
    for (setting, value) in
        [("log_rotation_age", "1d"), ("log_rotation_size", "0"), ("log_truncate_on_rotation", "on")]
    {
        assert_eq!(sql(data, &format!("SHOW {setting}")).await, value, "{setting}");
    }
    // and nobody fills it
    let before = logged(data);
    let errs = "DO $$ BEGIN FOR i IN 1..500 LOOP RAISE WARNING 'no'; END LOOP; RAISE EXCEPTION 'no'; END $$";
    for _ in 0..5 {
        sql(data, errs).await;
    }
    assert_eq!(sql(data, "SELECT 7").await, "7", "it listens");
    assert_eq!(logged(data), before, "a client's errors are in the log");
    // what is the server's own is there
    assert_eq!(sql(data, "SELECT pg_reload_conf()").await, "t");
    let grown = || std::future::ready(logged(data));
    wait::until("a line of the server's", SOON, grown, |now| *now > before).await;
    assert!(program.stop(SOON).await.success());
}
