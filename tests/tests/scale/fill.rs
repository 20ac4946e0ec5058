//! Clusters come to be as they do elsewhere: made by people through the API, joined by their agents.

use crate::{
    agent::{Door, Joined, join},
    parts,
    site::Site,
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::{pin::pin, time::Instant};
use tombolo_testkit::wait::until_ok;
use tombolo_tests::{loopback::Api, scale::Shape};

/// Clusters that are made at the same time.
const TOGETHER: usize = 8;
/// Tokens that take turns: each may ask 50 times a second.
const TOKENS: usize = 8;

/// People with tokens of the organization.
pub(crate) struct People(Vec<Api>);

impl People {
    pub(crate) async fn of(site: &Site) -> Self {
        let door = site.door();
        let first = Api::found(format!("https://{}", door.server), door.fingerprint, &site.owner()).await;
        let mut all = Vec::new();
        for number in 0..TOKENS {
            let body = json!({ "name": format!("people-{number}"), "role": "admin" });
            let made = first.post("/organizations/acme/tokens", body).await;
            all.push(first.with_token(made["token"].as_str().unwrap()));
        }
        Self(all)
    }

    /// One of them.
    pub(crate) fn one(&self, number: usize) -> &Api {
        &self.0[number % self.0.len()]
    }

    /// Makes something; again, where it was asked for too often.
    async fn make(&self, number: usize, path: &str, body: Value) -> Value {
        let path = format!("/organizations/acme{path}");
        until_ok(&path, parts::SOON, || self.one(number).try_post(&path, &body)).await
    }
}

async fn one(door: &Door, people: &People, shape: &Shape, number: usize) -> Joined {
    let name = parts::cluster(number);
    let labels = json!({ "group": parts::group(shape.group(number)) });
    let body = json!({ "name": name, "labels": labels, "locality": parts::locality(number) });
    people.make(number, "/clusters", body).await;
    let path = format!("/clusters/{name}/onboarding-tokens");
    let token = people.make(number, &path, json!({})).await;
    join(door, number, token["token"].as_str().unwrap()).await
}

/// Clusters that have joined, and the global namespaces over them.
pub(crate) async fn fill(site: &Site, people: &People, shape: &Shape) -> Vec<Joined> {
    let door = site.door();
    let (mut joined, began) = (Vec::new(), Instant::now());
    let mut coming = pin!(
        stream::iter(0..shape.clusters)
            .map(|number| one(&door, people, shape, number))
            .buffer_unordered(TOGETHER)
    );
    while let Some(one) = coming.next().await {
        joined.push(one);
        if joined.len() % 100 == 0 {
            println!("{} clusters joined after {:.0} s", joined.len(), began.elapsed().as_secs_f64());
        }
    }
    joined.sort_by_key(Joined::number);
    for group in 0..shape.groups() {
        let rule = json!({ "cluster": { "labels": { "group": parts::group(group) } }, "namespace": { "name": "shop" } });
        let body = json!({ "name": parts::group(group), "domain": parts::domain(group), "rules": [rule] });
        people.make(group, "/global-namespaces", body).await;
    }
    joined
}
