//! What happens: one thing after the other, as the dice say; then everything is healed, and all must have the same.

use crate::{
    dice::Dice,
    replica::Replica,
    site::Site,
    tenant::{CLUSTERS, Tenant},
    wall::MARKS,
};
use std::{collections::BTreeSet, time::Duration};
use tombolo_agent::gateways::Why;
use tombolo_compile::{names_needed, snapshot};

/// How often everything goes round before it must have come to rest.
const ROUNDS: usize = 200;

pub(crate) struct Simulation {
    dice: Dice,
    tenants: Vec<Tenant>,
    /// The clusters of all tenants, one tenant after the other.
    sites: Vec<Site>,
    replicas: Vec<Replica>,
    /// The replica that is slow just now.
    slow: usize,
    lines: Vec<String>,
}

impl Simulation {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let tenants: Vec<Tenant> = (0..MARKS.len()).map(Tenant::new).collect();
        let places = (0..MARKS.len()).flat_map(|tenant| (0..CLUSTERS.len()).map(move |at| (tenant, at)));
        let mut sites: Vec<Site> =
            places.map(|(tenant, at)| Site::new(tenant, at, &tenants[tenant].database)).collect();
        for site in &mut sites {
            site.start_agent(&tenants[site.agent.tenant].database, &mut dice, false);
            for gateway in &mut site.gateways {
                gateway.start(&mut dice, false);
            }
        }
        let replicas = (0..2).map(|_| Replica::new(MARKS.len())).collect();
        Self { dice, tenants, sites, replicas, slow: 1, lines: Vec::new() }
    }

    pub(crate) fn finish(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        self.lines.push(line());
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) {
        let at = self.dice.below(self.sites.len());
        let tenant = self.sites[at].agent.tenant;
        match self.dice.below(100) {
            0..=4 => {
                let what = self.tenants[tenant].change(&mut self.dice);
                self.note(|| format!("tenant {tenant}: {what}"));
            }
            5..=12 => {
                let what = self.sites[at].running.change(&mut self.dice);
                self.note(|| format!("cluster {at}: {what}"));
            }
            13..=22 => self.replica(tenant),
            23..=24 => self.break_replica(),
            25..=28 => self.break_agent(at),
            29 => self.revoke(at),
            30..=52 => self.agent(at),
            53..=62 => self.report(at),
            _ => self.gateway(at),
        }
        self.sites.iter_mut().for_each(|site| site.wait(Duration::from_millis(20)));
    }

    fn replica(&mut self, tenant: usize) {
        let mut at = self.dice.below(self.replicas.len());
        if at == self.slow && self.dice.chance(85) {
            at = (at + 1) % self.replicas.len();
        }
        let (replica, database) = (&mut self.replicas[at], &mut self.tenants[tenant].database);
        // between what it worked out and what it writes, others write
        match replica.settles[tenant].take().filter(|_| self.dice.chance(60)) {
            Some(settle) => {
                database.settle(&settle);
                self.note(|| format!("replica {at}: settles {settle:?} of tenant {tenant}"));
            }
            None => {
                replica.catch_up(tenant, database, &mut self.dice);
                let generation = database.generation();
                self.note(|| format!("replica {at}: is at {generation} of tenant {tenant}"));
            }
        }
        let whole = self.dice.chance(25);
        self.holds(at, tenant, whole);
    }

    /// What a replica holds of a tenant is what was stored; `whole` where everything is to be looked at.
    fn holds(&self, at: usize, tenant: usize, whole: bool) {
        let sites = self.sites.iter().filter(|site| site.agent.tenant == tenant);
        let peers = sites.flat_map(|site| site.agent.peers().map(move |peer| (site.agent.id, peer)));
        self.replicas[at].holds(&self.tenants[tenant].database, peers, whole);
    }

    fn break_replica(&mut self) {
        let at = self.dice.below(self.replicas.len());
        if self.dice.chance(60) {
            self.slow = at;
            return self.note(|| format!("replica {at} is slow"));
        }
        let life = self.replicas[at].life + 1;
        self.replicas[at] = Replica { life, ..Replica::new(self.tenants.len()) };
        // before it serves anybody it reads everything
        for tenant in &self.tenants {
            self.replicas[at].catch_up(tenant.index, &tenant.database, &mut self.dice);
        }
        self.note(|| format!("replica {at} starts anew"));
    }

    fn break_agent(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let database = &self.tenants[site.agent.tenant].database;
        let what = match self.dice.below(4) {
            0 | 1 => {
                let may_arrive = self.dice.chance(50);
                site.agent.cut(may_arrive);
                "loses the controller".to_owned()
            }
            2 => {
                site.stop_agent();
                "dies".to_owned()
            }
            _ => format!("starts anew: {}", site.start_agent(database, &mut self.dice, true)),
        };
        self.note(|| format!("agent {at}: {what}"));
    }

    fn revoke(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let database = &mut self.tenants[site.agent.tenant].database;
        if database.is_out(site.agent.id) {
            site.agent.rejoin(database);
            site.start_agent(database, &mut self.dice, false);
            self.note(|| format!("cluster {at} joins again"));
        } else if self.dice.chance(40) {
            database.revoke(site.agent.id);
            self.note(|| format!("cluster {at} is revoked"));
        }
    }

    fn agent(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let database = &self.tenants[site.agent.tenant].database;
        if site.agent.process.is_none() {
            if self.dice.chance(30) {
                let how = site.start_agent(database, &mut self.dice, true);
                self.note(|| format!("agent {at} starts: {how}"));
            }
            return;
        }
        let what = match self.dice.below(12) {
            0 | 1 if !site.agent.is_connected() => {
                let replica = self.dice.below(self.replicas.len());
                let is = site.agent.connect(replica, &self.replicas[replica]);
                format!("asks replica {replica} for the feed: {is}")
            }
            0..=3 => {
                let beat = self.dice.chance(30);
                site.agent.feed(&self.replicas, beat);
                "the controller speaks".to_owned()
            }
            4..=6 => {
                site.agent.deliver(Some(&mut self.dice), database);
                "hears".to_owned()
            }
            7 => {
                if self.dice.chance(20) {
                    site.agent.replay(&mut self.dice);
                }
                let spoilt = self.dice.chance(20) && site.agent.spoil(&mut self.dice);
                site.agent.deliver(None, database);
                format!("hears all{}", if spoilt { ", and a digit is wrong" } else { "" })
            }
            8 => {
                site.agent.keep();
                "keeps its state".to_owned()
            }
            9 => {
                site.read();
                "reads what runs".to_owned()
            }
            10 => {
                if let Some(process) = &site.agent.process {
                    process.check();
                }
                "checks".to_owned()
            }
            _ => {
                site.turn();
                "works out what follows".to_owned()
            }
        };
        self.note(|| format!("agent {at}: {what}"));
    }

    fn report(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let database = &mut self.tenants[site.agent.tenant].database;
        let what = match self.dice.below(12) {
            0 | 1 => {
                site.status(database);
                "status"
            }
            2 | 3 => {
                site.agent.stray(database, &mut self.dice);
                "a stray inventory arrives"
            }
            4 => {
                let may_arrive = self.dice.chance(70);
                site.agent.lose(may_arrive);
                "the inventory that is under way, or its answer, is lost"
            }
            _ => site.agent.report(database),
        };
        site.stored(database);
        self.note(|| format!("agent {at}: reports: {what}"));
    }

    fn gateway(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let which = self.dice.below(site.gateways.len());
        let what = match self.dice.below(20) {
            0 => {
                let how = site.gateways[which].start(&mut self.dice, true);
                format!("starts anew: its table is {how}")
            }
            1 => {
                site.gateways[which].cut();
                "loses its agent".to_owned()
            }
            2 if self.dice.chance(20) => {
                site.gateways[which].cut();
                site.gateways[which].process = None;
                "dies".to_owned()
            }
            3 => {
                site.gateways[which].keep();
                "keeps its table".to_owned()
            }
            4 if self.dice.chance(50) => {
                site.gateways[which].replay(&mut self.dice);
                "hears something of before".to_owned()
            }
            5..=8 if !site.gateways[which].is_connected() => {
                let whole = self.dice.chance(90);
                site.connect_gateway(which, whole);
                "says hello".to_owned()
            }
            5..=11 => {
                let why = if self.dice.chance(30) { Why::Beat } else { Why::News };
                site.feed_gateway(which, why);
                "the agent speaks".to_owned()
            }
            12..=14 => {
                site.deliver_to_gateway(which, Some(&mut self.dice));
                "hears".to_owned()
            }
            15..=17 => {
                let spoilt = self.dice.chance(15) && site.gateways[which].spoil(&mut self.dice);
                site.deliver_to_gateway(which, None);
                format!("hears all{}", if spoilt { ", and a digit is wrong" } else { "" })
            }
            _ => {
                site.turn();
                "its agent works out what follows".to_owned()
            }
        };
        self.note(|| format!("gateway {which} of cluster {at}: {what}"));
    }

    /// Nothing fails any more, and everybody does what he does: all come to the same, and stay there.
    pub(crate) fn heal(&mut self) {
        self.note(|| "all is healed".to_owned());
        for site in &mut self.sites {
            let database = &self.tenants[site.agent.tenant].database;
            if site.agent.process.is_none() {
                site.start_agent(database, &mut self.dice, false);
            }
            for gateway in site.gateways.iter_mut().filter(|gateway| gateway.process.is_none()) {
                gateway.start(&mut self.dice, false);
            }
        }
        let (mut before, mut rest) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            self.round();
            let now = self.stands();
            rest = if now == before { rest + 1 } else { 0 };
            before = now;
            if rest == 6 {
                return self.converged();
            }
        }
        panic!("it does not come to rest in {ROUNDS} rounds");
    }

    /// Everybody does once what he does all the time.
    fn round(&mut self) {
        for tenant in &mut self.tenants {
            for replica in &mut self.replicas {
                replica.catch_up(tenant.index, &tenant.database, &mut self.dice);
                if let Some(settle) = replica.settles[tenant.index].take() {
                    tenant.database.settle(&settle);
                }
            }
        }
        for (at, site) in self.sites.iter_mut().enumerate() {
            let database = &mut self.tenants[site.agent.tenant].database;
            if !site.agent.is_connected() {
                let replica = at % self.replicas.len();
                site.agent.connect(replica, &self.replicas[replica]);
            }
            site.agent.feed(&self.replicas, true);
            site.agent.deliver(None, database);
            site.read();
            site.turn();
            if let Some(process) = &site.agent.process {
                process.check();
            }
            site.turn();
            for which in 0..site.gateways.len() {
                if !site.gateways[which].is_connected() {
                    site.connect_gateway(which, true);
                }
                site.turn();
                site.feed_gateway(which, Why::Beat);
                site.deliver_to_gateway(which, None);
            }
            site.agent.report(database);
            site.stored(database);
            site.status(database);
            site.wait(Duration::from_secs(1));
        }
    }

    fn stands(&self) -> Vec<u64> {
        let stored = self.tenants.iter().map(|tenant| tenant.database.generation().get());
        stored.chain(self.sites.iter().flat_map(Site::stands)).collect()
    }

    fn converged(&self) {
        for (at, tenant) in
            (0..self.replicas.len()).flat_map(|at| (0..self.tenants.len()).map(move |tenant| (at, tenant)))
        {
            self.holds(at, tenant, true);
        }
        for site in &self.sites {
            let database = &self.tenants[site.agent.tenant].database;
            // whoever was revoked goes on with what he had
            if !database.is_out(site.agent.id) {
                site.agent.converged(database);
                let stored = &database.world().inventories[&site.agent.id];
                let totals =
                    stored.services.iter().map(|(key, record)| (key.clone(), record.total)).collect();
                assert_eq!(site.running.now().totals, totals, "what runs is what is stored");
                let told: BTreeSet<String> =
                    site.gateways.iter().flat_map(|gateway| gateway.hello.advertise.clone()).collect();
                assert_eq!(database.stored_ingress(site.agent.id), told);
            }
            site.converged();
        }
        for tenant in &self.tenants {
            let world = tenant.database.world();
            assert!(
                names_needed(world).iter().eq(world.vips.keys()),
                "each name has a virtual IP, and nobody else"
            );
            for id in world.clusters.keys() {
                let findings = tombolo_compile::check(&snapshot(world, *id));
                assert!(
                    findings.iter().all(|f| f.severity() != tombolo_compile::Severity::Fatal),
                    "{findings:?}"
                );
            }
        }
    }
}
