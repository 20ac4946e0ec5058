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
    let fresh = controller.token("acme", "fresh", "viewer").await;
    let at = |token: &str, address: &str| controller.call("GET", "/whoami").token(token).at(address).send();
    at(&admin, "[2001:db8::1]:1").await.expect(200);
    for n in 0..100 {
        at(&format!("tmb_{n}"), &format!("[2001:db8::{n:x}]:1")).await.problem(401, "unauthenticated");
    }
    let refused = at("tmb_x", "[2001:db8::ffff]:1").await;
    refused.problem(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), "1");
    // one in use goes on; one that nobody knows here is not even looked up
    at(&admin, "[2001:db8::1]:1").await.expect(200);
    at(&fresh, "[2001:db8::1]:1").await.problem(429, "rate-limited");
    // other addresses do not suffer
    at(&fresh, "192.0.2.1:1").await.expect(200);
    // and a token that was good once is none any more when it is revoked
    let path = "/organizations/acme/tokens/fresh";
    controller.call("DELETE", path).token(&admin).at("192.0.2.1:1").send().await.expect(204);
    at(&fresh, "[2001:db8::1]:1").await.problem(401, "token-revoked");
    at(&fresh, "[2001:db8::1]:1").await.problem(429, "rate-limited");
}

#[tokio::test]
async fn valid_tokens_are_not_counted_as_guesses() {
    let controller = Controller::start().await;
    controller.organization("acme").await;
    for n in 0..120 {
        let token = controller.token("acme", &format!("t{n}"), "viewer").await;
        controller.clock.advance(Duration::from_millis(30));
        controller.call("GET", "/whoami").token(&token).at("192.0.2.1:1").send().await.expect(200);
    }
    // the clock gave back 72 of the 120 at most
    for _ in 0..100 {
        controller
            .call("GET", "/whoami")
            .token("tmb_x")
            .at("192.0.2.1:1")
            .send()
            .await
            .problem(401, "unauthenticated");
    }
}
