//! A true socket, and `tombolo-feed`'s client as the gateway.

use super::*;
use crate::{
    ages::Ages,
    certificate::Authority,
    health::Results,
    index::{Index, View},
    source::Files,
    state::{DataDir, Membership},
    synthesis::{Changed, Local, synthesize},
    vip::AddressMode,
};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::sync::watch;
use tombolo_feed::{Client, Options, RequestError, Requests, UnixConnector};
use tombolo_model::{
    GatewayRole, Generation, Locality, SpiffeId,
    snapshot::{ClusterResource, GatewayResource, Resource, Resources, SelfSpec},
};
use tombolo_mtls::{Credentials, PrivateKey};
use tombolo_runtime::{
    clock::{ManualClock, SystemClock},
    drain, task,
};
use tombolo_testkit::{ca::Organization, wait::until};
use tombolo_wire::{
    message::{GatewayHello, GatewayStatus, GatewayWelcome, LeafRequest, LeafResponse},
    version::{Hello, ProtocolVersion},
};

const SOON: Duration = Duration::from_secs(10);

const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: catalog, annotations: {tombolo.io/service-account: catalog}}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: catalog-1, labels: {kubernetes.io/service-name: catalog}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: shopping, annotations: {tombolo.io/selector: uid=1001}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: hidden}
"#;

struct Lab {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    hub: Arc<Hub>,
    organization: Organization,
    view: Arc<View>,
    drain: drain::Drain,
}

pub(super) fn membership() -> Membership {
    Membership {
        controller: "https://127.0.0.1:1".to_owned(),
        ca_fingerprint: format!("sha256:{}", "00".repeat(32)),
        organization: "acme".parse().unwrap(),
        trust_domain: "acme.internal".parse().unwrap(),
        cluster: "c1".parse().unwrap(),
    }
}

impl Lab {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/agent.sock");
        let data = DataDir::create(&dir.path().join("data")).unwrap();
        let config = HubConfig { grace: Duration::from_millis(300), ..HubConfig::default() };
        let hub = Hub::new(config, data, Generation::new(1000));
        let mut organization = Organization::new("acme.internal");
        let cluster = organization.join("c1");
        let authority = Arc::new(Authority::new(cluster.intermediate, Arc::new(SystemClock)));
        let mut index = Index::default();
        for change in Files::default().load("f", SHOP.as_bytes()) {
            index.change(change);
        }
        let view = Arc::new(index.view());
        let (drain, stop) = drain::channel();
        let listener = Listener::bind(&socket).unwrap();
        let (_, views) = watch::channel(Arc::clone(&view));
        task::spawn(
            "gateways",
            listener.run(Context {
                hub: Arc::clone(&hub),
                authority,
                membership: Arc::new(membership()),
                view: views,
                snapshot: watch::channel(Arc::default()).1,
                standings: crate::lease::Standings::alone(),
                reading: Default::default(),
                stop,
            }),
        );
        task::spawn("expiry", Arc::clone(&hub).expire(watch::channel(Arc::default()).1));
        Self { _dir: dir, socket, hub, organization, view, drain }
    }

    fn publish(&self, of: u64) {
        let membership = membership();
        let resources: Resources<ClusterResource> = [
            ClusterResource::Itself(
                SelfSpec {
                    cluster: membership.cluster,
                    trust_domain: membership.trust_domain,
                    locality: Locality { region: Some(format!("r{of}")), zone: None },
                }
                .into(),
            ),
            ClusterResource::Bundle(self.organization.bundle_spec().into()),
        ]
        .into_iter()
        .map(|resource| (resource.key(), resource))
        .collect();
        let (gateways, results, ages) = (self.hub.gateways(), Arc::new(Results::new()), Ages::new());
        let local = Local {
            view: &self.view,
            ages: &ages,
            passing: &results,
            gateways: &gateways,
            mode: AddressMode::Allocated,
            exposed: &Default::default(),
        };
        self.hub.publish(&synthesize(&resources, local).unwrap(), &Changed::Everything, Generation::new(of));
    }

    async fn connect(&self, hello: GatewayHello) -> (Client<GatewayResource>, task_handle::Handle) {
        let instance = hello.instance.clone();
        let mut options = Options::new(
            format!("/gateway/v1/feed?instance={instance}"),
            format!("/gateway/v1/ack?instance={instance}"),
        );
        options.on_connect = Some(Arc::new(move |requests: Requests| {
            let hello = hello.clone();
            Box::pin(async move {
                requests.post::<_, GatewayWelcome>("/gateway/v1/hello", &hello).await.map(drop)
            })
        }));
        let (client, running) = Client::build(UnixConnector::new(&self.socket), options);
        let handle = task_handle::Handle(task::spawn("gateway feed", running.run()));
        let mut status = client.status();
        tokio::time::timeout(SOON, status.wait_for(|status| status.connected)).await.unwrap().unwrap();
        (client, handle)
    }
}

mod task_handle {
    pub(super) struct Handle(pub(super) tokio::task::JoinHandle<()>);
    impl Drop for Handle {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
}

fn hello(role: GatewayRole, instance: &str, port: u16) -> GatewayHello {
    GatewayHello::new(
        Hello::current("tombolo-gateway"),
        instance.to_owned(),
        role,
        ([127, 0, 0, 1], port).into(),
    )
}

async fn certificate(
    requests: &Requests,
    instance: &str,
    identity: &str,
) -> Result<Credentials, RequestError> {
    let identity: SpiffeId = identity.parse().unwrap();
    let key = PrivateKey::generate().unwrap();
    let request = LeafRequest { csr: key.csr(&identity).unwrap(), identity: identity.clone() };
    let path = format!("/gateway/v1/certificate?instance={instance}");
    let leaf: LeafResponse = requests.post(&path, &request).await?;
    let credentials = Credentials::new(identity);
    credentials.set(&leaf.chain, key).unwrap();
    Ok(credentials)
}

async fn issued(requests: &Requests, instance: &str, identities: &[&str]) -> Vec<bool> {
    let mut all = Vec::new();
    for identity in identities {
        match certificate(requests, instance, identity).await {
            Ok(_) => all.push(true),
            Err(error) => {
                assert_eq!(error.status().unwrap().as_u16(), 403, "{error}");
                all.push(false);
            }
        }
    }
    all
}

const IDENTITIES: [&str; 9] = [
    "spiffe://acme.internal/cluster/c1/gateway/egress",
    "spiffe://acme.internal/cluster/c1/gateway/sidecar",
    "spiffe://acme.internal/cluster/c1/ns/default/sa/shopping",
    "spiffe://acme.internal/cluster/c1/ns/default/sa/catalog",
    "spiffe://acme.internal/cluster/c1/ns/default/sa/hidden",
    "spiffe://acme.internal/cluster/c2/gateway/egress",
    "spiffe://other.internal/cluster/c1/gateway/egress",
    "spiffe://acme.internal/cluster/c1/agent",
    "spiffe://acme.internal/cluster/c1",
];

#[tokio::test]
async fn each_gateway_gets_its_own_certificates_only() {
    let lab = Lab::start();
    let yes = |wanted: &[usize]| (0..IDENTITIES.len()).map(|i| wanted.contains(&i)).collect::<Vec<_>>();
    let (client, _egress) = lab.connect(hello(GatewayRole::Egress, "e", 1)).await;
    assert_eq!(issued(&client.requests(), "e", &IDENTITIES).await, yes(&[0]));
    let plain = hello(GatewayRole::Sidecar, "plain", 2);
    let (client, _plain) = lab.connect(plain).await;
    assert_eq!(issued(&client.requests(), "plain", &IDENTITIES).await, yes(&[1]));
    let explicit = GatewayHello { explicit: true, ..hello(GatewayRole::Sidecar, "explicit", 3) };
    let (client, _explicit) = lab.connect(explicit).await;
    assert_eq!(issued(&client.requests(), "explicit", &IDENTITIES).await, yes(&[1, 2]));
    let serving = GatewayHello {
        serves: BTreeSet::from(["10.0.0.1".parse().unwrap()]),
        ..hello(GatewayRole::Sidecar, "serving", 4)
    };
    let (client, _serving) = lab.connect(serving).await;
    assert_eq!(issued(&client.requests(), "serving", &IDENTITIES).await, yes(&[1, 3]));
    let pod = GatewayHello {
        workloads: BTreeSet::from([("default".parse().unwrap(), "hidden".parse().unwrap())]),
        ..hello(GatewayRole::Sidecar, "pod", 5)
    };
    let (client, _pod) = lab.connect(pod).await;
    assert_eq!(issued(&client.requests(), "pod", &IDENTITIES).await, yes(&[1, 4]));
    // A request whose CSR names somebody else, or is none.
    let identity: SpiffeId = IDENTITIES[4].parse().unwrap();
    let other: SpiffeId = IDENTITIES[2].parse().unwrap();
    let csr = PrivateKey::generate().unwrap().csr(&other).unwrap();
    for csr in [csr, "-----BEGIN".to_owned(), String::new()] {
        let request = LeafRequest { identity: identity.clone(), csr };
        let answer =
            client.requests().post::<_, LeafResponse>("/gateway/v1/certificate?instance=pod", &request).await;
        assert_eq!(answer.unwrap_err().status().unwrap().as_u16(), 422);
    }
    let error = certificate(&client.requests(), "nobody", IDENTITIES[0]).await.unwrap_err();
    assert!(error.to_string().contains("POST /gateway/v1/hello first"), "{error}");
}

#[tokio::test]
async fn states_go_down_and_reports_come_up() {
    let lab = Lab::start();
    lab.publish(7);
    let ingress = GatewayHello {
        advertise: BTreeSet::from(["192.0.2.1:15008".to_owned()]),
        ..hello(GatewayRole::Ingress, "i", 1)
    };
    let (client, handle) = lab.connect(ingress.clone()).await;
    lab.publish(7);
    let mut state = client.state();
    tokio::time::timeout(SOON, state.wait_for(|state| state.resources.len() == 2)).await.unwrap().unwrap();
    lab.publish(9);
    let region = |state: &tombolo_feed::State<GatewayResource>| match state.resources.values().last() {
        Some(GatewayResource::Itself(spec)) => spec.locality.region.clone(),
        _ => None,
    };
    tokio::time::timeout(SOON, state.wait_for(|state| region(state).as_deref() == Some("r9")))
        .await
        .unwrap()
        .unwrap();
    let status = GatewayStatus { connections: 3, ..GatewayStatus::default() };
    client.requests().post::<_, ()>("/gateway/v1/status?instance=i", &status).await.unwrap();
    let reports = until(
        "the acknowledged generation is the controller's",
        SOON,
        || async { lab.hub.gateway_reports() },
        |reports| reports.iter().any(|report| report.status.generation == Generation::new(9)),
    )
    .await;
    assert_eq!((reports.len(), reports[0].status.connections), (1, 3));
    assert_eq!(lab.hub.ingress().len(), 1);
    // It vanishes: not connected at once, gone after the grace.
    drop((client, handle));
    until("vanished", SOON, || async { lab.hub.gateway_reports().len() }, |n| *n == 0).await;
    assert_eq!(lab.hub.ingress().len(), 1, "its address stands for the grace");
    until("gone", SOON, || async { lab.hub.ingress().len() }, |n| *n == 0).await;
}

#[tokio::test]
async fn a_restarted_gateway_takes_its_place() {
    let lab = Lab::start();
    let (first, _one) = lab.connect(hello(GatewayRole::Egress, "e", 1)).await;
    let (_second, _two) = lab.connect(hello(GatewayRole::Egress, "e", 1)).await;
    let mut status = first.status();
    let ended =
        status.wait_for(|status| status.error.as_deref().is_some_and(|e| e.contains("took this one")));
    tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
    // Another name at the same address is the same place too. The first two come again after a while, and take it back.
    let (_third, _three) = lab.connect(hello(GatewayRole::Egress, "other", 1)).await;
    let names = || async { lab.hub.gateways().into_keys().collect::<Vec<_>>() };
    until("its place is taken", SOON, names, |names| *names == ["other"]).await;
}

#[test]
fn a_start_on_a_disk_that_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    // Root may write everywhere; but nobody puts a file in a folder's place.
    std::fs::create_dir(dir.path().join("gateway-generation.json")).unwrap();
    let starts = [5, 6]
        .map(|seconds| first_generation(&data, &ManualClock::new(UNIX_EPOCH + Duration::from_secs(seconds))));
    assert!(starts[0] < starts[1], "{starts:?}: the second start takes the first one's numbers");
}

#[test]
fn that_there_is_no_room_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(&dir.path().join("data")).unwrap();
    let hub = Hub::new(HubConfig { most: 2, ..HubConfig::default() }, data, Generation::new(1));
    let come = |instance: &str, port| hub.hello(hello(GatewayRole::Sidecar, instance, port));
    come("shop/a", 1).unwrap();
    assert!(hub.problems().is_empty(), "there is room for one more");
    come("shop/b", 2).unwrap();
    let said = hub.problems();
    assert!(said.len() == 1 && said[0].message.contains("has 2, as many as it takes"), "{said:?}");
    assert_eq!(come("shop/c", 3), Err(super::hub::Refusal::Full { most: 2 }));
    come("shop/b", 2).expect("one that is known comes again");
}

#[test]
fn whoever_lost_the_set_knows_that_it_may_not_be_all() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(&dir.path().join("data")).unwrap();
    let start = || Hub::new(HubConfig::default(), data.clone(), Generation::new(1));
    let now = tokio::time::Instant::now;
    let first = start();
    assert!(first.forgot(now()), "nobody knows who was there before");
    assert!(!first.forgot(now() + HubConfig::default().grace), "who did not come by then is not there");
    first.hello(hello(GatewayRole::Ingress, "i", 1)).unwrap();
    assert!(start().forgot(now()), "others may have had no time to come");
    let patient = Hub::new(
        HubConfig { grace: Duration::ZERO, ..HubConfig::default() },
        data.clone(),
        Generation::new(1),
    );
    patient.hello(hello(GatewayRole::Ingress, "i", 1)).unwrap();
    assert!(!start().forgot(now()), "the set is kept");
    std::fs::write(data.file("gateways.json"), "{").unwrap();
    assert!(start().forgot(now()), "what is kept can't be read");
}

#[test]
fn gateways_that_come_at_once_are_all_kept() {
    const GATEWAYS: u16 = 24;
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    for round in 0..5 {
        let hub = Hub::new(HubConfig::default(), data.clone(), Generation::new(1));
        let start = std::sync::Barrier::new(usize::from(GATEWAYS));
        std::thread::scope(|scope| {
            for n in 1..=GATEWAYS {
                let (hub, start) = (&hub, &start);
                scope.spawn(move || {
                    start.wait();
                    let port = round * GATEWAYS + n;
                    hub.hello(hello(GatewayRole::Egress, &format!("g{port}"), port)).unwrap();
                });
            }
        });
        let kept = Hub::new(HubConfig::default(), data.clone(), Generation::new(1));
        assert_eq!(kept.gateways().len(), usize::from((round + 1) * GATEWAYS), "round {round}");
    }
}

#[tokio::test]
async fn an_agent_that_starts_withdraws_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let first = first_generation(&data, &SystemClock);
    let hub = Hub::new(HubConfig::default(), data.clone(), first);
    let ingress = GatewayHello {
        advertise: BTreeSet::from(["192.0.2.1:15008".to_owned()]),
        ..hello(GatewayRole::Ingress, "i", 1)
    };
    hub.hello(ingress).unwrap();
    drop(hub);
    let second = first_generation(&data, &SystemClock);
    assert!(second > first);
    let hub = Hub::new(HubConfig { grace: Duration::from_millis(200), ..HubConfig::default() }, data, second);
    assert_eq!(hub.ingress().len(), 1);
    assert_eq!(hub.gateway_reports().len(), 0, "it is not connected");
    task::spawn("expiry", Arc::clone(&hub).expire(watch::channel(Arc::default()).1));
    until("gone after the grace", SOON, || async { hub.ingress().len() }, |n| *n == 0).await;
}

#[tokio::test]
async fn versions_and_names_are_checked() {
    let lab = Lab::start();
    let (client, _egress) = lab.connect(hello(GatewayRole::Egress, "e", 1)).await;
    let refused = async |hello: GatewayHello| {
        let answer = client.requests().post::<_, GatewayWelcome>("/gateway/v1/hello", &hello).await;
        let error = answer.unwrap_err();
        (error.status().unwrap().as_u16(), error.to_string())
    };
    let mut old = hello(GatewayRole::Egress, "x", 2);
    old.hello.protocol = ProtocolVersion { major: 0, minor: 9 };
    let (status, text) = refused(old).await;
    assert!(status == 426 && text.contains("upgrade the gateway first"), "{text}");
    for name in ["", "a b", "a/b", "ä", &"a".repeat(321)] {
        assert_eq!(refused(hello(GatewayRole::Egress, name, 2)).await.0, 422, "{name}");
    }
    for address in ["", "gw", "gw:0", "http://gw:1", "::1:5", "0.0.0.0:1", "169.254.1.1:1"] {
        let hello = GatewayHello {
            advertise: BTreeSet::from([address.to_owned()]),
            ..hello(GatewayRole::Ingress, "i", 2)
        };
        let (status, text) = refused(hello).await;
        assert!(status == 422 && text.contains("write HOST:PORT"), "{address}: {text}");
    }
    let everywhere =
        |role| GatewayHello { tunnel: ([0, 0, 0, 0], 15008).into(), ..hello(role, "everywhere", 0) };
    for role in [GatewayRole::Sidecar, GatewayRole::Egress] {
        let (status, text) = refused(everywhere(role)).await;
        assert!(status == 422 && text.contains("can't be dialled"), "{text}");
    }
    let ingress = everywhere(GatewayRole::Ingress);
    client.requests().post::<_, GatewayWelcome>("/gateway/v1/hello", &ingress).await.unwrap();
    for path in ["/gateway/v1/what", "/"] {
        let error = client.requests().post::<_, ()>(path, &1).await.unwrap_err();
        assert_eq!(error.status().unwrap().as_u16(), 404);
    }
    let error = client.requests().post::<_, ()>("/gateway/v1/status?instance=e", &"x").await.unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 422);
    let error = client.requests().post::<_, ()>("/gateway/v1/status", &1).await.unwrap_err();
    assert!(error.to_string().contains("instance is missing"), "{error}");
}

#[tokio::test]
async fn the_end_of_the_agent_is_a_goodbye() {
    let lab = Lab::start();
    let (client, _egress) = lab.connect(hello(GatewayRole::Egress, "e", 1)).await;
    assert_eq!(lab.drain.drain(SOON).await, drain::Drained::All);
    let mut status = client.status();
    tokio::time::timeout(SOON, status.wait_for(|status| !status.connected)).await.unwrap().unwrap();
    assert!(!lab.socket.exists());
}

#[tokio::test]
async fn any_bytes_on_the_socket_are_taken() {
    use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
    use tokio::{io::AsyncWriteExt, net::UnixStream};
    let lab = Lab::start();
    let mut rng = StdRng::seed_from_u64(3);
    for round in 0..200 {
        let mut bytes = vec![0; rng.random_range(0..400)];
        rng.fill_bytes(&mut bytes);
        if round % 2 == 0 {
            // Past the preface, into the frames.
            bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        }
        let mut stream = UnixStream::connect(&lab.socket).await.unwrap();
        // The agent may have closed it already.
        let _ = stream.write_all(&bytes).await;
    }
    let (client, _egress) = lab.connect(hello(GatewayRole::Egress, "e", 1)).await;
    assert!(certificate(&client.requests(), "e", IDENTITIES[0]).await.is_ok());
}
