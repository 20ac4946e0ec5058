//! Two ingress gateways behind one address, as behind a load balancer or a node's port.

use crate::{
    failover::healthy,
    wire::{Slow, relay},
    world::{Gateway, LONG, World, ask, cluster, echo},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};
use tombolo_gateway::config::Config;
use tombolo_model::{GatewayRole, health::Health};
use tombolo_runtime::task;
use tombolo_testkit::wait::until;

/// What a balancer leads to.
struct Behind {
    target: SocketAddr,
    /// Whether it gets connections.
    up: bool,
    relays: Vec<AbortHandle>,
    silent: watch::Sender<bool>,
}

/// A balancer of TCP connections: the first so many go to the first one, then each to the next of those that are up.
struct Balancer {
    address: SocketAddr,
    behind: Arc<Mutex<Vec<Behind>>>,
}

impl Balancer {
    async fn of(targets: &[SocketAddr], first: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let all = targets.iter().map(|target| Behind {
            target: *target,
            up: true,
            relays: Vec::new(),
            silent: watch::Sender::new(false),
        });
        let behind = Arc::new(Mutex::new(all.collect::<Vec<_>>()));
        let this = Self { address, behind: behind.clone() };
        task::spawn("balancer", async move {
            for number in 0.. {
                let Ok((near, _)) = listener.accept().await else { return };
                let (at, target, state) = {
                    let all = behind.lock().unwrap_or_else(PoisonError::into_inner);
                    let up: Vec<usize> = (0..all.len()).filter(|at| all[*at].up).collect();
                    let at = if number < first { up[0] } else { up[(number - first + 1) % up.len()] };
                    (at, all[at].target, all[at].silent.subscribe())
                };
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                let relays = [
                    task::spawn("up", relay(near_read, far_write, state.clone())).abort_handle(),
                    task::spawn("down", relay(far_read, near_write, state)).abort_handle(),
                ];
                behind.lock().unwrap_or_else(PoisonError::into_inner)[at].relays.extend(relays);
            }
        });
        this
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Behind>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One gets no more connections, and those that it has break.
    fn kill(&self, at: usize) {
        let one = &mut self.lock()[at];
        one.up = false;
        one.relays.drain(..).for_each(|relay| relay.abort());
    }

    /// One says nothing any more (or again), and goes on to get connections.
    fn hang(&self, at: usize, silent: bool) {
        self.lock()[at].silent.send_replace(silent);
    }

    /// New connections lead there alone.
    fn lead_to(&self, target: SocketAddr) {
        let mut all = self.lock();
        all.iter_mut().for_each(|one| one.up = false);
        all.push(Behind { target, up: true, relays: Vec::new(), silent: watch::Sender::new(false) });
    }

    /// One gets connections (no more).
    fn set_up(&self, at: usize, up: bool) {
        self.lock()[at].up = up;
    }
}

struct Balanced {
    world: World,
    second: Gateway,
    balancer: Balancer,
}

impl Balanced {
    async fn new(first: usize, tweak: impl Fn(&mut Config)) -> Self {
        let tweak = |config: &mut Config| {
            config.limits.pool_spread = 4;
            tweak(config);
        };
        let mut world = World::with(&["c1", "c2"], tweak).await;
        world.app("c2", echo).await;
        let second = Gateway::start(GatewayRole::Ingress, &world.sites["c2"].ca, tweak).await;
        let balancer = Balancer::of(&[world.sites["c2"].ingress.tunnel, second.tunnel], first).await;
        world.spec.ingress.insert(cluster("c2"), [balancer.address.to_string()].into());
        second.shared.apply(&world.resources("c2")).unwrap();
        world.publish();
        healthy(&world, "c2", |health| health == Health::Healthy).await;
        Self { world, second, balancer }
    }

    /// A call that must be answered, in time.
    async fn call(&self) -> Duration {
        let begin = Instant::now();
        assert_eq!(ask(self.world.call("c1").await, b"hello").await.unwrap(), b"hello");
        begin.elapsed()
    }

    /// How many calls each of the two took.
    fn taken(&self) -> [usize; 2] {
        [self.world.sites["c2"].ingress.log().len(), self.second.log().len()]
    }

    /// Waits until there are all the tunnels that there should be.
    async fn spread(&self) {
        self.call().await;
        let tunnels = || async { self.world.sites["c1"].egress.shared.pool.len() };
        until("tunnels", LONG, tunnels, |count| *count == 4).await;
    }

    /// Calls until the one has taken so many more.
    async fn until_taken(&self, at: usize, more: usize) {
        let (begin, before) = (Instant::now(), self.taken()[at]);
        while self.taken()[at] < before + more {
            assert!(begin.elapsed() < LONG, "{at} takes nothing: {:?}", self.taken());
            self.call().await;
        }
    }

    fn is_in_rotation(&self) -> bool {
        let report = self.world.sites["c1"].egress.shared.health.report();
        report[&cluster("c2")].values().all(|state| state.health == Health::Healthy)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_gateways_behind_an_address_are_used() {
    let balanced = Balanced::new(0, |_| {}).await;
    balanced.spread().await;
    let before = balanced.taken();
    for _ in 0..40 {
        balanced.call().await;
    }
    let look = || async { balanced.taken() };
    let all = until("all calls in the logs", LONG, look, |now| {
        now.iter().sum::<usize>() >= before.iter().sum::<usize>() + 40
    });
    let now = all.await;
    let each = [now[0] - before[0], now[1] - before[1]];
    assert!(each.iter().all(|count| *count >= 15), "by load, they share alike: {each:?}");
}

/// The prober, the first four tunnels and three of the four more all come to the first gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_the_first_tunnels_missed_is_found() {
    let balanced = Balanced::new(8, |_| {}).await;
    balanced.until_taken(1, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_behind_an_address_costs_no_call() {
    for dead in [0, 1] {
        let balanced = Balanced::new(0, |_| {}).await;
        balanced.spread().await;
        balanced.until_taken(dead, 2).await;
        balanced.balancer.kill(dead);
        for _ in 0..50 {
            balanced.call().await;
            assert!(balanced.is_in_rotation(), "the other one answers");
        }
    }
}

/// All tunnels but the latest lead to one gateway, each carries a call, and it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_ends_behind_an_address_costs_no_call() {
    let mut balanced = Balanced::new(0, |config| config.limits.pool_spread = 8).await;
    balanced.balancer.set_up(1, false);
    let mut open = Vec::new();
    for _ in 0..16 {
        let mut stream = balanced.world.call("c1").await;
        stream.write_all(b"held").await.unwrap();
        open.push(stream);
    }
    balanced.balancer.set_up(1, true);
    balanced.balancer.set_up(0, false);
    let drain = balanced.world.sites.get_mut("c2").unwrap().ingress.drain.take().unwrap();
    let draining = task::spawn("drain", drain.drain(LONG));
    for _ in 0..20 {
        balanced.call().await;
    }
    drop(open);
    draining.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_hangs_behind_an_address_costs_no_call() {
    let balanced = Balanced::new(0, |_| {}).await;
    balanced.spread().await;
    balanced.until_taken(1, 2).await;
    balanced.balancer.hang(1, true);
    let begin = Instant::now();
    let mut slow = 0;
    // a while in which the balancer does not know it yet
    while begin.elapsed() < Duration::from_secs(3) {
        let took = balanced.call().await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        slow += usize::from(took > Duration::from_millis(400));
        assert!(balanced.is_in_rotation(), "the other one answers");
    }
    assert!(slow <= 6, "{slow} calls waited for one that hangs");
    balanced.balancer.set_up(1, false);
    balanced.until_taken(0, 20).await;
    assert!(balanced.is_in_rotation());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_comes_behind_an_address_gets_its_part() {
    let balanced = Balanced::new(0, |config| config.timing.respread = Duration::from_millis(50)).await;
    balanced.balancer.kill(1);
    balanced.spread().await;
    let before = balanced.taken()[1];
    balanced.balancer.set_up(1, true);
    balanced.until_taken(1, 5).await;
    assert!(balanced.taken()[1] >= before + 5);
}

/// It was away for a moment, or its link was: what leads to it goes on, and is used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_was_silent_is_used_again_when_it_answers() {
    let balanced = Balanced::new(0, |config| config.timing.respread = 100 * LONG).await;
    balanced.spread().await;
    balanced.until_taken(1, 2).await;
    // nothing new leads there, so that what comes there later comes by the tunnels that there are
    balanced.balancer.set_up(1, false);
    balanced.balancer.hang(1, true);
    let pool = &balanced.world.sites["c1"].egress.shared.pool;
    let silent = || async { pool.silent() };
    until("silent tunnels", LONG, silent, |silent| *silent > 0).await;
    let before = balanced.taken();
    for _ in 0..20 {
        balanced.call().await;
    }
    balanced.balancer.hang(1, false);
    until("no silent tunnels", LONG, silent, |silent| *silent == 0).await;
    balanced.until_taken(1, 5).await;
    assert!(balanced.taken()[0] >= before[0] + 20, "the other one answered meanwhile");
}

/// All tunnels there are silent for a moment, and a new one gets to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_a_moment_of_silence_is_answered_when_it_ends() {
    let balanced = Balanced::new(0, |config| {
        config.limits.pool_spread = 1;
        config.timing.dial = 2 * LONG;
    })
    .await;
    // the prober is at the second one
    balanced.call().await;
    assert_eq!(balanced.taken(), [1, 0]);
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    balanced.balancer.lead_to(hole.local_addr().unwrap());
    balanced.balancer.hang(0, true);
    let pool = &balanced.world.sites["c1"].egress.shared.pool;
    until("a silent tunnel", LONG, || async { pool.silent() }, |silent| *silent == 1).await;
    let mut asked = Box::pin(ask(balanced.world.call("c1").await, b"hello"));
    let (fell, _) = tokio::join!(hole.accept(), async { assert!(futures::poll!(&mut asked).is_pending()) });
    balanced.balancer.hang(0, false);
    assert_eq!(asked.await.unwrap(), b"hello");
    assert!(fell.is_ok() && balanced.is_in_rotation());
}

/// An upload fills the tunnel, and each ping on it waits behind seconds of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_upload_over_a_slow_link_is_no_silence() {
    let few = |config: &mut Config| {
        // longer than a ping is on its way
        config.timing.keepalive = Duration::from_secs(2);
    };
    let mut world = World::with(&["c1", "c2"], few).await;
    world.app("c2", echo).await;
    let link = Slow::to(world.sites["c2"].ingress.tunnel, 256 << 10).await;
    world.spec.ingress.insert(cluster("c2"), [link.address.clone()].into());
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
    let before = link.taken();
    let upload = vec![7; 2 << 20];
    let asked = task::spawn("upload", {
        let (call, upload) = (world.call("c1").await, upload.clone());
        async move { ask(call, &upload).await }
    });
    let pool = &world.sites["c1"].egress.shared.pool;
    let (mut silent, mut looks) = (0, 0);
    while !asked.is_finished() {
        silent += pool.silent();
        looks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(asked.await.unwrap().unwrap() == upload);
    // on a busy machine the other end takes nothing for a moment
    assert!(silent * 2 < looks, "it was silent at {silent} of {looks} looks");
    until("no silence", LONG, || async { pool.silent() }, |silent| *silent == 0).await;
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
    assert_eq!((link.taken(), pool.len()), (before, 1), "it was the one tunnel all the while");
}
