use super::{
    Config, Settings,
    asked::Asked,
    configuration::{self, agrees, believes, bundle, bundle_of, configuration},
    patch::{self, Left},
    review::{Namespace, Outcome, review},
    server::Knowledge,
};
use crate::{capture::Chosen, index::View, registries::Registries};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::watch;
use tombolo_model::{
    NamespaceName,
    install::{FailurePolicy, InstallOrder, Namespaces},
    intent::{CaptureMode, Labels},
};
use tombolo_testkit::ca::Organization;

fn patch(pod: &Value, namespace: &Labels, settings: &Settings) -> Result<Vec<Value>, Left> {
    let pod = serde_json::from_value(pod.clone()).map_err(|error| Left::Unreadable(error.to_string()))?;
    patch::patch(&pod, namespace, settings)
}

fn settings() -> Settings {
    Settings {
        cluster: "cluster-1".parse().unwrap(),
        trust_domain: "acme.test".parse().unwrap(),
        agent: "https://tombolo-agent.tombolo-system.svc:15012".to_owned(),
        roots: "ROOTS\n".to_owned(),
        image: "localhost/tombolo-gateway:dev".to_owned(),
        vips: vec!["240.0.0.0/4".parse().unwrap(), "fd74:6f6d:6265:6c6f::/64".parse().unwrap()],
    }
}

/// As a Deployment's pod comes to admission.
fn shop() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "catalog-7d9-", "labels": {"app": "catalog"}, "annotations": {"team": "a"}},
        "spec": {
            "serviceAccountName": "catalog",
            "initContainers": [{"name": "migrate", "image": "m"}],
            "containers": [{
                "name": "catalog", "image": "c",
                "ports": [
                    {"name": "http", "containerPort": 8080}, {"containerPort": 9090, "protocol": "TCP"},
                    {"containerPort": 5353, "protocol": "UDP"}, {"containerPort": 15008},
                ],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

/// As `kubectl run` makes one: nothing but a container. It has `restartPolicy: Never`, as a Job's.
fn bare() -> Value {
    json!({"metadata": {"name": "one"}, "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}})
}

fn patched(mut pod: Value) -> Value {
    for operation in patch(&pod, &Labels::new(), &settings()).unwrap() {
        add(&mut pod, &operation);
    }
    pod
}

/// Does what an API server does with an operation `add` (RFC 6902).
fn add(pod: &mut Value, operation: &Value) {
    assert_eq!(operation["op"], "add");
    let path = operation["path"].as_str().unwrap();
    let (parent, last) = path.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/");
    let value = operation["value"].clone();
    match pod.pointer_mut(parent).unwrap() {
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => list.insert(last.parse().unwrap(), value),
        Value::Object(map) => drop(map.insert(last, value)),
        other => panic!("{path} leads into {other}"),
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

fn redirect_args(pod: &Value) -> String {
    let args = pod["spec"]["initContainers"][0]["args"].as_array().unwrap();
    args.iter().map(|arg| arg.as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn patches() {
    insta::assert_snapshot!(
        "patch of a deployment's pod",
        pretty(&patch(&shop(), &Labels::new(), &settings()).unwrap())
    );
    insta::assert_snapshot!(
        "patch of a bare pod",
        pretty(&patch(&bare(), &Labels::new(), &settings()).unwrap())
    );
}

fn pretty(operations: &[Value]) -> String {
    serde_json::to_string_pretty(operations).unwrap()
}

/// The redirect is there before the proxy, the proxy before all others, and nothing that was there is gone or moved.
#[test]
fn the_proxy_comes_first_and_ends_last() {
    let (before, after) = (shop(), patched(shop()));
    assert_eq!(names(&after["spec"]["initContainers"]), ["tombolo-init", "tombolo-proxy", "migrate"]);
    assert_eq!(names(&after["spec"]["volumes"]), ["data", "tombolo-token"]);
    assert_eq!(after["spec"]["containers"], before["spec"]["containers"], "probes and ports stay");
    assert_eq!(after["metadata"]["annotations"]["team"], "a");
    let proxy = &after["spec"]["initContainers"][1];
    assert_eq!(proxy["restartPolicy"], "Always", "a native sidecar: Jobs end");
    assert_eq!(proxy["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(
        redirect_args(&after),
        "redirect --vips=240.0.0.0/4,fd74:6f6d:6265:6c6f::/64 --port=15001 --exclude-uid=1337 --inbound-port=15006 \
         --inbound=8080,9090"
    );
    let bare = patched(bare());
    assert_eq!(names(&bare["spec"]["initContainers"]), ["tombolo-init", "tombolo-proxy"]);
    assert!(!redirect_args(&bare).contains("--inbound"), "it says no port");
    // What was patched is a pod, and is not patched again.
    assert_eq!(patch(&after, &Labels::new(), &settings()), Err(Left::Injected));
    assert_eq!(patch(&bare, &Labels::new(), &settings()), Err(Left::Injected));
}

#[test]
fn ports_are_excluded_by_annotations() {
    let annotated = |key: &str, text: &str| {
        let mut pod = shop();
        pod["metadata"]["annotations"][key] = text.into();
        pod
    };
    let inbound = "tombolo.io/exclude-inbound-ports";
    assert!(redirect_args(&patched(annotated(inbound, "9090, 7"))).ends_with("--inbound=8080"));
    assert!(!redirect_args(&patched(annotated(inbound, "*"))).contains("--inbound"));
    let outbound = "tombolo.io/exclude-outbound-ports";
    let args = redirect_args(&patched(annotated(outbound, "5432,25")));
    assert!(args.contains("--exclude-outbound-ports=25,5432 "), "{args}");
    for (key, text) in [(inbound, "http"), (inbound, "70000"), (outbound, "*"), (outbound, "-1")] {
        let left = patch(&annotated(key, text), &Labels::new(), &settings()).unwrap_err();
        assert!(matches!(&left, Left::Annotation { .. }) && left.is_warning(), "{left}");
        assert!(left.to_string().contains(key), "{left}");
    }
}

#[test]
fn pods_that_are_left_alone() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut pod = shop();
        change(&mut pod);
        patch(&pod, &Labels::new(), &settings())
    };
    let inject = "tombolo.io/inject";
    assert_eq!(with(&|pod| pod["metadata"]["labels"][inject] = "false".into()), Err(Left::OptedOut));
    assert_eq!(with(&|pod| pod["metadata"]["annotations"][inject] = "false".into()), Err(Left::OptedOut));
    assert!(with(&|pod| pod["metadata"]["annotations"][inject] = "true".into()).is_ok());
    assert_eq!(with(&|pod| pod["spec"]["hostNetwork"] = true.into()), Err(Left::HostNetwork));
    assert_eq!(with(&|pod| pod["spec"]["os"] = json!({"name": "windows"})), Err(Left::Windows));
    assert!(matches!(with(&|pod| pod["spec"] = Value::Null), Err(Left::Unreadable(_))));
    assert!(matches!(with(&|pod| pod["spec"]["containers"] = "x".into()), Err(Left::Unreadable(_))));
    let enforce = |level: &str| {
        let labels = Labels::from([("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned())]);
        patch(&shop(), &labels, &settings())
    };
    assert_eq!(enforce("baseline"), Err(Left::Restricted("baseline".to_owned())));
    assert_eq!(enforce("restricted"), Err(Left::Restricted("restricted".to_owned())));
    assert!(enforce("privileged").is_ok());
}

fn question(kind: &str, object: &Value) -> Vec<u8> {
    let kind = json!({"group": "", "version": "v1", "kind": kind});
    let request =
        json!({"uid": "u-1", "kind": kind, "namespace": "shop", "operation": "CREATE", "object": object});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
        .to_string()
        .into_bytes()
}

#[test]
fn answers() {
    let known = |wanted| move |_: &NamespaceName| Some(Namespace { labels: Labels::new(), wanted });
    let settings = settings();
    let (answer, outcome) = review(&question("Pod", &bare()), known(true), Some(&settings)).unwrap();
    assert_eq!(outcome, Outcome::Injected);
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    let response = &answer["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
    assert_eq!(response["patchType"], "JSONPatch");
    let operations = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let operations: Vec<Value> = serde_json::from_slice(&operations).unwrap();
    assert_eq!(operations, patch(&bare(), &Labels::new(), &settings).unwrap());

    // Everything else is let in as it is, with a word where somebody would want one.
    let answered = |question: &[u8], wanted, settings| {
        let (answer, outcome) = review(question, known(wanted), settings).unwrap();
        let response = &answer["response"];
        assert!(response["allowed"] == true && response["patch"].is_null(), "{answer}");
        (outcome, response["warnings"][0].as_str().map(str::to_owned))
    };
    assert_eq!(answered(&question("Pod", &bare()), false, Some(&settings)), (Outcome::Passed, None));
    assert_eq!(answered(&question("Deployment", &bare()), true, Some(&settings)), (Outcome::Passed, None));
    let (outcome, warning) = answered(&question("Pod", &bare()), true, None);
    assert!(outcome == Outcome::NotReady && warning.unwrap().contains("controller"));
    let mut host = bare();
    host["spec"]["hostNetwork"] = true.into();
    let (outcome, warning) = answered(&question("Pod", &host), true, Some(&settings));
    assert!(outcome == Outcome::Left(Left::HostNetwork) && warning.unwrap().contains("node's network"));
    assert_eq!(answered(&question("Pod", &patched(bare())), true, Some(&settings)).1, None);
    // A namespace that the agent has not seen yet: the API server asks because of its label.
    let (_, outcome) = review(&question("Pod", &bare()), |_| None, Some(&settings)).unwrap();
    assert_eq!(outcome, Outcome::Injected);
    assert!(review(b"{}", known(true), Some(&settings)).is_err());
}

#[test]
fn the_api_server_asks_about_few() {
    let own = NamespaceName::parse("tombolo-system").unwrap();
    let mut chosen = Chosen::default();
    let alone = configuration(&own, &chosen, Some(FailurePolicy::Ignore), "PEM");
    assert_eq!(alone.webhooks.as_ref().unwrap().len(), 1, "by label only");
    let name = |text: &str| NamespaceName::parse(text).unwrap();
    chosen.by_gns = [(name("shop"), CaptureMode::Sidecar), (name("bank"), CaptureMode::Node)].into();
    let wanted = configuration(&own, &chosen, Some(FailurePolicy::Ignore), "PEM");
    insta::assert_snapshot!("webhooks", serde_json::to_string_pretty(&wanted).unwrap());
    assert!(agrees(&wanted, &wanted) && !agrees(&wanted, &alone));
    assert!(!agrees(&wanted, &configuration(&own, &chosen, Some(FailurePolicy::Fail), "PEM")));
    assert!(!agrees(&wanted, &configuration(&own, &chosen, Some(FailurePolicy::Ignore), "OTHER")));
    // As the default it is all but those that a global namespace takes out.
    chosen.default = CaptureMode::Sidecar;
    let all = configuration(&own, &chosen, Some(FailurePolicy::Ignore), "PEM").webhooks.unwrap();
    let names: Vec<&str> = all.iter().map(|webhook| webhook.name.as_str()).collect();
    assert_eq!(names, ["sidecar.tombolo.io", "default.tombolo.io"]);
    let text = serde_json::to_string(&all[1].namespace_selector).unwrap();
    for part in [
        r#""key":"kubernetes.io/metadata.name","operator":"NotIn","values":["bank"]"#,
        r#""key":"tombolo.io/capture","operator":"DoesNotExist""#,
        r#""values":["kube-node-lease","kube-public","kube-system","tombolo-system"]"#,
    ] {
        assert!(text.contains(part), "{text}");
    }
    // Nor those that the agent does not read, which it has no view of: and so they are refused, too, where somebody asks about them.
    chosen.apart = [name("vault")].into();
    let all = configuration(&own, &chosen, Some(FailurePolicy::Ignore), "PEM").webhooks.unwrap();
    for webhook in &all {
        let text = serde_json::to_string(&webhook.namespace_selector).unwrap();
        assert!(text.contains(r#""operator":"NotIn","values":["kube-node-lease","kube-public","kube-system","tombolo-system","vault"]"#), "{text}");
    }
    let mut view = View::default();
    view.namespaces.insert(name("shop"), Labels::new());
    let asked = Asked { chosen: chosen.clone(), webhook: None };
    let knowledge = Knowledge {
        settings: watch::channel(None).1,
        view: watch::channel(Arc::new(view)).1,
        asked: watch::channel(Some(Arc::new(asked))).1,
    };
    let gets = |text: &str| knowledge.namespace(&name(text)).map(|found| found.wanted);
    assert_eq!((gets("shop"), gets("vault"), gets("new")), (Some(true), Some(false), None));
    chosen.apart.clear();
    chosen.default = CaptureMode::Gateway;
    // Who is left out is not asked about, and nobody is once there is to be no webhook.
    chosen.namespaces = Namespaces::Include([name("shop")].into());
    let included = configuration(&own, &chosen, Some(FailurePolicy::Ignore), "PEM");
    let labelled = &included.webhooks.as_ref().unwrap()[0].namespace_selector;
    let text = serde_json::to_string(labelled).unwrap();
    assert!(text.contains(r#""operator":"In","values":["shop"]"#), "{text}");
    let none = configuration(&own, &chosen, None, "PEM");
    assert!(none.webhooks.as_ref().unwrap().is_empty() && agrees(&none, &Default::default()));
    assert!(!agrees(&none, &wanted));
    // What others put into it is theirs.
    let mut found = wanted.clone();
    let mut foreign = found.webhooks.as_ref().unwrap()[0].clone();
    foreign.name = "other.example.org".to_owned();
    found.webhooks.as_mut().unwrap().push(foreign);
    assert!(agrees(&wanted, &found));
}

/// While an intermediate is renewed, replicas show certificates by both.
#[test]
fn the_bundle_holds_what_is_good() {
    let mut organization = Organization::new("acme.test");
    let (old, other) = (organization.join("c1").intermediate, organization.join("c2").intermediate);
    let new = organization.join("c1").intermediate;
    let own = NamespaceName::parse("tombolo-system").unwrap();
    let told = |text: &str| configuration(&own, &Chosen::default(), Some(FailurePolicy::Ignore), text);
    let now = tombolo_testkit::clock::now();
    let first = bundle(&old, &[], now);
    let read = bundle_of(&told(&format!("{first}{}", other.cert_pem())));
    assert!(read.len() == 2 && believes(&read, &old.fingerprint()) && !believes(&read, &new.fingerprint()));
    let second = bundle_of(&told(&bundle(&new, &read, now)));
    assert!(believes(&second, &new.fingerprint()) && believes(&second, &old.fingerprint()));
    assert!(!believes(&second, &other.fingerprint()), "another cluster's has no place in it");
    assert_eq!(
        bundle(&new, &second, now),
        bundle(&new, &bundle_of(&told(&bundle(&new, &second, now))), now),
        "it settles"
    );
    let later = now + std::time::Duration::from_secs(10 * 24 * 3600);
    assert_eq!(bundle_of(&told(&bundle(&new, &second, later))).len(), 1, "the old one has ended");
    assert_eq!(configuration::bundle_of(&Default::default()), [""; 0]);
}

#[test]
fn an_installation_goes_before_the_options() {
    use tombolo_model::snapshot::{ClusterResource, Resource, Resources, SelfSpec};
    let itself = ClusterResource::Itself(
        SelfSpec {
            cluster: "cluster-1".parse().unwrap(),
            trust_domain: "acme.test".parse().unwrap(),
            locality: Default::default(),
        }
        .into(),
    );
    let told = |order: Option<InstallOrder>| -> Resources<ClusterResource> {
        let order = order.map(|order| ClusterResource::Install(order.into()));
        [itself.clone()].into_iter().chain(order).map(|resource| (resource.key(), resource)).collect()
    };
    let config = |image: Option<&str>| Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        image: image.map(str::to_owned),
        agent: None,
        vips: vec![],
        policy: FailurePolicy::Fail,
        exclude: BTreeSet::from(["apart".parse().unwrap()]),
    };
    let spec = |text: &str| {
        let mut spec = json!({"version": "1.2", "registry": "registry.test", "default_mode": "none"});
        spec.as_object_mut().unwrap().extend(serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap());
        InstallOrder::Installed(serde_json::from_value(spec).unwrap())
    };
    let all = Registries::stated(["registry.test".to_owned()]);
    assert_eq!(Asked::of(&Resources::new(), &config(Some("i")), &all), None, "nothing is known yet");
    let image = |asked: Option<Asked>| asked.unwrap().webhook.map(|webhook| (webhook.image, webhook.policy));
    let options = Asked::of(&told(None), &config(Some("i")), &all);
    assert_eq!(image(options), Some(("i".to_owned(), FailurePolicy::Fail)));
    assert_eq!(image(Asked::of(&told(None), &config(None), &all)), None);
    let installed = Asked::of(&told(Some(spec("{}"))), &config(None), &all).unwrap();
    assert_eq!(installed.chosen.default, CaptureMode::None);
    assert!(!installed.chosen.takes_part(&"apart".parse().unwrap()), "the agent does not read it");
    let of_order = ("registry.test/tombolo-gateway:1.2".to_owned(), FailurePolicy::Ignore);
    assert_eq!(image(Some(installed)), Some(of_order));
    // whoever writes orders brings no images of his own into pods: until it is known which may be, nothing is answered, and then what runs stays
    let elsewhere = Registries::stated(["elsewhere.test".to_owned()]);
    for registries in [elsewhere.clone(), Registries::default()] {
        assert_eq!(Asked::of(&told(Some(spec("{}"))), &config(None), &registries), None);
    }
    let runs = elsewhere.with_running(["old.test/tombolo-gateway:1.1"]);
    let refused = Asked::of(&told(Some(spec("{}"))), &config(None), &runs).unwrap();
    assert_eq!(refused.chosen.default, CaptureMode::None, "all else of the order counts");
    let standing = ("old.test/tombolo-gateway:1.1".to_owned(), FailurePolicy::Ignore);
    assert_eq!(image(Some(refused)), Some(standing));
    let nothing =
        Asked::of(&told(Some(spec("{}"))), &config(Some("i")), &elsewhere.with_running([])).unwrap();
    assert_eq!(nothing.webhook.unwrap().image, "i");
    let off = spec(r#"{"injector": {"enabled": false}}"#);
    assert_eq!(image(Asked::of(&told(Some(off)), &config(Some("i")), &all)), None);
    let removed = InstallOrder::Removed { revision: 2 };
    assert_eq!(image(Asked::of(&told(Some(removed)), &config(Some("i")), &all)), None);
}
