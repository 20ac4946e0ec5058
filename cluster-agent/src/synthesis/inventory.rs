//! What this cluster reports to the controller.

use super::{Local, Sidecars, is_ready};
use crate::{health::Results, index::LocalService};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use tombolo_model::inventory::{Inventory, NamespaceRecord, PodRecord, Protocol, ServiceRecord};
use tombolo_model::{AccountName, DnsLabel};

/// What this cluster reports to the controller.
#[must_use]
pub fn inventory(local: Local<'_>) -> Inventory {
    report(local, true)
}

/// The same of a cluster that takes no new calls: nothing of it is ready, whatever it serves still.
#[must_use]
pub fn last_inventory(local: Local<'_>) -> Inventory {
    report(local, false)
}

fn report(local: Local<'_>, takes_calls: bool) -> Inventory {
    let sidecars = Sidecars::of(local.gateways, local.view);
    let namespaces = local
        .view
        .namespaces
        .iter()
        .map(|(name, labels)| {
            (
                name.clone(),
                NamespaceRecord { labels: labels.clone(), imports: local.view.spaces.contains(name) },
            )
        })
        .collect();
    let services = local
        .view
        .services
        .iter()
        .map(|(key, service)| {
            let created_s = local.ages.get(key).copied().or(service.created_s).unwrap_or_default();
            let passing = takes_calls.then_some(&**local.passing);
            let record = service_record(service, created_s, passing, &sidecars);
            let mut record =
                ServiceRecord { export: local.view.export(key, service).map(Box::new), ..record };
            record.fit();
            (key.clone(), record)
        })
        .collect();
    Inventory { namespaces, services }
}

fn service_record(
    service: &LocalService,
    created_s: i64,
    passing: Option<&Results>,
    sidecars: &Sidecars,
) -> ServiceRecord {
    // An endpoint counts where any TCP port of it takes requests: which port, its ingress gateway knows.
    let addresses: BTreeSet<IpAddr> = service
        .ports
        .iter()
        .filter(|port| port.spec.protocol == Protocol::Tcp)
        .flat_map(|port| port.endpoints.iter().map(move |(address, endpoint)| (port, *address, *endpoint)))
        .filter(|(port, address, endpoint)| {
            passing.is_some_and(|passing| is_ready(port, *address, *endpoint, passing))
        })
        .map(|(_, address, _)| address.ip())
        .collect();
    let mut pods: BTreeMap<_, PodRecord> = BTreeMap::new();
    if service.headless {
        for (address, known) in &service.endpoints {
            let Some(hostname) = &known.hostname else { continue };
            let pod =
                pods.entry(DnsLabel::clone(hostname)).or_insert(PodRecord { ready: false, tunnelled: true });
            pod.ready |= addresses.contains(address);
            pod.tunnelled &= sidecars.tunnel(*address).is_some();
        }
    }
    // A pod with an IPv4 and an IPv6 address is one endpoint.
    let place = |address: &IpAddr| {
        let pod = service.endpoints.get(address).and_then(|known| known.pod.clone());
        pod.map_or(Place::Address(*address), Place::Pod)
    };
    let places = |addresses: &mut dyn Iterator<Item = &IpAddr>| addresses.map(place).collect::<BTreeSet<_>>();
    let plain = |address: &&IpAddr| {
        let known = service
            .endpoints
            .get(*address)
            .is_some_and(|known| known.account_in(&service.accounts).is_some());
        !known || sidecars.tunnel(**address).is_none()
    };
    let (ready, total) = (places(&mut addresses.iter()), places(&mut service.endpoints.keys()));
    // Where none is ready all count, so that callers keep their demand for TLS end to end meanwhile.
    let tunnelled = match ready.is_empty() {
        true => total.difference(&places(&mut service.endpoints.keys().filter(plain))).count(),
        false => ready.difference(&places(&mut addresses.iter().filter(plain))).count(),
    };
    ServiceRecord {
        created_s,
        ports: service.ports.iter().map(|port| port.spec.clone()).collect(),
        headless: service.headless,
        ready: count(ready.len()),
        total: count(total.len()),
        tunnelled: count(tunnelled),
        accounts: service.accounts.clone(),
        pods,
        export: None,
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Pod(AccountName),
    Address(IpAddr),
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
