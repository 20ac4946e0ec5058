//! Tenants are walls. Every operation of the document is tried with another organization's token, with the owner's,
//! with a viewer's and with none. An operation that is not in the table fails the suite.

use super::{Answered, Controller, world::gns};
use crate::http::document;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Whom an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// Anybody, without a token.
    Everybody,
    /// Anybody with a token; it shows nothing of a tenant but the token's own.
    Anybody,
    /// The installation's owner.
    Owner,
    /// The installation's owner, about an organization.
    Landlord,
    /// Viewers, editors and admins of the organization.
    Viewer,
    /// Editors and admins of it.
    Editor,
    /// Admins of it, and the owner.
    Keeper,
    /// Any token of it, and the owner.
    Visitor,
}

struct Case {
    method: &'static str,
    path: &'static str,
    access: For,
    body: fn() -> Option<Value>,
}

const fn case(method: &'static str, path: &'static str, access: For, body: fn() -> Option<Value>) -> Case {
    Case { method, path, access, body }
}

fn none() -> Option<Value> {
    None
}

/// Every operation.
const CASES: [Case; 24] = [
    case("get", "/version", For::Everybody, none),
    case("get", "/openapi.json", For::Everybody, none),
    case("get", "/whoami", For::Anybody, none),
    case("get", "/organizations", For::Anybody, none),
    case("post", "/organizations", For::Owner, || Some(json!({ "name": "made" }))),
    case("get", "/organizations/{org}", For::Visitor, none),
    case("get", "/organizations/{org}/tokens", For::Keeper, none),
    case("post", "/organizations/{org}/tokens", For::Keeper, || {
        Some(json!({ "name": "made", "role": "viewer" }))
    }),
    case("get", "/organizations/{org}/tokens/{token}", For::Keeper, none),
    case("delete", "/organizations/{org}/tokens/{token}", For::Keeper, none),
    case("get", "/organizations/{org}/clusters", For::Viewer, none),
    case("post", "/organizations/{org}/clusters", For::Editor, || Some(json!({ "name": "made" }))),
    case("get", "/organizations/{org}/clusters/{cluster}", For::Viewer, none),
    case("patch", "/organizations/{org}/clusters/{cluster}", For::Editor, || {
        Some(json!({ "labels": { "made": "yes" } }))
    }),
    case("delete", "/organizations/{org}/clusters/{cluster}", For::Editor, none),
    case("get", "/organizations/{org}/clusters/{cluster}/status", For::Viewer, none),
    case("get", "/organizations/{org}/clusters/{cluster}/onboarding-tokens", For::Viewer, none),
    case("post", "/organizations/{org}/clusters/{cluster}/onboarding-tokens", For::Editor, || {
        Some(json!({}))
    }),
    case("delete", "/organizations/{org}/clusters/{cluster}/onboarding-tokens/{id}", For::Editor, none),
    case("get", "/organizations/{org}/global-namespaces", For::Viewer, none),
    case("post", "/organizations/{org}/global-namespaces", For::Editor, || {
        Some(gns("made", "made.example.org"))
    }),
    case("get", "/organizations/{org}/global-namespaces/{gns}", For::Viewer, none),
    case("put", "/organizations/{org}/global-namespaces/{gns}", For::Editor, || {
        Some(json!({ "domain": "made.example.org", "rules": [] }))
    }),
    case("delete", "/organizations/{org}/global-namespaces/{gns}", For::Editor, none),
];

/// The rest of them: one array of all would be too long for a line of reason each.
const MORE: [Case; 17] = [
    case("get", "/organizations/{org}/clusters/{cluster}/install", For::Viewer, none),
    case("put", "/organizations/{org}/clusters/{cluster}/install", For::Editor, || Some(json!({}))),
    case("delete", "/organizations/{org}/clusters/{cluster}/install", For::Editor, none),
    case("post", "/organizations/{org}/clusters/{cluster}/install/trials", For::Editor, || Some(json!({}))),
    case("get", "/owner-tokens", For::Owner, none),
    case("post", "/owner-tokens", For::Owner, || Some(json!({ "name": "made" }))),
    case("delete", "/owner-tokens/{token}", For::Owner, none),
    case("get", "/audit-events", For::Owner, none),
    case("delete", "/organizations/{org}", For::Landlord, none),
    case("get", "/organizations/{org}/services", For::Viewer, none),
    case("get", "/organizations/{org}/services/{name}", For::Viewer, none),
    case("get", "/organizations/{org}/trust-bundle", For::Viewer, none),
    case("get", "/organizations/{org}/certificates", For::Viewer, none),
    case("get", "/organizations/{org}/root-rotation", For::Viewer, none),
    case("post", "/organizations/{org}/root-rotation", For::Keeper, || Some(json!({}))),
    case("get", "/organizations/{org}/audit-events", For::Viewer, none),
    case("get", "/organizations/{org}/events", For::Viewer, none),
];

fn cases() -> impl Iterator<Item = &'static Case> {
    CASES.iter().chain(&MORE)
}

/// Two organizations, each with a thing of every kind; the first one's are called so that they are found in any text.
struct Walls {
    controller: Controller,
    admins: [String; 2],
    onboarding: String,
}

const ORGS: [&str; 2] = ["walled", "other"];

impl Walls {
    async fn build() -> Self {
        let controller = Controller::start().await;
        let mut admins = Vec::new();
        let mut onboarding = Vec::new();
        for org in ORGS {
            let admin = controller.organization(org).await;
            // the same names in both: a lookup by name alone would find the other's
            controller.cluster(&admin, org, "cluster-1").await;
            let path = format!("/organizations/{org}/clusters/cluster-1/onboarding-tokens");
            let token = controller.post(&admin, &path, &json!({})).await.expect(201);
            onboarding.push(token["id"].as_str().unwrap().to_owned());
            controller.gns(&admin, org, "acme", "acme.example.com").await;
            controller.token(org, "victim", "viewer").await;
            if org == ORGS[0] {
                controller.cluster(&admin, org, "walled-cluster").await;
                let path = "/organizations/walled/clusters/walled-cluster/onboarding-tokens";
                let token = controller.post(&admin, path, &json!({})).await.expect(201);
                onboarding[0] = token["id"].as_str().unwrap().to_owned();
                controller.gns(&admin, org, "walled-gns", "walled.example.com").await;
                controller.token(org, "walled-token", "viewer").await;
            }
            admins.push(admin);
        }
        let admins = admins.try_into().unwrap();
        Self { controller, admins, onboarding: onboarding.swap_remove(0) }
    }

    /// The case's operation on the first organization's things, under the path of `org`.
    async fn attempt(&self, case: &Case, org: &str, token: Option<&str>) -> Answered {
        self.send(case, org, token, (case.body)()).await
    }

    /// The same, with another body.
    async fn send(&self, case: &Case, org: &str, token: Option<&str>, body: Option<Value>) -> Answered {
        let path = case
            .path
            .replace("{org}", org)
            .replace("{cluster}", "walled-cluster")
            .replace("{gns}", "walled-gns")
            .replace("{token}", "walled-token")
            .replace("{id}", &self.onboarding)
            .replace("{name}", "catalog.walled.example.com");
        let mut call = self.controller.call(&case.method.to_uppercase(), &path).header("if-match", "*");
        if let Some(token) = token {
            call = call.token(token);
        }
        if let Some(body) = body {
            call = call.json(&body);
        }
        call.send().await
    }

    /// All that is stored, to see that nothing changed.
    async fn stored(&self) -> String {
        let database = &self.controller.database;
        ["organizations", "clusters", "global_namespaces", "onboarding_tokens", "audit_events"]
            .map(|table| database.sql(&format!("SELECT * FROM {table} AS t ORDER BY t")))
            .join("\n")
            + &database.sql("SELECT id, org_id, name, role, revoked_at FROM api_tokens ORDER BY id")
    }
}

#[test]
fn every_operation_has_a_case() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        documented.extend(item.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    let covered: BTreeSet<String> = cases().map(|case| format!("{} {}", case.method, case.path)).collect();
    assert_eq!(documented, covered, "add the operation to the table of this file");
}

#[tokio::test]
async fn another_tenants_things_do_not_exist() {
    let walls = Walls::build().await;
    let before = walls.stored().await;
    for case in cases() {
        let place = format!("{} {}", case.method, case.path);
        let stranger = Some(walls.admins[1].as_str());
        let answer = walls.attempt(case, ORGS[0], stranger).await;
        match case.access {
            For::Everybody => drop(answer.expect(200)),
            For::Anybody => {
                answer.expect(200);
                assert!(!answer.text.contains("walled"), "{place}: {answer:?}");
            }
            For::Owner => drop(answer.problem(403, "forbidden")),
            For::Landlord | For::Viewer | For::Editor | For::Keeper | For::Visitor => {
                // word for word as for an organization that is not there
                let missing = walls.attempt(case, "nowhere", stranger).await;
                let problem = answer.problem(404, "not-found");
                let nowhere = missing.problem(404, "not-found");
                assert_eq!(problem.detail.replace("walled", "nowhere"), nowhere.detail, "{place}");
            }
        }
    }
    assert_eq!(walls.stored().await, before);
}

#[tokio::test]
async fn another_tenants_names_lead_nowhere_in_the_own_organization() {
    let walls = Walls::build().await;
    let before = walls.stored().await;
    for case in cases().filter(|case| case.path.matches('{').count() > 1) {
        let answer = walls.attempt(case, ORGS[1], Some(&walls.admins[1])).await;
        if case.path.ends_with("/services/{name}") {
            // answered by what this replica compiled, of which this test has nothing
            assert!(answer.status == 404 || answer.status == 503, "{answer:?}");
            continue;
        }
        answer.problem(404, "not-found");
    }
    // a token of one cluster under another cluster's path is not there either
    let path = format!("/organizations/walled/clusters/cluster-1/onboarding-tokens/{}", walls.onboarding);
    let answer = walls.controller.call("DELETE", &path).token(&walls.admins[0]).send().await;
    answer.problem(404, "not-found");
    assert_eq!(walls.stored().await, before);
}

#[tokio::test]
async fn lists_show_the_own_organization_alone() {
    let walls = Walls::build().await;
    for case in cases().filter(|case| {
        case.method == "get"
            && case.path.matches("{org}").count() == case.path.matches('{').count()
            && case.access != For::Owner
    }) {
        if ["/events", "/services", "/root-rotation"].iter().any(|end| case.path.ends_with(end)) {
            continue;
        }
        let answer = walls.attempt(case, ORGS[1], Some(&walls.admins[1])).await;
        answer.expect(200);
        assert!(!answer.text.contains("walled"), "{}: {answer:?}", case.path);
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_answered() {
    let walls = Walls::build().await;
    let unknown = format!("tmb_{}", "A".repeat(43));
    for case in cases() {
        let without = walls.attempt(case, ORGS[0], None).await;
        let wrong = walls.attempt(case, ORGS[0], Some(&unknown)).await;
        wrong.problem(401, "unauthenticated");
        if case.access == For::Everybody {
            without.expect(200);
        } else {
            without.problem(401, "unauthenticated");
            assert_eq!(without.header("www-authenticate"), "Bearer realm=\"tombolo\"");
        }
    }
}

#[tokio::test]
async fn every_body_is_bounded_and_known() {
    let walls = Walls::build().await;
    let before = walls.stored().await;
    let mut seen = 0;
    for case in cases() {
        let Some(good) = (case.body)() else { continue };
        seen += 1;
        let token = match case.access {
            For::Owner | For::Landlord => &walls.controller.owner,
            _ => &walls.admins[0],
        };
        let with = |field: &str, value: Value| {
            let mut body = good.clone();
            body[field] = value;
            walls.send(case, ORGS[0], Some(token), Some(body))
        };
        let problem = with("colour", json!("red")).await.problem(422, "unknown-field");
        assert_eq!(problem.errors[0].field, "colour", "{} {}", case.method, case.path);
        with("colour", json!("x".repeat(300 * 1024))).await.problem(413, "body-too-large");
    }
    assert_eq!(seen, 11);
    assert_eq!(walls.stored().await, before);
}

#[tokio::test]
async fn roles_are_kept() {
    let walls = Walls::build().await;
    let viewer = walls.controller.token(ORGS[0], "watcher", "viewer").await;
    let editor = walls.controller.token(ORGS[0], "writer", "editor").await;
    let before = walls.stored().await;
    for case in cases() {
        let refused: &[&str] = match case.access {
            For::Everybody | For::Anybody => &[],
            For::Owner | For::Landlord => &[&viewer, &editor, &walls.admins[0]],
            // tenant's data is not for the owner
            For::Viewer => &[&walls.controller.owner],
            For::Editor => &[&viewer, &walls.controller.owner],
            For::Keeper => &[&viewer, &editor],
            For::Visitor => &[],
        };
        for token in refused {
            walls.attempt(case, ORGS[0], Some(token)).await.problem(403, "forbidden");
        }
    }
    assert_eq!(walls.stored().await, before);
}
