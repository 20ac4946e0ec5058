//! The admin port of a gateway: metrics, health, and dumps of what it knows and does.
//!
//! It runs on the runtime of the control part, so that a scrape or a dump takes no time from the data path.

mod text;
pub mod view;

use crate::{
    capture::Problems,
    control,
    metrics::scrape::{self, Reading},
    state::Shared,
};
use std::{io, net::SocketAddr, sync::Arc, time::SystemTime};
use tokio::{net::TcpListener, sync::watch};
use tombolo_feed::Status;
use tombolo_model::{Generation, SpiffeId};
use tombolo_runtime::{
    admin::{Answer, Readiness, Routes},
    drain,
    metrics::Metrics,
    task,
};
use view::{Facts, View};

/// A dump of connections names as many.
const CONNECTIONS: usize = 1000;

/// Binds the admin port.
///
/// # Errors
/// As bind(2).
pub async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// What the admin port looks at.
#[derive(Clone)]
struct Looking {
    shared: Arc<Shared>,
    feed: watch::Receiver<Status>,
    applied: watch::Receiver<Generation>,
    problems: Problems,
}

/// Serves the admin port on the current runtime, until the draining ends.
pub fn start(
    listener: TcpListener,
    shared: Arc<Shared>,
    control: &Arc<control::Handle>,
    problems: Problems,
    drain: drain::Watch,
) {
    let looking = Looking { shared, feed: control.feed(), applied: control.applied(), problems };
    let metrics = Arc::new(Metrics::new("gateway"));
    let scraped = looking.clone();
    metrics.with(|registry| {
        looking.shared.metrics.register(registry);
        scrape::register(registry, move || scraped.reading());
    });
    let readiness = Readiness::new();
    task::spawn("readiness", follow(control.clone(), readiness.clone()));
    let (table, state, connections) = (looking.clone(), looking.clone(), looking);
    let routes = Routes::new()
        .get(
            "/table",
            "the table in force and the health of what it leads to, as text; ?name=N for one name",
            move |query| Answer::text(text::table(&table.view(query))),
        )
        .get("/state", "the same as JSON", move |query| Answer::json(&state.view(query)))
        .get("/connections", "connections and tunnels that are open", move |_| {
            Answer::text(connections.connections())
        });
    task::spawn("admin", tombolo_runtime::admin::serve(listener, metrics, readiness, routes, drain));
}

/// `/readyz` says why not, until it is; what was ready once stays so when the agent goes.
async fn follow(control: Arc<control::Handle>, readiness: Readiness) {
    let mut feed = control.feed();
    loop {
        if let Err(why) = control.readiness() {
            readiness.set_not_ready(why);
        }
        tokio::select! {
            biased;
            () = control.ready() => break,
            changed = feed.changed() => if changed.is_err() { return },
        }
    }
    readiness.set_ready();
}

impl Looking {
    fn view(&self, query: &str) -> View {
        let only = query.split('&').find_map(|pair| pair.strip_prefix("name="));
        let mut status = self.shared.status(*self.applied.borrow());
        status.problems = self.problems.report();
        status.peers = self.shared.health.report();
        let facts = Facts {
            role: self.shared.config.role,
            instance: self.shared.config.instance.clone(),
            tunnels: self.shared.pool.len(),
            status,
            feed: self.feed.borrow().clone(),
            certificates: self.certificates(),
        };
        View::of(&self.shared.table.load(), facts, only)
    }

    fn certificates(&self) -> Vec<(SpiffeId, SystemTime)> {
        let set = &self.shared.credentials;
        let all = set.own().into_iter().chain(set.ids().into_iter().filter_map(|id| set.get(&id)));
        all.filter_map(|credentials| Some((credentials.id().clone(), credentials.not_after()?))).collect()
    }

    fn reading(&self) -> Reading {
        let generation = *self.applied.borrow();
        let (status, feed, now) =
            (self.shared.status(generation), self.feed.borrow().clone(), self.shared.clock.now());
        let first = self.certificates().into_iter().map(|(_, end)| end).min();
        Reading {
            tunnels: self.shared.pool.len(),
            waiting: self.shared.budget.waiting(),
            peers: status.peers,
            edges: status.edges,
            generation,
            feed_connected: feed.connected,
            feed_lag: feed.lag(),
            log_dropped: self.shared.log.dropped(),
            certificate_left: first.map(|end| end.duration_since(now).unwrap_or_default()),
        }
    }

    fn connections(&self) -> String {
        text::connections(
            &self.shared.conns.list(CONNECTIONS),
            self.shared.conns.len(),
            self.shared.pool.len(),
        )
    }
}
