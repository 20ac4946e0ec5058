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
use tombolo_tests::{
    loopback::{Names, SOON, World, fill},
    soak::{Kind, Reason},
};

/// Who makes new connections.
const CALLERS: u64 = 4;
/// Connections that stay open.
const STREAMS: u64 = 8;
/// Between two requests of a caller, and two blocks of a stream.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an answer may take before it counts as none.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How many requests that began after a fault must have ended before it is judged.
const ENOUGH: usize = 100;

/// Something that was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) failed: Option<Reason>,
}

/// What went through and was compared, all in all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// The longest of the requests that went well.
    pub(crate) longest: Duration,
}

#[derive(Default)]
struct Book {
    asked: Vec<Asked>,
    /// What failed and was not taken yet.
    fresh: Vec<Asked>,
    totals: Totals,
}

/// The book, to write in.
#[derive(Clone, Default)]
struct Pen(Arc<Mutex<Book>>);

impl Pen {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kind: Kind, began: Instant, failed: Option<Reason>) {
        let asked = Asked { kind, began, ended: Instant::now(), failed };
        let mut book = self.book();
        if kind == Kind::Request {
            book.totals.requests += 1;
        }
        if asked.failed.is_some() {
            book.fresh.push(asked.clone());
        } else {
            book.totals.longest = book.totals.longest.max(asked.ended - asked.began);
        }
        book.asked.push(asked);
    }

    /// These were sent, and came back as they were.
    fn compared(&self, bytes: usize, blocks: u64) {
        let mut book = self.book();
        book.totals.blocks += blocks;
        book.totals.bytes += u64::try_from(bytes).unwrap();
    }
}

/// The load.
pub(crate) struct Load {
    pen: Pen,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Begins, and waits until it flows.
    pub(crate) async fn start(world: &World) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (pen, names) = (Pen::default(), world.names());
        let mut tasks = JoinSet::new();
        for seed in 1..=CALLERS {
            tasks.spawn(call(names, seed, pen.clone(), stopped.clone()));
        }
        for seed in 1..=STREAMS {
            tasks.spawn(stream(names, seed << 32, pen.clone(), stopped.clone()));
        }
        let load = Self { pen, stop, tasks };
        load.whole().await;
        load
    }

    /// What went through, all in all.
    pub(crate) fn totals(&self) -> Totals {
        self.pen.book().totals
    }

    /// What failed since this was called last.
    pub(crate) fn take_failed(&self) -> Vec<Asked> {
        std::mem::take(&mut self.pen.book().fresh)
    }

    /// Drops what ended before this, which nobody will ask about: the book of a long run would be read all the time.
    pub(crate) fn forget(&self, before: Instant) {
        self.pen.book().asked.retain(|asked| asked.ended >= before);
    }

    /// Waits until everything goes well again: before a fault, so that each is judged alone.
    pub(crate) async fn whole(&self) {
        let since = Instant::now();
        let well = || {
            let book = self.pen.book();
            let mut row = 0;
            for asked in book.asked.iter().filter(|asked| asked.began >= since && asked.kind == Kind::Request)
            {
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
            let book = self.pen.book();
            let after = book.asked.iter().filter(|asked| asked.began >= fault && asked.kind == Kind::Request);
            std::future::ready(after.count())
        };
        until("requests go on", SOON, count, |count| *count >= ENOUGH).await;
        Report::of(&self.pen.book().asked, begin, fault)
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
        for reason in after().filter_map(|asked| asked.failed.as_ref()) {
            *failed.entry(reason.to_string()).or_default() += 1;
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

async fn call(names: Names, seed: u64, pen: Pen, stopped: watch::Receiver<bool>) {
    let mut state = seed;
    while !*stopped.borrow() {
        let began = Instant::now();
        let answer = timeout(PATIENCE, request(names, &mut state)).await;
        match answer.unwrap_or(Err(Reason::Late)) {
            Ok(bytes) => {
                pen.compared(bytes, 0);
                pen.note(Kind::Request, began, None);
            }
            Err(reason) => pen.note(Kind::Request, began, Some(reason)),
        }
        sleep(PAUSE).await;
    }
}

async fn connect(names: Names) -> Result<TcpStream, Reason> {
    let ip = names.resolve("mirror").await.map_err(Reason::Name)?;
    TcpStream::connect((ip, 7000)).await.map_err(|error| Reason::Connect(error.to_string()))
}

/// Gives how many bytes went there and back.
async fn request(names: Names, state: &mut u64) -> Result<usize, Reason> {
    // 8 bytes to 64 KiB
    let mut sent = vec![0; 8 + usize::try_from(*state >> 50).unwrap_or_default() / 8 * 32];
    fill(&mut sent, state);
    let mut stream = connect(names).await?;
    let (mut reader, mut writer) = stream.split();
    let say = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let mut back = Vec::new();
    let (said, heard) = tokio::join!(say, reader.read_to_end(&mut back));
    heard.map_err(|error| Reason::io("read", &error))?;
    said.map_err(|error| Reason::io("write", &error))?;
    if back == sent {
        Ok(sent.len())
    } else if back.len() < sent.len() && sent.starts_with(&back) {
        Err(Reason::Ended)
    } else {
        Err(Reason::Other)
    }
}

async fn stream(names: Names, seed: u64, pen: Pen, stopped: watch::Receiver<bool>) {
    let mut state = seed;
    while !*stopped.borrow() {
        let began = Instant::now();
        if let Err(failed) = blocks(names, &mut state, &pen, &stopped).await {
            pen.note(Kind::Stream, began, Some(failed));
        }
        sleep(PAUSE).await;
    }
}

/// Blocks back and forth until it is told to stop.
async fn blocks(
    names: Names,
    state: &mut u64,
    pen: &Pen,
    stopped: &watch::Receiver<bool>,
) -> Result<(), Reason> {
    let mut stream = connect(names).await?;
    while !*stopped.borrow() {
        let (mut sent, mut back) = ([0; 64], [0; 64]);
        fill(&mut sent, state);
        let talk = async {
            stream.write_all(&sent).await?;
            stream.read_exact(&mut back).await
        };
        let talked = timeout(PATIENCE, talk).await.map_err(|_| Reason::Late)?;
        talked.map_err(|error| Reason::io("block", &error))?;
        if back != sent {
            return Err(Reason::Other);
        }
        pen.compared(sent.len(), 1);
        sleep(PAUSE).await;
    }
    Ok(())
}
