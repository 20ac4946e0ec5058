use super::{Change, Files, Object, document};
use proptest::prelude::*;

const CATALOG: &str = r#"# the catalog
apiVersion: v1
kind: Service
metadata:
  name: catalog
  annotations:
    tombolo.io/service-account: catalog
    tombolo.io/health-check: "http:/healthz"
spec:
  ports:
    - port: 8082
      name: http
      targetPort: web
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: catalog-1
  labels:
    kubernetes.io/service-name: catalog
addressType: IPv4
ports:
  - name: http
    port: 9000
endpoints:
  - addresses: ["10.0.0.7"]
    hostname: catalog-0
  - addresses: ["10.0.0.8"]
    conditions: {ready: false}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: catalog, annotations: {tombolo.io/selector: "path=/srv/catalog, uid=1001"}}
---
apiVersion: v1
kind: Namespace
metadata:
  name: default
  labels: {team: shop}
"#;

fn account(name: &str) -> String {
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n")
}

fn problems(files: &Files) -> Vec<String> {
    files.problems().into_iter().map(|p| format!("{}: {}", p.subject, p.message)).collect()
}

fn names(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match change {
            Change::Apply(object) => format!("+{}", object.key()),
            Change::Delete(key) => format!("-{key}"),
        })
        .collect()
}

#[test]
fn reads_the_four_kinds() {
    let mut files = Files::default();
    let changes = files.load("catalog.yaml", CATALOG.as_bytes());
    assert_eq!(problems(&files), Vec::<String>::new());
    assert_eq!(
        names(&changes),
        [
            "+Namespace default",
            "+Service default/catalog",
            "+EndpointSlice default/catalog-1",
            "+ServiceAccount default/catalog",
        ]
    );
    insta::assert_debug_snapshot!(changes);
    assert!(files.load("catalog.yaml", CATALOG.as_bytes()).is_empty(), "the same again changes nothing");
}

#[test]
fn each_bad_manifest_is_named_by_file_and_line() {
    let service = |rest: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\n{rest}");
    let slice = |rest: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a, labels: \
             {{kubernetes.io/service-name: a}}}}\n{rest}"
        )
    };
    let note = |key: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  annotations: {{{key}: {value:?}}}\nspec: {{ports: [{{port: 1}}]}}\n"
        )
    };
    let cases: Vec<(String, &str)> = vec![
        ("hello".into(), "f:1: expected mapping start"),
        ("kind: Service".into(), "f:1: apiVersion or kind is missing"),
        ("\n\n# c\napiVersion: apps/v1\nkind: Deployment\n".into(), "f:4: apps/v1 Deployment is not read here"),
        ("apiVersion: v1\nkind: Service\nmetadata: [1]\n".into(), "f:3: "),
        ("apiVersion: v1\nkind: Service\nmetadata:\n  name: \"x\n".into(), "f:"),
        ("apiVersion: v1\nkind: Service\n  metadata: {}\n".into(), "f:"),
        ("apiVersion: v1\nkind: Namespace\n".into(), "f:1: metadata.name: is empty; give a name"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}".into(), "f:1: metadata.name: has '.'"),
        (service("spec: {}"), "f:1: spec.ports: is empty"),
        (service("spec:\n  ports:\n  - port: x\n"), "f:6: "),
        (service("spec: {ports: [{port: 0}]}"), "f:1: spec.ports[0].port: 0 is not a port"),
        (service("spec: {ports: [{port: 1, protocol: SCTP}]}"), "f:1: spec.ports[0].protocol: \"SCTP\""),
        (service("spec: {ports: [{port: 1, name: a}, {port: 1, name: b}]}"), "f:1: spec.ports[1].port: 1 stands twice"),
        (service("spec: {ports: [{port: 1}, {port: 2}]}"), "f:1: spec.ports[1].name: several ports need"),
        (service("spec: {type: ExternalName, externalName: x.y}"), "f:1: spec.type: an ExternalName"),
        (note("tombolo.io/health-check", "https"), "f:1: metadata.annotations[tombolo.io/health-check]: \"https\""),
        (note("tombolo.io/service-account", "A_"), "f:1: metadata.annotations[tombolo.io/service-account]: has '_'"),
        (slice("addressType: FQDN\nendpoints: []"), "f:1: addressType: \"FQDN\" is not carried"),
        (slice("addressType: IPv4\nendpoints: [{addresses: []}]"), "f:1: endpoints[0].addresses: is empty"),
        (slice("addressType: IPv4\nendpoints: [{addresses: [x]}]"), "f:1: endpoints[0].addresses: \"x\" is not an IP"),
        (slice("addressType: IPv6\nendpoints: [{addresses: [1.2.3.4]}]"), "f:1: endpoints[0].addresses: 1.2.3.4 is not of addressType IPv6"),
        (slice("addressType: IPv4\nendpoints: []\nports: [{port: 70000}]"), "f:1: ports[0].port: 70000"),
        (
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints: []".into(),
            "f:1: metadata.labels: kubernetes.io/service-name is missing",
        ),
        (
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, annotations: {tombolo.io/selector: uid=x}}".into(),
            "f:1: metadata.annotations[tombolo.io/selector]: uid=\"x\" is not a user's number",
        ),
        (
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, annotations: {tombolo.io/selector: 'uid=1,uid=2'}}".into(),
            "f:1: metadata.annotations[tombolo.io/selector]: uid stands twice",
        ),
        (
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, annotations: {tombolo.io/selector: path=/bin/a}}".into(),
            "f:1: metadata.annotations[tombolo.io/selector]: path= alone would take whoever runs this program",
        ),
    ];
    for (text, expected) in cases {
        // Alone, and with sound neighbours, which must get through.
        let mut files = Files::default();
        assert!(files.load("f", text.as_bytes()).is_empty(), "{text}");
        let found = problems(&files);
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{text}\nfound {found:#?}\nwanted {expected}"
        );
        assert!(!found[0].contains('\n'), "one line: {found:?}");
        let among = format!("{}---\n{text}\n---\n{}", account("before"), account("after"));
        let changes = files.load("g", among.as_bytes());
        assert_eq!(
            names(&changes),
            ["+ServiceAccount default/after", "+ServiceAccount default/before"],
            "{text}"
        );
    }
}

#[test]
fn a_list_is_its_items() {
    let mut files = Files::default();
    let text = format!(
        "{}---\napiVersion: v1\nkind: List\nmetadata: {{resourceVersion: \"\"}}\nitems:\n- apiVersion: v1\n  kind: Namespace\n  \
         metadata: {{name: a}}\n- apiVersion: v1\n  kind: Service\n  metadata: {{name: b}}\n  spec:\n    ports:\n    - \
         port: 80\n      prot: TCP\n- apiVersion: apps/v1\n  kind: Deployment\n- apiVersion: v1\n  kind: Service\n  metadata: \
         {{name: c}}\n  spec: {{ports: [{{port: x}}]}}\n- 7\n",
        account("first")
    );
    let changes = files.load("f", text.as_bytes());
    assert_eq!(names(&changes), ["+Namespace a", "+Service default/b", "+ServiceAccount default/first"]);
    let found = problems(&files);
    for (line, part) in [
        (19, "items[1].spec.ports[0].prot: is no field"),
        (20, "items[2]: apps/v1 Deployment is not read here"),
        (22, "items[3]: invalid type"),
        (26, "items[4]: invalid type"),
    ] {
        let line = format!("f:{line}: {part}");
        assert!(found.iter().any(|p| p.starts_with(&line)), "{line}\n{found:#?}");
    }
    let json = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"j"}}]}"#;
    assert_eq!(names(&files.load("f.json", json.as_bytes())), ["+Namespace j"]);
}

#[test]
fn what_is_not_for_us_is_reported_and_damages_nothing() {
    let mut files = Files::default();
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  lables: {x: y}\nspec:\n  ports:\n  - port: 80\n    targetport: 90\n  \
                selector: {app: a}\n  clusterIP: null\nstatus: {loadBalancer: {}}\n---\napiVersion: apps/v1\nkind: Deployment\n";
    let with = format!("{text}---\n{}", account("b"));
    assert_eq!(files.load("f", with.as_bytes()).len(), 2);
    let found = problems(&files);
    let starts = ["f:5: metadata.lables: ", "f:9: spec.ports[0].targetport: ", "f:14: apps/v1 Deployment "];
    assert!(found.len() == 3 && found.iter().zip(starts).all(|(f, s)| f.starts_with(s)), "{found:#?}");
    // It is sound: what is no longer in it is gone.
    assert!(files.is_sound("f"));
    assert_eq!(names(&files.load("f", text.as_bytes())), ["-ServiceAccount default/b"]);
}

#[test]
fn the_line_of_a_later_document() {
    let mut files = Files::default();
    files.load("f", format!("{}---\n# note\n\nkind: Service\n", account("a")).as_bytes());
    assert!(problems(&files)[0].starts_with("f:8: apiVersion"), "{:?}", problems(&files));
}

#[test]
fn damage_withdraws_nothing() {
    let mut files = Files::default();
    files.load("f", format!("{}---\n{}", account("a"), account("b")).as_bytes());
    assert_eq!(
        names(&files.load("f", format!("{}---\nkind: [", account("a")).as_bytes())),
        Vec::<String>::new()
    );
    assert!(problems(&files).iter().any(|p| p.contains("1 object(s) of its last good version stay")));
    assert!(files.load("f", b"\xff\xfe").is_empty());
    files.unreadable("f", "permission denied");
    assert_eq!(problems(&files), ["f:1: cannot be read: permission denied"]);
    assert_eq!(names(&files.load("f", account("a").as_bytes())), ["-ServiceAccount default/b"]);
    assert_eq!(problems(&files), Vec::<String>::new());
    assert_eq!(names(&files.remove("f")), ["-ServiceAccount default/a"]);
}

#[test]
fn a_duplicate_is_reported_and_takes_over() {
    let mut files = Files::default();
    let other = account("a").replace("name: a", "name: a\n  annotations: {tombolo.io/selector: uid=5}");
    assert_eq!(files.load("b.yaml", other.as_bytes()).len(), 1);
    assert_eq!(names(&files.load("a.yaml", account("a").as_bytes())), ["+ServiceAccount default/a"]);
    assert_eq!(
        problems(&files),
        [
            "b.yaml:1: ServiceAccount default/a stands in a.yaml already, which is taken; remove one of the two"
        ]
    );
    assert!(files.load("b.yaml", other.replace("=5", "=6").as_bytes()).is_empty(), "not in force");
    let changes = files.remove("a.yaml");
    let [Change::Apply(Object::Account(now))] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(now.selectors.len(), 1);
    assert_eq!(problems(&files), Vec::<String>::new());
    let twice = format!("{}---\n{}", account("x"), account("x"));
    files.load("c.yaml", twice.as_bytes());
    assert!(problems(&files)[0].starts_with("c.yaml:6: ServiceAccount default/x stands in line 1 already"));
}

#[test]
fn half_a_file_is_noticed() {
    let mut files = Files::default();
    files.load("f", CATALOG.as_bytes());
    assert!(!files.would_withdraw("f", CATALOG.as_bytes()));
    assert!(files.would_withdraw("f", b""));
    for cut in (0..CATALOG.len() - 1).step_by(7) {
        let _ = files.would_withdraw("f", &CATALOG.as_bytes()[..cut]);
    }
}

#[test]
fn documents() {
    let lines: Vec<usize> = document::split("---\n\na: 1\n--- # x\n# only\n---\nb: |\n  ---x\n...\n")
        .into_iter()
        .map(|document| document.line)
        .collect();
    assert_eq!(lines, [3, 7]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        Files::default().load("f", &bytes);
    }

    #[test]
    fn any_edit_of_a_manifest_is_taken(at in 0..CATALOG.len(), len in 0usize..20, with in "[\\PC\n&*!|>-]{0,8}") {
        let mut bytes = CATALOG.as_bytes().to_vec();
        let end = (at + len).min(bytes.len());
        bytes.splice(at..end, with.bytes());
        let mut files = Files::default();
        files.load("f", CATALOG.as_bytes());
        files.load("f", &bytes);
        let _ = files.problems();
        // Back to the sound version, whatever came between.
        files.load("f", CATALOG.as_bytes());
        prop_assert!(files.problems().is_empty());
    }
}
