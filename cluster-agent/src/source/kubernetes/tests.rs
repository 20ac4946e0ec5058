use super::{
    convert::{self, Read},
    known::{Known, Told, What},
};
use crate::{
    index::Index,
    source::{Change, Check, Object, ObjectKind, ServiceObject, SliceObject},
};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tombolo_model::inventory::Protocol;

fn from<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// As the agent reads it, where the virtual addresses are these.
fn read_service(service: Service) -> Read {
    convert::service(service, &["241.0.0.0/8", "fd74:6f6d:6265:6c6f::/64"].map(|net| net.parse().unwrap()))
}

fn service(spec: Value) -> Read {
    read_service(from(json!({
        "metadata": {"namespace": "shop", "name": "catalog", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": spec,
    })))
}

fn service_object(read: &Read) -> &ServiceObject {
    match &read.object {
        Some(Object::Service(service)) => service,
        other => panic!("{other:?} {:?}", read.problems),
    }
}

fn slice(name: &str, kind: &str, ports: Value, endpoints: Value) -> Read {
    convert::slice(from(json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": "catalog"}},
        "addressType": kind, "ports": ports, "endpoints": endpoints,
    })))
}

fn slice_object(read: &Read) -> &SliceObject {
    match &read.object {
        Some(Object::Slice(slice)) => slice,
        other => panic!("{other:?} {:?}", read.problems),
    }
}

fn pod(name: &str, account: &str) -> Read {
    convert::pod(from(json!({
        "metadata": {"namespace": "shop", "name": name, "uid": "u-1"},
        "spec": {"containers": [], "nodeName": "n1", "serviceAccountName": account},
        "status": {"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]},
    })))
}

fn endpoint(address: &str, pod: &str, conditions: Value) -> Value {
    json!({"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod}})
}

#[test]
fn every_type_of_service() {
    for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let read = service(json!({"type": kind, "clusterIP": "10.0.0.1", "ports": [
            {"name": "web", "port": 80, "targetPort": "http", "appProtocol": "kubernetes.io/h2c", "nodePort": 30080},
            {"name": "alt", "port": 81, "targetPort": "http"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]}));
        assert_eq!(read.problems, [""; 0]);
        let object = service_object(&read);
        let ports: Vec<_> = object.ports.iter().map(|port| (port.spec.port, port.spec.protocol)).collect();
        assert_eq!(ports, [(80, Protocol::Tcp), (81, Protocol::Tcp), (53, Protocol::Udp)]);
        assert_eq!(object.ports[0].spec.app_protocol.as_deref(), Some("kubernetes.io/h2c"));
        assert_eq!((object.headless, object.account.as_ref(), &object.check), (false, None, &Check::None));
        assert_eq!(object.created_s, Some(1_767_323_045));
    }
    let read = service(json!({"clusterIP": "None"}));
    assert!(service_object(&read).headless, "without ports, too");
}

#[test]
fn what_is_left_out_is_said() {
    let read = service(json!({"type": "ExternalName", "externalName": "db.example.org"}));
    assert!(service_object(&read).external);
    assert!(read.problems[0].contains("can't be exported") && read.problems[0].contains("db.example.org"));
    let sctp = json!({"name": "s", "port": 9, "protocol": "SCTP"});
    let read = service(json!({"ports": [{"name": "web", "port": 80}, sctp]}));
    assert_eq!(service_object(&read).ports.len(), 1);
    assert!(read.problems[0].contains("port 9 is SCTP"), "{:?}", read.problems);
    let read = service(json!({"ports": [sctp]}));
    assert!(read.object.is_none() && read.problems.len() == 1);
    let read = slice("s", "FQDN", json!([{"port": 80}]), json!([{"addresses": ["db.example.org"]}]));
    assert!(read.object.is_none() && read.problems[0].contains("FQDN"), "{:?}", read.problems);
    // Neither an error nor ours.
    let none = |read: Read| assert!(read.object.is_none() && read.problems.is_empty(), "{read:?}");
    none(convert::slice(from(json!({"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": []}))));
    none(read_service(from(json!({"metadata": {"namespace": "default", "name": "kubernetes"}}))));
    let managed = json!({"app.kubernetes.io/managed-by": "tombolo-agent"});
    none(read_service(from(json!({"metadata": {"name": "x", "labels": managed}}))));
}

#[test]
fn annotations_of_manifests() {
    let annotated = |account: &str| {
        read_service(from(json!({
            "metadata": {"namespace": "shop", "name": "db", "annotations": {
                "tombolo.io/health-check": "what", "tombolo.io/service-account": account,
            }},
            "spec": {"ports": [{"port": 5432}]},
        })))
    };
    let read = annotated("db");
    assert_eq!(service_object(&read).account.as_ref().unwrap().as_str(), "db");
    assert!(read.problems.is_empty(), "its own check does not matter here: {:?}", read.problems);
    let read = annotated("No Name");
    assert_eq!(service_object(&read).account, None);
    assert!(read.problems[0].contains("service-account"), "{:?}", read.problems);
}

#[test]
fn conditions_of_endpoints() {
    let read = slice(
        "s",
        "IPv4",
        json!([{"name": "web", "port": 8080}, {"name": "s", "port": 9, "protocol": "SCTP"}]),
        json!([
            endpoint("10.1.0.1", "a", json!({})),
            endpoint("10.1.0.2", "b", json!({"ready": false})),
            endpoint("10.1.0.3", "c", json!({"ready": false, "serving": true, "terminating": true})),
            endpoint("10.1.0.4", "d", json!({"ready": false, "serving": false, "terminating": true})),
            // As with publishNotReadyAddresses.
            endpoint("10.1.0.5", "e", json!({"ready": true, "serving": false, "terminating": true})),
        ]),
    );
    let object = slice_object(&read);
    assert_eq!(object.ports.as_ref().unwrap().len(), 1);
    let states: Vec<_> = object.endpoints.iter().map(|e| (e.ready, e.draining)).collect();
    assert_eq!(states, [(true, false), (false, false), (false, true), (false, false), (true, false)]);
    assert_eq!(object.endpoints[0].pod.as_ref().unwrap().as_str(), "a");
}

#[test]
fn nodes_and_namespaces() {
    let node = convert::node(from(json!({
        "metadata": {"name": "ip-10-0-0-1.internal", "labels": {
            "topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1",
        }},
    })));
    let space = convert::namespace(from(json!({"metadata": {"name": "shop", "labels": {"team": "a"}}})));
    let account = convert::account(from(json!({"metadata": {"namespace": "shop", "name": "web"}})));
    let mut index = Index::default();
    assert!(!index.apply(node.object.unwrap()), "no service depends on it");
    for read in [space, account] {
        assert!(index.apply(read.object.unwrap()));
    }
    let view = index.view();
    let (name, locality) = index.nodes().first_key_value().unwrap();
    assert_eq!((name.as_str(), locality.region.as_deref()), ("ip-10-0-0-1.internal", Some("eu")));
    assert_eq!(view.namespaces.values().next().unwrap()["team"], "a");
    assert_eq!(view.workloads.len(), 1);
}

/// Each endpoint is who its pod is, whichever comes first; two families are one service.
#[test]
fn pods_say_who_serves() {
    let objects = [
        service(json!({"ports": [{"name": "web", "port": 80, "targetPort": "http"}]})),
        slice(
            "v4",
            "IPv4",
            json!([{"name": "web", "port": 8080}]),
            json!([
                endpoint("10.1.0.1", "a", json!({"ready": true})),
                endpoint("10.1.0.2", "b", json!({"ready": true})),
            ]),
        ),
        slice(
            "v6",
            "IPv6",
            json!([{"name": "web", "port": 8080}]),
            json!([endpoint("fd00::1", "a", json!({"ready": true})),]),
        ),
        pod("a", "first"),
        pod("b", "second"),
    ];
    let objects = objects.map(|read| read.object.unwrap());
    let mut forward = Index::default();
    let mut backward = Index::default();
    for (one, other) in objects.iter().zip(objects.iter().rev()) {
        forward.apply(one.clone());
        backward.apply(other.clone());
    }
    assert_eq!(forward.view(), backward.view());
    let view = forward.view();
    let service = view.services.values().next().unwrap();
    let accounts: Vec<_> = service.accounts.iter().map(|account| account.as_str()).collect();
    assert_eq!(accounts, ["first", "second"]);
    let of =
        |address: &str| service.endpoints[&address.parse().unwrap()].account_in(&service.accounts).unwrap();
    assert_eq!((of("10.1.0.1").as_str(), of("fd00::1").as_str()), ("first", "first"));
    assert_eq!(service.ports[0].endpoints.len(), 3);
    assert!(view.probes().is_empty(), "Kubernetes checks them");
    // A pod that is gone is nobody; the slice follows.
    assert!(forward.delete(&objects[4].key()));
    assert_eq!(forward.view().services.values().next().unwrap().accounts.len(), 1);
}

struct Teller {
    known: Known,
    now: SystemTime,
}

impl Teller {
    fn new() -> Self {
        Self { known: Known::new("https://10.0.0.1:6443".to_owned(), false), now: SystemTime::UNIX_EPOCH }
    }
    fn tell(&mut self, kind: ObjectKind, what: What) -> Vec<String> {
        let changes = self.known.take(Told { kind: Some(kind), what }, self.now);
        let text = |change| match change {
            Change::Apply(object) => format!("+{}", object.key()),
            Change::Delete(key) => format!("-{key}"),
        };
        changes.into_iter().map(text).collect()
    }
    fn list(&mut self, kind: ObjectKind, reads: Vec<Read>) -> Vec<String> {
        let mut all = self.tell(kind, What::Begin);
        for read in reads {
            all.extend(self.tell(kind, What::Has(Box::new(read))));
        }
        all.extend(self.tell(kind, What::Complete));
        all
    }
    fn problems(&self) -> Vec<String> {
        let text = |p: tombolo_wire::message::Problem| format!("{}: {}", p.subject, p.message);
        self.known.problems().into_iter().map(text).collect()
    }
}

fn named(name: &str) -> Read {
    read_service(from(json!({
        "metadata": {"namespace": "shop", "name": name}, "spec": {"ports": [{"port": 80}]},
    })))
}

#[test]
fn a_list_is_a_difference() {
    use ObjectKind::Service;
    let mut told = Teller::new();
    let first = told.list(Service, vec![named("a"), named("b"), named("c")]);
    assert_eq!(first.len(), 3);
    assert_eq!(told.tell(Service, What::Gone(Box::new(named("c")))), ["-Service shop/c"]);
    assert_eq!(told.tell(Service, What::Gone(Box::new(named("c")))), [""; 0]);
    // A list that breaks off, and begins anew, takes nothing away.
    told.tell(Service, What::Begin);
    assert_eq!(told.tell(Service, What::Has(Box::new(named("b")))), ["+Service shop/b"]);
    told.tell(Service, What::Refused { code: 500, message: "etcdserver: leader changed".into() });
    assert_eq!(told.problems().len(), 1);
    assert_eq!(
        told.list(Service, vec![named("b"), named("d")]),
        ["+Service shop/b", "+Service shop/d", "-Service shop/a"]
    );
    assert_eq!(told.problems(), [""; 0]);
}

#[test]
fn an_expired_version_is_no_problem() {
    use ObjectKind::Service;
    let mut told = Teller::new();
    told.list(Service, vec![named("a")]);
    assert_eq!(told.tell(Service, What::Refused { code: 410, message: "too old".into() }), [""; 0]);
    assert_eq!(told.problems(), [""; 0]);
    assert_eq!(told.list(Service, vec![]), ["-Service shop/a"]);
}

#[test]
fn an_object_that_can_no_longer_be_used_goes() {
    use ObjectKind::Service;
    let mut told = Teller::new();
    told.list(Service, vec![named("catalog")]);
    let sctp = || service(json!({"ports": [{"port": 9, "protocol": "SCTP"}]}));
    assert_eq!(told.tell(Service, What::Has(Box::new(sctp()))), ["-Service shop/catalog"]);
    assert!(told.problems()[0].starts_with("Service shop/catalog: spec.ports"), "{:?}", told.problems());
    assert_eq!(told.list(Service, vec![sctp()]), [""; 0]);
    assert_eq!(told.problems().len(), 1);
    assert_eq!(told.list(Service, vec![]), [""; 0]);
    assert_eq!(told.problems(), [""; 0]);
}

#[test]
fn read_when_all_is_known() {
    use ObjectKind::{EndpointSlice, Namespace, Node, Pod, Service, ServiceAccount};
    let mut told = Teller::new();
    for kind in [Namespace, Service, EndpointSlice, ServiceAccount, Pod] {
        told.list(kind, vec![]);
        assert!(!told.known.is_read(), "{kind:?}");
    }
    told.tell(Node, What::Begin);
    told.tell(Node, What::Silent("connection refused".into()));
    assert!(!told.known.is_read(), "it may be there in a moment");
    // What only adds to it may be forbidden; the rest is reported.
    told.tell(Node, What::Refused { code: 403, message: "nodes is forbidden".into() });
    assert!(told.known.is_read());
    told.tell(Service, What::Refused { code: 403, message: "services is forbidden".into() });
    assert!(told.known.is_read(), "the last state stays");
}

#[test]
fn silence_and_refusals_are_reported_until_they_end() {
    use ObjectKind::Pod;
    let mut told = Teller::new();
    let answers =
        |told: &mut Teller| drop(told.known.take(Told { kind: None, what: What::Answers }, told.now));
    told.tell(Pod, What::Silent("connection refused".into()));
    told.now += Duration::from_secs(60);
    told.tell(Pod, What::Silent("no answer within 5 s".into()));
    let wanted = "API server https://10.0.0.1:6443: does not answer since 1970-01-01T00:00:00Z: no answer within 5 s; \
                  what it told last stays in force";
    assert_eq!(told.problems(), [wanted]);
    answers(&mut told);
    assert_eq!(told.problems(), [""; 0]);
    told.tell(Pod, What::Refused { code: 403, message: "pods is forbidden".into() });
    told.now += Duration::from_secs(5);
    told.tell(Pod, What::Refused { code: 403, message: "pods is forbidden".into() });
    told.now += Duration::from_secs(10);
    answers(&mut told);
    let problems = told.problems();
    assert!(problems[0].contains("every Pod: can't be watched since 1970-01-01T00:01:00Z"), "{problems:?}");
    assert!(problems[0].contains("let its role get, list and watch"), "{problems:?}");
    // A watch that is quiet says nothing when it works again; that no attempt failed for long does.
    told.now += Duration::from_secs(2);
    answers(&mut told);
    assert_eq!(told.problems(), [""; 0]);
}

#[test]
fn a_service_of_others_that_claims_a_virtual_address_is_told() {
    let claims = |ips: &[&str]| service(json!({"ports": [{"port": 80}], "externalIPs": ips}));
    let plain = claims(&["192.0.2.1", "fd74::1", "240.0.0.9"]);
    assert!(plain.problems.is_empty() && plain.object.is_some());
    let read = claims(&["192.0.2.1", "241.0.0.9", "fd74:6f6d:6265:6c6f::9"]);
    assert!(read.object.is_some(), "it is read all the same");
    assert_eq!(read.problems.len(), 1, "{:?}", read.problems);
    assert!(
        read.problems[0].contains("241.0.0.9, fd74:6f6d:6265:6c6f::9 is a virtual"),
        "{:?}",
        read.problems
    );
}

#[test]
fn where_the_server_is() {
    for (url, place) in [
        ("https://10.96.0.1", Some("10.96.0.1:443")),
        ("https://192.0.2.1:6443", Some("192.0.2.1:6443")),
        ("https://[fd00::1]:443", Some("[fd00::1]:443")),
        ("https://kubernetes.default.svc:443", None),
    ] {
        assert_eq!(super::place(url), place.map(|place| place.parse().unwrap()), "{url}");
    }
}
