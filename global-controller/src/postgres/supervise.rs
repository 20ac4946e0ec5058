//! The server's process.
//!
//! It is started, and started again after a crash, by a thread that lives for as long as it may run: the kernel sends
//! the signal that we ask for on our death (`PR_SET_PDEATHSIG`) when the *thread* ends that forked, so that none of
//! tokio's may do it. The signal is SIGINT, a fast and clean stop.

use super::{Error, account::Account, io_error, layout::Layout, locate::Binaries};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::{Pid, getpid, getppid},
};
use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// How long a server may take to stop before it is killed. It recovers then.
const STOP: Duration = Duration::from_secs(30);

/// How often the thread looks whether the server still runs.
const LOOK: Duration = Duration::from_millis(100);

/// The running server.
#[derive(Debug)]
pub(super) struct Server {
    thread: Option<thread::JoinHandle<()>>,
    stop: mpsc::SyncSender<()>,
    ended: Arc<AtomicBool>,
}

impl Server {
    /// Starts the server, without waiting until it answers.
    pub(super) fn start(layout: &Layout, binaries: &Binaries, account: &Account) -> Result<Self, Error> {
        let (stop, stopped) = mpsc::sync_channel(1);
        let (started, start) = mpsc::sync_channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let launch = Launch { layout: layout.clone(), binaries: binaries.clone(), account: account.clone() };
        let flag = Arc::clone(&ended);
        let thread = thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || match launch.spawn() {
                Ok(child) => {
                    // a receiver that is gone takes the server with it below
                    let _ = started.send(Ok(()));
                    launch.watch(child, &stopped, &flag);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })
            .map_err(io_error("start a thread for", &layout.base))?;
        match start.recv() {
            Ok(Ok(())) => Ok(Self { thread: Some(thread), stop, ended }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io_error("start a thread for", &layout.base)(io::Error::other("it ended"))),
        }
    }

    /// Whether the server ended at least once since it was started. While it starts, that is a failed start.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Stops the server, and waits for it.
    pub(super) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            // full or gone: it is stopping already
            let _ = self.stop.try_send(());
            if thread.join().is_err() {
                tracing::warn!("the private PostgreSQL's thread panicked");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

struct Launch {
    layout: Layout,
    binaries: Binaries,
    account: Account,
}

impl Launch {
    fn spawn(&self) -> Result<Child, Error> {
        let Layout { data, socket, log, logs, .. } = &self.layout;
        let old = log.with_extension("log.1");
        match fs::rename(log, &old) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("rename", log)(e)),
            _ => {}
        }
        let out = fs::File::create(log).map_err(io_error("make", log))?;
        let mut server = command(&self.binaries, "postgres", &self.account);
        server.arg("-D").arg(data).arg("-k").arg(socket).stdout(Stdio::null()).stderr(out);
        let mut days = std::ffi::OsString::from("log_directory=");
        days.push(logs);
        server.arg("-c").arg(days);
        for setting in [
            "listen_addresses=",
            "unix_socket_permissions=0700",
            "max_connections=40",
            "shared_buffers=64MB",
            "jit=off",
            // a file for each day of the week, emptied when its day comes again; what is said before the collector runs
            // is in the file beside them
            "logging_collector=on",
            "log_filename=server-%a.log",
            "log_rotation_age=1d",
            "log_rotation_size=0",
            "log_truncate_on_rotation=on",
            // neither a client that errs nor time alone fills them: a failed statement is told by who sent it
            "log_min_messages=log",
            "log_min_error_statement=panic",
            "log_checkpoints=off",
            "log_autovacuum_min_duration=-1",
        ] {
            server.arg("-c").arg(setting);
        }
        server.spawn().map_err(io_error("run", &self.binaries.bin.join("postgres")))
    }

    /// Runs until told to stop. A server that ends by itself is started again, more slowly each time.
    fn watch(&self, mut child: Child, stop: &mpsc::Receiver<()>, ended: &AtomicBool) {
        let mut pause = Duration::from_millis(200);
        let mut since = Instant::now();
        loop {
            match stop.recv_timeout(LOOK) {
                Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return end(&mut child),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            let Ok(Some(status)) = child.try_wait() else { continue };
            ended.store(true, Ordering::Release);
            if since.elapsed() > Duration::from_secs(60) {
                pause = Duration::from_millis(200);
            }
            tracing::error!(%status, log = %self.layout.log.display(), "the private PostgreSQL ended; starting it again");
            match stop.recv_timeout(pause) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            pause = (pause * 2).min(Duration::from_secs(10));
            let again = clear_the_way(&self.layout.data).and_then(|()| self.spawn());
            since = Instant::now();
            match again {
                Ok(new) => child = new,
                Err(error) => tracing::error!(%error, "cannot start the private PostgreSQL"),
            }
        }
    }
}

/// A fast and clean stop; a kill where that hangs.
fn end(child: &mut Child) {
    let Ok(id) = i32::try_from(child.id()) else { return };
    let _ = kill(Pid::from_raw(id), Signal::SIGINT);
    let began = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if began.elapsed() > STOP {
            tracing::warn!("the private PostgreSQL does not stop; killing it");
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program of the server, as its user, that ends when the thread that starts it ends.
#[expect(
    unsafe_code,
    reason = "what must happen in the child between fork and exec; both calls are async-signal-safe"
)]
pub(super) fn command(binaries: &Binaries, program: &str, account: &Account) -> Command {
    let mut command = Command::new(binaries.bin.join(program));
    command
        .env_clear()
        .env("PATH", &binaries.bin)
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null());
    if account.drop {
        // also clears the supplementary groups
        command.uid(account.uid).gid(account.gid);
    }
    let parent = getpid();
    // SAFETY: prctl and getppid allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            // after the change of user, which would clear it
            prctl::set_pdeathsig(Signal::SIGINT)?;
            // we died before the kernel was asked
            if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
        });
    }
    command
}

/// After a crash of ours the old server may still be stopping, or have left its pid file behind, whose number may by
/// now belong to another process. We hold the lock on the folder, so that whatever runs there is an orphan of ours.
pub(super) fn clear_the_way(data: &Path) -> Result<(), Error> {
    let path = data.join("postmaster.pid");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("read", &path)(e)),
    };
    let began = Instant::now();
    let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 1);
    while let Some(pid) = pid.filter(|pid| serves(*pid, data)) {
        let waited = began.elapsed();
        let _ = kill(Pid::from_raw(pid), if waited > STOP { Signal::SIGQUIT } else { Signal::SIGINT });
        if waited > STOP * 2 {
            return Err(io_error("take over", &path)(io::Error::other(format!(
                "process {pid} does not stop"
            ))));
        }
        thread::sleep(Duration::from_millis(20));
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(e)),
        _ => Ok(()),
    }
}

/// Whether the process is a PostgreSQL server over this folder.
fn serves(pid: i32, data: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(line) = fs::read(process.join("cmdline")) else { return false };
    let mut words = line.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    program.ends_with(b"postgres") && words.any(|word| word == data.as_os_str().as_encoded_bytes())
}
