//! A proxy that has just started: those who know of it already wait for it a moment, and no call fails by it.

use crate::world::{Gateway, LONG, World, ask, echo};
use std::{pin::pin, time::Duration};
use tokio::time::timeout;
use tombolo_model::GatewayRole;

/// Long enough that a call would have failed.
const MOMENT: Duration = Duration::from_millis(250);

/// As a node's proxy is, that takes the place of the one before while the pods behind it are called.
#[tokio::test]
async fn a_proxy_without_table_and_certificates_is_waited_for() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    let site = world.sites.get_mut("c2").unwrap();
    site.sidecar = Gateway::bare(GatewayRole::Sidecar, &site.ca, |_| {}).await;
    // all know of it but itself
    for (name, site) in &world.sites {
        let sidecar = (*name != "c2").then_some(&site.sidecar);
        for gateway in [&site.ingress, &site.egress].into_iter().chain(sidecar) {
            gateway.shared.apply(&world.resources(name)).unwrap();
        }
    }
    let site = &world.sites["c2"];
    let (ca, new) = (&site.ca, &site.sidecar.shared);
    let mut call = pin!(ask(world.call("c1").await, b"hello"));
    assert!(timeout(MOMENT, &mut call).await.is_err(), "it waits");
    new.apply(&world.resources("c2")).unwrap();
    assert!(timeout(MOMENT, &mut call).await.is_err(), "for the proxy's certificate");
    new.credentials.set_own(ca.credentials(&ca.gateway(GatewayRole::Sidecar)));
    assert!(timeout(MOMENT, &mut call).await.is_err(), "for the workload's");
    new.credentials.insert(ca.credentials(&ca.workload("default", "catalog")));
    assert_eq!(timeout(LONG, call).await.expect("in time").expect("an answer"), b"hello");
    assert_eq!(site.sidecar.line(1).await["source_verified"], true, "and it is the workloads' own session");
}
