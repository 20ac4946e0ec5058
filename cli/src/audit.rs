//! `tombolo audit`: who changed what.

use crate::{
    args::AuditArgs,
    client::Client,
    org::text,
    output::{Output, cell},
};
use anyhow::Result;
use serde_json::Value;

/// Runs it.
///
/// # Errors
/// The controller said no, or did not answer.
pub async fn run(client: &Client, args: AuditArgs, out: &Output) -> Result<()> {
    let path = client.in_org_or("/audit-events", "/audit-events");
    let items = client.first(&path, args.limit as usize).await?;
    let rows = items.iter().map(|event| {
        vec![
            cell(text(event, "at")),
            cell(named(&event["actor"])),
            cell(text(event, "action")),
            cell(named(&event["subject"])),
            cell(difference(&event["difference"])),
        ]
    });
    let rows = rows.collect();
    out.rows(&items, &["when", "who", "did", "to", "difference"], rows)
}

/// `kind name` of what an event is about; an older or newer controller may send plain text.
fn named(value: &Value) -> String {
    match value {
        Value::Object(_) => format!("{} {}", text(value, "kind"), text(value, "name")),
        Value::String(text) => text.clone(),
        _ => String::new(),
    }
}

fn difference(value: &Value) -> String {
    let text = if value.is_null() { String::new() } else { value.to_string() };
    if text.chars().count() > 100 { text.chars().take(99).chain(['…']).collect() } else { text }
}
