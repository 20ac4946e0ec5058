//! The thread that writes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender},
    },
    thread::sleep,
    time::Duration,
};

/// As much is put together for one write.
const BATCH: usize = 64 * 1024;
/// A line waits so long for others: a thread that is woken for each costs more than the line.
const PAUSE: Duration = Duration::from_millis(5);

/// Where an access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

impl Target {
    /// Where a path points; `-` is standard output.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if path.as_os_str() == "-" { Self::Stdout } else { Self::File(path.to_owned()) }
    }
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    Line(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
}

enum Sink {
    Stdout(io::Stdout),
    File(PathBuf, File),
}

impl Sink {
    fn open(target: Target) -> io::Result<Self> {
        Ok(match target {
            Target::Stdout => Self::Stdout(io::stdout()),
            Target::File(path) => {
                let file = append(&path)?;
                Self::File(path, file)
            }
        })
    }
    fn reopen(&mut self) {
        let Self::File(path, file) = self else { return };
        match append(path) {
            Ok(new) => *file = new,
            Err(error) => tracing::warn!(
                path = %path.display(), %error,
                "the access log can't be opened again; lines go on into the file that was open"
            ),
        }
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(out) => {
                let mut out = out.lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::File(_, file) => file.write_all(bytes),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Starts the thread. It ends when every sender is gone.
pub(super) fn start(target: Target, messages: Receiver<Message>, dropped: Arc<AtomicU64>) -> io::Result<()> {
    let sink = Sink::open(target)?;
    std::thread::Builder::new().name("access-log".into()).spawn(move || run(sink, &messages, &dropped))?;
    Ok(())
}

fn run(mut sink: Sink, messages: &Receiver<Message>, dropped: &AtomicU64) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut health = Health::default();
    // more waits than was written at once
    let mut full = false;
    while let Ok(first) = messages.recv() {
        if !full && matches!(first, Message::Line(_)) {
            sleep(PAUSE);
        }
        let mut next = Some(first);
        let mut lines = 0;
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    batch.extend_from_slice(&line);
                    lines += 1;
                }
                Message::Reopen => {
                    put(&mut sink, &mut batch, &mut lines, &mut health, dropped);
                    sink.reopen();
                }
                Message::Flush(done) => {
                    put(&mut sink, &mut batch, &mut lines, &mut health, dropped);
                    // who asked may have given up
                    let _ = done.try_send(());
                }
            }
            full = batch.len() >= BATCH;
            next = if full { None } else { messages.try_recv().ok() };
        }
        put(&mut sink, &mut batch, &mut lines, &mut health, dropped);
    }
}

#[derive(Default)]
struct Health {
    failing: bool,
}

fn put(sink: &mut Sink, batch: &mut Vec<u8>, lines: &mut u64, health: &mut Health, dropped: &AtomicU64) {
    if batch.is_empty() {
        return;
    }
    if health.failing {
        // what went wrong may have left half a line
        batch.insert(0, b'\n');
    }
    match sink.write(batch) {
        Ok(()) => health.failing = false,
        Err(error) => {
            dropped.fetch_add(*lines, Ordering::Relaxed);
            if !std::mem::replace(&mut health.failing, true) {
                tracing::warn!(%error, "access log lines are lost: make room, or check the file");
            }
        }
    }
    batch.clear();
    *lines = 0;
}
