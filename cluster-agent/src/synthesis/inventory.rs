//! What this cluster reports to the controller.

use super::{Local, Sidecars, is_ready};
use crate::{
    health::Results,
    index::{LocalService, View},
    source::Check,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};
use tombolo_model::{
    AccountName, DnsLabel,
    bounds::whole::{LeftOut, NAMESPACES, NAMESPACES_SIZE, POD_NAMES, SERVICES, SERVICES_SIZE},
    inventory::{Inventory, NamespaceRecord, PodRecord, Protocol, ServiceKey, ServiceRecord},
};
use tombolo_wire::message::Problem;

/// What people are told of an inventory that was too large.
fn left_out(left: &LeftOut) -> Option<Problem> {
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

/// What was reported last: what a change does not touch is taken over from it.
#[derive(Debug, Default)]
pub(super) struct Reported(Option<Before>);

/// What it was made of, and what it was. There is none where something was left out: what there is room for is not known before all is.
#[derive(Debug)]
struct Before {
    view: Arc<View>,
    passing: Arc<Results>,
    sidecars: Arc<Sidecars>,
    takes_calls: bool,
    inventory: Arc<Inventory>,
}

impl Reported {
    /// What is reported now, and what of it was left out.
    pub(super) fn next(
        &mut self,
        local: Local<'_>,
        sidecars: &Arc<Sidecars>,
        takes_calls: bool,
    ) -> (Arc<Inventory>, Option<Problem>) {
        let same = |before: &Before| before.takes_calls == takes_calls && before.sidecars == *sidecars;
        let before = self.0.take().filter(same);
        let (mut all, left) = made(local, sidecars, takes_calls, before.as_ref());
        if let Some(before) = before.filter(|before| before.inventory == all) {
            all = before.inventory;
        }
        if left == LeftOut::default() {
            self.0 = Some(Before {
                view: Arc::clone(local.view),
                passing: Arc::clone(local.passing),
                sidecars: Arc::clone(sidecars),
                takes_calls,
                inventory: Arc::clone(&all),
            });
        }
        (all, left_out(&left))
    }
}

impl Before {
    /// What was reported of a service, where the same would be now.
    fn record(
        &self,
        local: Local<'_>,
        key: &ServiceKey,
        service: &Arc<LocalService>,
    ) -> Option<&ServiceRecord> {
        let same = |old: &&Arc<LocalService>| Arc::ptr_eq(old, service);
        self.view.services.get(key).filter(same)?;
        let is_checked = || service.ports.iter().any(|port| port.check != Check::None);
        let record = self.inventory.services.get(key)?;
        (record.created_s == created_s(local, key, service)
            && (Arc::ptr_eq(&self.passing, local.passing) || !is_checked())
            && self.view.exported(key) == local.view.exported(key))
        .then_some(record)
    }
}

fn created_s(local: Local<'_>, key: &ServiceKey, service: &LocalService) -> i64 {
    local.ages.get(key).copied().or(service.created_s).unwrap_or_default()
}

fn made(
    local: Local<'_>,
    sidecars: &Sidecars,
    takes_calls: bool,
    before: Option<&Before>,
) -> (Arc<Inventory>, LeftOut) {
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
            if let Some(record) = before.and_then(|before| before.record(local, key, service)) {
                return (key.clone(), record.clone());
            }
            let created_s = created_s(local, key, service);
            let passing = takes_calls.then_some(&**local.passing);
            let record = service_record(service, created_s, passing, sidecars);
            let mut record =
                ServiceRecord { export: local.view.export(key, service).map(Box::new), ..record };
            record.fit();
            (key.clone(), record)
        })
        .collect();
    let mut all = Inventory { namespaces, services };
    let left = all.fit();
    (Arc::new(all), left)
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
        ports: service.ports.iter().map(|port| port.spec.clone()).collect::<Vec<_>>().into(),
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
