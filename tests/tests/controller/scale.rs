//! Many services: what a small change costs does not grow with them.

use crate::support::site;
use std::collections::BTreeMap;
use tombolo_model::inventory::{Inventory, ServiceKey};
use tombolo_testkit::build::Service;

/// More than a commit's changes are noted one by one, so that reading everything is part of it.
const SERVICES: usize = 3000;

#[tokio::test(flavor = "multi_thread")]
async fn a_flap_among_thousands_is_small() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    site.gns(&acme, "acme", "acme.example.com").await;
    let (one, two) = (site.agent(&acme, "cluster-1").await, site.agent(&acme, "cluster-2").await);
    let feed = one.feed(&site);
    let services: BTreeMap<ServiceKey, _> = (0..SERVICES)
        .map(|i| {
            let key = ServiceKey::try_from(format!("default/service-{i}")).unwrap();
            (key, Service::new(&[80]).endpoints(1, 3).account("default").build())
        })
        .collect();
    two.report(&site, "a", Inventory { services, ..Inventory::default() }).await;
    let last = format!("service-{}.acme.example.com", SERVICES - 1);
    feed.until_name(&last, |_| true).await;
    feed.until_status("everything settled", |status| status.lag() == 0).await;
    // a name of the service, and one of the service in its cluster
    assert_eq!(database.sql("select count(*) from virtual_ips"), (2 * SERVICES).to_string());

    let record = Service::new(&[80]).endpoints(2, 3).account("default").build();
    two.update(&site, ("a", 2), ("default/service-7", record)).await.unwrap();
    feed.until_name("service-7.acme.example.com", |name| name.targets[0].ready == 2).await;
    let state = feed.state();
    let told: Vec<_> = state.changes.upserted.iter().map(|key| &state.resources[key]).collect();
    let bytes = serde_json::to_vec(&told).unwrap().len();
    assert!(told.len() == 2 && bytes < 1500, "{bytes} bytes: {told:#?}");
    site.bound.drain().await;
}
