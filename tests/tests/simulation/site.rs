//! A cluster: what runs in it, its agent and its gateways.

use crate::{agent::Agent, database::Database, dice::Dice, gateway::Gateway, running::Running, wall::MARKS};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use tombolo_agent::{gateways::Why, synthesis::Synthesis};
use tombolo_model::{GatewayRole, Generation, inventory::ServiceKey, snapshot::GatewayResource};
use tombolo_wire::{message::GatewayHello, version::Hello};

/// An ingress gateway among a cluster's gateways.
const INGRESS: usize = 1;

pub(crate) struct Site {
    pub(crate) running: Running,
    pub(crate) agent: Agent,
    pub(crate) gateways: Vec<Gateway>,
    /// What the agents could tell the gateways, in the order of time.
    could: Vec<Synthesis>,
    /// How far the stored inventory has followed what ran.
    stored: usize,
}

impl Site {
    pub(crate) fn new(tenant: usize, cluster: usize, database: &Database) -> Self {
        let mark = MARKS[tenant];
        let roles = [
            ("egress", GatewayRole::Egress),
            ("ingress-1", GatewayRole::Ingress),
            ("ingress-2", GatewayRole::Ingress),
            ("sidecar", GatewayRole::Sidecar),
        ];
        let gateways = roles.iter().enumerate().map(|(at, (instance, role))| {
            let port = u16::try_from(15_000 + 100 * tenant + 10 * cluster + at).unwrap();
            let tunnel = SocketAddr::from(([192, 0, 2, 1], port));
            let mut hello =
                GatewayHello::new(Hello::current("tombolo-gateway"), (*instance).to_owned(), *role, tunnel);
            match role {
                GatewayRole::Ingress => {
                    hello.advertise.insert(format!("{mark}-{cluster}.example.net:{port}"));
                }
                GatewayRole::Sidecar => {
                    hello.explicit = true;
                    hello.serves = (1..6).map(|number| Running::address(tenant, cluster, number)).collect();
                }
                GatewayRole::Egress | GatewayRole::Node => {}
            }
            Gateway::new(tenant, hello)
        });
        Self {
            running: Running::new(tenant, mark, cluster),
            agent: Agent::new(tenant, cluster, database),
            gateways: gateways.collect(),
            could: Vec::new(),
            stored: 0,
        }
    }

    pub(crate) fn start_agent(&mut self, database: &Database, dice: &mut Dice, lies: bool) -> String {
        self.stop_agent();
        let how = self.agent.start(database, dice, lies);
        if self.agent.counts_anew {
            // no line of before comes on a connection to a process that is no more, and its number would not tell it from a later one
            self.gateways.iter_mut().for_each(Gateway::forget);
        }
        how
    }

    /// It dies, and with it the feeds of its gateways.
    pub(crate) fn stop_agent(&mut self) {
        self.gateways.iter_mut().for_each(Gateway::cut);
        self.agent.process = None;
    }

    /// It reads what runs in the cluster.
    pub(crate) fn read(&self) {
        if let Some(process) = &self.agent.process {
            process.read(&self.running.now().view);
        }
    }

    pub(crate) fn turn(&mut self) {
        let Some(process) = &mut self.agent.process else { return };
        let Some(could) = process.turn().filter(|could| self.could.last() != Some(could)) else { return };
        // a sidecar that lives and was known stays before its endpoints
        let sidecars = self.gateways.iter().filter(|gateway| gateway.hello.role == GatewayRole::Sidecar);
        let known = |gateway: &&Gateway| gateway.process.is_some() && gateway.was_known;
        for Gateway { hello, .. } in sidecars.filter(known).filter(|_| !process.blind) {
            let told = could.for_gateway(&self.gateways[INGRESS].hello);
            let exports = told.values().filter_map(|resource| match resource {
                GatewayResource::Export(export) => Some(export),
                _ => None,
            });
            for endpoint in exports.flat_map(|export| export.ports.iter().flat_map(|port| &port.endpoints)) {
                let before = hello.serves.contains(&endpoint.address.ip());
                assert!(
                    !before || endpoint.tunnel == Some(hello.tunnel.into()),
                    "{endpoint:?} lost its sidecar"
                );
            }
        }
        self.could.push(could);
    }

    /// Time passes for the agent. Whoever lost its set of gateways is not left without all of them for so long that it takes those that did not
    /// come for gone: a gateway asks at least every three seconds.
    pub(crate) fn wait(&mut self, by: Duration) {
        let Some(process) = &mut self.agent.process else { return };
        let known = process.hub.gateways();
        let mut alive = self.gateways.iter().filter(|gateway| gateway.process.is_some());
        if alive.all(|gateway| known.contains_key(&gateway.hello.instance))
            || !process.hub.forgot(process.now())
        {
            process.age += by;
        }
    }

    /// The agent says where its ingress gateways are: of those that live, none is withdrawn.
    pub(crate) fn status(&mut self, database: &mut Database) {
        let before = database.stored_ingress(self.agent.id);
        self.agent.status(database);
        if database.is_out(self.agent.id) {
            return;
        }
        let after = database.stored_ingress(self.agent.id);
        for gateway in self.gateways.iter().filter(|gateway| gateway.process.is_some()) {
            for address in gateway.hello.advertise.intersection(&before) {
                assert!(after.contains(address), "{address} lives, and was withdrawn");
            }
        }
    }

    /// What is stored of this cluster ran in it at a time, and that time only goes forward.
    pub(crate) fn stored(&mut self, database: &Database) {
        let Some(stored) = database.world().inventories.get(&self.agent.id) else { return };
        let totals: BTreeMap<ServiceKey, u32> =
            stored.services.iter().map(|(key, record)| (key.clone(), record.total)).collect();
        let ran = self.running.versions[self.stored..].iter().position(|version| version.totals == totals);
        let Some(further) = ran else {
            panic!(
                "stored is {totals:?}, which never ran after {:?}",
                self.running.versions[self.stored].totals
            )
        };
        self.stored += further;
    }

    pub(crate) fn connect_gateway(&mut self, at: usize, whole: bool) {
        if let Some(process) = &self.agent.process {
            self.gateways[at].connect(&process.hub, whole);
        }
    }

    pub(crate) fn feed_gateway(&mut self, at: usize, why: Why) {
        self.gateways[at].feed(why);
    }

    pub(crate) fn deliver_to_gateway(&mut self, at: usize, part: Option<&mut Dice>) {
        if let Some(process) = &self.agent.process {
            self.gateways[at].deliver(part, &process.hub, &self.could);
        }
    }

    /// What all of this came to, to see whether anything goes on.
    pub(crate) fn stands(&self) -> Vec<u64> {
        let agent = self.agent.process.as_ref().map(|process| process.generation().get());
        // not their generations: those rise with each time that the agent works out the same
        let gateways = self.gateways.iter().map(|gateway| u64::try_from(gateway.at).ok());
        let reporting = u64::from(self.agent.is_reporting());
        std::iter::once(agent).chain(gateways).map(Option::unwrap_or_default).chain([reporting]).collect()
    }

    /// All gateways have what follows from what is there now.
    pub(crate) fn converged(&self) {
        let process = self.agent.process.as_ref().expect("it runs");
        if process.generation() == Generation::ZERO {
            // it was taken out, and lost what it had: its gateways go on with what they have
            return;
        }
        let last = self.could.last().expect("the agent told its gateways something");
        for gateway in &self.gateways {
            let (_, state) = gateway.state().expect("it runs");
            crate::process::same(&state, &last.for_gateway(&gateway.hello), || {
                format!("gateway {} in the end", gateway.hello.instance)
            });
        }
    }
}
