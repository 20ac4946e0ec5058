//! How often a token may ask.

use super::Controller;
use std::time::Duration;

#[tokio::test]
async fn a_token_that_asks_too_often_is_told_when_to_come_back() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let patient = controller.token("acme", "patient", "viewer").await;
    let first = controller.get(&admin, "/whoami").await;
    assert_eq!(first.header("ratelimit-policy"), "\"token\";q=200;w=4");
    assert_eq!(first.header("ratelimit"), "\"token\";r=199;t=1");
    for _ in 0..199 {
        controller.get(&admin, "/whoami").await.expect(200);
    }
    let refused = controller.get(&admin, "/whoami").await;
    refused.problem(429, "rate-limited");
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit")), ("1", "\"token\";r=0;t=4"));
    // it is that token's alone
    controller.get(&patient, "/whoami").await.expect(200);
    controller.clock.advance(Duration::from_millis(20));
    controller.get(&admin, "/whoami").await.expect(200);
    controller.get(&admin, "/whoami").await.problem(429, "rate-limited");
}

#[tokio::test]
async fn guessing_is_slow_and_costs_no_valid_token() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    for n in 0..100 {
        controller.get(&format!("tmb_{n}"), "/whoami").await.problem(401, "unauthenticated");
    }
    controller.get("tmb_x", "/whoami").await.problem(429, "rate-limited");
    controller.get(&admin, "/whoami").await.expect(200);
}
