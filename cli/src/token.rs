//! `tombolo token`: API tokens.

use crate::{
    args::TokenCommand,
    client::Client,
    org::text,
    output::{self, Mood, Output, cell},
};
use anyhow::Result;
use serde_json::json;

/// Runs it.
///
/// # Errors
/// The controller said no, or did not answer.
pub async fn run(client: &Client, command: TokenCommand, out: &Output) -> Result<()> {
    let path = client.in_org("/tokens")?;
    match command {
        TokenCommand::List => {
            let items = client.list(&path).await?;
            let rows = items
                .iter()
                .map(|t| {
                    ["id", "name", "role", "last_used_at", "expires_at"]
                        .iter()
                        .map(|f| cell(text(t, f)))
                        .collect()
                })
                .collect();
            out.rows(&items, &["id", "name", "role", "last used", "expires"], rows)
        }
        TokenCommand::Create { name, role, secret_file } => {
            let mut made = client.create(&path, &json!({ "name": name, "role": role.as_str() })).await?;
            if let Some(file) = secret_file {
                output::secret_file(&file, made["token"].as_str().unwrap_or_default())?;
                made["token"] = json!(null);
            }
            if !out.for_people() {
                return out.value(&made);
            }
            out.line(&out.paint(
                Mood::Good,
                &format!("token {name} ({}) made, id {}", role.as_str(), text(&made, "id")),
            ));
            if made["token"].is_string() {
                out.line(&format!("its secret, shown this once: {}", text(&made, "token")));
            }
            Ok(())
        }
        TokenCommand::Revoke { id } => {
            client.delete(&format!("{path}/{id}"), None).await?;
            if out.for_people() {
                out.line(&format!("token {id} is worthless now"));
            }
            Ok(())
        }
    }
}
