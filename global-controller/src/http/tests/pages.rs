//! Lists in pages.

use super::Controller;
use serde_json::Value;

async fn walk(controller: &Controller, token: &str, path: &str, key: &str) -> Vec<String> {
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = controller.get(token, &format!("{path}?limit=2{next}")).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item[key].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { return seen };
        assert_eq!(items.len(), 2);
        next = format!("&cursor={cursor}");
    }
}

#[tokio::test]
async fn pages_show_everything_once() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let names = ["alpha", "beta", "c-1", "c-10", "c-2", "c1"];
    for name in names {
        controller.cluster(&admin, "acme", name).await;
    }
    assert_eq!(walk(&controller, &admin, "/organizations/acme/clusters", "name").await, names);
    let events = walk(&controller, &admin, "/organizations/acme/audit-events", "id").await;
    assert_eq!(events.len(), 2 + names.len());
    assert!(events.is_sorted_by(|a, b| a > b), "the newest first");
    // what is made meanwhile shifts nothing
    let page = controller.get(&admin, "/organizations/acme/clusters?limit=3").await.expect(200);
    controller.cluster(&admin, "acme", "aaa").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let next =
        controller.get(&admin, &format!("/organizations/acme/clusters?cursor={cursor}")).await.expect(200);
    assert_eq!(next["items"][0]["name"], "c-10");
}

#[tokio::test]
async fn wrong_pages_are_refused() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    for name in ["a", "b"] {
        controller.cluster(&admin, "acme", name).await;
    }
    let list =
        async |query: &str| controller.get(&admin, &format!("/organizations/acme/clusters?{query}")).await;
    for limit in ["0", "201", "-1", "many", "99999999999"] {
        let problem = list(&format!("limit={limit}")).await.problem(422, "invalid-field");
        assert_eq!(problem.errors[0].field, "limit");
    }
    for cursor in ["x", "!!!!", "AAAA"] {
        list(&format!("cursor={cursor}")).await.problem(400, "invalid-cursor");
    }
    let cursor = list("limit=1").await.expect(200)["next_cursor"].as_str().unwrap().to_owned();
    let path = format!("/organizations/acme/global-namespaces?cursor={cursor}");
    controller.get(&admin, &path).await.problem(400, "invalid-cursor");
}

#[tokio::test]
async fn a_cursor_of_another_tenant_shows_the_own_things() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let other = controller.organization("other").await;
    for name in ["a", "b", "c"] {
        controller.cluster(&admin, "acme", name).await;
    }
    controller.cluster(&other, "other", "z-own").await;
    let page = controller.get(&admin, "/organizations/acme/clusters?limit=1").await.expect(200);
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = format!("/organizations/other/clusters?cursor={cursor}");
    let seen: Value = controller.get(&other, &path).await.expect(200);
    assert_eq!(seen["items"].as_array().unwrap().len(), 1);
    assert_eq!(seen["items"][0]["name"], "z-own");
}
