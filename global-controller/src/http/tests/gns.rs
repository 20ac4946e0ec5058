//! Global namespaces: domains that are none, that overlap, that are Kubernetes' own; changes by version.

use super::{Controller, world::gns};
use serde_json::{Value, json};

const PATH: &str = "/organizations/acme/global-namespaces";

#[tokio::test]
async fn bad_domains_are_refused() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    for domain in [
        "",
        "acme",
        "acme..example.com",
        "-a.example.com",
        "a_b.example.com",
        "10.0.0.1",
        "acme.example.com/",
        "cluster.local",
        "svc.cluster.local",
        "my.cluster.local.",
        "a.localhost",
        "x.clusterset.local",
        "com",
        "arpa",
        "10.in-addr.arpa",
        "default.svc",
        "co.uk",
        "github.io",
        "ünicode.example.com",
        &format!("{}.com", "x".repeat(64)),
        &format!("{}com", "x.".repeat(130)),
    ] {
        let problem = controller.post(&admin, PATH, &gns("acme", domain)).await.problem(422, "invalid-field");
        assert_eq!(problem.errors[0].field, "domain", "{domain}");
    }
    // upper case and a dot at the end are dropped
    let made = controller.post(&admin, PATH, &gns("acme", "Acme.Example.com.")).await.expect(201);
    assert_eq!(made["domain"], "acme.example.com");
}

#[tokio::test]
async fn domains_of_an_organization_do_not_overlap() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.gns(&admin, "acme", "shop", "shop.example.com").await;
    controller.gns(&admin, "acme", "bank", "bank.example.com").await;
    for domain in ["shop.example.com", "example.com", "eu.shop.example.com"] {
        let problem =
            controller.post(&admin, PATH, &gns("other", domain)).await.problem(409, "domain-overlap");
        assert_eq!(problem.errors[0].field, "domain", "{domain}");
    }
    controller.post(&admin, PATH, &gns("shop", "elsewhere.example.com")).await.problem(409, "already-exists");
    let put = async |name: &str, domain: &str| {
        let body = json!({ "domain": domain, "rules": [] });
        let call = controller.call("PUT", &format!("{PATH}/{name}")).token(&admin).header("if-match", "*");
        call.json(&body).send().await
    };
    put("bank", "x.shop.example.com").await.problem(409, "domain-overlap");
    // its own domain is not in its way
    put("bank", "eu.bank.example.com").await.expect(200);
    // two organizations may use the same
    let other = controller.organization("other").await;
    let theirs = controller.gns(&other, "other", "shop", "shop.example.com").await;
    let ours = controller.get(&admin, &format!("{PATH}/shop")).await.expect(200);
    assert_eq!(ours["domain"], theirs["domain"]);
    assert_ne!(ours["id"], theirs["id"]);
}

#[tokio::test]
async fn overlapping_creations_at_once_leave_one() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let names: Vec<String> = (0..6).map(|n| format!("g{n}")).collect();
    let bodies: Vec<Value> =
        (0..6).map(|n| gns(&names[n], &format!("{}example.com", "a.".repeat(n)))).collect();
    let made = futures::future::join_all(bodies.iter().map(|body| controller.post(&admin, PATH, body))).await;
    let created = made.iter().filter(|answer| answer.status == 201).count();
    assert_eq!((created, made.iter().filter(|answer| answer.status == 409).count()), (1, 5));
}

#[tokio::test]
async fn a_global_namespace_is_replaced_by_who_saw_it() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.gns(&admin, "acme", "acme", "acme.example.com").await;
    let path = format!("{PATH}/acme");
    let rules =
        json!([{ "cluster": { "name": "cluster-1" }, "namespace": { "labels": { "team": "shop" } } }]);
    let body = json!({ "name": "acme", "domain": "acme.example.org", "rules": rules });
    let put = async |tag: &str, body: &Value| {
        controller.call("PUT", &path).token(&admin).header("if-match", tag).json(body).send().await
    };
    controller
        .call("PUT", &path)
        .token(&admin)
        .json(&body)
        .send()
        .await
        .problem(428, "precondition-required");
    let changed = put("\"1\"", &body).await;
    assert_eq!((changed.header("etag"), &changed.expect(200)["rules"]), ("\"2\"", &rules));
    put("\"1\"", &body).await.problem(412, "precondition-failed");
    let renamed = json!({ "name": "other", "domain": "acme.example.org", "rules": [] });
    assert_eq!(put("*", &renamed).await.problem(422, "invalid-field").errors[0].field, "name");
    let many = json!({ "domain": "acme.example.org", "rules": vec![rules[0].clone(); 101] });
    assert_eq!(put("*", &many).await.problem(422, "invalid-field").errors[0].field, "rules");

    let delete =
        |tag: &'static str| controller.call("DELETE", &path).token(&admin).header("if-match", tag).send();
    delete("\"1\"").await.problem(412, "precondition-failed");
    delete("\"2\"").await.expect(204);
    delete("\"2\"").await.problem(404, "not-found");
    controller.get(&admin, &path).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_global_namespace_chooses_a_capture_mode() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let with = |mode: Value| {
        let mut body = gns("acme", "acme.example.com");
        body["capture"] = mode;
        body
    };
    for wrong in ["side-car", "Sidecar", ""] {
        let problem = controller.post(&admin, PATH, &with(json!(wrong))).await.problem(422, "invalid-field");
        let error = &problem.errors[0];
        assert!(
            error.field == "capture" && error.message.contains("`sidecar`"),
            "{wrong}: {}",
            error.message
        );
    }
    let made = controller.post(&admin, PATH, &with(json!("sidecar"))).await.expect(201);
    assert_eq!(made["capture"], "sidecar");
    let path = format!("{PATH}/acme");
    let put = async |capture: Value| {
        let body = json!({ "domain": "acme.example.com", "rules": [], "capture": capture });
        let call = controller.call("PUT", &path).token(&admin).header("if-match", "*");
        call.json(&body).send().await.expect(200)
    };
    for mode in ["node", "none", "gateway"] {
        put(json!(mode)).await;
        assert_eq!(controller.get(&admin, &path).await.expect(200)["capture"], mode);
    }
    // an older program does not know the field, and changes nothing of it
    let body = json!({ "domain": "acme.example.com", "rules": [] });
    let call = controller.call("PUT", &path).token(&admin).header("if-match", "*");
    assert_eq!(call.json(&body).send().await.expect(200)["capture"], "gateway");
    let silent = put(Value::Null).await;
    assert!(silent.get("capture").is_none(), "it has no say any more: {silent}");
    let audit = "/organizations/acme/audit-events?action=global_namespace.update";
    let audit = controller.get(&admin, audit).await.expect(200);
    let last = json!([{ "path": "/capture", "before": "gateway" }]);
    assert!(audit["items"].as_array().unwrap().iter().any(|event| event["difference"] == last), "{audit}");
}
