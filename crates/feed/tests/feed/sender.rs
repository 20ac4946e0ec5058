//! A sender that does what the test tells it, on a unix socket.

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tombolo_feed::{Client, Options, State, Status, UnixConnector};
use tombolo_model::{
    ClusterName, Generation, Proximity,
    snapshot::{ClusterResource, PeerSpec, Resource, Resources},
};
use tombolo_runtime::task;
use tombolo_wire::{codec::encode_line, message::FeedLine, version::Hello};

/// What 429 and 503 say.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(20);
/// Longer than anything here takes, in the clock of the test.
const LONG: Duration = Duration::from_secs(120);

/// A receiver asked for the feed.
pub(crate) struct Call {
    pub(crate) resume: Option<(u64, String)>,
    out: SendStream<Bytes>,
}

impl Call {
    /// Says hello and these lines.
    pub(crate) fn say(&mut self, lines: impl IntoIterator<Item = FeedLine<ClusterResource>>) {
        self.bytes(&encode_line(&FeedLine::<ClusterResource>::Hello(Hello::current("test-sender"))).unwrap());
        self.more(lines);
    }
    pub(crate) fn more(&mut self, lines: impl IntoIterator<Item = FeedLine<ClusterResource>>) {
        for line in lines {
            self.bytes(&encode_line(&line).unwrap());
        }
    }
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.send_data(Bytes::copy_from_slice(bytes), false).unwrap();
    }
    pub(crate) fn end(mut self) {
        self.out.send_data(Bytes::new(), true).unwrap();
    }
}

/// A request that came up: path with query, authorization, body.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) path: String,
    pub(crate) bearer: Option<String>,
    pub(crate) body: Value,
}

type Answers = Arc<Mutex<BTreeMap<String, (u16, String)>>>;

pub(crate) struct Sender {
    pub(crate) socket: PathBuf,
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) posts: mpsc::Receiver<Post>,
    answers: Answers,
    accepting: JoinHandle<()>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Sender {
    pub(crate) fn listen(folder: &Path) -> Self {
        let socket = folder.join("agent.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let (calls_in, calls) = mpsc::channel(16);
        let (posts_in, posts) = mpsc::channel(64);
        let answers = Answers::default();
        let open = Arc::new(Mutex::new(Vec::new()));
        let (known, held) = (answers.clone(), open.clone());
        let accepting = task::spawn("accept", async move {
            while let Ok((io, _)) = listener.accept().await {
                let served = serve(io, calls_in.clone(), posts_in.clone(), known.clone());
                held.lock().unwrap().push(task::spawn("connection", served).abort_handle());
            }
        });
        Self { socket, calls, posts, answers, accepting, open }
    }

    /// What posts to this path are answered with, instead of 204.
    pub(crate) fn answer(&self, path: &str, status: u16, body: impl Into<String>) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status, body.into()));
    }

    /// The connections break; the socket stays.
    pub(crate) fn cut(&self) {
        self.open.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }

    pub(crate) async fn call(&mut self) -> Call {
        timeout(LONG, self.calls.recv()).await.expect("nobody asks for the feed").unwrap()
    }

    pub(crate) async fn post(&mut self) -> Post {
        timeout(LONG, self.posts.recv()).await.expect("no request").unwrap()
    }

    /// The next acknowledgement.
    pub(crate) async fn ack(&mut self) -> Value {
        let post = self.post().await;
        assert_eq!(post.path, "/ack");
        post.body
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Serves one connection.
pub(crate) async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: I,
    calls: mpsc::Sender<Call>,
    posts: mpsc::Sender<Post>,
    answers: Answers,
) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        task::spawn("request", one(request, respond, calls.clone(), posts.clone(), answers.clone()));
    }
}

async fn one(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    calls: mpsc::Sender<Call>,
    posts: mpsc::Sender<Post>,
    answers: Answers,
) {
    let ours = tombolo_wire::version::ProtocolVersion::CURRENT.to_string();
    assert_eq!(request.headers()["tombolo-protocol"], ours);
    let path = request.uri().path_and_query().unwrap().to_string();
    if request.method() == Method::GET {
        let out = respond.send_response(Response::new(()), false).unwrap();
        let pairs: BTreeMap<_, _> =
            request.uri().query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('=')).collect();
        let resume = pairs.get("generation").map(|g| (g.parse().unwrap(), pairs["digest"].to_owned()));
        calls.send(Call { resume, out }).await.unwrap();
        return;
    }
    let bearer = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let (mut body, mut all) = (request.into_body(), Vec::new());
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        all.extend_from_slice(&chunk);
    }
    let known = answers.lock().unwrap().get(&path).cloned();
    posts
        .send(Post { path, bearer, body: serde_json::from_slice(&all).unwrap_or(json!(null)) })
        .await
        .unwrap();
    let (status, text) = known.unwrap_or((204, String::new()));
    let mut answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
    if matches!(status, 429 | 503) {
        answer = answer.header("retry-after", RETRY_AFTER.as_secs());
    }
    let answer = answer.body(()).unwrap();
    let mut out = respond.send_response(answer, text.is_empty()).unwrap();
    if !text.is_empty() {
        out.send_data(Bytes::from(text), true).unwrap();
    }
}

/// A client with the state it reports, running.
pub(crate) struct Running {
    pub(crate) client: Client<ClusterResource>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(socket: &Path, options: Options<ClusterResource>) -> Self {
        let (client, running) = Client::build(UnixConnector::new(socket), options);
        Self { client, task: task::spawn("feed", running.run()) }
    }
    /// Waits for a state of this generation.
    pub(crate) async fn at(&self, generation: u64) -> Arc<State<ClusterResource>> {
        let mut states = self.client.state();
        let reached = states.wait_for(|state| state.generation == Generation::new(generation));
        let state = timeout(LONG, reached).await.expect("the state is not reached").unwrap();
        Arc::clone(&state)
    }
    pub(crate) async fn until(&self, what: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.client.status();
        let status = timeout(LONG, status.wait_for(what)).await.expect("the status is not reached").unwrap();
        status.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn options() -> Options<ClusterResource> {
    let mut options = Options::new("/feed", "/ack");
    options.seed = Some(7);
    options
}

/// Peers with these numbers, as resources.
pub(crate) fn peers(numbers: &[u8]) -> Resources<ClusterResource> {
    let peer = |n: &u8| {
        ClusterResource::Peer(
            PeerSpec {
                cluster: ClusterName::parse(&format!("cluster-{n}")).unwrap(),
                proximity: Proximity::Region,
                ingress: [format!("192.0.2.{n}:15443")].into(),
            }
            .into(),
        )
    };
    numbers.iter().map(peer).map(|resource| (resource.key(), resource)).collect()
}
