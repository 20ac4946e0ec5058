//! Everything that runs.

use crate::{
    agent::Agent,
    changes::{Change, Changes},
    fill::{People, fill},
    parts,
    site::Site,
};
use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};
use tombolo_model::snapshot::{ClusterResource, Resources};
use tombolo_testkit::wait::until;
use tombolo_tests::scale::{Shape, Usage};

/// Until all agents know everything for the first time.
const KNOWN: Duration = Duration::from_secs(1800);

/// How often it is said how far they are.
const SAID: Duration = Duration::from_secs(10);

/// Everything that runs. Dropped in this order.
pub(crate) struct World {
    pub(crate) agents: Vec<Agent>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) people: People,
    pub(crate) shape: Shape,
    pub(crate) site: Site,
    /// What the controller took before anything was in it.
    pub(crate) empty: Usage,
}

/// How many names with addresses a state has.
fn names(state: &Resources<ClusterResource>) -> usize {
    state.values().filter(|resource| matches!(resource, ClusterResource::Name(_))).count()
}

impl World {
    /// Starts all of it, until every agent knows every name.
    pub(crate) async fn start(shape: Shape) -> Self {
        let began = Instant::now();
        let site = Site::start().await;
        let empty = site.usage();
        let people = People::of(&site).await;
        let joined = fill(&site, &people, &shape).await;
        println!("{} clusters joined in {:.0} s", joined.len(), began.elapsed().as_secs_f64());
        let (changes, door) = (Arc::new(Changes::new(shape.groups())), site.door());
        let agents = joined
            .iter()
            .map(|one| {
                let watch = (Arc::clone(&changes), shape.group(one.number()));
                Agent::start(one, &door, parts::inventory(&shape, one.number()), watch)
            })
            .collect();
        let world = Self { agents, changes, people, shape, site, empty };
        world.known().await;
        println!("all of them know all names {:.0} s after the start", began.elapsed().as_secs_f64());
        world
    }

    /// Waits until every agent knows every name, and how the ingress gateways of all its peers are reached.
    pub(crate) async fn known(&self) {
        let said = Cell::new(Instant::now());
        let look = || async {
            let behind = self.agents.iter().filter(|agent| {
                let state = agent.state();
                let peers = state.resources.values().filter(
                    |resource| matches!(resource, ClusterResource::Peer(peer) if !peer.ingress.is_empty()),
                );
                names(&state.resources) < self.shape.told() || peers.count() + 1 < self.shape.members
            });
            let behind = behind.count();
            if said.get().elapsed() > SAID {
                said.set(Instant::now());
                println!("{behind} of {} do not know everything yet", self.agents.len());
            }
            behind
        };
        until("agents that do not know everything", KNOWN, look, |behind| *behind == 0).await;
    }

    /// An endpoint of this service changes in the cluster that serves it at this place; `false` where a change of it is on its way already.
    pub(crate) fn flap(&self, group: usize, service: usize, copy: usize) -> bool {
        let number = self.shape.serving(group, service).nth(copy).unwrap();
        let (agent, key) = (&self.agents[number], parts::key(group, service));
        let cluster = parts::cluster(number);
        if self.changes.is_open(group, &key, &cluster) {
            return false;
        }
        let (all, here) = (self.shape.at_each(), parts::service(service));
        let ready = if agent.ready(&here) == all { all - 1 } else { all };
        self.changes.begin(group, Change { key, cluster, ready }, self.shape.of_group(group));
        agent.set_ready(&here, ready);
        true
    }

    /// Ends it: the controller first, so that it need not say goodbye to everybody.
    pub(crate) async fn end(mut self) {
        self.site.kill();
        self.agents.clear();
    }
}
