//! Requests of known content on new connections, and long-lived connections in which blocks go back and forth, all of the time.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tombolo_testkit::wait::until;
use tombolo_tests::loopback::{Names, SOON, World, fill};

/// Who makes new connections.
const CALLERS: u64 = 4;
/// Connections that stay open.
const STREAMS: u64 = 8;
/// Between two requests of a caller, and two blocks of a stream.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many requests that began after a fault must have ended before it is judged.
const ENOUGH: usize = 100;

/// Something that was asked.
#[derive(Clone, Debug)]
struct Asked {
    kind: Kind,
    began: Instant,
    ended: Instant,
    failed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A new connection, from the name to the last byte.
    Request,
    /// The end of a long-lived connection.
    Stream,
}

type Book = Arc<Mutex<Vec<Asked>>>;

/// The load.
pub(crate) struct Load {
    book: Book,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Begins, and waits until it flows.
    pub(crate) async fn start(world: &World) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (book, names) = (Book::default(), world.names());
        let mut tasks = JoinSet::new();
        for seed in 1..=CALLERS {
            tasks.spawn(call(names, seed, Arc::clone(&book), stopped.clone()));
        }
        for seed in 1..=STREAMS {
            tasks.spawn(stream(names, seed << 32, Arc::clone(&book), stopped.clone()));
        }
        let load = Self { book, stop, tasks };
        load.whole().await;
        load
    }

    fn book(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything goes well again: before a fault, so that each is judged alone.
    pub(crate) async fn whole(&self) {
        let since = Instant::now();
        let well = || {
            let book = self.book();
            let mut row = 0;
            for asked in book.iter().filter(|asked| asked.began >= since && asked.kind == Kind::Request) {
                row = if asked.failed.is_some() { 0 } else { row + 1 };
            }
            std::future::ready(row)
        };
        until("requests go well", SOON, well, |row| *row >= ENOUGH / 2).await;
    }

    /// What became of the load since a fault was there, once enough of it went on. `fault` is the moment from which nothing that begins
    /// may fail.
    pub(crate) async fn since(&self, begin: Instant, fault: Instant) -> Report {
        let count = || {
            let book = self.book();
            let after = book.iter().filter(|asked| asked.began >= fault && asked.kind == Kind::Request);
            std::future::ready(after.count())
        };
        until("requests go on", SOON, count, |count| *count >= ENOUGH).await;
        Report::of(&self.book(), begin, fault)
    }

    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// What became of the load.
pub(crate) struct Report {
    /// Requests that began after the fault.
    asked: usize,
    /// Those of them that failed, by reason.
    pub(crate) failed: BTreeMap<String, usize>,
    /// Requests that were under way when it came, and failed.
    pub(crate) cut: usize,
    /// Long-lived connections that ended.
    pub(crate) streams: usize,
    /// The longest of the requests that went well.
    longest: Duration,
}

impl Report {
    fn of(book: &[Asked], begin: Instant, fault: Instant) -> Self {
        let requests = || book.iter().filter(|asked| asked.kind == Kind::Request);
        let after = || requests().filter(|asked| asked.began >= fault);
        let mut failed = BTreeMap::new();
        for reason in after().filter_map(|asked| asked.failed.clone()) {
            *failed.entry(reason).or_default() += 1;
        }
        let cut = requests().filter(|asked| asked.began < fault && asked.ended >= begin);
        let streams = book.iter().filter(|asked| asked.kind == Kind::Stream && asked.ended >= begin);
        Self {
            asked: after().count(),
            failed,
            cut: cut.filter(|asked| asked.failed.is_some()).count(),
            streams: streams.filter(|asked| asked.failed.is_some()).count(),
            longest: after().map(|asked| asked.ended - asked.began).max().unwrap_or_default(),
        }
    }

    /// No request that began after the fault failed.
    pub(crate) fn no_request_failed(self, world: &World) -> Self {
        eprintln!("  {self}");
        let refused = || world.refused("cluster-1/sidecar-access.log");
        assert!(self.failed.is_empty(), "{self}\n    the caller's sidecar: {:#?}", refused());
        self
    }

    /// Nor was any cut, nor a connection ended: what failed carries no bytes.
    pub(crate) fn nothing_noticed(self, world: &World) {
        let this = self.no_request_failed(world);
        assert!(this.cut == 0 && this.streams == 0, "{this}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: usize = self.failed.values().sum();
        write!(
            f,
            "{} requests, {failed} failed, {} cut under way, {} long-lived connections ended, longest {} ms",
            self.asked,
            self.cut,
            self.streams,
            self.longest.as_millis()
        )?;
        self.failed.iter().try_for_each(|(reason, count)| write!(f, "\n    {count} × {reason}"))
    }
}

fn note(book: &Book, kind: Kind, began: Instant, failed: Option<String>) {
    let asked = Asked { kind, began, ended: Instant::now(), failed };
    book.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
}

async fn call(names: Names, seed: u64, book: Book, stopped: watch::Receiver<bool>) {
    let mut state = seed;
    while !*stopped.borrow() {
        let began = Instant::now();
        let answer = timeout(PATIENCE, request(names, &mut state)).await;
        let failed = answer.unwrap_or_else(|_| Err("no whole answer in time".to_owned())).err();
        note(&book, Kind::Request, began, failed);
        sleep(PAUSE).await;
    }
}

async fn request(names: Names, state: &mut u64) -> Result<(), String> {
    // 8 bytes to 64 KiB
    let mut sent = vec![0; 8 + usize::try_from(*state >> 50).unwrap_or_default() / 8 * 32];
    fill(&mut sent, state);
    let ip = names.resolve("mirror").await.map_err(|error| format!("name: {error}"))?;
    let mut stream = TcpStream::connect((ip, 7000)).await.map_err(|error| format!("connect: {error}"))?;
    let (mut reader, mut writer) = stream.split();
    let say = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let mut back = Vec::new();
    let (said, heard) = tokio::join!(say, reader.read_to_end(&mut back));
    heard.map_err(|error| format!("read: {error}"))?;
    said.map_err(|error| format!("write: {error}"))?;
    if back == sent {
        Ok(())
    } else if back.len() < sent.len() && sent.starts_with(&back) {
        Err("an end before the end".to_owned())
    } else {
        Err("other bytes than were sent".to_owned())
    }
}

async fn stream(names: Names, seed: u64, book: Book, stopped: watch::Receiver<bool>) {
    let mut state = seed;
    while !*stopped.borrow() {
        let began = Instant::now();
        if let Err(failed) = blocks(names, &mut state, &stopped).await {
            note(&book, Kind::Stream, began, Some(failed));
        }
        sleep(PAUSE).await;
    }
}

/// Blocks back and forth until it is told to stop.
async fn blocks(names: Names, state: &mut u64, stopped: &watch::Receiver<bool>) -> Result<(), String> {
    let ip = names.resolve("mirror").await.map_err(|error| format!("name: {error}"))?;
    let mut stream = TcpStream::connect((ip, 7000)).await.map_err(|error| format!("connect: {error}"))?;
    while !*stopped.borrow() {
        let (mut sent, mut back) = ([0; 64], [0; 64]);
        fill(&mut sent, state);
        let talk = async {
            stream.write_all(&sent).await?;
            stream.read_exact(&mut back).await
        };
        let talked = timeout(PATIENCE, talk).await.map_err(|_| "no block in time".to_owned())?;
        talked.map_err(|error| format!("block: {error}"))?;
        if back != sent {
            return Err("other bytes than were sent".to_owned());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
