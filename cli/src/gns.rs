//! `tombolo gns`: global namespaces.

use crate::{
    args::GnsCommand,
    client::Client,
    cluster::confirm,
    org::text,
    output::{Mood, Output, cell},
    service,
};
use anyhow::Result;
use serde_json::{Value, json};
use tombolo_model::{ClusterName, NamespaceName};

/// Runs it.
///
/// # Errors
/// The controller said no, or did not answer.
pub async fn run(client: &Client, command: GnsCommand, out: &Output) -> Result<()> {
    let path = client.in_org("/global-namespaces")?;
    match command {
        GnsCommand::List => {
            let items = client.list(&path).await?;
            let rows = items
                .iter()
                .map(|g| vec![cell(text(g, "name")), cell(text(g, "domain")), cell(rules(g))])
                .collect();
            out.rows(&items, &["name", "domain", "names the services of"], rows)
        }
        GnsCommand::Create { name, domain, namespaces, clusters } => {
            let body = json!({ "name": name, "domain": domain, "rules": mapping(&namespaces, &clusters) });
            let made = client.create(&path, &body).await?;
            if !out.for_people() {
                return out.value(&made);
            }
            out.line(&out.paint(Mood::Good, &format!("global namespace {name} made: <service>.{domain}")));
            out.line("its services: tombolo service list");
            Ok(())
        }
        GnsCommand::Show { name } => {
            let gns = client.get(&format!("{path}/{name}")).await?.body;
            if !out.for_people() {
                return out.value(&gns);
            }
            let domain = text(&gns, "domain");
            out.line(&format!("{name}: {domain} names the services of {}", rules(&gns)));
            let mut services = client.list(&client.in_org("/services")?).await?;
            services.retain(|s| s["kind"] == "service" && text(s, "name").ends_with(&format!(".{domain}")));
            out.line("");
            service::table(&services, out)
        }
        GnsCommand::Remove { name, yes } => {
            let found = client.get(&format!("{path}/{name}")).await?;
            confirm(
                yes,
                &format!("remove {name}? The names under {} stop resolving", text(&found.body, "domain")),
            )?;
            client.delete(&format!("{path}/{name}"), found.etag).await?;
            if out.for_people() {
                out.line(&format!("global namespace {name} removed"));
            }
            Ok(())
        }
    }
}

fn mapping(namespaces: &[NamespaceName], clusters: &[ClusterName]) -> Vec<Value> {
    let clusters: Vec<Value> = if clusters.is_empty() {
        vec![json!({ "labels": {} })]
    } else {
        clusters.iter().map(|name| json!({ "name": name })).collect()
    };
    let pairs = clusters.iter().flat_map(|c| namespaces.iter().map(move |n| (c, n)));
    pairs.map(|(c, n)| json!({ "cluster": c, "namespace": { "name": n } })).collect()
}

fn rules(gns: &Value) -> String {
    let rules = gns["rules"].as_array().into_iter().flatten();
    rules
        .map(|r| {
            format!("{} in {}", selector(&r["namespace"], "namespaces"), selector(&r["cluster"], "clusters"))
        })
        .collect::<Vec<_>>()
        .join("; ")
}

fn selector(value: &Value, what: &str) -> String {
    if let Some(name) = value["name"].as_str() {
        return name.to_owned();
    }
    let labels = value["labels"].as_object();
    let pairs: Vec<String> =
        labels.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("?"))).collect();
    if pairs.is_empty() { format!("all {what}") } else { pairs.join(",") }
}
