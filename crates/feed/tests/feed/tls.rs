//! Over TLS with a pinned authority, as from an agent to the controller.

use crate::sender::{self, options, peers};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tombolo_feed::{Client, TlsConnector};
use tombolo_model::{Generation, TrustDomain, snapshot::ClusterResource};
use tombolo_mtls::{
    BundleLookup, LiveServerCertificate, ServerAuthority, TrustBundle, Validity, accept_optional,
    optional_server_config, pinned_client_config,
};
use tombolo_runtime::{
    clock::{Clock, SystemClock},
    task,
};
use tombolo_wire::session::Publisher;

#[derive(Debug)]
struct Nobody;
impl BundleLookup for Nobody {
    fn bundle(&self, _: &TrustDomain) -> Option<Arc<TrustBundle>> {
        None
    }
}

#[tokio::test]
async fn follows_over_tls_and_only_whom_it_knows() {
    let now = SystemClock.now();
    let validity = Validity { not_before: now, not_after: now + Duration::from_secs(3600) };
    let authority = ServerAuthority::create(validity).unwrap();
    let (chain, key) = authority.issue(&["localhost".to_owned()], validity).unwrap();
    let live = LiveServerCertificate::new(&chain, &key).unwrap();
    let config = optional_server_config(Arc::new(Nobody), Arc::new(live), &[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (calls_in, mut calls) = mpsc::channel(16);
    let (posts_in, mut posts) = mpsc::channel(16);
    let accepting = task::spawn("accept", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok((io, _)) = accept_optional(tcp, config.clone()).await else { continue };
            task::spawn("connection", sender::serve(io, calls_in.clone(), posts_in.clone(), Arc::default()));
        }
    });

    let connect =
        |pin| TlsConnector::new("localhost", port, pinned_client_config(pin, None, &[b"h2"])).unwrap();
    let (client, running) = Client::<ClusterResource>::build(connect(authority.fingerprint()), options());
    let running = task::spawn("feed", running.run());
    let wait = Duration::from_secs(30);
    let mut publisher = Publisher::new(8);
    publisher.publish(Generation::new(1), peers(&[1, 2]));
    let mut call = timeout(wait, calls.recv()).await.unwrap().unwrap();
    call.say(publisher.open(None));
    let mut states = client.state();
    let state = timeout(wait, states.wait_for(|state| state.generation == Generation::new(1)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*state.resources, peers(&[1, 2]));
    assert_eq!(timeout(wait, posts.recv()).await.unwrap().unwrap().path, "/ack");

    let (stranger, other) = Client::<ClusterResource>::build(connect([7; 32]), options());
    let other = task::spawn("feed", other.run());
    let mut status = stranger.status();
    let status = timeout(wait, status.wait_for(|status| status.failures > 1)).await.unwrap().unwrap().clone();
    let error = status.error.unwrap();
    assert!(error.contains("TLS handshake"), "{error}");
    for task in [running, other, accepting] {
        task.abort();
    }
}

#[test]
fn hosts() {
    let config = || pinned_client_config([0; 32], None, &[b"h2"]);
    for (host, good) in [
        ("controller.example.com", true),
        ("127.0.0.1", true),
        ("::1", true),
        ("[::1]", true),
        ("a b", false),
        ("", false),
    ] {
        assert_eq!(TlsConnector::new(host, 1, config()).is_ok(), good, "{host}");
    }
}
