use super::*;
use crate::source::{Files, SliceEndpoint};
use tombolo_model::{Place, install::Namespaces};

#[test]
fn namespaces_that_are_not_chosen_are_not_there() {
    let text = "kind: Service\napiVersion: v1\nmetadata: {name: NAME, namespace: NAME}\nspec: {ports: [{port: 80}]}\n";
    let text = ["shop", "bank"].map(|name| text.replace("NAME", name)).join("---\n");
    let mut index = Index::default();
    objects(&text).into_iter().for_each(|object| {
        index.apply(object);
    });
    let (view, these) = (index.view(), BTreeSet::from([NamespaceName::parse("bank").unwrap()]));
    let names = |view: View| {
        let services: Vec<_> = view.services.keys().map(ToString::to_string).collect();
        (view.namespaces.keys().map(ToString::to_string).collect::<Vec<_>>(), services)
    };
    let all = |name: &str| (vec![name.to_owned()], vec![format!("{name}/{name}")]);
    assert_eq!(names(view.only(&Namespaces::Include(these.clone()))), all("bank"));
    assert_eq!(names(view.only(&Namespaces::Exclude(these))), all("shop"));
}

fn objects(text: &str) -> Vec<Object> {
    let mut files = Files::default();
    let changes = files.load("f", text.as_bytes());
    assert_eq!(files.problems(), []);
    changes
        .into_iter()
        .map(|change| match change {
            Change::Apply(object) => object,
            Change::Delete(key) => panic!("{key}"),
        })
        .collect()
}

fn service(ports: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: {ports}}}\n---\n")
}

fn slice(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: \
         {{kubernetes.io/service-name: a}}}}\naddressType: IPv4\n{rest}\n---\n"
    )
}

fn addresses(text: &str) -> Vec<String> {
    let mut index = Index::default();
    index.reset(objects(text));
    let view = index.view();
    let ports = view.services.values().flat_map(|service| service.ports.clone());
    ports
        .flat_map(|port| {
            port.endpoints.into_iter().map(move |(at, e)| format!("{} {at} {}", port.spec.port, e.ready))
        })
        .collect()
}

const TWO: &str = "endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], conditions: {ready: false}}]";

#[test]
fn target_ports() {
    for (ports, slice_ports, number) in [
        ("[{port: 80}]", "ports: [{port: 8080}]", Some(8080)),
        ("[{port: 80, name: x}]", "ports: [{port: 8080, name: x}]", Some(8080)),
        ("[{port: 80, targetPort: web}]", "ports: [{port: 8080, name: web}]", Some(8080)),
        ("[{port: 80, name: x, targetPort: 8080}]", "ports: [{port: 8080}]", Some(8080)),
        ("[{port: 80, targetPort: 8080}]", "", Some(8080)),
        ("[{port: 80}]", "", Some(80)),
        ("[{port: 80, targetPort: web}]", "", None),
        ("[{port: 80, name: x}]", "ports: [{port: 8080, name: y}]", None),
        ("[{port: 80}]", "ports: [{port: 80, protocol: UDP}]", None),
    ] {
        let found = addresses(&format!("{}{}", service(ports), slice("s", &format!("{slice_ports}\n{TWO}"))));
        let wanted = number
            .map_or(vec![], |n| vec![format!("80 10.0.0.1:{n} true"), format!("80 10.0.0.2:{n} false")]);
        assert_eq!(found, wanted, "{ports} {slice_ports}");
    }
}

/// A cluster may have 50,000 of each.
#[test]
fn what_is_known_of_a_pod_is_small() {
    let sizes = (size_of::<PodObject>(), size_of::<SliceEndpoint>(), size_of::<LocalAddress>());
    assert_eq!(sizes, (88, 40, 24));
    assert!(size_of::<(Place, LocalEndpoint)>() <= 24);
}

#[test]
fn says_whether_anything_changed() {
    let text = format!("{}{}", service("[{port: 80}]"), slice("s", &format!("ports: [{{port: 1}}]\n{TWO}")));
    let mut index = Index::default();
    let all = objects(&text);
    assert!(index.reset(all.clone()));
    assert!(!index.reset(all.clone()));
    for object in all.clone() {
        assert!(!index.apply(object));
    }
    let orphan = objects(&slice("t", "ports: []\nendpoints: []"));
    assert!(!index.apply(orphan[0].clone()), "no endpoint more or less");
    assert!(index.delete(&all[1].key()), "the endpoints are gone");
    assert!(!index.delete(&all[1].key()));
    assert!(index.delete(&all[0].key()), "the service is gone");
    assert_eq!(index.view().services.len(), 0);
    // The slice may come before its service.
    assert!(!index.apply(all[1].clone()));
    assert!(index.apply(all[0].clone()));
    assert_eq!(index.view().probes().len(), 1, "only the ready one is checked");
}

#[test]
fn namespaces_and_workloads_are_implied() {
    let mut index = Index::default();
    index.reset(objects(&service("[{port: 80}]")));
    let view = index.view();
    let labels = &view.namespaces[&NamespaceName::parse("default").unwrap()];
    assert_eq!(labels["kubernetes.io/metadata.name"], "default");
    assert_eq!(view.workloads.len(), 1);
}
