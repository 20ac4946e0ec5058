//! Bad tokens, with the true agent.

use serde_json::json;
use tombolo_tests::loopback::{World, join};

pub(crate) async fn refuses_bad_tokens(world: &mut World) {
    world.api.post("/organizations/acme/clusters", json!({ "name": "cluster-9" })).await;
    let used = world.api.join_token("cluster-9").await;
    let joined = join(&world.api, "cluster-9", &world.path("joined"), &used).await;
    assert!(joined.status.success(), "{joined:?}");
    let others = world.api.join_token("cluster-2").await;
    let wrong = format!("tmj_{}", "A".repeat(43));
    for (case, token) in [("wrong", &wrong), ("reused", &used), ("another cluster's", &others)] {
        let refused = join(&world.api, "cluster-9", &world.path("refused"), token).await;
        let text = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{case}: {text}");
        assert!(text.contains("onboarding token") && !text.contains(token.as_str()), "{case}: {text}");
        eprintln!("  {case}: {}", text.trim());
        assert!(!world.path("refused/state.json").exists(), "{case}");
    }
    let clusters = world.api.get("/organizations/acme/clusters/cluster-9/status").await;
    assert_ne!(clusters["state"], "revoked", "{clusters}");
}
