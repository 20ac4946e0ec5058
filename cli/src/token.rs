//! `tombolo token`: API tokens, of the organization or of the installation's owner.

use crate::{
    args::TokenCommand,
    client::Client,
    org::text,
    output::{Mood, Output, SecretFile, cell},
};
use anyhow::Result;
use serde_json::json;

/// Runs it.
///
/// # Errors
/// The controller said no, or did not answer.
pub async fn run(client: &Client, command: TokenCommand, out: &Output) -> Result<()> {
    let path = client.in_org_or("/tokens", "/owner-tokens");
    match command {
        TokenCommand::List => {
            let items = client.list(&path).await?;
            let columns = ["name", "role", "created_by", "last_used_at", "expires_at"];
            let rows = items.iter().map(|t| columns.iter().map(|f| cell(text(t, f))).collect()).collect();
            out.rows(&items, &["name", "role", "made by", "last used", "expires"], rows)
        }
        TokenCommand::Create { name, role, expires_in, secret_file } => {
            let file = secret_file.as_deref().map(SecretFile::create).transpose()?;
            let mut body = json!({ "name": name });
            // the owner's have no other role
            if client.organization().is_ok() {
                body["role"] = role.as_str().into();
            }
            if let Some(life) = expires_in {
                body["expires_in"] = life.into();
            }
            let mut made = client.create(&path, &body).await?;
            if let Some(file) = file {
                file.keep(made["token"].as_str().unwrap_or_default())?;
                made["token"] = json!(null);
            }
            if !out.for_people() {
                return out.value(&made);
            }
            out.line(&out.paint(Mood::Good, &format!("token {name} ({}) made", text(&made, "role"))));
            if made["token"].is_string() {
                out.line(&format!("its secret, shown this once: {}", text(&made, "token")));
            }
            Ok(())
        }
        TokenCommand::Revoke { name } => {
            client.delete(&format!("{path}/{name}"), None).await?;
            if out.for_people() {
                out.line(&format!("token {name} is worthless now"));
            }
            Ok(())
        }
    }
}
