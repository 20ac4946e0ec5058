//! Capture mode `gateway`: names are Services of the cluster, and their endpoints are the egress gateways. There are no nodes
//! here, so the test itself goes where a node's proxying would send a connection.

use crate::{
    let_agent, make, make_wide, meta,
    server::{ADMIN, Server, Store},
    world::{Agent, Controller, SOON, egress},
};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Pod, Service},
        discovery::v1::EndpointSlice,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tombolo_testkit::{
    process::Program,
    wait::{until, until_ok},
};

const CATALOG: &str = "catalog.acme.example.com";
const OWN: &str = "tombolo-system";

/// An address of this machine that an EndpointSlice may have: not of loopback.
pub(crate) fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("192.0.2.1:9").expect("this machine needs a route to somewhere; nothing is sent");
    socket.local_addr().expect("an address").ip()
}

/// An application that says its name, and then what it is told.
async fn application(address: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).await.expect("a socket");
    let at = listener.local_addr().expect("an address");
    tombolo_runtime::task::spawn("application", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tombolo_runtime::task::spawn("request", async move {
                let (mut from, mut to) = stream.split();
                let _ = to.write_all(b"catalog: ").await;
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    at
}

async fn ask(at: SocketAddr) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(b"who is there").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// What the agent may write: in its own namespace only.
pub(crate) async fn let_agent_write(client: &kube::Client) {
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let rules = json!([
        {"apiGroups": [""], "resources": ["services"], "verbs": verbs},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
    ]);
    make::<Role>(client, json!({"metadata": meta(OWN, "tombolo"), "rules": rules})).await;
    let group = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "tombolo"}]);
    let of = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tombolo"});
    let binding = json!({"metadata": meta(OWN, "tombolo"), "subjects": group, "roleRef": of});
    make::<RoleBinding>(client, binding).await;
}

/// The Service of a name.
#[derive(Debug)]
struct Found {
    object: String,
    cluster_ip: IpAddr,
    external_ips: Vec<String>,
    /// Where its port leads.
    target: u16,
}

async fn service_of(services: &Api<Service>, name: &str) -> Result<Found, String> {
    let all = services.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
    let is = |service: &&Service| {
        service
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get("tombolo.io/name"))
            .is_some_and(|of| of == name)
    };
    let service = all.items.iter().find(is).ok_or("none")?;
    let spec = service.spec.as_ref().ok_or("no spec")?;
    let port = spec.ports.as_ref().and_then(|ports| ports.first()).ok_or("no port")?;
    let Some(IntOrString::Int(target)) = port.target_port else { return Err("no target".to_owned()) };
    let cluster_ip = spec.cluster_ip.as_ref().and_then(|ip| ip.parse().ok()).ok_or("no address")?;
    let target = u16::try_from(target).map_err(|error| error.to_string())?;
    let external_ips = spec.external_ips.clone().unwrap_or_default();
    Ok(Found { object: service.metadata.name.clone().ok_or("no name")?, cluster_ip, external_ips, target })
}

/// A cluster with the service `catalog`, an application behind it, and an agent and an egress gateway.
struct World {
    _home: tempfile::TempDir,
    client: kube::Client,
    here: IpAddr,
    controller: Controller,
    agent: Agent,
    gateway: Program,
    _store: Store,
    _server: Server,
}

impl World {
    async fn start(server_options: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::start(&home.path().join("kubernetes"));
        let server = store.server_with(server_options).await;
        let client = server.client(ADMIN).await;
        for name in ["shop", OWN] {
            make_wide::<Namespace>(&client, json!({"metadata": {"name": name}})).await;
        }
        let_agent(&client, &["namespaces", "services", "pods", "serviceaccounts", "nodes"]).await;
        let_agent_write(&client).await;
        let here = own_address();
        let at = application(here).await;
        let ports = json!([{"name": "web", "port": 80, "targetPort": at.port()}]);
        make::<Service>(&client, json!({"metadata": meta("shop", "catalog"), "spec": {"ports": ports}}))
            .await;
        let mut metadata = meta("shop", "catalog-x");
        metadata["labels"] = json!({"kubernetes.io/service-name": "catalog"});
        let ports = json!([{"name": "web", "port": at.port()}]);
        let endpoints = json!([{"addresses": [here], "conditions": {"ready": true}}]);
        let slice =
            json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        make::<EndpointSlice>(&client, slice).await;

        let controller = Controller::start().await;
        controller.join(home.path()).await;
        let agent = Agent::start(home.path(), &server, &["--capture", "gateway"]).await;
        let gateway = egress(home.path(), here).await;
        Self { _home: home, client, here, controller, agent, gateway, _store: store, _server: server }
    }

    /// Waits until DNS answers this address.
    async fn resolves(&self, what: &str, address: IpAddr) {
        let asked = || self.agent.ask(CATALOG);
        let _ = until(what, SOON, asked, |found| found.clone().map(IpAddr::V4) == Ok(address)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_services() {
    let mut world = World::start(&[]).await;
    // The name is a Service that carries its virtual IP, and its endpoints are the gateway.
    let services: Api<Service> = Api::namespaced(world.client.clone(), OWN);
    let slices: Api<EndpointSlice> = Api::namespaced(world.client.clone(), OWN);
    let Found { object, external_ips, target, .. } =
        until_ok("the Service of the name", SOON, || service_of(&services, CATALOG)).await;
    let vip: IpAddr = external_ips[0].parse().expect("an address");
    assert!(external_ips.len() == 1 && vip.to_string().starts_with("240."), "{external_ips:?}");
    world.resolves("it in DNS", vip).await;
    let (agent, here) = (&world.agent, world.here);
    let endpoints = || async {
        let slice = slices.get_opt(&format!("{object}-ipv4")).await.expect("an answer");
        slice.map(|slice| slice.endpoints.iter().flat_map(|e| e.addresses.clone()).collect::<Vec<_>>())
    };
    until("its endpoints", SOON, endpoints, |found| *found == Some(vec![here.to_string()])).await;
    let answer = until_ok("an answer", SOON, || ask(SocketAddr::new(here, target))).await;
    assert_eq!(answer, "catalog: who is there");
    assert!(!agent.inventory().await.iter().any(|line| line.starts_with(OWN)), "they are not exported");

    // What is changed or deleted by hand is mended; the gateway's number stays.
    let change = json!({"spec": {"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": 80, "name": "p-80"}]}});
    services.patch(&object, &PatchParams::default(), &Patch::Merge(change)).await.expect("changed");
    let mended = || async {
        let found = services.get(&object).await.expect("it is there").spec.expect("a spec");
        (found.selector, service_of(&services, CATALOG).await.map(|found| found.target))
    };
    let _ = until("the change is mended", SOON, mended, |found| *found == (None, Ok(target))).await;
    // So is what would keep callers from the gateways, or to one of them.
    for (field, theirs, ours) in
        [("internalTrafficPolicy", "Local", "Cluster"), ("sessionAffinity", "ClientIP", "None")]
    {
        let change = json!({"spec": {field: theirs}});
        services.patch(&object, &PatchParams::default(), &Patch::Merge(change)).await.expect("changed");
        let mended = || async {
            let spec = services.get(&object).await.expect("it is there").spec.expect("a spec");
            if field == "sessionAffinity" { spec.session_affinity } else { spec.internal_traffic_policy }
        };
        until(field, SOON, mended, |found| found.as_deref() == Some(ours)).await;
    }
    // The endpoints are the Service's, to go with it; nobody collects what is left here. That is mended, too.
    let owned = || async {
        let service =
            services.get_opt(&object).await.expect("an answer").and_then(|found| found.metadata.uid);
        let slice = slices.get_opt(&format!("{object}-ipv4")).await.expect("an answer");
        let owners = slice.and_then(|found| found.metadata.owner_references).unwrap_or_default();
        service.is_some() && owners.iter().map(|owner| Some(&owner.uid)).eq([service.as_ref()])
    };
    until("an owner", SOON, owned, |owned| *owned).await;
    let lone = json!({"metadata": {"ownerReferences": null}});
    slices
        .patch(&format!("{object}-ipv4"), &PatchParams::default(), &Patch::Merge(lone))
        .await
        .expect("changed");
    until("the owner is mended", SOON, owned, |owned| *owned).await;
    services.delete(&object, &DeleteParams::default()).await.expect("deleted");
    let again = until_ok("it is made again", SOON, || service_of(&services, CATALOG)).await;
    assert_eq!((again.object, again.target, again.external_ips), (object.clone(), target, external_ips));
    until("the new one owns them", SOON, owned, |owned| *owned).await;
    world.resolves("the address stays", vip).await;
    assert_eq!(ask(SocketAddr::new(here, target)).await.expect("an answer"), "catalog: who is there");

    // A gateway that is gone is no endpoint; a name that is gone is no Service.
    world.gateway.kill();
    until("no endpoint", SOON, endpoints, Option::is_none).await;
    let shop: Api<Service> = Api::namespaced(world.client.clone(), "shop");
    shop.delete("catalog", &DeleteParams::default()).await.expect("deleted");
    let left = || async { services.list(&ListParams::default()).await.expect("a list").items.len() };
    until("no Service is left", SOON, left, |count| *count == 0).await;
}

/// An API server that takes no external IPs: names resolve to the Services themselves, and the status says what that means.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_where_external_ips_are_denied() {
    let world = World::start(&["--enable-admission-plugins=DenyServiceExternalIPs"]).await;
    let services: Api<Service> = Api::namespaced(world.client.clone(), OWN);
    let found = until_ok("the Service of the name", SOON, || service_of(&services, CATALOG)).await;
    assert_eq!(found.external_ips, [""; 0]);
    world.resolves("its own address in DNS", found.cluster_ip).await;
    let answer = until_ok("an answer", SOON, || ask(SocketAddr::new(world.here, found.target))).await;
    assert_eq!(answer, "catalog: who is there");
    let problems = || world.controller.problems();
    let said = |all: &Vec<String>| all.iter().any(|text| text.contains("may not have external IPs"));
    until("the problem is told", SOON, problems, said).await;
}

/// A cluster with two address families: a pod with an address of each is one endpoint, and names have Services of both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_two_families() {
    let world = World::start(&["--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112"]).await;
    let client = &world.client;
    let spec = json!({"serviceAccountName": "pair", "containers": [{"name": "c", "image": "none"}]});
    make::<Pod>(client, json!({"metadata": meta("shop", "pair-1"), "spec": spec})).await;
    let status =
        json!({"status": {"podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00:1::7"}]}});
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    pods.patch_status("pair-1", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
    let spec = json!({"ipFamilyPolicy": "RequireDualStack", "ports": [{"name": "web", "port": 80}]});
    let made: Service = make(client, json!({"metadata": meta("shop", "pair"), "spec": spec})).await;
    assert_eq!(made.spec.and_then(|spec| spec.cluster_ips).map(|all| all.len()), Some(2));
    for (family, address) in [("IPv4", "10.1.0.7"), ("IPv6", "fd00:1::7")] {
        let mut metadata = meta("shop", &format!("pair-{}", family.to_lowercase()));
        metadata["labels"] = json!({"kubernetes.io/service-name": "pair"});
        let target = json!({"kind": "Pod", "namespace": "shop", "name": "pair-1"});
        let endpoints = json!([{"addresses": [address], "conditions": {"ready": true}, "targetRef": target}]);
        let ports = json!([{"name": "web", "port": 80}]);
        let slice =
            json!({"metadata": metadata, "addressType": family, "ports": ports, "endpoints": endpoints});
        make::<EndpointSlice>(client, slice).await;
    }
    let inventory = || world.agent.inventory();
    let one = |all: &Vec<String>| all.iter().any(|line| line == r#"shop/pair 1/1 ["pair"]"#);
    until("one endpoint", SOON, inventory, one).await;

    let services: Api<Service> = Api::namespaced(client.clone(), OWN);
    let found = || service_of(&services, CATALOG);
    let both =
        |found: &Result<Found, String>| found.as_ref().is_ok_and(|found| found.external_ips.len() == 2);
    let found = until("both virtual IPs", SOON, found, both).await.expect("a Service");
    let ips: Vec<IpAddr> = found.external_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    assert!(ips.iter().any(IpAddr::is_ipv4) && ips.iter().any(IpAddr::is_ipv6), "{ips:?}");
    let spec = services.get(&found.object).await.expect("a Service").spec.expect("a spec");
    assert_eq!(spec.ip_family_policy.as_deref(), Some("PreferDualStack"));
    assert_eq!(spec.ip_families.map(|all| all.len()), Some(2));
    let v4 = ips.into_iter().find(IpAddr::is_ipv4).expect("one of IPv4");
    world.resolves("where the gateway is", v4).await;
}
