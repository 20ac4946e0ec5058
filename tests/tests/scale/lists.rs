//! Pages of lists, with many objects in them, while endpoints change.

use crate::{
    parts::{self, SOON},
    world::World,
};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::{Duration, Instant};
use tombolo_tests::scale::{List, Spread};

/// How often each page is read.
const TIMES: usize = 20;
/// How long one may take; more is no answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lets the world grow until it has so many names, and reads pages: into `all`, where they are even if there is no time for the rest.
pub(crate) async fn measure(world: &mut World, names: usize, all: &mut Vec<List>) {
    let grown = world.shape.grown(names);
    if grown != world.shape && world.shape.clusters >= 100 {
        let began = Instant::now();
        for agent in &world.agents {
            let more = parts::inventory(&grown, agent.number);
            agent.change(|all| {
                for (key, record) in more.services {
                    all.services.entry(key).or_insert(record);
                }
            });
        }
        world.shape = grown;
        world.known().await;
        println!("{} names after {:.0} s", world.shape.names(), began.elapsed().as_secs_f64());
    }
    let shape = world.shape;
    let (gns, cluster) = (parts::group(shape.groups() / 2), parts::cluster(shape.clusters / 2));
    let services = format!("{} names", shape.names());
    for (what, path) in [
        (format!("clusters, of {}", shape.clusters), "/clusters?limit=200".to_owned()),
        (format!("services, of {services}"), "/services?limit=200".to_owned()),
        (format!("services of a global namespace, of {services}"), format!("/services?limit=200&gns={gns}")),
        (format!("services of a cluster, of {services}"), format!("/services?limit=200&cluster={cluster}")),
        (format!("certificates, of {}", shape.clusters), "/certificates?limit=200".to_owned()),
        (format!("audit events, of more than {}", 3 * shape.clusters), "/audit-events?limit=200".to_owned()),
        (format!("global namespaces, of {}", shape.groups()), "/global-namespaces?limit=200".to_owned()),
    ] {
        let took = pages(world, &path).await;
        let ms = |percent| took.at(percent).as_secs_f64() * 1000.0;
        println!("a page of {what}: p50 {:.1} ms, longest {:.1} ms", ms(50), ms(100));
        all.push(List { what, took });
    }
}

/// How long it takes to read a page, and those after it; between two of them an endpoint changes.
async fn pages(world: &World, path: &str) -> Spread {
    let (mut took, mut next) = (Vec::new(), None::<String>);
    for time in 0..TIMES {
        world.flap(time % world.shape.groups(), time % world.shape.services, 0);
        let cursor = next.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let url = format!("/organizations/acme{path}{cursor}");
        let began = Instant::now();
        let (status, _, page): (StatusCode, _, Value) =
            world.people.one(time).exchange(Method::GET, &url, None, PATIENCE).await.unwrap();
        took.push(began.elapsed());
        assert!(status.is_success() && page["items"].is_array(), "{url}: {status} {page}");
        next = page["next_cursor"].as_str().map(str::to_owned);
    }
    let look = || async { world.changes.open() };
    tombolo_testkit::wait::until("changes on their way", SOON, look, |open| *open == 0).await;
    took.into_iter().collect()
}
