//! Following changes.

use super::Controller;
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::time::Duration;
use tower::ServiceExt as _;

/// An open stream of events.
struct Stream {
    body: axum::body::Body,
    text: String,
}

impl Stream {
    async fn open(controller: &Controller, token: &str, last: Option<u64>) -> Self {
        Self::of("acme", controller, token, last).await
    }

    async fn of(org: &str, controller: &Controller, token: &str, last: Option<u64>) -> Self {
        let mut request = axum::http::Request::get(format!("/api/v1/organizations/{org}/events"))
            .header("authorization", format!("Bearer {token}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = controller.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event: its name, id and data. `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Option<u64>, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .map(str::to_owned)
                };
                // a comment keeps the connection alive
                let Some(name) = field("event") else { continue };
                let id = field("id").map(|id| id.parse().unwrap());
                return Some((name, id, serde_json::from_str(&field("data").unwrap()).unwrap()));
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame()).await.unwrap();
            let frame = frame?.unwrap();
            self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn a_follower_sees_a_change_and_no_other_tenants() {
    let controller = Controller::start().await;
    let driver = controller.reconcile().await;
    let admin = controller.organization("acme").await;
    let other = controller.organization("other").await;
    let mut stream = Stream::open(&controller, &admin, None).await;
    assert_eq!(stream.next().await.unwrap().0, "hello");
    controller.cluster(&other, "other", "not-for-you").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let (name, id, data) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), id), ("audit", Some(4)));
    assert_eq!((&data["action"], &data["subject"]["name"]), (&"cluster.create".into(), &"cluster-1".into()));
    drop(stream);
    driver.stop().await;
}

#[tokio::test]
async fn a_follower_that_comes_back_misses_nothing() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    for name in ["a", "b", "c"] {
        controller.cluster(&admin, "acme", name).await;
    }
    // generations: 2 the organization, 3 the token, 4 to 6 the clusters
    let mut stream = Stream::open(&controller, &admin, Some(4)).await;
    assert_eq!(stream.next().await.unwrap().1, Some(4));
    for (name, generation) in [("b", 5), ("c", 6)] {
        let (kind, id, data) = stream.next().await.unwrap();
        assert_eq!((kind.as_str(), id, &data["subject"]["name"]), ("audit", Some(generation), &name.into()));
    }
    // a number that was never given out is no place to go on from
    let mut stream = Stream::open(&controller, &admin, Some(99)).await;
    assert_eq!(stream.next().await.unwrap().1, Some(6));
    assert_eq!(stream.next().await.unwrap().0, "reset");
}

#[tokio::test]
async fn followers_are_shared_out_by_organization() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let other = controller.organization("other").await;
    let mut all = Vec::new();
    for (org, token) in [
        ("acme", &admin),
        ("acme", &admin),
        ("acme", &admin),
        ("acme", &admin),
        ("other", &other),
        ("other", &other),
    ] {
        let mut stream = Stream::of(org, &controller, token, None).await;
        assert_eq!(stream.next().await.unwrap().0, "hello");
        all.push(stream);
    }
    for (org, token) in [("acme", &admin), ("other", &other)] {
        controller.cluster(token, org, "cluster-1").await;
    }
    let mut heard = Vec::new();
    for mut stream in all {
        heard.push(stream.next().await.map(|(kind, ..)| kind));
    }
    // the fourth took the first one's place; then, where all were taken, the second of the other organization the next
    let audit = Some("audit".to_owned());
    assert_eq!(heard, [None, None, audit.clone(), audit.clone(), audit.clone(), audit]);
}

#[tokio::test]
async fn a_follower_too_far_behind_reads_anew() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.database.sql(
        "INSERT INTO audit_events (id, org_id, at, actor_kind, actor_id, actor_name, action, subject_kind,
                                   subject_name, difference, generation)
         SELECT gen_random_uuid(), id, now(), 'system', 's', 's', 'x', 'x', 'x', '[]', n
         FROM organizations, generate_series(4, 1100) AS n;
         UPDATE organizations SET generation = 1100",
    );
    let mut stream = Stream::open(&controller, &admin, Some(3)).await;
    assert_eq!(stream.next().await.unwrap().0, "hello");
    let (kind, id, _) = stream.next().await.unwrap();
    assert_eq!((kind.as_str(), id), ("reset", Some(1100)));
}

#[tokio::test]
async fn a_restored_database_is_read_anew() {
    let controller = Controller::start().await;
    let driver = controller.reconcile().await;
    let admin = controller.organization("acme").await;
    let mut stream = Stream::open(&controller, &admin, None).await;
    assert_eq!(stream.next().await.unwrap().0, "hello");
    controller.cluster(&admin, "acme", "cluster-1").await;
    assert_eq!(stream.next().await.unwrap().0, "audit");
    controller.database.sql(
        "UPDATE organizations SET generation = generation - 2, commit_id = gen_random_uuid();
         SELECT pg_notify('tombolo_changes', id::text) FROM organizations",
    );
    let (kind, id, _) = stream.next().await.unwrap();
    assert_eq!((kind.as_str(), id), ("reset", Some(1 << 40)));
    controller.cluster(&admin, "acme", "cluster-2").await;
    assert_eq!(stream.next().await.unwrap().1, Some((1 << 40) + 1));
    driver.stop().await;
    // and a place from before is no place to go on from
    let mut stream = Stream::open(&controller, &admin, Some(4)).await;
    assert_eq!(stream.next().await.unwrap().0, "hello");
    assert_eq!(stream.next().await.unwrap().0, "reset");
}

#[tokio::test]
async fn the_stream_ends_with_its_token() {
    let controller = Controller::start().await;
    let driver = controller.reconcile().await;
    let admin = controller.organization("acme").await;
    let token = controller.token("acme", "follower", "viewer").await;
    let mut stream = Stream::open(&controller, &token, None).await;
    assert_eq!(stream.next().await.unwrap().0, "hello");
    let path = "/organizations/acme/tokens/follower";
    controller.call("DELETE", path).token(&admin).send().await.expect(204);
    assert_eq!(stream.next().await, None);
    driver.stop().await;
}

#[tokio::test]
async fn the_stream_ends_with_the_process() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let mut stream = Stream::open(&controller, &admin, None).await;
    assert_eq!(stream.next().await.unwrap().0, "hello");
    controller.drain.start();
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_follower_sees_a_cluster_become_another() {
    let controller = Controller::start().await;
    let driver = controller.reconcile().await;
    let admin = controller.organization("acme").await;
    let made = controller.cluster(&admin, "acme", "cluster-1").await;
    let mut stream = Stream::open(&controller, &admin, None).await;
    assert_eq!(stream.next().await.unwrap().0, "hello");
    // the first reading is what is compared with: that of this event, or one before it
    controller.gns(&admin, "acme", "acme", "acme.example.com").await;
    assert_eq!(stream.next().await.unwrap().0, "audit");
    let body = serde_json::json!({ "name": "cluster-2" });
    controller.post(&admin, "/organizations/acme/clusters", &body).await.expect(201);
    assert_eq!(stream.next().await.unwrap().0, "audit");
    let (kind, id, data) = stream.next().await.unwrap();
    assert_eq!((kind.as_str(), id, &data["name"]), ("cluster", None, &"cluster-2".into()));
    // no hint says that an agent joined: it is seen by looking again
    super::clusters::join(&controller, made["id"].as_str().unwrap());
    let (kind, id, data) = stream.next().await.unwrap();
    assert_eq!((kind.as_str(), id), ("cluster", None));
    assert_eq!((&data["name"], &data["state"]), (&"cluster-1".into(), &"disconnected".into()));
    controller.database.sql(
        r#"INSERT INTO cluster_status (org_id, cluster_id, install) SELECT org_id, id,
              '{"revision": 1, "steps": [{"step": "egress", "state": "working", "message": "1 of 2 ready"}]}'
           FROM clusters WHERE name = 'cluster-1';
           SELECT pg_notify('tombolo_status', org_id::text) FROM clusters LIMIT 1"#,
    );
    let (kind, id, data) = stream.next().await.unwrap();
    assert_eq!((kind.as_str(), id, &data["cluster"]), ("install", None, &"cluster-1".into()));
    assert_eq!(data["install"]["steps"][0]["message"], "1 of 2 ready");
    drop(stream);
    driver.stop().await;
}
