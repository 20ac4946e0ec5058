use super::*;
use crate::{
    accesslog::{AccessLog, Direction, Record},
    config::Agent as At,
    metrics::Metrics,
};
use std::{net::IpAddr, path::Path, time::SystemTime};
use tombolo_model::{
    Locality,
    inventory::{PortSpec, Protocol},
    snapshot::{RouteSpec, SelfSpec, WorkloadSelector, WorkloadSpec},
};
use tombolo_runtime::clock::SystemClock;
use tombolo_testkit::{
    agent::{Agent as Fake, Listening},
    ca::Organization,
    wait::until,
};

const SOON: Duration = Duration::from_secs(20);

/// A cluster's agent and a sidecar's control part.
struct Lab {
    organization: Organization,
    agent: Fake,
    listening: Option<Listening>,
    dir: tempfile::TempDir,
    shared: Arc<Shared>,
    handle: Handle,
}

impl Lab {
    fn new() -> Self {
        let mut organization = Organization::new("acme.test");
        let agent = Fake::new(organization.join("c1"));
        let dir = tempfile::tempdir().unwrap();
        let listening = Some(agent.listen(&dir.path().join("agent.sock")));
        let (shared, handle) = gateway(dir.path());
        Self { organization, agent, listening, dir, shared, handle }
    }

    fn base(&self, accounts: &[&str]) -> Vec<GatewayResource> {
        let id = self.agent.cluster().intermediate.id().clone();
        let itself = SelfSpec {
            cluster: id.cluster.clone(),
            trust_domain: id.trust_domain.clone(),
            locality: Locality::default(),
        };
        let workload = |account: &&str| {
            let identity = self.agent.cluster().workload("default", account);
            GatewayResource::Workload(
                WorkloadSpec { identity, selectors: [WorkloadSelector::Uid(7)].into() }.into(),
            )
        };
        [
            GatewayResource::Itself(itself.into()),
            GatewayResource::Bundle(self.organization.bundle_spec().into()),
        ]
        .into_iter()
        .chain(accounts.iter().map(workload))
        .collect()
    }

    fn workload(&self, account: &str) -> SpiffeId {
        self.agent.cluster().workload("default", account)
    }

    async fn ready(&self) {
        tokio::time::timeout(SOON, self.handle.ready()).await.expect("ready");
    }
}

fn gateway(dir: &Path) -> (Arc<Shared>, Handle) {
    let tunnel = SocketAddr::from(([127, 0, 0, 1], 15008));
    let mut config = Config::new(GatewayRole::Sidecar, "test one", tunnel);
    config.agent = Some(At::Socket { path: dir.join("agent.sock"), uid: None });
    config.cache = Some(dir.join("cache.json"));
    config.capture = Capture::Explicit;
    config.serve = [IpAddr::from([127, 0, 0, 1])].into();
    let settings = Settings::of(&config, tunnel, None).unwrap();
    let shared = Shared::new(config, Metrics::new(), AccessLog::disabled(), Arc::new(SystemClock));
    let problems = || vec![Problem { subject: "capture of 127.0.0.9:80".into(), message: "taken".into() }];
    let handle = start(&shared, settings, runtime::Handle::current(), problems).unwrap();
    (shared, handle)
}

#[tokio::test]
async fn says_hello_applies_gets_certificates_and_reports() {
    let lab = Lab::new();
    assert!(lab.handle.readiness().unwrap_err().contains("no table"));
    lab.agent.publish(3, lab.base(&["shopping"]));
    lab.ready().await;
    assert_eq!(lab.handle.readiness(), Ok(()));
    assert_eq!(*lab.handle.applied().borrow(), Generation::new(3));
    assert_eq!(lab.shared.table.load().workloads().len(), 1);
    let own = lab.shared.credentials.own().expect("its own");
    assert_eq!(own.id(), &lab.agent.cluster().gateway(GatewayRole::Sidecar));
    assert!(own.ready() && lab.shared.credentials.get(&lab.workload("shopping")).is_some_and(|c| c.ready()));

    let hello = lab.agent.heard(|heard| heard.hellos.clone());
    assert_eq!(hello.len(), 1);
    assert!(hello[0].explicit && hello[0].role == GatewayRole::Sidecar && hello[0].serves.len() == 1);
    assert_eq!(hello[0].tunnel.port(), 15008);
    let told = || async { lab.agent.heard(|h| (h.acks.last().cloned(), h.statuses.last().cloned())) };
    let (_, status) = until("an ack and a report", SOON, told, |(ack, status)| {
        ack.as_ref().is_some_and(|ack| ack.generation == Generation::new(3) && ack.refused.is_none())
            && status.as_ref().is_some_and(|status| status.generation == Generation::new(3))
    })
    .await;
    assert_eq!(status.unwrap().problems[0].subject, "capture of 127.0.0.9:80");
}

/// What an agent does not take whole it gets without what makes it long.
#[tokio::test]
async fn a_report_that_is_too_long_goes_without_its_edges() {
    let lab = Lab::new();
    lab.agent.take_at_most(4096);
    for number in 0..100 {
        let mut record = Record::new(SystemTime::UNIX_EPOCH, GatewayRole::Sidecar, 1, Direction::Outbound);
        record.name = Some(format!("s{number}.acme.example.com").parse().unwrap());
        lab.shared.metrics.path_opened(&record);
    }
    lab.agent.publish(1, lab.base(&["shopping"]));
    lab.ready().await;
    let told = || async { lab.agent.heard(|heard| (heard.statuses.last().cloned(), heard.too_long)) };
    let (status, too_long) = until("a report", SOON, told, |(status, _)| {
        status.as_ref().is_some_and(|status| status.generation == Generation::new(1))
    })
    .await;
    let status = status.unwrap();
    assert!(status.edges.is_empty() && !status.problems.is_empty(), "the rest is as ever: {status:?}");
    assert_eq!(lab.shared.metrics.edges().len(), 100);
    assert_eq!(too_long, 1, "it does not try that again and again");
    lab.agent.publish(2, lab.base(&["shopping"]));
    let (_, too_long) = until("the next report", SOON, told, |(status, _)| {
        status.as_ref().is_some_and(|status| status.generation == Generation::new(2))
    })
    .await;
    assert_eq!(too_long, 1);
}

#[tokio::test]
async fn renews_at_half_life_and_keeps_the_same_credentials() {
    let lab = Lab::new();
    lab.agent.certificates_live(Duration::from_secs(4));
    lab.agent.publish(1, lab.base(&["shopping"]));
    lab.ready().await;
    let held = lab.shared.credentials.get(&lab.workload("shopping")).unwrap();
    let first = held.not_after().unwrap();
    until("a renewal", SOON, || async { held.not_after().unwrap() }, |end| *end > first).await;
    let asked = lab.agent.heard(|h| h.signed.iter().filter(|id| **id == lab.workload("shopping")).count());
    assert!((2..=4).contains(&asked), "asked {asked} times within one life");
}

#[tokio::test]
async fn follows_the_workloads() {
    let lab = Lab::new();
    lab.agent.publish(1, lab.base(&["shopping"]));
    lab.ready().await;
    lab.agent.publish(2, lab.base(&["cart"]));
    let ids = || async { lab.shared.credentials.ids() };
    until("cart in, shopping out", SOON, ids, |ids| *ids == [lab.workload("cart")]).await;
    assert!(lab.shared.credentials.own().is_some(), "its own stays");
}

#[tokio::test]
async fn a_refused_identity_is_asked_for_again_and_the_others_go_on() {
    let lab = Lab::new();
    lab.agent.refuse(&lab.workload("cart"), true);
    lab.agent.publish(1, lab.base(&["cart", "shopping"]));
    let ids = || async { lab.shared.credentials.ids() };
    until("shopping", SOON, ids, |ids| *ids == [lab.workload("shopping")]).await;
    let readiness = || async { lab.handle.readiness() };
    let unready = until("why it is not ready", SOON, readiness, |ready| {
        ready.as_ref().is_err_and(|why| why.contains("have no certificate"))
    })
    .await;
    assert!(unready.unwrap_err().starts_with("1 of 3"));
    lab.agent.refuse(&lab.workload("cart"), false);
    lab.ready().await;
    assert_eq!(lab.shared.credentials.ids().len(), 2);
}

#[tokio::test]
async fn renews_at_once_when_its_intermediate_is_no_longer_listed() {
    let mut lab = Lab::new();
    lab.agent.publish(1, lab.base(&[]));
    lab.ready().await;
    let before = lab.agent.heard(|heard| heard.signed.len());
    // the cluster joined anew: another intermediate stands for it
    let name = lab.agent.cluster().name.clone();
    lab.organization.revoke(&name);
    let _anew = lab.organization.join("c1");
    lab.agent.publish(2, lab.base(&[]));
    until("a new request", SOON, || async { lab.agent.heard(|h| h.signed.len()) }, |now| *now > before).await;
}

#[tokio::test]
async fn greets_an_agent_that_came_back_and_keeps_everything_meanwhile() {
    let mut lab = Lab::new();
    lab.agent.publish(1, lab.base(&["shopping"]));
    lab.ready().await;
    lab.listening = None;
    let connected = || async { lab.handle.feed().borrow().connected };
    until("the agent is gone", SOON, connected, |connected| !connected).await;
    assert_eq!(lab.shared.table.load().workloads().len(), 1, "the table stays");
    assert!(lab.shared.credentials.own().is_some_and(|own| own.ready()));
    assert_eq!(lab.handle.readiness(), Ok(()), "what was ready stays ready");

    lab.agent.publish(2, lab.base(&["shopping", "cart"]));
    lab.listening = Some(lab.agent.listen(&lab.dir.path().join("agent.sock")));
    let applied = || async { *lab.handle.applied().borrow() };
    until("the new table", SOON, applied, |applied| *applied == Generation::new(2)).await;
    assert_eq!(lab.agent.heard(|heard| heard.hellos.len()), 2);
}

#[tokio::test]
async fn starts_from_the_kept_table_without_an_agent() {
    let mut lab = Lab::new();
    lab.agent.publish(5, lab.base(&["shopping"]));
    lab.ready().await;
    let cache = lab.dir.path().join("cache.json");
    until("the table on disk", SOON, || async { cache.exists() }, |there| *there).await;
    lab.listening = None;
    let (shared, handle) = gateway(lab.dir.path());
    assert_eq!(*handle.applied().borrow(), Generation::new(5), "in force when start returns");
    assert_eq!(shared.table.load().workloads().len(), 1);
    assert!(shared.bundle.get().is_some());
}

#[tokio::test]
async fn a_table_that_contradicts_itself_is_refused_and_the_old_one_stays() {
    let lab = Lab::new();
    lab.agent.publish(1, lab.base(&["shopping"]));
    lab.ready().await;
    let route = |name: &str| {
        GatewayResource::Route(
            RouteSpec {
                name: name.parse().unwrap(),
                addresses: [IpAddr::from([127, 101, 0, 1])].into(),
                ports: vec![PortSpec { name: None, port: 80, protocol: Protocol::Tcp, app_protocol: None }]
                    .into(),
                captured_at: Default::default(),
                targets: Vec::new(),
            }
            .into(),
        )
    };
    let two = [route("a.acme.test"), route("b.acme.test")];
    lab.agent.publish(2, lab.base(&["shopping"]).into_iter().chain(two));
    let refused = || async { lab.agent.heard(|heard| heard.acks.iter().find_map(|ack| ack.refused.clone())) };
    let (generation, why) = until("a refusal", SOON, refused, Option::is_some).await.unwrap();
    assert_eq!(generation, Generation::new(2));
    assert!(why.contains("127.101.0.1"), "{why}");
    assert_eq!(lab.shared.table.load().routes().count(), 0);
    assert_eq!(*lab.handle.applied().borrow(), Generation::new(1));
}

#[tokio::test]
async fn an_agent_of_another_age_is_refused_with_what_to_do() {
    let lab = Lab::new();
    lab.agent.speak(ProtocolVersion { major: 9, minor: 0 });
    lab.agent.publish(1, lab.base(&[]));
    let readiness = || async { lab.handle.readiness() };
    let why =
        until("the reason", SOON, readiness, |r| r.as_ref().is_err_and(|why| why.contains("upgrade"))).await;
    assert!(why.unwrap_err().contains("9.0"));
}
