//! `tombolo service`: global services.

use crate::{
    args::ServiceCommand,
    client::Client,
    org::text,
    output::{Mood, Output, cell},
};
use anyhow::Result;
use serde_json::Value;

/// Runs it.
///
/// # Errors
/// The controller said no, or did not answer.
pub async fn run(client: &Client, command: ServiceCommand, out: &Output) -> Result<()> {
    match command {
        ServiceCommand::List { all } => {
            let mut items = client.list(&client.in_org("/services")?).await?;
            if !all {
                items.retain(|item| item["kind"] == "service");
            }
            table(&items, out)
        }
        ServiceCommand::Show { name } => {
            let service = client.get(&client.in_org(&format!("/services/{name}"))?).await?.body;
            if !out.for_people() {
                return out.value(&service);
            }
            out.line(&out.table(&["name", "address", "ports", "served in", "notes"], vec![row(&service)]));
            for conflict in service["conflicts"].as_array().into_iter().flatten() {
                out.line(&out.paint(Mood::Warn, &format!("conflict: {}", conflict_line(conflict))));
            }
            Ok(())
        }
    }
}

/// Services as a table.
pub(crate) fn table(items: &[Value], out: &Output) -> Result<()> {
    let rows = items.iter().map(row).collect();
    out.rows(&items, &["name", "address", "ports", "served in", "notes"], rows)
}

fn row(service: &Value) -> Vec<(Mood, String)> {
    let ports: Vec<String> =
        service["ports"].as_array().into_iter().flatten().map(|p| text(p, "port")).collect();
    let targets: Vec<&Value> = service["targets"].as_array().into_iter().flatten().collect();
    let served: Vec<String> = targets
        .iter()
        .map(|t| format!("{} ({}/{} ready)", text(t, "cluster"), text(t, "ready"), text(t, "total")))
        .collect();
    let ready = targets.iter().any(|t| t["ready"].as_u64().unwrap_or(0) > 0);
    let conflicts = service["conflicts"].as_array().map_or(0, Vec::len);
    vec![
        cell(text(service, "name")),
        cell(text(&service["vip"], "v4")),
        cell(ports.join(", ")),
        (
            if ready { Mood::Good } else { Mood::Bad },
            if served.is_empty() { "nowhere".into() } else { served.join(", ") },
        ),
        (Mood::Warn, if conflicts == 0 { String::new() } else { format!("{conflicts} conflicts") }),
    ]
}

fn conflict_line(conflict: &Value) -> String {
    match conflict {
        Value::String(text) => text.clone(),
        other => text(other, "reason"),
    }
}
