//! Certificates end and begin, and nobody notices: lives are shortened, so that each ends many times.

use crate::{Load, SOON, World};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use tombolo_testkit::wait::{until, until_ok};
use tombolo_tests::loopback::SHORT_LIFE;

/// How long a rotation may take on a machine that does other things too.
pub(crate) const ROTATED: Duration = Duration::from_secs(300);
pub(crate) const ROTATION: &str = "/organizations/acme/root-rotation";

/// Waits until each of these certificates has been over for a moment, and another one is shown in its place.
async fn all_are_others(world: &World, before: &BTreeMap<(String, String), f64>) {
    let last = before.values().copied().fold(0.0, f64::max);
    let later =
        |now: &BTreeMap<_, f64>| before.keys().all(|key| now.get(key).is_some_and(|end| *end > last + 1.0));
    until("every certificate is another one", SOON + SHORT_LIFE, || world.certificates(), later).await;
}

pub(crate) async fn the_controller_is_away_for_the_life_of_a_certificate(world: &mut World, load: &Load) {
    load.whole().await;
    let begin = Instant::now();
    world.kill("controller");
    world.kill("controller-b");
    let before = world.certificates().await;
    assert!(before.len() > 8, "{before:?}");
    // a renewed one ends later by half of a life at the least: the second time, none is left of those before
    all_are_others(world, &before).await;
    all_are_others(world, &world.certificates().await).await;
    load.since(begin, begin).await.nothing_noticed(world);
    world.restart("controller").await;
    world.restart("controller-b").await;
}

/// The rotation that goes on, where one does.
pub(crate) async fn rotation(world: &World) -> Option<Value> {
    let read = || async {
        match world.api.exchange(Method::GET, ROTATION, None, SOON).await {
            Ok((StatusCode::OK, _, body)) => Ok(Some(body)),
            Ok((StatusCode::NOT_FOUND, ..)) => Ok(None),
            other => Err(format!("{other:?}")),
        }
    };
    until_ok("the rotation is shown", SOON, read).await
}

pub(crate) async fn roots(world: &World) -> Vec<Value> {
    let bundle = world.api.get("/organizations/acme/trust-bundle").await;
    bundle["roots"].as_array().unwrap().iter().map(|root| root["fingerprint"].clone()).collect()
}

pub(crate) async fn addresses(world: &World) -> BTreeMap<String, Value> {
    let services = world.api.get("/organizations/acme/services").await;
    let items = services["items"].as_array().unwrap().iter();
    items.map(|item| (item["name"].to_string(), item["vip"].clone())).collect()
}

pub(crate) async fn the_root_is_rotated(world: &mut World, load: &Load) {
    load.whole().await;
    let (old, vips) = (roots(world).await, addresses(world).await);
    assert_eq!(old.len(), 1, "{old:?}");
    let begin = Instant::now();
    let told = world.api.post(ROTATION, json!({})).await;
    assert_eq!(told["phase"], "told", "{told}");
    let look = || async { rotation(world).await.map(|body| body["phase"].clone()) };
    until("the rotation ends", ROTATED, look, Option::is_none).await;
    eprintln!("  in {:.0} s", begin.elapsed().as_secs_f64());
    let new = roots(world).await;
    assert!(new.len() == 1 && new != old, "{old:?}, then {new:?}");
    assert_eq!(addresses(world).await, vips);
    load.since(begin, begin).await.nothing_noticed(world);
    // what is made now is made under the new root alone
    let begin = Instant::now();
    all_are_others(world, &world.certificates().await).await;
    load.since(begin, begin).await.nothing_noticed(world);
}
