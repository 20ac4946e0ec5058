//! Small requests on the feed's connection.

use crate::sender::{RETRY_AFTER, Running, Sender, options};
use futures::FutureExt;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tombolo_feed::{RequestError, Requests, UnixConnector, post_once};

#[tokio::test(start_paused = true)]
async fn answers_and_refusals() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let running = Running::start(&sender.socket, options());
    let requests = running.client.requests();

    sender.answer("/sum?of=2", 200, r#"{"sum":3}"#);
    let answer: Value = requests.post("/sum?of=2", &json!([1, 2])).await.unwrap();
    assert_eq!(answer, json!({"sum": 3}));
    let post = sender.post().await;
    assert_eq!((post.path.as_str(), post.body, post.bearer), ("/sum?of=2", json!([1, 2]), None));
    requests.post::<_, ()>("/status", &json!({})).await.unwrap();

    let problem =
        json!({"type": "about:blank", "title": "Conflict", "status": 409, "detail": "send it whole"});
    sender.answer("/inventory", 409, problem.to_string());
    let error = requests.post::<_, Value>("/inventory", &()).await.unwrap_err();
    assert_eq!(error.to_string(), "refused with status 409: send it whole");
    assert_eq!((error.status().unwrap().as_u16(), error.retry()), (409, false));
    assert_eq!(error.wait(Duration::from_secs(1)), Duration::from_secs(1));
    sender.answer("/busy", 503, "<html>");
    let error = requests.post::<_, Value>("/busy", &()).await.unwrap_err();
    assert_eq!(error.to_string(), "refused with status 503: Service Unavailable");
    assert!(error.retry());
    assert_eq!(error.wait(Duration::from_secs(1)), RETRY_AFTER, "as it was told");
    assert_eq!(error.wait(RETRY_AFTER * 2), RETRY_AFTER * 2, "or later");

    sender.answer("/odd", 200, "odd");
    assert!(matches!(requests.post::<_, Value>("/odd", &()).await, Err(RequestError::Json { .. })));
    sender.answer("/long", 200, "x".repeat(tombolo_feed::request::MAX_ANSWER + 1));
    assert!(matches!(requests.post::<_, Value>("/long", &()).await, Err(RequestError::TooLong { .. })));
    let error = requests.post::<_, Value>("/no path", &()).await.unwrap_err();
    assert!(matches!(error, RequestError::Request(_)));
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_connection_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&folder.path().join("agent.sock"), options());
    let requests = running.client.requests();
    let began = Instant::now();
    let error = requests.post::<_, ()>("/status", &()).await.unwrap_err();
    assert!(matches!(error, RequestError::Timeout { .. }) && error.retry());
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    let asked = requests.post::<_, ()>("/status", &());
    let mut sender = Sender::listen(folder.path());
    let (answer, post) = tokio::join!(asked, sender.post());
    answer.unwrap();
    assert_eq!(post.path, "/status");
    drop(running);
    assert!(matches!(
        requests.post::<_, ()>("/status", &()).await,
        Err(RequestError::Ended | RequestError::Timeout { .. } | RequestError::Connection(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn says_hello_on_each_connection_before_it_asks() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let mut options = options();
    options.on_connect = Some(Arc::new(|requests: Requests| {
        async move { requests.post::<_, ()>("/hello", &json!({"role": "egress"})).await }.boxed()
    }));
    sender.answer("/hello", 403, json!({"title": "Forbidden", "detail": "not your socket"}).to_string());
    let running = Running::start(&sender.socket, options);
    for _ in 0..2 {
        assert_eq!(sender.post().await.path, "/hello");
    }
    assert!(sender.calls.try_recv().is_err(), "no feed without a welcome");
    let status = running.until(|status| status.error.is_some()).await;
    assert_eq!(status.error.unwrap(), "the feed was refused: refused with status 403: not your socket");
    sender.answer("/hello", 204, "");
    sender.call().await;
    while sender.posts.try_recv().is_ok() {}
    sender.cut();
    assert_eq!(sender.post().await.path, "/hello");
    sender.call().await;
}

#[tokio::test(start_paused = true)]
async fn one_request_on_a_connection_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    sender.answer("/join", 200, r#""welcome""#);
    let connector = UnixConnector::new(&sender.socket);
    let answer: String =
        post_once(&connector, "/join", Some("tmj_secret"), &json!({"cluster": "c"})).await.unwrap();
    assert_eq!(answer, "welcome");
    let post = sender.post().await;
    assert_eq!(post.bearer.as_deref(), Some("Bearer tmj_secret"));
    let error = post_once::<_, _, String>(&connector, "/join", Some("with\nline"), &()).await.unwrap_err();
    assert!(!format!("{error:?}").contains("with"), "a token is in no error");
    let nobody = UnixConnector::new(folder.path().join("nobody"));
    let error = post_once::<_, _, String>(&nobody, "/join", None, &()).await.unwrap_err();
    assert!(matches!(error, RequestError::Connect(_)));
}

/// Whoever holds the socket is told everything: it must be the agent's user.
#[tokio::test(start_paused = true)]
async fn a_socket_of_somebody_else_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let sender = Sender::listen(folder.path());
    sender.answer("/join", 200, r#""welcome""#);
    let me = nix::unistd::geteuid().as_raw();
    let stranger = UnixConnector::held_by(&sender.socket, [me + 1]);
    let error = post_once::<_, _, String>(&stranger, "/join", None, &()).await.unwrap_err();
    let RequestError::Connect(error) = error else { unreachable!("{error:?}") };
    let text = error.to_string();
    assert!(text.contains(&format!("held by user {me}, not by {}", me + 1)), "{text}");
    let known = stranger.or_held_by(Some(me));
    let answer: String = post_once(&known, "/join", None, &()).await.unwrap();
    assert_eq!(answer, "welcome");
}
