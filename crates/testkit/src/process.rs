//! The true programs, started as a user would start them.

use crate::{keeper, wait};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Lines that are kept, the last ones.
const KEPT_LINES: usize = 5_000;

/// A program under test. It is killed (by its pid) when this is dropped, and when the test process dies.
pub struct Program {
    name: String,
    child: Child,
    ready: Value,
    stdout: Lines,
    stderr: Lines,
}

impl Program {
    /// Starts a command and waits until it has written its ready file. The command says itself where that is (`--ready-file`);
    /// a file left there is removed first.
    ///
    /// # Panics
    /// When the program can't be started, ends before it is ready, or is not ready in time: with its stderr.
    pub async fn start(name: &str, command: Command, ready_file: &Path, deadline: Duration) -> Self {
        let _ = std::fs::remove_file(ready_file);
        let mut program = Self::spawn(name, command);
        let what = format!("{name}: ready file {}", ready_file.display());
        let start = std::time::Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(ready_file) {
                program.ready = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{what}: {e}: {text}"));
                return program;
            }
            if let Some(status) = program.status() {
                panic!("{name} ended with {status} before it was ready; its stderr:\n{}", program.stderr());
            }
            assert!(start.elapsed() < deadline, "{what}: not in {deadline:?}; stderr:\n{}", program.stderr());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts a command that has no ready file.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn spawn(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = keeper::spawn(command).unwrap_or_else(|error| panic!("{name}: {shown}: {error}"));
        let stdout = child.stdout.take().map_or_else(Lines::default, |pipe| Lines::collect(name, pipe));
        let stderr = child.stderr.take().map_or_else(Lines::default, |pipe| Lines::collect(name, pipe));
        Self { name: name.to_owned(), child, ready: Value::Null, stdout, stderr }
    }

    /// What its ready file says.
    #[must_use]
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The address of one of the listeners in its ready file.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.ready
            .get(listener)
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{}: no address {listener} in {}", self.name, self.ready))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stderr so far (the last 5,000 lines).
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// What it wrote to stdout so far (the last 5,000 lines).
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Its exit status, where it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is not there any more.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).unwrap_or_else(|error| panic!("{}: {signal}: {error}", self.name));
    }

    /// Waits until it has ended, and what it wrote last is here.
    ///
    /// # Panics
    /// When it has not by the deadline, or a child that outlives it holds its pipes.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let (stdout, stderr) = (self.stdout.clone(), self.stderr.clone());
        wait::until_ok(&what, deadline, || {
            let ended = self.child.try_wait().ok().flatten();
            let seen = ended.filter(|_| stdout.is_whole() && stderr.is_whole());
            std::future::ready(seen.ok_or_else(|| stderr.tail(20)))
        })
        .await
    }

    /// Sends SIGTERM and waits.
    ///
    /// # Panics
    /// When it has not ended by the deadline.
    pub async fn stop(&mut self, deadline: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(deadline).await
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if thread::panicking() && self.status().is_none_or(|status| !status.success()) {
            let tail = self.stderr.tail(100).join("\n");
            let _ = writeln!(std::io::stderr(), "---- stderr of {}:\n{tail}\n----", self.name);
        }
        self.kill();
    }
}

/// What a program writes, collected by a thread for each pipe. With `TOMBOLO_TEST_ECHO` set it is shown as it comes, too.
#[derive(Clone, Default)]
struct Lines(Arc<Collected>);

#[derive(Default)]
struct Collected {
    kept: Mutex<VecDeque<String>>,
    /// The pipe has ended: nothing more comes.
    whole: AtomicBool,
}

impl Lines {
    fn collect(name: &str, pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let (into, name) = (lines.clone(), name.to_owned());
        let echo = std::env::var_os("TOMBOLO_TEST_ECHO").is_some();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if echo {
                    let _ = writeln!(std::io::stderr(), "[{name}] {line}");
                }
                let mut kept = into.kept();
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
            into.0.whole.store(true, Ordering::Release);
        });
        lines
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_whole(&self) -> bool {
        self.0.whole.load(Ordering::Acquire)
    }

    fn tail(&self, count: usize) -> Vec<String> {
        let lines = self.kept();
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }

    fn text(&self) -> String {
        self.tail(KEPT_LINES).join("\n")
    }
}

/// A program of the workspace, beside the test binary. `cargo test --workspace` builds it.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test binary has a path");
    // target/<profile>/deps/<test>
    let path = test.ancestors().nth(2).expect("the test binary lies in target/<profile>/deps").join(name);
    assert!(path.exists(), "{} is not there; build it with: cargo build --workspace --bins", path.display());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, arg: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(arg);
        command
    }

    #[tokio::test]
    async fn starts_reads_and_stops() {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let script = r#"echo token; trap 'echo bye >&2; exit 0' TERM
            printf '{"api":"127.0.0.1:1"}' >"$1.new"; mv "$1.new" "$1"; while :; do sleep 0.01; done"#;
        let mut program = Program::start("sh", sh(script, &ready), &ready, Duration::from_secs(10)).await;
        assert_eq!(program.address("api"), "127.0.0.1:1".parse().unwrap());
        assert!(program.stop(Duration::from_secs(10)).await.success());
        assert_eq!((program.stdout(), program.stderr()), ("token".into(), "bye".into()));
    }

    #[tokio::test]
    #[should_panic(expected = "before it was ready; its stderr:\nno luck")]
    async fn says_why_it_did_not_start() {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let script = "echo no luck >&2; sleep 0.2; exit 3";
        Program::start("sh", sh(script, &ready), &ready, Duration::from_secs(10)).await;
    }

    #[test]
    fn dies_when_dropped() {
        let program = Program::spawn("sleep", {
            let mut command = Command::new("sleep");
            command.arg("600");
            command
        });
        let path = format!("/proc/{}", program.pid());
        assert!(Path::new(&path).exists());
        drop(program);
        assert!(!Path::new(&path).exists());
    }
}
