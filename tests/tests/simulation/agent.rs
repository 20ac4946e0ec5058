//! An agent: what it keeps, what it was told, what it tells.

use crate::{
    database::Database,
    dice::Dice,
    network::{Heard, Pipe, damaged},
    process::{Flight, Link, Process, same},
    replica::Replica,
    tenant::{cluster_id, intermediate},
    wall,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tombolo_agent::{
    dns::ZoneWriter,
    engine::{Engine, Inputs, Outputs},
    gateways::{Hub, HubConfig, first_generation},
    health::Checks,
    report::{Reporter, new_epoch},
    state::DataDir,
    synthesis,
    vip::AddressMode,
};
use tombolo_controller::publish::{Next, Telling};
use tombolo_feed::{Follower, State, Took, cache};
use tombolo_model::{
    ClusterName, Generation, GlobalName, SpiffeId, TrustDomain,
    id::ClusterId,
    snapshot::{ClusterResource, Vip},
};
use tombolo_mtls::Peer;
use tombolo_runtime::clock::ManualClock;
use tombolo_wire::{
    codec::encode_line,
    digest::Stated,
    message::{FeedLine, InventoryUpdate},
    version::Hello,
};

pub(crate) struct Agent {
    pub(crate) tenant: usize,
    pub(crate) id: ClusterId,
    cluster: usize,
    name: ClusterName,
    trust_domain: TrustDomain,
    /// How often it joined again.
    joined: usize,
    dir: tempfile::TempDir,
    clock: ManualClock,
    snapshot: Option<Vec<u8>>,
    older: Option<Vec<u8>>,
    pub(crate) process: Option<Process>,
    heard: Heard,
    /// Requests that go on though their connection is gone.
    strays: Vec<Arc<InventoryUpdate>>,
    vips: BTreeMap<GlobalName, Vip>,
    /// Whether it may have begun with lower generations for its gateways than it gave before.
    pub(crate) counts_anew: bool,
}

impl Agent {
    pub(crate) fn new(tenant: usize, cluster: usize, database: &Database) -> Self {
        let id = cluster_id(tenant, cluster);
        let world = database.world();
        Self {
            tenant,
            id,
            cluster,
            name: world.clusters[&id].name.clone(),
            trust_domain: world.organization.trust_domain.clone(),
            joined: 0,
            // what is kept there is synced each time: memory is quicker
            dir: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(),
            clock: tombolo_testkit::clock::manual(),
            snapshot: None,
            older: None,
            process: None,
            heard: Heard::default(),
            strays: Vec::new(),
            vips: BTreeMap::new(),
            counts_anew: false,
        }
    }

    fn peer(&self) -> Peer {
        self.peer_of(self.joined)
    }

    fn peer_of(&self, membership: usize) -> Peer {
        Peer {
            id: SpiffeId::agent(&self.trust_domain, &self.name),
            intermediate: intermediate(self.tenant, self.cluster, membership),
        }
    }

    /// Who it is, and who it was in the memberships before: whoever has a key of those is to stand no more.
    pub(crate) fn peers(&self) -> impl Iterator<Item = Peer> {
        (0..=self.joined).map(move |membership| self.peer_of(membership))
    }

    pub(crate) fn rejoin(&mut self, database: &mut Database) {
        self.joined += 1;
        database.rejoin(self.id, self.peer().intermediate);
    }

    /// Begins a process on what the one before kept; `lies` where the disk may have lost or changed it.
    pub(crate) fn start(&mut self, database: &Database, dice: &mut Dice, lies: bool) -> String {
        self.process = None;
        let mut how = "all is there".to_owned();
        if lies {
            let older = self.older.clone();
            how = format!("the snapshot is {}", damaged(dice, &mut self.snapshot, &older));
            if dice.chance(40) && self.lose_gateways(dice) {
                how.push_str(", the set of gateways is not whole");
            }
            if dice.chance(20) {
                self.clock.set(tombolo_testkit::clock::moment() - Duration::from_secs(600));
                how.push_str(", the clock goes back");
                let file = self.dir.path().join("gateway-generation.json");
                if dice.chance(50) && std::fs::remove_file(file).is_ok() {
                    self.counts_anew = true;
                    how.push_str(", how far the gateways' generations came is gone");
                }
            }
        }
        let data = DataDir::create(self.dir.path()).unwrap();
        let name = self.name.clone();
        let mut follower = Follower::new(Arc::new(move |resources| synthesis::validate(resources, &name)));
        let kept = self.snapshot.as_deref().map(|bytes| cache::read(Path::new("snapshot"), bytes));
        if follower.restore(kept.transpose()) == Ok(true) {
            self.holds(&follower.state(), database);
        }
        // the true time, which is used for nothing else here, must not end it
        let config = HubConfig { grace: Duration::from_secs(3600), ..HubConfig::default() };
        let hub = Hub::new(config, data.clone(), first_generation(&data, &self.clock));
        let began = Instant::now();
        let (states, snapshot) = watch::channel(Arc::new(follower.state()));
        let (sources, source) = watch::channel(None);
        let (results, found) = watch::channel(Arc::default());
        let (targets, wanted) = watch::channel(BTreeSet::new());
        let (told, inventory) = watch::channel(None);
        let inputs = Inputs {
            snapshot,
            source,
            checks: Checks { targets, results: found },
            hub: Arc::clone(&hub),
            mode: AddressMode::Allocated,
            exposed: watch::channel(None).1,
            clock: Arc::new(self.clock.clone()),
        };
        let outputs =
            Outputs { zone: ZoneWriter::new(), inventory: told, problems: watch::channel(Vec::new()).0 };
        // a change of a process that is no more is refused whenever it comes; see docs/reliability.md for what it told whole
        self.strays.retain(|update| !update.whole);
        self.process = Some(Process {
            blind: follower.generation() == Generation::ZERO && hub.forgot(began),
            follower,
            states,
            sources,
            results,
            targets: wanted,
            hub,
            engine: Engine::new(data),
            inputs,
            outputs,
            inventory,
            reporter: Reporter::new(new_epoch(&mut dice.0)),
            link: None,
            flight: None,
            began,
            age: Duration::ZERO,
        });
        how
    }

    /// The disk lies about who the gateways were. Whether it does.
    fn lose_gateways(&self, dice: &mut Dice) -> bool {
        let file = self.dir.path().join("gateways.json");
        let whole = std::fs::read(&file).ok();
        let (mut bytes, none) = (whole.clone(), None);
        // a wrong byte in it is believed: it holds for as long as nobody comes
        if damaged(dice, &mut bytes, &none) == "with a wrong byte" || bytes == whole {
            return false;
        }
        match &bytes {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        true
    }

    /// What must hold of a state in force: it is all that was stored at its generation, and a name keeps its address.
    fn holds(&mut self, state: &State<ClusterResource>, database: &Database) {
        let Some(world) = database.at(state.generation) else {
            panic!(
                "{} of tenant {} holds generation {}, that never was",
                self.name, self.tenant, state.generation
            )
        };
        same(&state.resources, &tombolo_compile::snapshot(world, self.id), || {
            format!("{} of tenant {} at generation {}", self.name, self.tenant, state.generation)
        });
        for resource in state.resources.values() {
            let ClusterResource::Name(name) = resource else { continue };
            let vip = *self.vips.entry(name.name.clone()).or_insert(name.vip);
            assert_eq!(vip, name.vip, "the virtual IP of {} of tenant {}", name.name, self.tenant);
        }
    }

    /// Asks a replica for the feed. Whether it gives it.
    pub(crate) fn connect(&mut self, at: usize, replica: &Replica) -> bool {
        let (tenant, peer) = (self.tenant, self.peer());
        let Some(process) = &mut self.process else { return false };
        process.cut(&mut self.strays, false);
        let standing = replica.view.state_of(&self.trust_domain);
        let Some((org, cluster)) = standing.and_then(|org| Some((org.id, org.stands(&peer)?))) else {
            return false;
        };
        let Ok(guard) = replica.view.attach(org, cluster) else { return false };
        let (telling, lines) = Telling::begin(&guard, process.follower.begin());
        let mut pipe = Pipe::default();
        let hello: FeedLine<ClusterResource> = FeedLine::Hello(Hello::current("tombolo-controller"));
        pipe.send(tenant, &hello);
        for line in &lines {
            self.heard.put(pipe.send(tenant, line));
        }
        process.link = Some(Link { replica: (at, replica.life), guard, telling, pipe });
        process.reporter.ask();
        true
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.link.is_some())
    }

    /// The connection is lost. What was under way upwards may arrive all the same.
    pub(crate) fn cut(&mut self, may_arrive: bool) {
        if let Some(process) = &mut self.process {
            process.cut(&mut self.strays, may_arrive);
        }
    }

    /// The controller says what it has to say.
    pub(crate) fn feed(&mut self, replicas: &[Replica], beat: bool) {
        let (tenant, peer) = (self.tenant, self.peer());
        let Some(process) = &mut self.process else { return };
        let Some(link) = &mut process.link else { return };
        let replica = &replicas[link.replica.0];
        let stands = replica.view.state_of(&self.trust_domain).and_then(|org| org.stands(&peer));
        if replica.life != link.replica.1 || stands != Some(self.id) {
            return process.cut(&mut self.strays, true);
        }
        if !link.pipe.has_room() {
            return;
        }
        match if beat { link.telling.beat(&link.guard) } else { link.telling.news(&link.guard) } {
            Next::Line(line) => self.heard.put(link.pipe.send(tenant, &line)),
            Next::Nothing => {}
            Next::Restored => panic!("nobody restored a database"),
        }
    }

    /// A line of before comes once more.
    pub(crate) fn replay(&mut self, dice: &mut Dice) {
        let lines = self.heard.lines();
        let link = self.process.as_mut().and_then(|process| process.link.as_mut());
        if let (Some(link), false) = (link, lines.is_empty()) {
            link.pipe.replay(&dice.pick(&lines));
        }
    }

    /// What is under way is damaged. Whether there was something.
    pub(crate) fn spoil(&mut self, dice: &mut Dice) -> bool {
        let link = self.process.as_mut().and_then(|process| process.link.as_mut());
        link.is_some_and(|link| link.pipe.spoil(dice))
    }

    /// Some bytes of the feed come.
    pub(crate) fn deliver(&mut self, part: Option<&mut Dice>, database: &Database) {
        let Some(process) = &mut self.process else { return };
        let Some(link) = &mut process.link else { return };
        let most = match part {
            Some(dice) => dice.below(link.pipe.len() + 1),
            None => link.pipe.len(),
        };
        for line in link.pipe.deliver::<FeedLine<Stated<ClusterResource>>>(most) {
            let Some(process) = &mut self.process else { return };
            let Some(line) = line else { return process.cut(&mut self.strays, true) };
            let before = process.follower.generation();
            match process.follower.take(line) {
                Ok(Took::State { state, ack }) => {
                    assert!(
                        before <= ack.generation,
                        "the generation falls from {before} to {}",
                        ack.generation
                    );
                    let Some(state) = state else { continue };
                    self.holds(&state, database);
                    if let Some(process) = &self.process {
                        process.states.send_replace(Arc::new(state));
                    }
                }
                Ok(Took::Hello(_) | Took::Alive(_)) => {}
                Ok(Took::Refused { generation, reason, .. }) => {
                    panic!("generation {generation} is a good one, and was refused: {reason}")
                }
                Ok(Took::Goodbye(_)) | Err(_) => {
                    return process.cut(&mut self.strays, true);
                }
            }
        }
    }

    /// The state is written to the disk.
    pub(crate) fn keep(&mut self) {
        let Some(process) = &self.process else { return };
        if process.follower.generation() > Generation::ZERO {
            let mut bytes = Vec::new();
            let state = process.follower.state();
            cache::write(&mut bytes, state.generation, &state.resources).unwrap();
            self.older = self.snapshot.replace(bytes);
        }
    }

    /// The inventory goes one step on its way.
    pub(crate) fn report(&mut self, database: &mut Database) -> &'static str {
        let with = self.peer().intermediate;
        let Some(process) = self.process.as_mut().filter(|process| process.link.is_some()) else {
            return "nothing: there is no connection";
        };
        match process.flight.take() {
            None => {
                let now = process.inventory.borrow().clone();
                let Some(update) = now.and_then(|now| process.reporter.next(&now)) else {
                    return "nothing is new";
                };
                wall::leaves(self.tenant, &encode_line(&*update).unwrap());
                process.flight = Some(Flight::Going(update));
                "it is sent"
            }
            Some(Flight::Going(update)) => {
                process.flight = Some(Flight::Coming(database.inventory(self.id, &with, &update)));
                "it arrives"
            }
            Some(Flight::Coming(outcome)) => {
                process.reporter.outcome(outcome);
                "the answer comes"
            }
        }
    }

    /// The request that is under way is lost, or its answer; the feed goes on.
    pub(crate) fn lose(&mut self, may_arrive: bool) {
        if let Some(process) = &mut self.process {
            process.lose(&mut self.strays, may_arrive);
        }
    }

    /// A request that nobody waits for any more arrives.
    pub(crate) fn stray(&mut self, database: &mut Database, dice: &mut Dice) {
        if !self.strays.is_empty() {
            let update = self.strays.swap_remove(dice.below(self.strays.len()));
            let with = self.peer().intermediate;
            database.inventory(self.id, &with, &update);
        }
    }

    /// The agent says where its ingress gateways are.
    pub(crate) fn status(&mut self, database: &mut Database) {
        let with = self.peer().intermediate;
        let Some(process) = self.process.as_ref().filter(|process| process.link.is_some()) else { return };
        let mut told = process.hub.ingress();
        if process.hub.forgot(process.now()) {
            told.extend(database.stored_ingress(self.id));
        }
        database.ingress(self.id, &with, told);
    }

    /// It has all that is stored now.
    pub(crate) fn converged(&self, database: &Database) {
        let process = self.process.as_ref().expect("it runs");
        let state = process.follower.state();
        same(&state.resources, &tombolo_compile::snapshot(database.world(), self.id), || {
            format!("{} of tenant {} in the end", self.name, self.tenant)
        });
    }

    /// Whether something is on its way up.
    pub(crate) fn is_reporting(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.flight.is_some())
    }
}
