//! `tombolo cluster install|upgrade|rollback|uninstall`: what is asked for, and how it goes, step by step.

mod changes;
mod follow;
mod order;
mod trial;
mod uninstall;
mod ways;

pub use follow::lines;
pub use uninstall::uninstall;

use crate::{
    args::{InstallArgs, Wait},
    client::Client,
    org::text,
    output::Output,
    problem::CliError,
};
use anyhow::Result;
use changes::changes;
use follow::follow;
use order::{forwards, laid, spec};
use serde_json::{Value, json};
use std::time::Duration;
use tombolo_model::ClusterName;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(300);

/// Installs, or changes what is installed.
///
/// # Errors
/// The controller said no, or the cluster did not get there in time.
pub async fn install(client: &Client, args: InstallArgs, out: &Output) -> Result<()> {
    let InstallArgs { name, reset, order, dry_run, wait } = args;
    let path = client.in_org(&format!("/clusters/{name}/install"))?;
    let found = client.find(&path).await?;
    let in_force = found.as_ref().map(|found| &found.body);
    let body = laid(in_force.filter(|_| !reset), &order)?;
    // what a reset comes to, the controller knows
    let changed = in_force.filter(|_| !reset).map(|in_force| changes(&spec(in_force), &body));
    if let Some(changed) = changed.as_ref().filter(|_| out.for_people()) {
        show(&name, changed, out);
    }
    if dry_run {
        let tried = trial::answer(client, &name, &body, Duration::from_secs(wait.timeout)).await?;
        return trial::show(&tried, out);
    }
    if let (Some([]), Some(in_force)) = (changed.as_deref(), in_force) {
        return follow(client, &name, &in_force["revision"], &wait, out).await?.good(&name, &wait);
    }
    if forwards(&body) && !wait.no_wait && out.for_people() {
        trial::show_corefile(client, &name, &body, out).await?;
    }
    let before = in_force.map(spec);
    let tag = found.and_then(|found| found.etag).unwrap_or_else(|| "*".to_owned());
    let asked = client.put(&path, &body, Some(tag)).await?;
    if let Some(before) = before.filter(|_| reset && out.for_people()) {
        show(&name, &changes(&before, &spec(&asked)), out);
    }
    follow(client, &name, &asked["revision"], &wait, out).await?.good(&name, &wait)
}

/// Shows what an order changes.
fn show(name: &ClusterName, changed: &[String], out: &Output) {
    match changed {
        [] => out.line(&format!("{name}: nothing of what is in force changes")),
        all => {
            out.line(&format!("{name}: what changes of what is in force (all else stays):"));
            all.iter().for_each(|line| out.line(&format!("  {line}")));
        }
    }
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
    follow(client, name, &asked["revision"], wait, out).await?.good(name, wait)
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
    follow(client, name, &asked["revision"], wait, out).await?.good(name, wait)
}
