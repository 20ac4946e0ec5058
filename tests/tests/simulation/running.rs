//! What truly runs in a cluster, and did at each time: the source that an agent reads.

use crate::dice::Dice;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use tombolo_agent::{
    index::{Index, View},
    source::{
        Check, NamespaceObject, Object, ObjectKey, ObjectKind, ServiceObject, ServicePort, SliceEndpoint,
        SliceObject, TargetPort,
    },
};
use tombolo_model::{AccountName, inventory::ServiceKey};
use tombolo_testkit::build;

const NAMESPACES: [&str; 2] = ["default", "shop"];
const NAMES: [&str; 3] = ["cart", "users", "web"];

#[derive(Clone)]
struct Service {
    created_s: i64,
    port: u16,
    account: AccountName,
    check: bool,
    endpoints: BTreeMap<IpAddr, bool>,
}

/// What ran at a time.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) view: Arc<View>,
    /// The endpoints of each service.
    pub(crate) totals: BTreeMap<ServiceKey, u32>,
}

pub(crate) struct Running {
    place: (usize, usize),
    mark: &'static str,
    index: Index,
    services: BTreeMap<ServiceKey, Service>,
    next: u16,
    pub(crate) versions: Vec<Version>,
}

impl Running {
    pub(crate) fn new(tenant: usize, mark: &'static str, cluster: usize) -> Self {
        let mut index = Index::default();
        for name in NAMESPACES {
            let labels = [("kind".to_owned(), name.to_owned())].into();
            index.apply(Object::Namespace(NamespaceObject {
                name: build::name(name),
                labels,
                ending: false,
            }));
        }
        let (services, versions) = (BTreeMap::new(), Vec::new());
        let mut running = Self { place: (tenant, cluster), mark, index, services, next: 1, versions };
        running.note();
        running
    }

    /// Where the endpoint with this number is; the first few are behind the cluster's sidecar.
    pub(crate) fn address(tenant: usize, cluster: usize, number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        let place = u8::try_from(16 * tenant + cluster).unwrap();
        [10, place, high, low].into()
    }

    pub(crate) fn now(&self) -> &Version {
        self.versions.last().unwrap()
    }

    fn note(&mut self) {
        let total = |service: &Service| u32::try_from(service.endpoints.len()).unwrap();
        let totals = self.services.iter().map(|(key, service)| (key.clone(), total(service))).collect();
        self.versions.push(Version { view: Arc::new(self.index.view()), totals });
    }

    /// Something changes; what.
    pub(crate) fn change(&mut self, dice: &mut Dice) -> String {
        let key: ServiceKey =
            build::service_key(&format!("{}/{}", dice.pick(&NAMESPACES), dice.pick(&NAMES)));
        let what = match (self.services.contains_key(&key), dice.below(10)) {
            (true, 0 | 1) => {
                self.services.remove(&key);
                let name = |text: &str| build::name::<AccountName>(text);
                let gone = |kind, name| ObjectKey { kind, namespace: key.namespace.clone(), name };
                self.index.delete(&gone(ObjectKind::Service, name(key.name.as_str())));
                self.index.delete(&gone(ObjectKind::EndpointSlice, name(&format!("{}-1", key.name))));
                format!("service {key} goes")
            }
            (true, kind) => {
                self.endpoint(&key, kind, dice);
                format!("the endpoints of {key} change")
            }
            (false, _) => {
                let service = Service {
                    created_s: 1_700_000_000 + i64::try_from(dice.below(5)).unwrap(),
                    port: dice.pick(&[80, 80, 8080]),
                    account: build::name(&format!("{}-{}", self.mark, key.name)),
                    check: dice.chance(30),
                    endpoints: BTreeMap::new(),
                };
                self.services.insert(key.clone(), service);
                self.endpoint(&key, 9, dice);
                format!("service {key} comes")
            }
        };
        self.note();
        what
    }

    fn endpoint(&mut self, key: &ServiceKey, kind: usize, dice: &mut Dice) {
        let fresh = Self::address(self.place.0, self.place.1, self.next);
        let Some(service) = self.services.get_mut(key) else { return };
        let some = service.endpoints.keys().nth(dice.below(service.endpoints.len().max(1))).copied();
        match (kind, some) {
            (2 | 3, Some(address)) => drop(service.endpoints.remove(&address)),
            (4, Some(address)) => {
                service.endpoints.entry(address).and_modify(|ready| *ready = !*ready);
            }
            (5, _) => service.port = dice.pick(&[80, 8080, 9090]),
            // another one in its place: what the cluster reports is the same
            (6, Some(address)) => {
                let ready = service.endpoints.remove(&address).unwrap_or(true);
                service.endpoints.insert(fresh, ready);
                self.next += 1;
            }
            _ => {
                service.endpoints.insert(fresh, true);
                self.next += 1;
            }
        }
        let service = service.clone();
        let port = ServicePort { spec: build::tcp(service.port), target: TargetPort::Number(8080) };
        self.index.apply(Object::Service(ServiceObject {
            key: key.clone(),
            created_s: Some(service.created_s),
            ports: vec![port],
            headless: false,
            account: Some(service.account),
            check: if service.check { Check::Tcp } else { Check::None },
            traits: Default::default(),
            external: false,
        }));
        let endpoint = |(address, ready): (&IpAddr, &bool)| SliceEndpoint {
            address: *address,
            ready: *ready,
            draining: false,
            hostname: None,
            pod: None,
        };
        self.index.apply(Object::Slice(SliceObject {
            namespace: key.namespace.clone(),
            name: build::name(&format!("{}-1", key.name)),
            service: key.name.clone(),
            ports: None,
            endpoints: service.endpoints.iter().map(endpoint).collect(),
        }));
    }
}
