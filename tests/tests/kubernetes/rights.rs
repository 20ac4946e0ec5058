//! The rules of the manifest on a true API server, asked as the agent: they allow what docs/kubernetes.md says, and no more.

use crate::{
    make, make_wide,
    server::{ADMIN, Server, Store},
};
use http::{HeaderName, HeaderValue, Method, Request};
use k8s_openapi::api::{
    core::v1::{Namespace, Secret},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::Client;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path};
use tombolo_tests::rights::{OWN, Right, allowed, documented};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// Applies what the manifest has about rights.
async fn apply(client: &Client) {
    let text = fs::read_to_string(root().join("deploy/kubernetes/agent.yaml")).expect("the manifest");
    for document in text.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).expect("YAML");
        match object["kind"].as_str() {
            Some("ClusterRole") => make_wide::<ClusterRole>(client, object).await,
            Some("ClusterRoleBinding") => make_wide::<ClusterRoleBinding>(client, object).await,
            Some("Role") => drop(make::<Role>(client, object).await),
            Some("RoleBinding") => drop(make::<RoleBinding>(client, object).await),
            _ => {}
        }
    }
}

/// The agent is a user here, who may what the manifest's service account may.
pub(crate) async fn let_agent_as_in_the_manifest(client: &Client) {
    apply(client).await;
    let group = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "tombolo"}]);
    let of =
        |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "tombolo-agent"});
    let metadata = json!({"name": "tombolo-test"});
    let binding = json!({"metadata": metadata, "subjects": group, "roleRef": of("ClusterRole")});
    make_wide::<ClusterRoleBinding>(client, binding).await;
    for namespace in [OWN, "kube-system"] {
        let metadata = json!({"name": "tombolo-test", "namespace": namespace});
        let binding = json!({"metadata": metadata, "subjects": group, "roleRef": of("Role")});
        make::<RoleBinding>(client, binding).await;
    }
}

/// Asks as the agent's service account would.
async fn agent(server: &Server) -> Client {
    let mut config = server.config(ADMIN).await;
    let mut header = |name: &'static str, value: &str| {
        config.headers.push((HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header")));
    };
    header("impersonate-user", &format!("system:serviceaccount:{OWN}:tombolo-agent"));
    for group in ["system:serviceaccounts", "system:serviceaccounts:tombolo-system", "system:authenticated"] {
        header("impersonate-group", group);
    }
    Client::try_from(config).expect("a client")
}

/// The status of the answer.
async fn ask(client: &Client, method: Method, path: &str, body: Option<&Value>) -> u16 {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    match client.request::<Value>(request.body(body).expect("a request")).await {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{path}: {error}"),
    }
}

/// All that the API server allows in a namespace, but for what anybody may ask of himself.
async fn given(client: &Client, namespace: &str) -> BTreeSet<Right> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": namespace },
    });
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews")
        .header("content-type", "application/json")
        .body(review.to_string().into_bytes())
        .expect("a request");
    let answer: Value = client.request(request).await.expect("an answer");
    let mut rights = allowed(&answer["status"]["resourceRules"], None);
    rights.retain(|right| !right.resource.starts_with("selfsubject"));
    rights
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_may() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let server = store.server().await;
    let admin = server.client(ADMIN).await;
    for name in ["shop", OWN] {
        make_wide::<Namespace>(&admin, json!({"metadata": {"name": name}})).await;
    }
    for (namespace, name) in [(OWN, "tombolo-state"), (OWN, "tombolo-join"), ("shop", "vault")] {
        make::<Secret>(&admin, json!({"metadata": {"namespace": namespace, "name": name}})).await;
    }
    apply(&admin).await;
    let agent = agent(&server).await;

    // the table, whole, in each namespace
    let page = fs::read_to_string(root().join("docs/kubernetes.md")).expect("the page");
    let table = documented(&page);
    for namespace in ["shop", OWN, "kube-system", "default"] {
        let here = |right: &&Right| right.namespace.as_deref().is_none_or(|own| own == namespace);
        let of_table: BTreeSet<Right> =
            table.iter().filter(here).map(|right| Right { namespace: None, ..right.clone() }).collect();
        assert_eq!(given(&agent, namespace).await, of_table, "in {namespace}");
    }

    // no Secret is read, by no way
    for namespace in [OWN, "shop", "kube-system"] {
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        for path in [
            path.clone(),
            format!("{path}?watch=true"),
            format!("{path}?fieldSelector=metadata.name%3Dtombolo-state"),
        ] {
            assert_eq!(ask(&agent, Method::GET, &path, None).await, 403, "{path}");
        }
        for name in ["tombolo-state", "tombolo-join", "vault"] {
            assert_eq!(ask(&agent, Method::GET, &format!("{path}/{name}"), None).await, 403, "{path}/{name}");
        }
    }
    for path in ["/api/v1/secrets", "/api/v1/secrets?watch=true"] {
        assert_eq!(ask(&agent, Method::GET, path, None).await, 403, "{path}");
    }

    // nothing is written outside of what is its own
    let object = |api: &str, kind: &str| json!({ "apiVersion": api, "kind": kind, "metadata": { "name": "tombolo-x" } });
    let change = json!({ "metadata": { "annotations": { "x": "y" } } });
    for (path, api, kind) in [
        ("/api/v1/namespaces/shop/services", "v1", "Service"),
        ("/api/v1/namespaces/shop/configmaps", "v1", "ConfigMap"),
        ("/api/v1/namespaces/shop/pods", "v1", "Pod"),
        ("/api/v1/namespaces/shop/secrets", "v1", "Secret"),
        ("/api/v1/namespaces/shop/serviceaccounts", "v1", "ServiceAccount"),
        ("/apis/apps/v1/namespaces/shop/deployments", "apps/v1", "Deployment"),
        ("/apis/apps/v1/namespaces/kube-system/daemonsets", "apps/v1", "DaemonSet"),
        ("/api/v1/namespaces/kube-system/configmaps", "v1", "ConfigMap"),
        ("/api/v1/namespaces/tombolo-system/secrets", "v1", "Secret"),
        ("/api/v1/namespaces/tombolo-system/serviceaccounts", "v1", "ServiceAccount"),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/tombolo-system/roles",
            "rbac.authorization.k8s.io/v1",
            "Role",
        ),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", "rbac.authorization.k8s.io/v1", "ClusterRole"),
        (
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
        ),
        ("/api/v1/namespaces", "v1", "Namespace"),
    ] {
        let one = format!("{path}/tombolo-x");
        let body = object(api, kind);
        assert_eq!(
            ask(&agent, Method::POST, &format!("{path}?dryRun=All"), Some(&body)).await,
            403,
            "create {path}"
        );
        // of pods in its own namespace the annotation only; none of these is there to be changed
        assert_eq!(ask(&agent, Method::PATCH, &one, Some(&change)).await, 403, "patch {path}");
        assert_eq!(ask(&agent, Method::DELETE, &one, None).await, 403, "delete {path}");
    }
    let secret = |name: &str| format!("/api/v1/namespaces/{OWN}/secrets/{name}");
    assert_eq!(ask(&agent, Method::PATCH, &secret("tombolo-join"), Some(&change)).await, 403);

    // and this is no server that says no to everything
    assert_eq!(ask(&agent, Method::PATCH, &secret("tombolo-state"), Some(&change)).await, 200);
    let (path, body) = (format!("/api/v1/namespaces/{OWN}/configmaps"), object("v1", "ConfigMap"));
    assert_eq!(ask(&agent, Method::POST, &path, Some(&body)).await, 200);
    assert_eq!(ask(&agent, Method::GET, "/api/v1/namespaces/shop/pods", None).await, 200);
}
