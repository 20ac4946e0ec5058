//! Reading what is known already.

use super::Controller;
use serde_json::json;

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let read = |path: &str, known: &str| {
        controller.call("GET", path).token(&admin).header("if-none-match", known).send()
    };
    let one = "/organizations/acme/clusters/cluster-1";
    for path in [one, "/organizations/acme/clusters", "/organizations/acme/trust-bundle", "/whoami"] {
        let first = controller.get(&admin, path).await;
        first.expect(200);
        let tag = first.header("etag");
        assert!(tag.len() > 20 && tag.starts_with('"'), "{path}: {tag}");
        for known in [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let again = read(path, &known).await;
            assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""), "{path}: {known}");
            assert_eq!((again.header("etag"), again.header("content-type")), (tag, ""));
        }
        read(path, "\"other\"").await.expect(200);
    }
    // the tag of what was read is good for a change; and then there is something new to read
    let tag = controller.get(&admin, one).await.header("etag").to_owned();
    let change = |tag: &str| {
        let call = controller.call("PATCH", one).token(&admin).header("if-match", tag);
        call.json(&json!({ "labels": { "tier": "gold" } })).send()
    };
    change(&tag).await.expect(200);
    change(&tag).await.problem(412, "precondition-failed");
    read(one, &tag).await.expect(200);
    // what is different though nobody edited it is new too
    let tag = controller.get(&admin, one).await.header("etag").to_owned();
    controller.database.sql("update clusters set ingress = '{192.0.2.1:1}'");
    read(one, &tag).await.expect(200);
    // what is not there has no tag
    let missing = read("/organizations/acme/clusters/none", "*").await;
    missing.problem(404, "not-found");
    assert_eq!(missing.header("etag"), "");
}
