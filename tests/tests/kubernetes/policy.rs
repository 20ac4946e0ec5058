//! The admission policies of the manifest on a true API server: the agent does all that it is for under them, and no more of what its
//! rights would allow, whoever has got hold of them.

use crate::{
    capture::own_address,
    make, make_wide, meta,
    rights::root,
    server::{ADMIN, AGENT, Server, Store},
    world::{Agent, Controller, SOON},
};
use http::Request;
use k8s_openapi::api::{
    admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    },
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod, ResourceQuota, Secret, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::Client;
use serde_json::{Value, json};
use std::fs;
use tombolo_testkit::wait::until;

const OWN: &str = "tombolo-system";
const REGISTRY: &str = "registry.example.com/t";
const EGRESS: &str = "/apis/apps/v1/namespaces/tombolo-system/deployments/tombolo-egress";
const NODE: &str = "/apis/apps/v1/namespaces/tombolo-system/daemonsets/tombolo-node";
const ITSELF: &str = "/apis/apps/v1/namespaces/tombolo-system/deployments/tombolo-agent";
const COREDNS: &str = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
const COREFILE: &str = "/api/v1/namespaces/kube-system/configmaps/coredns";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tombolo";

/// The cluster's own Corefile.
const WAS: &str = ".:53 {\n    forward . /etc/resolv.conf\n}\n";

/// Applies the whole manifest, for the user that plays the agent here.
async fn apply(client: &Client) {
    let text = fs::read_to_string(root().join("deploy/kubernetes/agent.yaml")).expect("the manifest");
    let text = text
        .replace("{{registry}}", REGISTRY)
        .replace("{{version}}", "0.1.0")
        .replace("{{vips_v4}}", "240.0.0.0/4")
        .replace("{{vips_v6}}", "fd74:6f6d:6265:6c6f::/64")
        .replace("system:serviceaccount:tombolo-system:tombolo-agent", AGENT);
    for document in text.split("\n---\n") {
        let mut object: Value = serde_saphyr::from_str(document).expect("YAML");
        if object["kind"].as_str().is_some_and(|kind| kind.ends_with("RoleBinding")) {
            object["subjects"] =
                json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT}]);
        }
        match object["kind"].as_str().expect("a kind") {
            "Namespace" => make_wide::<Namespace>(client, object).await,
            "ClusterRole" => make_wide::<ClusterRole>(client, object).await,
            "ClusterRoleBinding" => make_wide::<ClusterRoleBinding>(client, object).await,
            "MutatingWebhookConfiguration" => make_wide::<MutatingWebhookConfiguration>(client, object).await,
            "ValidatingAdmissionPolicy" => make_wide::<ValidatingAdmissionPolicy>(client, object).await,
            "ValidatingAdmissionPolicyBinding" => {
                make_wide::<ValidatingAdmissionPolicyBinding>(client, object).await;
            }
            "Role" => drop(make::<Role>(client, object).await),
            "RoleBinding" => drop(make::<RoleBinding>(client, object).await),
            "ResourceQuota" => drop(make::<ResourceQuota>(client, object).await),
            "ServiceAccount" => drop(make::<ServiceAccount>(client, object).await),
            "Secret" => drop(make::<Secret>(client, object).await),
            "Service" => drop(make::<Service>(client, object).await),
            "PodDisruptionBudget" => drop(make::<PodDisruptionBudget>(client, object).await),
            "Deployment" => drop(make::<Deployment>(client, object).await),
            other => panic!("{other}: make it here, too"),
        }
    }
}

/// What the cluster has of its own.
async fn populate(client: &Client) {
    make_wide::<Namespace>(client, json!({"metadata": {"name": "shop"}})).await;
    let data = json!({"Corefile": WAS, "other.db": "of somebody else"});
    let config = json!({"metadata": meta("kube-system", "coredns"), "data": data});
    make::<ConfigMap>(client, config).await;
    let labels = json!({"k8s-app": "kube-dns"});
    let spec = json!({
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "coredns", "image": "i"}]}},
    });
    make::<Deployment>(client, json!({"metadata": meta("kube-system", "coredns"), "spec": spec})).await;
    let pod = json!({"serviceAccountName": "tombolo-agent", "containers": [{"name": "agent", "image": "i"}]});
    make::<Pod>(client, json!({"metadata": meta(OWN, "tombolo-agent-x"), "spec": pod})).await;
    let mut metadata = meta("shop", "catalog-x");
    metadata["labels"] = json!({"kubernetes.io/service-name": "catalog"});
    make::<EndpointSlice>(client, json!({"metadata": metadata, "addressType": "IPv4", "endpoints": []}))
        .await;
}

async fn get(client: &Client, path: &str) -> Option<Value> {
    client.request(Request::get(path).body(Vec::new()).expect("a request")).await.ok()
}

/// Nothing comes of it: what would be answered. An empty text where it is allowed.
async fn tried(client: &Client, method: &str, path: &str, kind: &str, body: &Value) -> String {
    let uri = format!("{path}?dryRun=All&fieldManager=test&force=true");
    let uri = if kind.contains("apply") { uri } else { uri.replace("&force=true", "") };
    let request = Request::builder().method(method).uri(uri).header("content-type", kind);
    match client.request::<Value>(request.body(body.to_string().into_bytes()).expect("a request")).await {
        Ok(_) => String::new(),
        Err(kube::Error::Api(status)) => status.message,
        Err(error) => panic!("{path}: {error}"),
    }
}

const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A change of the pods of an object.
type Change<'a> = &'a dyn Fn(&mut Value);

/// An object with its pods changed.
async fn pods_with(client: &Client, path: &str, change: Change<'_>) -> String {
    let mut spec = get(client, path).await.expect("it is there")["spec"]["template"]["spec"].take();
    change(&mut spec);
    tried(client, "PATCH", path, MERGE, &json!({"spec": {"template": {"spec": spec}}})).await
}

fn add(list: &mut Value, one: Value) {
    list.as_array_mut().expect("a list").push(one);
}

async fn install(controller: &Controller, home: &std::path::Path, server: &Server) -> Agent {
    controller.join(home).await;
    let listen = std::net::SocketAddr::new(own_address(), 0).to_string();
    let options = [
        ["--namespace", OWN],
        ["--capture", "gateway"],
        ["--webhook-listen", &listen],
        ["--allowed-registry", REGISTRY],
    ]
    .concat();
    let agent = Agent::start(home, server, &options).await;
    let order = json!({
        "registry": REGISTRY, "version": "0.1.9", "node": {"enabled": true},
        "gateways": {"ingress": {"exposure": [{"type": "node_port"}]}},
    });
    controller.order("/organizations/acme/clusters/cluster-1/install", &order).await;
    agent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_held_to_what_it_does() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let server = store.server_with(&["--allow-privileged=true"]).await;
    let admin = server.client(ADMIN).await;
    apply(&admin).await;
    populate(&admin).await;
    let client = server.client(AGENT).await;
    let other = |name: &str, ip: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("shop", name),
               "spec": {"ports": [{"port": 80}], "externalIPs": [ip]}})
    };
    // policies are in force some moments after they were made
    let services = "/api/v1/namespaces/shop/services";
    let claim =
        || async { tried(&admin, "POST", services, "application/json", &other("x", "240.0.0.9")).await };
    let _ = until("the policies are in force", SOON, claim, |said| said.contains("its agent alone")).await;

    // all that it is for
    let controller = Controller::start().await;
    let agent = install(&controller, home.path(), &server).await;
    let all = || async {
        let mut missing = Vec::new();
        for path in [EGRESS, &EGRESS.replace("egress", "ingress"), NODE] {
            if get(&admin, path).await.is_none() {
                missing.push(path.to_owned());
            }
        }
        let text = async |path: &str, pointer: &str| {
            let object = get(&admin, path).await.unwrap_or_default();
            object.pointer(pointer).map(ToString::to_string).unwrap_or_default()
        };
        for (path, pointer, part) in [
            (ITSELF, "/spec/template/spec/containers/0/image", "registry.example.com/t/tombolo-agent:0.1.9"),
            (COREFILE, "/data/Corefile", "tombolo: begin"),
            (COREDNS, "/spec/template/metadata/annotations", "tombolo.io/corefile"),
            (WEBHOOKS, "/webhooks", "/inject"),
            ("/api/v1/namespaces/tombolo-system/services/tombolo-ingress", "/spec/type", "NodePort"),
        ] {
            if !text(path, pointer).await.contains(part) {
                missing.push(format!("{path}: {part}"));
            }
        }
        missing
    };
    let _ = until("the installation", SOON, all, Vec::is_empty).await;
    let refused = controller.problems().await;
    assert!(!refused.iter().any(|problem| problem.contains("ValidatingAdmissionPolicy")), "{refused:?}");
    drop(agent);

    // and no more
    let evil = "evil.example.org/tombolo-gateway:1";
    let changes: [(&str, &str, Change<'_>); 16] = [
        (EGRESS, "image from where", &|pod| pod["containers"][0]["image"] = json!(evil)),
        (EGRESS, "image from where", &|pod| {
            add(&mut pod["containers"], json!({"name": "x", "image": evil}));
        }),
        (EGRESS, "own account", &|pod| pod["serviceAccountName"] = json!("tombolo-agent")),
        (EGRESS, "nothing of its node", &|pod| {
            add(&mut pod["volumes"], json!({"name": "h", "hostPath": {"path": "/"}}))
        }),
        (EGRESS, "nothing of its node", &|pod| {
            add(&mut pod["volumes"], json!({"name": "h", "secret": {"secretName": "tombolo-join"}}));
        }),
        (EGRESS, "nothing of its node", &|pod| pod["hostPID"] = json!(true)),
        (EGRESS, "nothing of its node", &|pod| pod["hostNetwork"] = json!(true)),
        (EGRESS, "no privileges", &|pod| {
            pod["containers"][0]["securityContext"] = json!({"privileged": true})
        }),
        (EGRESS, "no privileges", &|pod| {
            pod["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["NET_ADMIN"]);
        }),
        (EGRESS, "no privileges", &|pod| {
            pod["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["BPF"]);
        }),
        (NODE, "no privileges", &|pod| {
            pod["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["SYS_ADMIN"]);
        }),
        (EGRESS, "no Secret", &|pod| {
            let secret = json!({"secretKeyRef": {"name": "tombolo-join", "key": "token"}});
            pod["containers"][0]["env"]
                .as_array_mut()
                .expect("a list")
                .push(json!({"name": "S", "valueFrom": secret}));
        }),
        (ITSELF, "image only", &|pod| {
            pod["containers"][0]["image"] = json!("evil.example.org/tombolo-agent:1")
        }),
        (ITSELF, "image only", &|pod| {
            add(&mut pod["containers"][0]["args"], json!("--allowed-registry=evil.example.org"));
        }),
        (ITSELF, "image only", &|pod| {
            pod["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["x"]}}});
        }),
        (COREDNS, "of its pods only", &|pod| pod["containers"][0]["image"] = json!(evil)),
    ];
    for (path, part, change) in changes {
        let said = pods_with(&client, path, change).await;
        assert!(said.contains(part), "{path}, {part}: {said:?}");
    }
    assert_eq!(pods_with(&client, EGRESS, &|pod| pod["priorityClassName"] = json!("x")).await, "");

    let begin = get(&admin, COREFILE).await.expect("it is there")["data"]["Corefile"]
        .as_str()
        .expect("text")
        .to_owned();
    let webhook = |resource: &str, client: Value| {
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]});
        let never =
            json!([{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}]);
        json!({"webhooks": [{"name": "x.tombolo.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                             "namespaceSelector": {"matchExpressions": never}, "clientConfig": client, "rules": [rule]}]})
    };
    let everywhere = |mut all: Value| {
        all["webhooks"][0]["namespaceSelector"] = json!({});
        all
    };
    let ours = json!({"service": {"name": "tombolo-agent", "namespace": OWN}});
    let slice = |name: &str, labels: Value| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [],
               "metadata": {"name": name, "namespace": "shop", "labels": labels}})
    };
    let mark = "app.kubernetes.io/managed-by";
    let service = |spec: Value| {
        let mut spec = spec;
        spec["ports"] = json!([{"port": 80}]);
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(OWN, "g-x"), "spec": spec})
    };
    let slices = |name: &str| format!("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/{name}");
    let (mcs, theirs) = (slices("mcs-x"), slices("catalog-x"));
    let (mcs, theirs) = (mcs.as_str(), theirs.as_str());
    let own_service = "/api/v1/namespaces/tombolo-system/services/g-x";
    let pod = "/api/v1/namespaces/tombolo-system/pods/tombolo-agent-x";
    let corefile = |text: String| json!({"data": {"Corefile": text}});
    let zone = |zone: &str| corefile(begin.replace("acme.example.com:53", zone));
    for (method, path, kind, body, part) in [
        ("PATCH", COREFILE, MERGE, corefile(begin.clone()), ""),
        ("PATCH", COREFILE, MERGE, corefile(begin.replace("/etc/resolv.conf", "192.0.2.66")), "own block"),
        ("PATCH", COREFILE, MERGE, zone("svc.cluster.local:53"), "domains of the cluster"),
        ("PATCH", COREFILE, MERGE, zone("in-addr.arpa:53"), "domains of the cluster"),
        (
            "PATCH",
            COREFILE,
            MERGE,
            corefile(format!("{begin}# tombolo: end\ncluster.local:53 {{\n}}\n")),
            "one block",
        ),
        ("PATCH", COREFILE, MERGE, zone("Cluster.local:53"), "one block"),
        ("PATCH", COREFILE, MERGE, zone(".:53"), "domains of the cluster"),
        ("PATCH", COREFILE, MERGE, zone("local:53"), "domains of the cluster"),
        ("PATCH", COREFILE, MERGE, zone("cluster.local.:53"), "domains of the cluster"),
        ("PATCH", COREFILE, MERGE, zone("a.test:53 cluster.local:53"), "one block"),
        (
            "PATCH",
            COREFILE,
            MERGE,
            corefile(
                begin
                    .replace("acme.example.com:53 {\n    errors", "acme.example.com:53 {\n    import /etc/x"),
            ),
            "one block",
        ),
        // what was there is all there still, but in other servers than before
        (
            "PATCH",
            COREFILE,
            MERGE,
            corefile(WAS.replacen(
                ".:53 {",
                ".:53 {\n# tombolo: begin. Made by x\n    forward . 192.0.2.66\n}\na.example.com:53 {\n# tombolo: end\n",
                1,
            )),
            "one block",
        ),
        ("PATCH", COREFILE, MERGE, corefile(begin.replace(WAS, "") + WAS), "one block"),
        // each of its lines is one of a block, and they are none together
        ("PATCH", COREFILE, MERGE, corefile(begin.replace("    errors\n", "}\n    errors\n")), "one block"),
        ("PATCH", COREFILE, MERGE, corefile(begin.replace("    errors\n", "")), "one block"),
        ("PATCH", COREFILE, MERGE, corefile(begin.replace("    forward . 1", "    forward . \"1")), "one block"),
        ("PATCH", COREFILE, MERGE, json!({"data": {"Corefile": begin, "other.db": null}}), "own block"),
        ("PATCH", WEBHOOKS, MERGE, webhook("pods", ours.clone()), ""),
        ("PATCH", WEBHOOKS, MERGE, everywhere(webhook("pods", ours.clone())), "never about the system's"),
        ("PATCH", WEBHOOKS, MERGE, webhook("secrets", ours), "about new pods"),
        (
            "PATCH",
            WEBHOOKS,
            MERGE,
            webhook("pods", json!({"url": "https://evil.example.org/"})),
            "about new pods",
        ),
        ("PATCH", mcs, APPLY, slice("mcs-x", json!({mark: "tombolo-agent"})), ""),
        (
            "PATCH",
            mcs,
            APPLY,
            slice("mcs-x", json!({mark: "tombolo-agent", "kubernetes.io/service-name": "catalog"})),
            "not its own",
        ),
        ("PATCH", theirs, MERGE, json!({"metadata": {"labels": {mark: "tombolo-agent"}}}), "not its own"),
        ("DELETE", theirs, "application/json", json!({}), "not its own"),
        ("PATCH", own_service, APPLY, service(json!({"externalIPs": ["240.0.0.9"]})), ""),
        (
            "PATCH",
            own_service,
            APPLY,
            service(json!({"externalIPs": ["10.96.0.1"]})),
            "virtual addresses only",
        ),
        ("PATCH", own_service, APPLY, service(json!({"type": "NodePort"})), "virtual addresses only"),
        ("PATCH", pod, MERGE, json!({"metadata": {"annotations": {"tombolo.io/state-kept": "1"}}}), ""),
        (
            "PATCH",
            pod,
            MERGE,
            json!({"spec": {"containers": [{"name": "agent", "image": evil, "imagePullPolicy": "Always"}]}}),
            "written on them",
        ),
    ] {
        let said = tried(&client, method, path, kind, &body).await;
        assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{path}, {part}: {said:?}");
    }
    // others have all but the virtual addresses
    for (ip, part) in [
        ("192.0.2.7", ""),
        ("2001:db8::7", ""),
        ("240.0.0.9", "its agent alone"),
        ("fd74:6f6d:6265:6c6f::9", "its agent alone"),
        // kube-proxy reads these two as the first one
        ("240.0.0.09", "its agent alone"),
        ("::ffff:240.0.0.9", "its agent alone"),
    ] {
        let said = tried(&admin, "POST", services, "application/json", &other("x", ip)).await;
        assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{ip}: {said:?}");
    }
}
