//! What an installation would do, asked of the agent before it is ordered.

use super::LOOK;
use crate::{client::Client, output::Output, plain::one_line, problem::CliError};
use anyhow::Result;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tombolo_model::ClusterName;

/// How long the change of the Corefile is waited for, before all is ordered.
const COREFILE: Duration = Duration::from_secs(10);

/// What the agent says that it would do.
///
/// # Errors
/// The controller said no; the agent did not answer in time; somebody else tried something meanwhile.
pub(super) async fn answer(
    client: &Client,
    name: &ClusterName,
    body: &Value,
    patience: Duration,
) -> Result<Value> {
    let deadline = Instant::now() + patience;
    let asked = client.create(&client.in_org(&format!("/clusters/{name}/install/trials"))?, body).await?;
    let path = client.in_org(&format!("/clusters/{name}/status"))?;
    loop {
        let tried = client.get(&path).await?.body["trial"].take();
        if !tried.is_null() && tried["number"] == asked["number"] {
            return Ok(tried);
        }
        if tried["number"].as_u64() > asked["number"].as_u64() {
            return Err(CliError::No(format!("somebody else tried something in {name}; try again")).into());
        }
        if Instant::now() >= deadline {
            let message = format!(
                "the agent of {name} said nothing within {} s; is it connected (tombolo cluster list)?",
                patience.as_secs()
            );
            return Err(CliError::No(message).into());
        }
        sleep(LOOK).await;
    }
}

/// Shows all of it.
///
/// # Errors
/// It can't be written out.
pub(super) fn show(tried: &Value, out: &Output) -> Result<()> {
    if !out.for_people() {
        return out.value(tried);
    }
    for line in lines(tried, "plan") {
        out.line(line);
    }
    if lines(tried, "plan").next().is_none() {
        out.line("nothing: all of it is there as it should be");
    }
    corefile(tried, out);
    for line in lines(tried, "problems") {
        out.line(&one_line(format!("problem: {line}")));
    }
    Ok(())
}

/// Shows how the Corefile is going to change, where it is. An agent that is away keeps nobody from ordering.
///
/// # Errors
/// The controller said no, or did not answer.
pub(super) async fn show_corefile(
    client: &Client,
    name: &ClusterName,
    body: &Value,
    out: &Output,
) -> Result<()> {
    match answer(client, name, body, COREFILE).await {
        Ok(tried) => corefile(&tried, out),
        Err(error) => match error.downcast_ref::<CliError>() {
            Some(CliError::No(why)) => out.line(&format!("how the Corefile changes is not known: {why}")),
            _ => return Err(error),
        },
    }
    Ok(())
}

fn corefile(tried: &Value, out: &Output) {
    let mut lines = lines(tried, "corefile").peekable();
    if lines.peek().is_some() {
        out.line("the Corefile in the ConfigMap kube-system/coredns:");
    }
    for line in lines {
        out.line(&format!("  {line}"));
    }
}

fn lines<'a>(tried: &'a Value, part: &str) -> impl Iterator<Item = &'a str> {
    tried[part].as_array().into_iter().flatten().filter_map(Value::as_str)
}
