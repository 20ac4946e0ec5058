//! What this cluster reports to the controller.

use super::{Local, Sidecars, is_ready};
use crate::{health::Results, index::LocalService};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use tombolo_model::{
    AccountName, DnsLabel,
    bounds::whole::{LeftOut, NAMESPACES, NAMESPACES_SIZE, POD_NAMES, SERVICES, SERVICES_SIZE},
    inventory::{Inventory, NamespaceRecord, PodRecord, Protocol, ServiceRecord},
};
use tombolo_wire::message::Problem;

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

/// What people are told of an inventory that was too large.
#[must_use]
pub fn left_out(left: &LeftOut) -> Option<Problem> {
    let parts = [(left.services, "services"), (left.pods, "names of pods"), (left.namespaces, "namespaces")];
    let parts: Vec<String> =
        parts.iter().filter(|(many, _)| *many > 0).map(|(many, what)| format!("{many} {what}")).collect();
    let example = left.example.as_ref().map(|key| format!(", of {key} among others")).unwrap_or_default();
    (!parts.is_empty()).then(|| Problem {
        subject: "inventory".to_owned(),
        message: format!(
            "the cluster has more than one may tell the others of ({SERVICES} services, {POD_NAMES} names of pods, {NAMESPACES} namespaces; \
             {} and {} MiB of JSON): the newest are left out, {}{example}. What was told before is in force. Leave namespaces out \
             (tombolo cluster install --exclude-namespace), or make two clusters of it",
            SERVICES_SIZE >> 20,
            NAMESPACES_SIZE >> 20,
            parts.join(", "),
        ),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_said_with_the_remedy() {
        assert_eq!(left_out(&LeftOut::default()), None);
        let left = LeftOut {
            services: 7,
            example: Some("shop/web".to_owned().try_into().unwrap()),
            ..LeftOut::default()
        };
        let said = left_out(&left).unwrap().message;
        for part in
            ["left out, 7 services, of shop/web among others", "20000 services", "--exclude-namespace"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
