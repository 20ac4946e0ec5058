//! An agent's gateway socket, made of the wire types alone: it feeds, signs, and remembers what it was told.

use crate::ca::Cluster;
use bytes::Bytes;
use h2::{SendStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::{net::UnixListener, sync::watch};
use tokio_util::task::AbortOnDropHandle;
use tombolo_model::{
    Generation, SpiffeId,
    snapshot::{GatewayResource, Resource as _, Resources},
};
use tombolo_mtls::Validity;
use tombolo_runtime::{
    clock::{Clock as _, SystemClock},
    task,
};
use tombolo_wire::{
    codec::encode_line,
    message::{
        Ack, Digest, FeedLine, GatewayHello, GatewayStatus, GatewayWelcome, LeafRequest, LeafResponse,
    },
    problem::ProblemDetails,
    session::Publisher,
    version::{Hello, ProtocolVersion},
};

/// What the agent was told and asked.
#[derive(Debug, Default)]
pub struct Heard {
    /// Each hello.
    pub hellos: Vec<GatewayHello>,
    /// Each acknowledgement.
    pub acks: Vec<Ack>,
    /// For whom certificates were signed.
    pub signed: Vec<SpiffeId>,
    /// Each report.
    pub statuses: Vec<GatewayStatus>,
    /// Reports that were longer than it takes.
    pub too_long: usize,
}

struct Inner {
    cluster: Cluster,
    publisher: Mutex<Publisher<GatewayResource>>,
    newest: watch::Sender<Generation>,
    heard: Mutex<Heard>,
    /// How long a certificate lives.
    life: Mutex<Duration>,
    refuses: Mutex<BTreeSet<SpiffeId>>,
    protocol: Mutex<ProtocolVersion>,
    /// The longest report that it takes, in bytes.
    longest: Mutex<usize>,
}

/// The agent of a cluster. Its state outlives its socket, so it can go and come back.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

/// The listening socket; dropping it is the agent's death.
pub struct Listening {
    _accepting: AbortOnDropHandle<()>,
    path: PathBuf,
}
impl Drop for Listening {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Agent {
    /// The agent of this cluster, without a state yet.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self(Arc::new(Inner {
            cluster,
            publisher: Mutex::new(Publisher::new(16)),
            newest: watch::Sender::new(Generation::ZERO),
            heard: Mutex::default(),
            life: Mutex::new(Duration::from_secs(86_400)),
            refuses: Mutex::default(),
            protocol: Mutex::new(ProtocolVersion::CURRENT),
            longest: Mutex::new(usize::MAX),
        }))
    }

    /// Listens at this path.
    ///
    /// # Panics
    /// When it can't.
    #[must_use]
    pub fn listen(&self, path: &Path) -> Listening {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("a fake agent works");
        let agent = self.clone();
        let accepting =
            task::spawn("fake agent", async move {
                let mut open = Vec::new();
                while let Ok((io, _)) = listener.accept().await {
                    let agent = agent.clone();
                    // with the listener they die
                    open.push(AbortOnDropHandle::new(task::spawn("fake agent connection", async move {
                        let Ok(mut connection) = h2::server::handshake(io).await else { return };
                        let mut streams = Vec::new();
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            let agent = agent.clone();
                            let served = task::spawn("fake agent request", async move {
                                agent.serve(request, respond).await
                            });
                            streams.push(AbortOnDropHandle::new(served));
                        }
                    })));
                }
            });
        Listening { _accepting: AbortOnDropHandle::new(accepting), path: path.to_owned() }
    }

    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }
    /// Publishes a whole state to every gateway.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn publish(&self, generation: u64, resources: impl IntoIterator<Item = GatewayResource>) {
        let generation = Generation::new(generation);
        let resources: Resources<_> = resources.into_iter().map(|r| (r.key(), r)).collect();
        self.0.publisher.lock().expect("a fake agent works").publish(generation, resources);
        self.0.newest.send_replace(generation);
    }
    /// How long the certificates live that it signs from now on.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn certificates_live(&self, life: Duration) {
        *self.0.life.lock().expect("a fake agent works") = life;
    }
    /// Whether it refuses certificates of this identity.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn refuse(&self, id: &SpiffeId, refuse: bool) {
        let mut refuses = self.0.refuses.lock().expect("a fake agent works");
        if refuse {
            refuses.insert(id.clone())
        } else {
            refuses.remove(id)
        };
    }
    /// The protocol it speaks from now on.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn speak(&self, protocol: ProtocolVersion) {
        *self.0.protocol.lock().expect("a fake agent works") = protocol;
    }
    /// The longest report that it takes from now on, in bytes.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn take_at_most(&self, longest: usize) {
        *self.0.longest.lock().expect("a fake agent works") = longest;
    }
    /// Looks at what it was told and asked.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn heard<T>(&self, look: impl Fn(&Heard) -> T) -> T {
        look(&self.0.heard.lock().expect("a fake agent works"))
    }

    async fn serve(&self, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
        let (head, body) = request.into_parts();
        assert!(head.headers.contains_key("tombolo-protocol"), "{head:?}");
        let query = head.uri.query().unwrap_or_default().to_owned();
        match (head.method, head.uri.path()) {
            (Method::POST, "/gateway/v1/hello") => {
                let hello: GatewayHello = read(body).await;
                let id = self.0.cluster.intermediate.id().clone();
                self.0.heard.lock().expect("a fake agent works").hellos.push(hello);
                let protocol = *self.0.protocol.lock().expect("a fake agent works");
                let hello = Hello { protocol, ..Hello::current("tombolo-agent") };
                answer(
                    respond,
                    &GatewayWelcome {
                        hello,
                        cluster: id.cluster.clone(),
                        trust_domain: id.trust_domain.clone(),
                    },
                );
            }
            (Method::GET, "/gateway/v1/feed") => {
                assert!(query.starts_with("instance="), "{query}");
                let response = Response::builder().status(200).body(()).expect("a fake agent works");
                let stream = respond.send_response(response, false).expect("a fake agent works");
                self.feed(stream, resume(&query)).await;
            }
            (Method::POST, "/gateway/v1/ack") => {
                let ack = read(body).await;
                self.0.heard.lock().expect("a fake agent works").acks.push(ack);
                answer(respond, &());
            }
            (Method::POST, "/gateway/v1/certificate") => {
                let request: LeafRequest = read(body).await;
                if self.0.refuses.lock().expect("a fake agent works").contains(&request.identity) {
                    return refuse(respond, StatusCode::FORBIDDEN, "not for you");
                }
                self.0.heard.lock().expect("a fake agent works").signed.push(request.identity.clone());
                let now = SystemClock.now();
                let life = *self.0.life.lock().expect("a fake agent works");
                let validity = Validity { not_before: now, not_after: now + life };
                let chain = self
                    .0
                    .cluster
                    .intermediate
                    .sign_leaf(&request.csr, &request.identity, validity)
                    .expect("a fake agent works");
                let end =
                    validity.not_after.duration_since(SystemTime::UNIX_EPOCH).expect("a fake agent works");
                answer(
                    respond,
                    &LeafResponse {
                        chain,
                        not_after_s: i64::try_from(end.as_secs()).expect("a fake agent works"),
                    },
                );
            }
            (Method::POST, "/gateway/v1/status") => {
                let text = read_all(body).await;
                if text.len() > *self.0.longest.lock().expect("a fake agent works") {
                    self.0.heard.lock().expect("a fake agent works").too_long += 1;
                    return refuse(respond, StatusCode::PAYLOAD_TOO_LARGE, "too long");
                }
                let status = serde_json::from_slice(&text).expect("a fake agent works");
                self.0.heard.lock().expect("a fake agent works").statuses.push(status);
                answer(respond, &());
            }
            other => panic!("asked for {other:?}"),
        }
    }

    async fn feed(&self, mut stream: SendStream<Bytes>, resume: Option<(Generation, Digest)>) {
        let mut newest = self.0.newest.subscribe();
        let mut send = |line: &FeedLine<GatewayResource>| {
            stream.send_data(encode_line(line).expect("a fake agent works").into(), false)
        };
        newest.borrow_and_update();
        let (opening, mut sent) = {
            let publisher = self.0.publisher.lock().expect("a fake agent works");
            (publisher.open(resume), publisher.generation())
        };
        let _ = send(&FeedLine::Hello(Hello::current("tombolo-agent")));
        for line in opening {
            let _ = send(&line);
        }
        loop {
            let changed = tokio::time::timeout(Duration::from_secs(1), newest.changed()).await;
            let line = {
                let publisher = self.0.publisher.lock().expect("a fake agent works");
                let line = match changed {
                    Ok(_) => publisher.since(sent).unwrap_or_else(|| publisher.beat(sent)),
                    Err(_) => publisher.beat(sent),
                };
                sent = publisher.generation();
                line
            };
            if send(&line).is_err() {
                return;
            }
        }
    }
}

fn resume(query: &str) -> Option<(Generation, Digest)> {
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
    Some((Generation::new(value("generation=")?.parse().ok()?), Digest(value("digest=")?.to_owned())))
}

async fn read<T: DeserializeOwned>(body: h2::RecvStream) -> T {
    serde_json::from_slice(&read_all(body).await).expect("a fake agent works")
}

async fn read_all(mut body: h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.expect("a fake agent works");
        body.flow_control().release_capacity(chunk.len()).expect("a fake agent works");
        all.extend_from_slice(&chunk);
    }
    all
}

fn answer<T: Serialize>(respond: SendResponse<Bytes>, body: &T) {
    send(respond, StatusCode::OK, serde_json::to_vec(body).expect("a fake agent works"));
}

fn refuse(respond: SendResponse<Bytes>, status: StatusCode, detail: &str) {
    let problem =
        ProblemDetails { status: status.as_u16(), detail: detail.to_owned(), ..ProblemDetails::default() };
    send(respond, status, serde_json::to_vec(&problem).expect("a fake agent works"));
}

fn send(mut respond: SendResponse<Bytes>, status: StatusCode, body: Vec<u8>) {
    let response = Response::builder().status(status).body(()).expect("a fake agent works");
    // the asker may be gone
    if let Ok(mut stream) = respond.send_response(response, false) {
        let _ = stream.send_data(body.into(), true);
    }
}
