//! What is installed in a cluster: asked for by version, taken out, and gone back to. And the manifest of the agent.

use super::Controller;
use crate::http::problem::Problem;
use axum::{body::Body, http::Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const PATH: &str = "/organizations/acme/clusters/cluster-1/install";

async fn put(controller: &Controller, admin: &str, tag: &str, body: &Value) -> super::Answered {
    controller.call("PUT", PATH).token(admin).header("if-match", tag).json(body).send().await
}

#[tokio::test]
async fn an_installation_is_asked_for_changed_and_taken_out() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    controller.get(&admin, PATH).await.problem(404, "not-found");
    put(&controller, &admin, "\"3\"", &json!({})).await.problem(412, "precondition-failed");
    let first = put(&controller, &admin, "\"0\"", &json!({})).await;
    assert_eq!(first.header("etag"), "\"1\"");
    let first = first.expect(200);
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(first["registry"], "registry.example.com/tombolo");
    assert_eq!(first["namespaces"], json!({ "exclude": [] }));
    assert_eq!(first["gateways"]["egress"], json!({ "replicas": 2, "min": 2, "max": 6 }));
    assert_eq!(first["gateways"]["ingress"]["exposure"], json!([{ "type": "load_balancer" }]));
    assert_eq!(first.get("before"), None);

    let ways = json!([{ "type": "node_port", "port": 31443 }, { "type": "host_network" },
                      { "type": "address", "addresses": ["gw.example.com:443"] }]);
    let egress = json!({ "never_dial": ["fd00:1::/64", "10.244.7.0/16", "10.244.0.0/16"] });
    let body = json!({ "version": "0.1.0-rc1", "namespaces": { "include": ["shop"] },
                       "gateways": { "ingress": { "exposure": ways }, "egress": egress }, "dns": { "corefile": false } });
    let second = put(&controller, &admin, "\"1\"", &body).await.expect(200);
    assert_eq!(second["gateways"]["egress"]["never_dial"], json!(["10.244.0.0/16", "fd00:1::/64"]));
    assert_eq!(second["gateways"]["ingress"]["exposure"], ways);
    assert_eq!(second["gateways"]["ingress"]["replicas"], 2);
    assert_eq!(second["before"]["version"], first["version"], "what to go back to");
    let read = controller.get(&admin, PATH).await;
    assert!(read.header("etag").starts_with("\"2."));
    assert_eq!(read.expect(200), second);

    // what was read can be written back as it is, without what is not asked for
    let back = put(&controller, &admin, "*", &second["before"]).await.expect(200);
    assert_eq!(back["revision"], 3);
    assert_eq!(back["before"]["version"], "0.1.0-rc1");

    let delete =
        async |tag: &str| controller.call("DELETE", PATH).token(&admin).header("if-match", tag).send().await;
    delete("\"2\"").await.problem(412, "precondition-failed");
    delete("\"3\"").await.expect(204);
    delete("*").await.expect(204);
    controller.get(&admin, PATH).await.problem(404, "not-found");
    // it is told, not forgotten: the agent must hear of it
    let told = controller.database.sql("SELECT install FROM clusters");
    assert!(told.contains("removed") && told.contains('4'), "{told}");
    let again = put(&controller, &admin, "\"4\"", &json!({})).await.expect(200);
    assert_eq!(again["revision"], 5, "orders only rise");
    let log = controller.database.sql("SELECT action FROM audit_events");
    assert_eq!((log.matches("cluster.install").count(), log.matches("cluster.uninstall").count()), (4, 1));
}

#[tokio::test]
async fn what_was_never_ordered_can_be_taken_out() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let delete =
        async |tag: &str| controller.call("DELETE", PATH).token(&admin).header("if-match", tag).send().await;
    delete("\"1\"").await.problem(412, "precondition-failed");
    delete("*").await.expect(204);
    let told = || controller.database.sql("SELECT install->>'state', install->>'revision' FROM clusters");
    assert_eq!(told().trim(), "removed|1");
    delete("*").await.expect(204);
    assert_eq!(told().trim(), "removed|1", "again is the same");
    let after = put(&controller, &admin, "*", &json!({ "version": "one" })).await.expect(200);
    assert_eq!((&after["revision"], after.get("before")), (&json!(2), None));
}

#[tokio::test]
async fn another_registry_is_for_admins_to_choose() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let body = json!({ "name": "ci", "role": "editor" });
    let token = controller.post(&admin, "/organizations/acme/tokens", &body).await.expect(201);
    let editor = token["token"].as_str().unwrap();
    let elsewhere = json!({ "registry": "elsewhere.example.org/t" });
    let trials = format!("{PATH}/trials");

    let problem = put(&controller, editor, "*", &elsewhere).await.problem(403, "forbidden");
    assert_eq!(problem.errors[0].field, "registry");
    assert!(problem.errors[0].remedy.contains("admin"), "{}", problem.errors[0].remedy);
    controller.post(editor, &trials, &elsewhere).await.problem(403, "forbidden");
    let ours = json!({ "registry": "registry.example.com/tombolo" });
    put(&controller, editor, "*", &ours).await.expect(200);
    put(&controller, editor, "*", &json!({ "version": "one" })).await.expect(200);

    // what an admin chose an editor may keep, and leave
    put(&controller, &admin, "*", &elsewhere).await.expect(200);
    let upgrade = json!({ "registry": "elsewhere.example.org/t", "version": "two" });
    controller.post(editor, &trials, &upgrade).await.expect(201);
    put(&controller, editor, "*", &upgrade).await.expect(200);
    put(&controller, editor, "*", &json!({})).await.expect(200);
    put(&controller, editor, "*", &elsewhere).await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_trial_leaves_the_order_as_it_is() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let trials = format!("{PATH}/trials");
    // where nothing is installed, nothing is after it either
    let first = controller.post(&admin, &trials, &json!({ "version": "one" })).await.expect(201);
    assert_eq!((&first["number"], &first["version"]), (&json!(1), &json!("one")));
    controller.get(&admin, PATH).await.problem(404, "not-found");

    put(&controller, &admin, "*", &json!({ "version": "one" })).await.expect(200);
    let stands = put(&controller, &admin, "*", &json!({ "version": "two" })).await.expect(200);
    let tried = controller.post(&admin, &trials, &json!({ "version": "three" })).await.expect(201);
    assert_eq!(tried["number"], 2);
    assert_eq!(controller.get(&admin, PATH).await.expect(200), stands, "what to go back to, too");
    controller.post(&admin, &trials, &json!({ "dry_run": true })).await.problem(422, "unknown-field");

    let waits = || controller.database.sql("SELECT trial->>'number' FROM clusters").trim().to_owned();
    assert_eq!(waits(), "2");
    controller.clock.advance(std::time::Duration::from_secs(119));
    let mut tx = controller.deps.store.begin().await.unwrap();
    assert_eq!(tx.expire_trials(controller.deps.now()).await.unwrap(), 0);
    controller.clock.advance(std::time::Duration::from_secs(2));
    assert_eq!(tx.expire_trials(controller.deps.now()).await.unwrap(), 1, "it ends by itself");
    tx.commit().await.unwrap();
    assert_eq!(waits(), "");
    let next = controller.post(&admin, &trials, &json!({})).await.expect(201);
    assert_eq!(next["number"], 3, "no number twice");
}

#[tokio::test]
async fn what_cannot_be_installed_is_named() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let ingress = |way: Value| json!({ "gateways": { "ingress": { "exposure": way } } });
    for (body, field) in [
        (json!({ "version": "a b" }), "version"),
        (json!({ "version": "99.0.0" }), "version"),
        (json!({ "registry": "http://x" }), "registry"),
        (json!({ "default_mode": "side-car" }), "default_mode"),
        (json!({ "default_mode": "node" }), "default_mode"),
        (json!({ "default_mode": "sidecar", "injector": { "enabled": false } }), "default_mode"),
        (json!({ "namespaces": { "include": ["A_B"] } }), "namespaces.include"),
        (json!({ "gateways": { "egress": { "replicas": 0 } } }), "gateways.egress.replicas"),
        (json!({ "gateways": { "egress": { "min": 3, "max": 2 } } }), "gateways.egress.min"),
        (json!({ "gateways": { "egress": { "never_dial": ["10.0.0.0"] } } }), "gateways.egress.never_dial"),
        (json!({ "gateways": { "egress": { "never_dial": ["0.0.0.0/0"] } } }), "gateways.egress.never_dial"),
        (
            json!({ "gateways": { "egress": { "never_dial": vec!["fd00::/64"; 65] } } }),
            "gateways.egress.never_dial",
        ),
        (ingress(json!([{ "type": "address", "addresses": ["nowhere"] }])), "gateways.ingress.exposure"),
        (ingress(json!([{ "type": "address", "addresses": [] }])), "gateways.ingress.exposure"),
        (ingress(json!([{ "type": "node_port", "port": 0 }])), "gateways.ingress.exposure"),
        (ingress(json!([{ "type": "node_port" }, { "type": "node_port" }])), "gateways.ingress.exposure"),
    ] {
        let problem = put(&controller, &admin, "*", &body).await.problem(422, "invalid-field");
        assert_eq!(problem.errors[0].field, field, "{body}");
    }
    put(&controller, &admin, "*", &json!({ "colour": 1 })).await.problem(422, "unknown-field");
    let machine = json!({ "version": "99.0.0" });
    let problem = put(&controller, &admin, "*", &machine).await.problem(422, "invalid-field");
    assert!(problem.errors[0].remedy.contains("controller first"), "the order to follow is said");
}

#[tokio::test]
async fn the_manifest_is_for_anybody_and_has_no_secret() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let tokens = "/organizations/acme/clusters/cluster-1/onboarding-tokens";
    let token = controller.post(&admin, tokens, &json!({})).await.expect(201);
    let url = token["manifest_url"].as_str().unwrap();
    let path = url.strip_prefix("https://controller.example.com:8443").unwrap();
    let get = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = controller.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    };
    let (status, text) = get(path).await;
    assert_eq!(status, 200, "{text}");
    assert!(!text.contains("{{") && !text.contains("tmj_"), "{text}");
    for part in [
        "--cluster=cluster-1\n",
        "--controller=https://controller.example.com:8443\n",
        &format!("--ca-fingerprint=sha256:{}\n", "ab".repeat(32)),
        &format!("image: \"registry.example.com/tombolo/tombolo-agent:{}\"\n", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(text.contains(part), "{part}");
    }
    // the virtual addresses of this installation, wherever they matter
    assert!(!text.contains("240.0.0.0") && !text.contains("fd74:"), "those of another one");
    assert!(text.contains("            - --vips=241.0.0.0/8,fd00:1::/64\n"));
    for part in ["cidr('241.0.0.0/8')", "cidr('fd00:1::/64')"] {
        assert_eq!(text.matches(part).count(), 2, "{part}");
    }
    // nobody learns which organizations and clusters there are
    let other = get("/install/agent.yaml?organization=no-such-org&cluster=no-such-cluster").await;
    let same = other.1.replace("no-such-org", "acme").replace("no-such-cluster", "cluster-1") == text;
    assert!(other.0 == 200 && same, "it says which there are");
    let own = format!("{path}&registry=registry.example.com/tombolo&version={}", env!("CARGO_PKG_VERSION"));
    assert_eq!(get(&own).await, (200, text.clone()), "what it has anyway, anybody may name");
    // it lets gateways dial less, so anybody may ask for it
    let (status, careful) = get(&format!("{path}&never_dial=10.244.0.1/16,fd00:1::/64")).await;
    let more = "            - --never-dial=10.244.0.0/16\n            - --never-dial=fd00:1::/64\n";
    assert!(status == 200 && careful.matches(more).count() == 1, "{careful}");
    assert_eq!(careful.replace(more, ""), text, "and all else is as ever");
    for wrong in
        ["", "&registry=a%20b", "&version=%22", "&colour=red", "&never_dial=10.0.0.0", "&never_dial=%22,::/0"]
    {
        let path = if wrong.is_empty() { "/install/agent.yaml".to_owned() } else { format!("{path}{wrong}") };
        assert_eq!(get(&path).await.0, 422, "{wrong}");
    }
}

/// Whoever applies what the controller serves must not get somebody else's programs by it.
#[tokio::test]
async fn another_registry_or_version_is_for_an_admin_to_choose() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let stranger = controller.organization("other").await;
    let editor = controller.token("acme", "editor", "editor").await;
    let get = async |token: Option<&str>, asked: &str| {
        let mut request =
            Request::get(format!("/install/agent.yaml?organization=acme&cluster=cluster-1&{asked}"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let response = controller.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    };
    let both = "registry=mirror.example.com/t&version=1";
    for (token, status) in [
        (None, 401),
        (Some(editor.as_str()), 403),
        (Some(stranger.as_str()), 404),
        (Some(controller.owner.as_str()), 403),
    ] {
        for (asked, called, own) in [
            (both, "registry", "registry.example.com/tombolo"),
            ("version=0.0.1", "version", env!("CARGO_PKG_VERSION")),
        ] {
            let (told, text) = get(token, asked).await;
            assert_eq!(told, status, "{text}");
            let problem: Problem = serde_json::from_str(&text).unwrap();
            let field = problem.errors.iter().find(|error| error.field == called).unwrap();
            assert!(field.remedy.contains(&format!("leave it out, for {own}")), "{field:?}");
            assert!(!text.contains("mirror.example.com"), "{text}");
        }
    }
    let (status, text) = get(Some(&admin), both).await;
    assert!(status == 200 && text.contains("image: \"mirror.example.com/t/tombolo-agent:1\""), "{text}");
}
