//! The true port, and those who hold on to it.

use super::*;
use crate::{capture::Chosen, certificate::Authority, index::Index};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tombolo_mtls::{connect_pinned, pinned_client_config};
use tombolo_runtime::{clock::SystemClock, drain};
use tombolo_testkit::ca::Organization;

trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

struct Lab {
    address: SocketAddr,
    pin: [u8; 32],
    _drain: drain::Drain,
}

impl Lab {
    async fn start() -> Self {
        let mut organization = Organization::new("acme.internal");
        let clock: Arc<SystemClock> = Arc::new(SystemClock);
        let authority = Arc::new(Authority::new(organization.join("c1").intermediate, clock.clone()));
        let own = "tombolo-system".parse().unwrap();
        let certificate = HttpsCertificate::start(&own, authority, clock).unwrap();
        let knowledge = Knowledge {
            settings: watch::channel(None).1,
            view: watch::channel(Arc::new(Index::default().view())).1,
            asked: watch::channel(Some(Arc::new(Asked { chosen: Chosen::default(), webhook: None }))).1,
        };
        let metrics = Metrics::new("test");
        let listen = "127.0.0.1:0".parse().unwrap();
        let webhook = Webhook::bind(listen, &certificate, knowledge, &metrics).await.unwrap();
        let (address, pin) = (webhook.address(), certificate.live().fingerprint());
        let (drain, stop) = drain::channel();
        task::spawn("webhook", webhook.run(stop));
        Self { address, pin, _drain: drain }
    }

    /// A connection from this loopback address.
    async fn from(&self, source: &str) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Asks with a body that says to have this many bytes, of which these come.
    async fn ask(&self, source: &str, length: usize, body: &[u8]) -> Box<dyn Io> {
        let config = pinned_client_config(self.pin, None, &[b"http/1.1"]);
        let name = ServerName::try_from("tombolo-agent.tombolo-system.svc").unwrap();
        let mut stream = connect_pinned(self.from(source).await, config, name).await.unwrap();
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        Box::new(stream)
    }

    /// The status of the answer to a question about a pod.
    async fn status(&self, source: &str) -> String {
        let question = br#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u","kind":{"kind":"Pod"},"namespace":"shop","object":{}}}"#;
        let mut stream = self.ask(source, question.len(), question).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    }
}

#[tokio::test]
async fn bodies_that_do_not_come_keep_the_api_server_waiting_for_nothing() {
    let lab = Lab::start().await;
    assert_eq!(lab.status("127.0.0.2").await, "200");
    let mut held = Vec::new();
    for hog in 0..3 {
        for _ in 0..BODIES.bodies.each {
            held.push(lab.ask(&format!("127.0.1.{hog}"), MAX_BODY, b"{").await);
        }
    }
    // before theirs would have to be there
    let status = timeout(BODY / 2, lab.status("127.0.0.2")).await;
    assert_eq!(status.as_deref(), Ok("200"));
    let mut answer = [0; 12];
    held[0].read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer[9..], b"503", "they have their time, and no more");
    let mut too_long = lab.ask("127.0.0.2", MAX_BODY + 1, b"").await;
    too_long.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer[9..], b"413");
}

#[tokio::test]
async fn connections_that_say_nothing_keep_the_api_server_out_for_no_moment() {
    tombolo_runtime::limits::prepare();
    let lab = Lab::start().await;
    let mut held = Vec::new();
    for _ in 0..PLACES.all {
        held.push(lab.from("127.0.1.1").await);
    }
    // neither from elsewhere nor, as behind one node's address, from there
    assert_eq!(lab.status("127.0.0.2").await, "200");
    assert_eq!(lab.status("127.0.1.1").await, "200");
}
