//! `tombolo login`: checks a token and remembers it.

use crate::{
    args::{Global, LoginArgs},
    client::Client,
    config::{self, Context},
    output::{Mood, Output},
    problem::CliError,
};
use anyhow::Result;
use std::path::Path;

/// Runs it.
///
/// # Errors
/// The token is not good, or the file can't be written.
pub async fn run(global: &Global, args: LoginArgs, out: &Output) -> Result<()> {
    let file = global.token_file.as_deref().unwrap_or(Path::new("-"));
    let mut context: Context = config::with_token(global, Some(config::token(file)?))?;
    let me = Client::new(&context)?.get("/api/v1/whoami").await?.body;
    // the organization of this token, not that of one before
    let own = me["organization"].as_str().and_then(|name| name.parse().ok());
    if let (Some(own), Some(asked)) = (&own, &global.organization)
        && own != asked
    {
        return Err(CliError::Usage(format!("the token is of organization {own}, not of {asked}")).into());
    }
    context.organization = own.or_else(|| global.organization.clone());
    let path = config::path(global)?;
    let mut file = config::read(&path)?;
    file.contexts.insert(args.context.to_string(), context.clone());
    file.current = Some(args.context.to_string());
    config::write(&path, &file)?;
    if !out.for_people() {
        return out.value(&me);
    }
    let role = me["role"].as_str().unwrap_or("?");
    let place = context
        .organization
        .as_ref()
        .map_or("the installation".to_owned(), |org| format!("organization {org}"));
    out.line(&out.paint(Mood::Good, &format!("logged in to {} as {role} of {place}", context.server)));
    out.line(&format!("stored in {}", path.display()));
    Ok(())
}
