//! What concerns a whole process: its log and its signals. The log is looked at from outside, so the test starts itself once more as a child.

use std::process::{Command, Output};
use tombolo_runtime::{
    signal::{Signals, Terminate},
    task, telemetry,
};

const CHILD: &str = "RUNTIME_TEST_CHILD";

/// Not a test by itself: the child of the tests below.
#[tokio::test]
async fn child() {
    let Ok(format) = std::env::var(CHILD) else { return };
    if let Err(error) = telemetry::init(format.parse().unwrap()) {
        panic!("{}", telemetry::chain(&error));
    }
    tracing::info!(cluster.id = "cluster-1", "joined");
    tracing::debug!("not to be seen");
    let broken = task::spawn("broken", async { panic!("as told") });
    assert!(broken.await.unwrap_err().is_panic());
}

fn run_child(format: &str, level: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("the test has a path"));
    command
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format)
        .env_remove(telemetry::LEVEL_VARIABLE);
    command.env_remove("RUST_BACKTRACE").envs(level.map(|level| (telemetry::LEVEL_VARIABLE, level)));
    command.output().expect("the child runs")
}

#[test]
fn every_line_is_json_panics_too() {
    let output = run_child("json", None);
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!((&lines[0]["level"], &lines[0]["message"]), (&"INFO".into(), &"joined".into()));
    assert_eq!(lines[0]["cluster.id"], "cluster-1");
    assert_eq!(lines[1]["level"], "ERROR");
    assert!(lines[1]["message"].as_str().unwrap().contains("as told"), "{text}");
    assert!(lines[1]["panic.place"].as_str().unwrap().contains("process.rs"), "{text}");
    assert_eq!(lines[1]["spans"][0]["task.name"], "broken", "{text}");
}

#[test]
fn the_level_comes_from_the_environment() {
    let output = run_child("text", Some("debug"));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("not to be seen") && text.contains("DEBUG"), "{text}");

    let output = run_child("json", Some("a=b=c"));
    assert!(!output.status.success());
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("TOMBOLO_LOG is not a log filter"), "{said}");
}

#[tokio::test]
async fn signals_are_not_lost_between_installing_and_waiting() {
    let mut signals = Signals::install().unwrap();
    for (name, meaning) in [("-TERM", Terminate::Term), ("-INT", Terminate::Interrupt)] {
        let sent = Command::new("kill").args([name, &std::process::id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(signals.terminate().await, meaning);
    }
}
