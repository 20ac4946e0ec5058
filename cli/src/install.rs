//! `tombolo cluster install|upgrade|rollback|uninstall`: what is asked for, and how it goes, step by step.

mod trial;

use crate::{
    args::{InstallArgs, Kube, Wait},
    client::Client,
    cluster::confirm,
    kubernetes::{self, Way},
    org::text,
    output::{Mood, Output},
    problem::CliError,
};
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tombolo_model::ClusterName;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(300);
/// How long a first handshake with the peers is waited for, once all else is done: another cluster may not be there yet.
const PEERS: Duration = Duration::from_secs(20);

/// Installs.
///
/// # Errors
/// The controller said no, or the cluster did not get there in time.
pub async fn install(client: &Client, args: InstallArgs, out: &Output) -> Result<()> {
    let body = request(&args)?;
    if args.dry_run {
        let tried = trial::answer(client, &args.name, &body, Duration::from_secs(args.wait.timeout)).await?;
        return trial::show(&tried, out);
    }
    if !args.no_dns && !args.wait.no_wait && out.for_people() {
        trial::show_corefile(client, &args.name, &body, out).await?;
    }
    let path = client.in_org(&format!("/clusters/{}/install", args.name))?;
    let before = client.find(&path).await?;
    let tag = before.and_then(|before| before.etag).unwrap_or_else(|| "*".to_owned());
    let asked = client.put(&path, &body, Some(tag)).await?;
    follow(client, &args.name, &asked["revision"], &args.wait, out).await
}

/// Another version.
///
/// # Errors
/// As [`install`].
pub async fn upgrade(
    client: &Client,
    name: &ClusterName,
    to: Option<String>,
    wait: &Wait,
    out: &Output,
) -> Result<()> {
    let path = client.in_org(&format!("/clusters/{name}/install"))?;
    let found = client.get(&path).await?;
    let mut body = spec(&found.body);
    body["version"] = json!(to);
    let asked = client.put(&path, &body, found.etag).await?;
    if out.for_people() {
        out.line(&format!("{name}: from {} to {}", text(&found.body, "version"), text(&asked, "version")));
    }
    follow(client, name, &asked["revision"], wait, out).await
}

/// What stood before.
///
/// # Errors
/// As [`install`]; nothing stood before.
pub async fn rollback(client: &Client, name: &ClusterName, wait: &Wait, out: &Output) -> Result<()> {
    let path = client.in_org(&format!("/clusters/{name}/install"))?;
    let found = client.get(&path).await?;
    let before = &found.body["before"];
    if before.is_null() {
        return Err(CliError::No(format!("nothing else was installed in {name} before")).into());
    }
    let asked = client.put(&path, before, found.etag).await?;
    if out.for_people() {
        out.line(&format!(
            "{name}: back from {} to {}",
            text(&found.body, "version"),
            text(&asked, "version")
        ));
    }
    follow(client, name, &asked["revision"], wait, out).await
}

/// Takes everything out.
///
/// # Errors
/// As [`install`].
pub async fn uninstall(
    client: &Client,
    name: &ClusterName,
    yes: bool,
    kube: &Kube,
    wait: &Wait,
    out: &Output,
) -> Result<()> {
    let path = client.in_org(&format!("/clusters/{name}/install"))?;
    confirm(yes, &format!("take everything of Tombolo out of {name}? Its pods reach no global name then"))?;
    // which cluster it is gets looked at before anything is taken out of any
    let cluster = match kube.kubeconfig.is_some() || kube.context.is_some() {
        true => Some(kubernetes::of(client, kube, name).await?),
        false => None,
    };
    let ordered = client.find(&path).await?;
    // an agent that has joined makes objects of the cluster set without an order, and takes them out with one
    let state = client.get(&client.in_org(&format!("/clusters/{name}"))?).await?.body["state"].take();
    if ordered.is_some() || state == "connected" || state == "disconnected" {
        let (tag, revision) =
            ordered.map_or((None, None), |found| (found.etag, found.body["revision"].as_u64()));
        client.delete(&path, Some(tag.unwrap_or_else(|| "*".to_owned()))).await?;
        let revision = revision.map_or(Value::Null, |revision| json!(revision + 1));
        follow(client, name, &revision, wait, out).await?;
    }
    match cluster {
        Some(cluster) => cluster.take_out(client, name, out).await,
        None => {
            if out.for_people() {
                out.line("what is left is the agent; to take it out, too:\n");
                out.line(&format!("  tombolo cluster manifest {name} | kubectl delete -f -\n"));
            }
            Ok(())
        }
    }
}

/// What is asked for, without what was not asked.
fn spec(install: &Value) -> Value {
    let mut spec = install.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|name, _| !["cluster", "revision", "before"].contains(&name.as_str()));
    }
    spec
}

fn request(args: &InstallArgs) -> Result<Value> {
    let mut body = json!({ "dns": { "corefile": !args.no_dns }, "node": { "enabled": args.node } });
    body["injector"] = json!({ "enabled": !args.no_injector });
    body["namespaces"] = if args.include_namespace.is_empty() {
        json!({ "exclude": args.exclude_namespace })
    } else {
        json!({ "include": args.include_namespace })
    };
    if let Some(mode) = args.capture {
        body["default_mode"] = json!(mode);
    }
    for (name, value) in [("version", &args.image_version), ("registry", &args.registry)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    for (role, count) in [("egress", args.egress_replicas), ("ingress", args.ingress_replicas)] {
        if let Some(count) = count {
            body["gateways"][role] = json!({ "replicas": count, "min": count.min(2), "max": count.max(6) });
        }
    }
    let default = ["load-balancer".to_owned()];
    let given = match args.ingress.as_slice() {
        [] if !args.ingress_annotation.is_empty() => &default,
        given => given,
    };
    if !given.is_empty() {
        body["gateways"]["ingress"]["exposure"] = ways(given, &args.ingress_annotation)?;
    }
    Ok(body)
}

/// `load-balancer`, `node-port[=PORT]`, `host-network`, or addresses.
fn ways(given: &[String], annotations: &[(String, String)]) -> Result<Value> {
    let (mut all, mut addresses) = (Vec::new(), Vec::new());
    let mut balancer = json!({ "type": "load_balancer" });
    if !annotations.is_empty() {
        balancer["annotations"] =
            annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    }
    for way in given {
        match way.parse()? {
            Way::LoadBalancer => all.push(balancer.clone()),
            Way::NodePort(None) => all.push(json!({ "type": "node_port" })),
            Way::NodePort(Some(port)) => all.push(json!({ "type": "node_port", "port": port })),
            Way::HostNetwork => all.push(json!({ "type": "host_network" })),
            Way::Address(address) => addresses.push(address),
        }
    }
    if !annotations.is_empty() && !all.contains(&balancer) {
        let message = "--ingress-annotation is for --ingress load-balancer, which is not asked for";
        return Err(CliError::Usage(message.to_owned()).into());
    }
    if !addresses.is_empty() {
        all.push(json!({ "type": "address", "addresses": addresses }));
    }
    Ok(json!(all))
}

/// The steps for people, a line each.
#[must_use]
pub fn lines(install: &Value, out: &Output) -> Vec<String> {
    let steps = install["steps"].as_array().into_iter().flatten();
    steps.map(|step| line(step, out)).collect()
}

fn line(step: &Value, out: &Output) -> String {
    let state = text(step, "state");
    let mood = match state.as_str() {
        "done" => Mood::Good,
        "failed" => Mood::Bad,
        _ => Mood::Warn,
    };
    format!("{:<9} {} {}", text(step, "step"), out.paint(mood, &format!("{state:<8}")), text(step, "message"))
}

/// The state of the installation, where it is about this order.
async fn state(client: &Client, name: &ClusterName, revision: &Value) -> Result<Option<Value>> {
    let path = client.in_org(&format!("/clusters/{name}/status"))?;
    let mut status = client.get(&path).await?.body;
    let install = status["install"].take();
    Ok((install["revision"].as_u64() >= revision.as_u64() && !install.is_null()).then_some(install))
}

/// Shows the steps as they change, until all are done.
async fn follow(
    client: &Client,
    name: &ClusterName,
    revision: &Value,
    wait: &Wait,
    out: &Output,
) -> Result<()> {
    if wait.no_wait {
        return Ok(());
    }
    let deadline = Instant::now() + Duration::from_secs(wait.timeout);
    let (mut shown, mut all_but_peers): (Vec<String>, Option<Instant>) = (Vec::new(), None);
    loop {
        let install = state(client, name, revision).await?;
        let steps: Vec<Value> =
            install.as_ref().and_then(|i| i["steps"].as_array().cloned()).unwrap_or_default();
        for step in &steps {
            let line = line(step, out);
            if out.for_people() && !shown.contains(&line) {
                out.line(&line);
                shown.retain(|old| !old.starts_with(&format!("{:<9} ", text(step, "step"))));
                shown.push(line);
            }
        }
        let open: Vec<&Value> = steps.iter().filter(|step| step["state"] != "done").collect();
        let only_peers = !steps.is_empty() && open.iter().all(|step| step["step"] == "peers");
        let since = if only_peers { *all_but_peers.get_or_insert_with(Instant::now) } else { Instant::now() };
        if !steps.is_empty() && (open.is_empty() || (only_peers && since.elapsed() >= PEERS)) {
            if !out.for_people() {
                out.value(&install)?;
            }
            return Ok(());
        }
        if !only_peers {
            all_but_peers = None;
        }
        if Instant::now() >= deadline {
            let said = if steps.is_empty() {
                "its agent said nothing of it; is it connected (tombolo cluster list)?".to_owned()
            } else {
                open.iter()
                    .map(|step| format!("{}: {}", text(step, "step"), text(step, "message")))
                    .collect::<Vec<_>>()
                    .join("; ")
            };
            return Err(CliError::No(format!("{name} is not there after {} s: {said}", wait.timeout)).into());
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_the_ingress_gateways() {
        let read = |all: &[&str]| ways(&all.iter().map(ToString::to_string).collect::<Vec<_>>(), &[]);
        assert_eq!(
            read(&["node-port=31443", "gw.example.com:443", "192.0.2.1:15443", "load-balancer"]).unwrap(),
            json!([{ "type": "node_port", "port": 31443 }, { "type": "load_balancer" },
                   { "type": "address", "addresses": ["gw.example.com:443", "192.0.2.1:15443"] }])
        );
        let note = [("service.example.com/internal".to_owned(), "true".to_owned())];
        assert_eq!(
            ways(&["load-balancer".to_owned()], &note).unwrap(),
            json!([{ "type": "load_balancer", "annotations": { "service.example.com/internal": "true" } }])
        );
        assert!(ways(&["node-port".to_owned()], &note).is_err(), "nobody would read it");
        for wrong in ["nodeport", "node-port=x", "gw.example.com", "host-network=1"] {
            assert!(read(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_read_is_asked_for_again() {
        let read = json!({ "cluster": "c", "revision": 7, "version": "1", "before": {}, "dns": { "corefile": true } });
        assert_eq!(spec(&read), json!({ "version": "1", "dns": { "corefile": true } }));
    }
}
