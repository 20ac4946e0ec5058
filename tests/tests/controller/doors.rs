//! Who gets in at the listener: strangers keep nobody out, and nothing is read of them before they are known.

use crate::support::{SOON, Site, database, problem};
use bytes::Bytes;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tombolo_controller::config::Limits;
use tombolo_feed::{Connector as _, TlsConnector, post_once};
use tombolo_testkit::wait;
use tombolo_wire::problem::ProblemDetails;

/// Far longer than a test.
const LONG: Duration = Duration::from_secs(3600);

/// Until the controller closes it.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut bytes = Vec::new();
    // a reset is an end too
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "it is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_take_half_of_the_places() {
    let (database, folder) = (database().await, tempfile::tempdir().unwrap());
    let limits = Limits { connections: 32, per_source: 100, idle: LONG };
    let site = Site::start_with(&database, folder.path(), |config| config.limits = limits).await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    let stranger = site.connector(None);
    // as many as there are places for them; those of the calls before may not be gone yet
    let mut held = Vec::new();
    let answered = |stream| async {
        let (mut send, connection) = h2::client::handshake(stream).await.ok()?;
        let running = tombolo_runtime::task::spawn("stranger", async move { drop(connection.await) });
        let request = http::Request::get("https://localhost/api/v1/version").body(()).unwrap();
        let (answer, _) = send.send_request(request, true).ok()?;
        answer.await.ok().map(|_| (send, running))
    };
    while let Some(open) = answered(stranger.connect().await.unwrap()).await {
        held.push(open);
        assert!(held.len() <= 12, "32 places, of which 4 are for handshakes");
    }
    // an agent finds a place all the same
    agent.say(&site, &[]).await.unwrap();
    let feed = agent.feed(&site);
    feed.until("its state", |state| state.generation.get() > 0).await;
    // and where strangers leave, others come in
    held.clear();
    let again = || async { answered(stranger.connect().await.ok()?).await.map(drop) };
    wait::until("a place for a stranger", SOON, again, Option::is_some).await;
    drop(feed);
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_its_share_and_silence_ends() {
    let (database, folder) = (database().await, tempfile::tempdir().unwrap());
    let limits = Limits { connections: 8192, per_source: 3, idle: LONG };
    let site = Site::start_with(&database, folder.path(), |config| config.limits = limits).await;
    let stranger: TlsConnector = site.connector(None);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(stranger.connect().await.unwrap());
    }
    // the handshake may be over before the controller closes it
    if let Ok(stream) = stranger.connect().await {
        closed(stream).await;
    }
    site.bound.drain().await;

    let limits = Limits { connections: 8192, per_source: 3, idle: Duration::from_millis(100) };
    let site = Site::start_with(&database, folder.path(), |config| config.limits = limits).await;
    closed(site.connector(None).connect().await.unwrap()).await;
    // one that speaks HTTP/2, and asks nothing
    let stream = site.connector(None).connect().await.unwrap();
    if let Ok((_send, connection)) = h2::client::handshake(stream).await {
        let ended = tokio::time::timeout(SOON, connection).await;
        assert!(ended.is_ok(), "it is still open");
    }
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiners_body_is_read_once_its_token_looks_like_one() {
    let (database, folder) = (database().await, tempfile::tempdir().unwrap());
    let site = Site::start(&database, folder.path()).await;
    let stream = site.connector(None).connect().await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let running = tombolo_runtime::task::spawn("stranger", async move { drop(connection.await) });
    let join = |token: &str| {
        http::Request::post("https://localhost/agent/v1/join")
            .header("tombolo-protocol", "1.0")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap()
    };
    // the body never ends, and the answer is there
    let (answer, _body) = send.send_request(join("tmj_wrong"), false).unwrap();
    let answer = tokio::time::timeout(SOON, answer).await.expect("answered at once").unwrap();
    assert_eq!(answer.status(), 401);
    // one that could be a token may send a join, and no more than that
    let token = format!("tmj_{}", "A".repeat(43));
    let (answer, mut body) = send.send_request(join(&token), false).unwrap();
    body.send_data(Bytes::from(vec![b' '; 70_000]), false).unwrap();
    let answer = tokio::time::timeout(SOON, answer).await.expect("answered before the end").unwrap();
    assert_eq!(answer.status(), 413);
    running.abort();

    // sixty tries at once, well-formed or not
    let mut last = String::new();
    for _ in 0..60 {
        let answer =
            post_once::<_, _, ()>(&site.connector(None), "/agent/v1/join", Some("tmj_wrong"), &json!({}))
                .await;
        last = problem(answer);
        if last == "rate-limited" {
            break;
        }
    }
    assert_eq!(last, "rate-limited");
    let refused: Result<(), _> =
        post_once(&site.connector(None), "/agent/v1/join", Some(&token), &ProblemDetails::default()).await;
    assert_eq!(problem(refused), "rate-limited");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_takes_nothing_is_let_go_and_what_is_refused_is_counted() {
    let (database, folder) = (database().await, tempfile::tempdir().unwrap());
    let limits = Limits { connections: 32, per_source: 100, idle: Duration::from_millis(500) };
    let site = Site::start_with(&database, folder.path(), |config| {
        config.limits = limits;
        config.admin = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    let (mut send, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, Bytes>(site.connector(None).connect().await.unwrap())
        .await
        .unwrap();
    let running = tombolo_runtime::task::spawn("stranger", async move { drop(connection.await) });
    let request = http::Request::get("https://localhost/api/v1/openapi.json").body(()).unwrap();
    let (answer, _) = send.send_request(request, true).unwrap();
    let answer = answer.await.unwrap();
    tokio::time::timeout(SOON, running).await.expect("it is still open").unwrap();
    drop(answer);

    assert_eq!(site.call("tmb_wrong", "GET", "/whoami", None).await.0, 401);
    let url = format!("http://{}/metrics", site.bound.admin.unwrap());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    for line in [
        "tombolo_controller_connections_stalled_total 1",
        "tombolo_controller_requests_refused_total{reason=\"unauthenticated\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    site.bound.drain().await;
}
