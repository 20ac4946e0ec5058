//! `tombolo org`: organizations.

use crate::{
    args::OrgCommand,
    client::Client,
    cluster::confirm,
    output::{Mood, Output, SecretFile, cell},
};
use anyhow::Result;
use serde_json::{Value, json};

/// Runs it.
///
/// # Errors
/// The controller said no, or did not answer.
pub async fn run(client: &Client, command: OrgCommand, out: &Output) -> Result<()> {
    match command {
        OrgCommand::List => {
            let items = client.list("/api/v1/organizations").await?;
            let rows =
                items.iter().map(|o| vec![cell(text(o, "name")), cell(text(o, "trust_domain"))]).collect();
            out.rows(&items, &["name", "trust domain"], rows)
        }
        OrgCommand::Create { name, trust_domain, admin_token_file } => {
            let mut body = json!({ "name": name });
            if let Some(domain) = trust_domain {
                body["trust_domain"] = domain.into();
            }
            let file = admin_token_file.as_deref().map(SecretFile::create).transpose()?;
            let made = client.create("/api/v1/organizations", &body).await?;
            if out.for_people() {
                out.line(&out.paint(Mood::Good, &format!("organization {name} made")));
            } else {
                out.value(&made)?;
            }
            if let (Some(path), Some(file)) = (admin_token_file, file) {
                let path_of = format!("/api/v1/organizations/{name}/tokens");
                let token = client.create(&path_of, &json!({ "name": "admin", "role": "admin" })).await?;
                file.keep(token["token"].as_str().unwrap_or_default())?;
                if out.for_people() {
                    let (file, server, print) = (path.display(), client.server(), client.ca_fingerprint());
                    out.line(&format!("its admin token is in {file}; next:\n  tombolo --server {server} --ca-fingerprint {print} --token-file {file} --organization {name} login"));
                }
            }
            Ok(())
        }
        OrgCommand::Show { name } => {
            let org = client.get(&format!("/api/v1/organizations/{name}")).await?.body;
            let columns = ["name", "trust_domain", "generation", "created_at"];
            let row = columns.iter().map(|f| cell(text(&org, f))).collect();
            out.rows(&org, &["name", "trust domain", "generation", "made"], vec![row])
        }
        OrgCommand::RotateRoot { name, yes } => {
            let path = format!("/api/v1/organizations/{name}/root-rotation");
            let rotation = match client.find(&path).await? {
                Some(rotation) => rotation.body,
                None => {
                    confirm(yes, &format!("put a new root in the place of organization {name}'s?"))?;
                    client.create(&path, &json!({})).await?
                }
            };
            let waits = rotation["waits_for"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let waits = waits.collect::<Vec<_>>().join(", ");
            let row = vec![cell(text(&rotation, "phase")), cell(waits), cell(text(&rotation, "until"))];
            out.rows(&rotation, &["phase", "waits for", "old root goes"], vec![row])?;
            if out.for_people() {
                out.line(
                    "it goes on by itself: told, signing, overlap, done; run this again to see how far it is",
                );
            }
            Ok(())
        }
        OrgCommand::Remove { name, yes } => {
            confirm(yes, &format!("delete organization {name} with all that is in it, its audit log too?"))?;
            client.delete(&format!("/api/v1/organizations/{name}"), None).await?;
            if out.for_people() {
                out.line(&format!("organization {name} is no more"));
            }
            Ok(())
        }
    }
}

/// A text field of an object, empty where it is missing.
#[must_use]
pub fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
