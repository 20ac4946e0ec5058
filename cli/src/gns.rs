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
use tombolo_model::{ClusterName, Domain, NamespaceName, intent::CaptureMode};

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
                .map(|g| {
                    vec![cell(text(g, "name")), cell(text(g, "domain")), cell(capture(g)), cell(rules(g))]
                })
                .collect();
            out.rows(&items, &["name", "domain", "capture", "names the services of"], rows)
        }
        GnsCommand::Create { name, domain, namespaces, clusters, capture } => {
            let mut body =
                json!({ "name": name, "domain": domain, "rules": mapping(&namespaces, &clusters) });
            if let Some(mode) = capture {
                body["capture"] = json!(mode);
            }
            let made = client.create(&path, &body).await?;
            if !out.for_people() {
                return out.value(&made);
            }
            out.line(&out.paint(Mood::Good, &format!("global namespace {name} made: <service>.{domain}")));
            out.line("its services: tombolo service list");
            Ok(())
        }
        GnsCommand::Update { name, domain, capture: mode, no_capture } => {
            let path = format!("{path}/{name}");
            let found = client.get(&path).await?;
            let asked =
                client.put(&path, &changed(&found.body, domain, mode, no_capture), found.etag).await?;
            if !out.for_people() {
                return out.value(&asked);
            }
            out.line(&format!("{name}: {}, capture mode {}", text(&asked, "domain"), capture(&asked)));
            Ok(())
        }
        GnsCommand::Show { name } => {
            let gns = client.get(&format!("{path}/{name}")).await?.body;
            if !out.for_people() {
                return out.value(&gns);
            }
            let domain = text(&gns, "domain");
            out.line(&format!("{name}: {domain} names the services of {}", rules(&gns)));
            out.line(&format!("capture mode of their pods: {}", capture(&gns)));
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

/// The capture mode that it chooses.
fn capture(gns: &Value) -> String {
    gns["capture"].as_str().unwrap_or("as installed").to_owned()
}

/// What a global namespace is to be, where only this changes.
fn changed(gns: &Value, domain: Option<Domain>, capture: Option<CaptureMode>, no_capture: bool) -> Value {
    let mut body = json!({ "domain": gns["domain"], "rules": gns["rules"] });
    if let Some(domain) = domain {
        body["domain"] = json!(domain);
    }
    // What is left out stays as it is.
    if capture.is_some() || no_capture {
        body["capture"] = json!(capture);
    }
    body
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays() {
        let gns =
            json!({ "name": "a", "version": 3, "domain": "a.example.com", "rules": [1], "capture": "node" });
        let domain = Domain::parse("b.example.com").unwrap();
        let silent = json!({ "domain": "b.example.com", "rules": [1] });
        assert_eq!(changed(&gns, Some(domain), None, false), silent);
        let none = json!({ "domain": "a.example.com", "rules": [1], "capture": null });
        assert_eq!(changed(&gns, None, None, true), none);
        let sidecar = json!({ "domain": "a.example.com", "rules": [1], "capture": "sidecar" });
        assert_eq!(changed(&gns, None, Some(CaptureMode::Sidecar), false), sidecar);
    }
}
