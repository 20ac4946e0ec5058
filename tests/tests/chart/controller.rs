//! The controller's chart: what goes together, and that the controller takes what it is started with.

use crate::{
    agent::{by_identity, commands_are_whole, same},
    helm::{Chart, documents, one, read},
};
use clap::Parser as _;
use serde_json::{Value, json};
use std::path::Path;
use tombolo_controller::config::{Cli, Command, ServeOptions};

pub(crate) const CONTROLLER: Chart = Chart {
    name: "tombolo-controller",
    release: "tombolo",
    namespace: "control",
    least: || json!({}),
    beside,
};

/// A database of one's own.
fn shared() -> Value {
    json!({
        "database": { "existingSecret": "database" }, "caKey": { "existingSecret": "ca-key" },
        "ownerToken": { "existingSecret": "owner" },
    })
}

fn beside(path: &str) -> Value {
    match path {
        "replicas" | "database.existingSecret" | "database.key" => shared(),
        "caKey.key" => json!({ "caKey": { "existingSecret": "ca-key" } }),
        "ownerToken.key" => json!({ "ownerToken": { "existingSecret": "owner" } }),
        "service.nodePort" => json!({ "service": { "type": "NodePort" } }),
        "service.externalTrafficPolicy"
        | "service.loadBalancerClass"
        | "service.loadBalancerSourceRanges" => json!({ "service": { "type": "LoadBalancer" } }),
        "networkPolicy.from" | "networkPolicy.adminFrom" => json!({ "networkPolicy": { "enabled": true } }),
        _ => Value::Null,
    }
}

fn pod(objects: &[Value]) -> &Value {
    &one(objects, "Deployment")["spec"]["template"]["spec"]
}

/// The options that the controller reads from what the chart starts it with.
fn options(objects: &[Value]) -> ServeOptions {
    let args = pod(objects)["containers"][0]["args"].as_array().expect("arguments").iter();
    let args = args.map(|arg| arg.as_str().expect("a text").to_owned());
    let cli = Cli::try_parse_from(["tombolo-controller".to_owned()].into_iter().chain(args));
    match cli.expect("the controller takes them").command {
        Command::Serve(options) => *options,
        other => panic!("not served: {other:?}"),
    }
}

/// Where a path of the container comes from: the volume that is mounted at its folder.
fn volume_of<'a>(objects: &'a [Value], path: &Path) -> &'a Value {
    let pod = pod(objects);
    let folder = path.parent().and_then(Path::to_str).expect("a folder");
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    let mount = mounts.iter().find(|mount| mount["mountPath"] == folder);
    let mount = mount.unwrap_or_else(|| panic!("nothing is mounted at {folder}: {mounts:?}"));
    let mut volumes = pod["volumes"].as_array().expect("volumes").iter();
    volumes.find(|volume| volume["name"] == mount["name"]).expect("the volume of the mount")
}

/// What only helm has a use for.
const HELM: [&str; 4] =
    ["app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart", "helm.sh/resource-policy"];

/// Takes what is helm's out of all labels and annotations, and those that have nothing else.
fn without_helm(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["labels", "annotations"] {
                let Some(Value::Object(all)) = fields.get_mut(name) else { continue };
                all.retain(|key, _| !HELM.contains(&key.as_str()));
                if all.is_empty() {
                    fields.remove(name);
                }
            }
            fields.values_mut().for_each(without_helm);
        }
        Value::Array(all) => all.iter_mut().for_each(without_helm),
        _ => {}
    }
}

#[test]
fn the_manifest_is_what_the_chart_makes_of_its_defaults() {
    let mut manifest = by_identity(documents(&read("deploy/kubernetes/controller.yaml")));
    let space = manifest.remove("Namespace (v1) /tombolo-control").expect("a namespace");
    assert_eq!(space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    let plain = Chart { release: "tombolo-controller", namespace: "tombolo-control", ..CONTROLLER };
    let mut objects = plain.render(&json!({})).expect("rendered");
    objects.iter_mut().for_each(without_helm);
    same(&by_identity(objects), &manifest);
}

#[test]
fn alone_it_has_a_database_on_a_volume() {
    let objects = CONTROLLER.render(&json!({})).expect("rendered");
    let deployment = one(&objects, "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["strategy"], json!({ "type": "Recreate" }), "two would want one database");
    let options = options(&objects);
    assert!(
        options.database_url_file.is_none() && options.ca_key_file.is_none() && options.tls_cert.is_none()
    );
    let claim = one(&objects, "PersistentVolumeClaim");
    assert_eq!(claim["metadata"]["annotations"], json!({ "helm.sh/resource-policy": "keep" }));
    let data = volume_of(&objects, &options.data.join("x"));
    assert_eq!(data["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"]);
    let own = json!({ "persistence": { "existingClaim": "ours" } });
    let objects = CONTROLLER.render(&own).expect("rendered");
    assert!(objects.iter().all(|object| object["kind"] != "PersistentVolumeClaim"));
    assert_eq!(volume_of(&objects, &options.data.join("x"))["persistentVolumeClaim"]["claimName"], "ours");
}

#[test]
fn many_share_a_database_and_a_key() {
    let mut values = shared();
    values["replicas"] = json!(3);
    values["tls"] = json!({ "existingSecret": "certificate" });
    let objects = CONTROLLER.render(&values).expect("rendered");
    let deployment = one(&objects, "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let options = options(&objects);
    for (path, secret, key) in [
        (options.database_url_file, "database", Some("DATABASE_URL")),
        (options.ca_key_file, "ca-key", Some("ca.key")),
        (options.given_owner_token_file, "owner", Some("token")),
        (options.tls_cert, "certificate", None),
        (options.tls_key, "certificate", None),
    ] {
        let path = path.expect("a file");
        let volume = &volume_of(&objects, &path)["secret"];
        assert_eq!(volume["secretName"], secret);
        assert_eq!(volume["defaultMode"], 0o400, "of root; kubelet lets the group read it");
        let file = path.file_name().and_then(|name| name.to_str()).expect("a name");
        match key {
            Some(key) => assert_eq!(volume["items"], json!([{ "key": key, "path": file }])),
            // those of the Secret's type
            None => assert!(["tls.crt", "tls.key"].contains(&file), "{file}"),
        }
    }
    assert!(volume_of(&objects, &options.data.join("x"))["emptyDir"].is_object());
    assert!(objects.iter().all(|object| object["kind"] != "PersistentVolumeClaim"));
}

#[test]
fn it_runs_as_nobody_and_writes_into_volumes_only() {
    let objects = CONTROLLER.render(&json!({})).expect("rendered");
    let pod = pod(&objects);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["securityContext"]["fsGroupChangePolicy"], "OnRootMismatch");
    assert_eq!(pod["automountServiceAccountToken"], false);
    let container = &pod["containers"][0];
    let expected = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
    });
    assert_eq!(container["securityContext"], expected);
    let options = options(&objects);
    for path in [options.owner_token_file, options.ready_file] {
        let volume = volume_of(&objects, &path.expect("a file"));
        assert!(volume["emptyDir"].is_object() || volume["persistentVolumeClaim"].is_object(), "{volume}");
    }
    let port = |name: &str| {
        let ports = container["ports"].as_array().expect("ports");
        ports.iter().find(|port| port["name"] == name).expect("a port")["containerPort"].clone()
    };
    assert_eq!(port("api"), options.listen.port());
    assert_eq!(port("admin"), options.admin.expect("an admin port").port());
    for (probe, path) in
        [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(container[probe]["httpGet"], json!({ "path": path, "port": "admin" }));
    }
}

#[test]
fn its_certificate_is_for_how_it_is_reached() {
    let values = json!({ "publicUrl": "https://t.example.com", "tls": { "names": ["other.example.com"] } });
    let options = options(&CONTROLLER.render(&values).expect("rendered"));
    assert_eq!(options.public_url.as_deref(), Some("https://t.example.com"));
    let service = "tombolo-tombolo-controller.control.svc".to_owned();
    assert!(
        options.tls_name.contains(&service) && options.tls_name.contains(&"other.example.com".to_owned())
    );
    let alone = self::options(&CONTROLLER.render(&json!({})).expect("rendered"));
    assert_eq!(alone.public_url, Some(format!("https://{service}:8443")));
}

#[test]
fn clusters_get_images_like_its_own() {
    let image = json!({ "image": { "registry": "r.example.com/t/", "tag": "7" } });
    let objects = CONTROLLER.render(&image).expect("rendered");
    assert_eq!(pod(&objects)["containers"][0]["image"], "r.example.com/t/tombolo-controller:7");
    let options = options(&objects);
    assert_eq!((options.image_registry.as_str(), options.image_version.as_str()), ("r.example.com/t/", "7"));
    let alone = self::options(&CONTROLLER.render(&json!({})).expect("rendered"));
    assert_eq!(alone.image_version, env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_does_not_go_together_is_named_at_once() {
    let values = json!({
        "replicas": 2, "tls": { "existingSecret": "a", "names": ["b"] }, "networkPolicy": { "from": [{}] },
        "service": { "nodePort": 30000, "loadBalancerClass": "c", "externalTrafficPolicy": "Local",
                     "loadBalancerSourceRanges": ["192.0.2.0/24"] },
    });
    let refusal = CONTROLLER.render(&values).expect_err("refused");
    for name in [
        "replicas:",
        "tls.names:",
        "networkPolicy.enabled:",
        "service.nodePort:",
        "service.loadBalancerClass:",
        "service.loadBalancerSourceRanges:",
        "service.externalTrafficPolicy:",
    ] {
        assert!(refusal.contains(&format!("  - {name}")), "{name}: {refusal}");
    }
    let values = json!({ "database": { "existingSecret": "a" }, "persistence": { "existingClaim": "b" } });
    let refusal = CONTROLLER.render(&values).expect_err("refused");
    for name in ["caKey.existingSecret:", "ownerToken.existingSecret:", "persistence.existingClaim:"] {
        assert!(refusal.contains(&format!("  - {name}")), "{name}: {refusal}");
    }
}

#[test]
fn the_notes_lead_to_the_owner_token() {
    let alone = CONTROLLER.notes(&Value::Null);
    let options = options(&CONTROLLER.render(&json!({})).expect("rendered"));
    let (token, ready) = (options.owner_token_file.expect("a file"), options.ready_file.expect("a file"));
    let many = CONTROLLER.notes(&shared());
    let token = token.to_str().expect("a path");
    assert!(alone.contains(token) && !many.contains(token), "{many}");
    assert!(
        many.contains("get secret owner -o go-template='{{index .data \"token\" | base64decode}}'"),
        "{many}"
    );
    for notes in [&alone, &many] {
        assert!(notes.contains(ready.to_str().expect("a path")), "{notes}");
        assert!(
            notes.contains("tombolo login --server https://tombolo-tombolo-controller.control.svc:8443"),
            "{notes}"
        );
        commands_are_whole(notes);
    }
    assert!(alone.contains("Only this cluster knows"), "{alone}");
    let public = CONTROLLER.notes(&json!({ "publicUrl": "https://t.example.com" }));
    assert!(
        public.contains("--server https://t.example.com ") && !public.contains("Only this cluster"),
        "{public}"
    );
}
