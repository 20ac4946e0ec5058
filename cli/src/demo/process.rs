//! The processes of a demo: started, waited for, and all of them ended in the end.

use crate::output::Output;
use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

struct Member {
    name: String,
    child: Child,
}

/// All processes of a demo, in the order they were started.
pub(crate) struct Fleet {
    logs: PathBuf,
    members: Vec<Member>,
}

impl Fleet {
    pub(crate) const fn new(logs: PathBuf) -> Self {
        Self { logs, members: Vec::new() }
    }

    /// Starts a program; its output goes to `<logs>/<name>.log`.
    pub(crate) fn start(
        &mut self,
        name: &str,
        program: &Path,
        args: &[String],
        env: &[(&str, String)],
    ) -> Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.envs(env.iter().map(|(k, v)| (*k, v)));
        // A group of its own, so that Ctrl-C reaches the demo alone, which then ends them in order.
        command.process_group(0);
        die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        self.members.push(Member { name: name.to_owned(), child });
        Ok(())
    }

    /// Waits until a program has written its ready file.
    pub(crate) async fn ready(&mut self, name: &str, file: &Path) -> Result<Value> {
        let deadline = Instant::now() + READY;
        loop {
            if let Ok(text) = std::fs::read_to_string(file)
                && let Ok(value) = serde_json::from_str(&text)
            {
                return Ok(value);
            }
            if let Some(member) = self.members.iter_mut().find(|m| m.name == name)
                && let Some(status) = member.child.try_wait()?
            {
                bail!("{name} ended ({status}) before it was ready; its log:\n{}", self.last_lines(name, 15));
            }
            if Instant::now() > deadline {
                bail!("{name} was not ready within {READY:?}; its log:\n{}", self.last_lines(name, 15));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the program of this name.
    pub(crate) async fn end(&mut self, name: &str) {
        if let Some(at) = self.members.iter().position(|m| m.name == name) {
            stop(self.members.remove(at)).await;
        }
    }

    /// Ends all, the last started first.
    pub(crate) async fn stop(&mut self) {
        while let Some(member) = self.members.pop() {
            stop(member).await;
        }
    }

    fn last_lines(&self, name: &str, count: usize) -> String {
        let text = std::fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Shows the end of every log: the demo failed, and its files will be gone.
    pub(crate) fn print_last_lines(&self, out: &Output) {
        for member in &self.members {
            out.line(&format!("--- the end of {}'s log\n{}", member.name, self.last_lines(&member.name, 12)));
        }
    }
}

async fn stop(mut member: Member) {
    let Some(pid) = member.child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    // Gone already is as good.
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    if timeout(PATIENCE, member.child.wait()).await.is_err() {
        let _ = member.child.kill().await;
    }
}

/// Runs a program to its end, with text on its standard input.
///
/// # Errors
/// It can't be started, or ends with another code than 0.
pub(crate) async fn run(program: &Path, args: &[String], stdin: Option<&str>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        pipe.write_all(text.as_bytes()).await.context("write to the program")?;
    }
    let output = timeout(READY, child.wait_with_output()).await.context("the program did not end")??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{} {} ended with {}:\n{text}{}",
            program.display(),
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}

/// Has the kernel end the child where the demo dies without ending it (kill -9). The signal follows the thread that
/// starts the child, so the demo starts its children from its main thread.
#[expect(
    unsafe_code,
    reason = "prctl between fork and exec: async-signal-safe, and there is no safe way to say it"
)]
fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure only makes one system call, allocates nothing and touches no lock.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?));
    }
}
