//! A service of this cluster, as its objects say together.

use crate::source::{Check, ServiceObject, ServicePort, SliceObject, SlicePort, TargetPort};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};
use tombolo_model::{
    AccountName, DnsLabel, Few, Held, Place,
    inventory::{PortSpec, Protocol},
    mcs::Traits,
};

/// A service of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalService {
    /// When it was made, seconds since 1970, where its manifest says so.
    pub created_s: Option<i64>,
    /// Whether its pods have names of their own.
    pub headless: bool,
    /// Who serves it, as far as it is known.
    pub accounts: Few<AccountName>,
    /// Its ports.
    pub ports: Vec<LocalPort>,
    /// Its endpoints by address.
    pub endpoints: BTreeMap<IpAddr, LocalAddress>,
    /// What of it goes to other clusters where it is exported.
    pub traits: Held<Traits>,
}

/// What is known of an address of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddress {
    /// The name in DNS of a pod that has one.
    pub hostname: Option<Box<DnsLabel>>,
    /// The pod; one of a cluster with IPv4 and IPv6 has two addresses.
    pub pod: Option<AccountName>,
    /// Who serves at it, as far as it is known: which of the service's accounts.
    account: Option<u32>,
}

impl LocalAddress {
    /// What a list has for who serves at it, that has something for each of the service's accounts, in their order.
    #[must_use]
    pub fn account_in<'a, T>(&self, by_account: &'a [T]) -> Option<&'a T> {
        by_account.get(usize::try_from(self.account?).ok()?)
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPort {
    /// What clients see.
    pub spec: PortSpec,
    /// How its endpoints are checked.
    pub check: Check,
    /// Where it leads.
    pub endpoints: BTreeMap<Place, LocalEndpoint>,
}

/// An endpoint of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// What its EndpointSlice says. It takes requests when its check agrees.
    pub ready: bool,
    /// On its way out and still answering: taken while no other of the port is ready.
    pub draining: bool,
}

impl LocalService {
    /// What a service is with these slices, and the accounts that its pods run as.
    pub(super) fn join(
        service: &ServiceObject,
        slices: &[&SliceObject],
        account_of: impl Fn(&AccountName) -> Option<AccountName>,
    ) -> Self {
        let mut endpoints: BTreeMap<IpAddr, LocalAddress> = BTreeMap::new();
        for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
            let known = endpoints.entry(endpoint.address).or_default();
            known.hostname = known.hostname.take().or_else(|| endpoint.hostname.clone());
            known.pod = known.pod.take().or_else(|| endpoint.pod.clone());
        }
        let serving = |known: &LocalAddress| {
            let of_pod = || account_of(known.pod.as_ref()?);
            service.account.clone().or_else(of_pod)
        };
        let serving: Vec<Option<AccountName>> = endpoints.values().map(serving).collect();
        let accounts: Few<AccountName> =
            service.account.iter().chain(serving.iter().flatten()).cloned().collect();
        for (known, account) in endpoints.values_mut().zip(serving) {
            let at = account.and_then(|account| accounts.binary_search(&account).ok());
            known.account = at.and_then(|at| u32::try_from(at).ok());
        }
        let port = |port: &ServicePort| LocalPort {
            spec: port.spec.clone(),
            check: if port.spec.protocol == Protocol::Tcp { service.check.clone() } else { Check::None },
            endpoints: leads_to(port, slices),
        };
        Self {
            created_s: service.created_s,
            headless: service.headless,
            accounts,
            ports: service.ports.iter().map(port).collect(),
            endpoints,
            traits: service.traits.clone(),
        }
    }
}

fn leads_to(port: &ServicePort, slices: &[&SliceObject]) -> BTreeMap<Place, LocalEndpoint> {
    let mut all: BTreeMap<Place, LocalEndpoint> = BTreeMap::new();
    for slice in slices {
        let Some(number) = target_number(port, slice.ports.as_deref()) else { continue };
        for endpoint in &slice.endpoints {
            // In two slices (Kubernetes allows it while it moves endpoints): ready where one says so.
            all.entry(Place::new(endpoint.address, number))
                .and_modify(|known| {
                    known.ready |= endpoint.ready;
                    known.draining |= endpoint.draining;
                })
                .or_insert(LocalEndpoint { ready: endpoint.ready, draining: endpoint.draining });
        }
    }
    all
}

/// The endpoints' port number for a service's port. Kubernetes links the two by the port's name; hand-written
/// slices often leave names out, so a target port that is there by name or number is taken too.
fn target_number(port: &ServicePort, slice: Option<&[SlicePort]>) -> Option<u16> {
    let Some(ports) = slice else {
        return match port.target {
            TargetPort::Number(number) => Some(number),
            TargetPort::Name(_) => None,
        };
    };
    let same = |p: &&SlicePort| p.protocol == port.spec.protocol;
    let name = port.spec.name.as_ref().map_or("", DnsLabel::as_str);
    let by_name = ports.iter().filter(same).find(|p| p.name == name);
    let by_target = || {
        ports.iter().filter(same).find(|p| match &port.target {
            TargetPort::Number(number) => p.port == *number,
            TargetPort::Name(name) => p.name == *name,
        })
    };
    by_name.or_else(by_target).map(|p| p.port)
}

/// An endpoint to check, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Probe {
    /// Where.
    pub address: SocketAddr,
    /// `GET` of this path; only a connection where there is none.
    pub http: Option<String>,
}

impl Probe {
    /// The probe of an endpoint; none where it is not checked.
    #[must_use]
    pub fn of(address: SocketAddr, check: &Check) -> Option<Self> {
        match check {
            Check::None => None,
            Check::Tcp => Some(Self { address, http: None }),
            Check::Http(path) => Some(Self { address, http: Some(path.clone()) }),
        }
    }
}
