//! `tombolo cluster`: clusters, how they join, and how they are.

mod gateways;
mod reach;

use crate::{
    args::ClusterCommand,
    client::Client,
    install, kubernetes,
    org::text,
    output::{Mood, Output, SecretFile, cell},
    plain::one_line,
    problem::CliError,
};
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
};
use tombolo_model::ClusterName;

/// Runs it.
///
/// # Errors
/// The controller said no, or did not answer.
pub async fn run(client: &Client, command: ClusterCommand, out: &Output) -> Result<()> {
    let path = client.in_org("/clusters")?;
    match command {
        ClusterCommand::List => {
            let mut items = client.list(&path).await?;
            for item in &mut items {
                let status = client.get(&format!("{path}/{}/status", text(item, "name"))).await?.body;
                item["status"] = status;
            }
            let names: Vec<String> = items.iter().map(|item| text(item, "name")).collect();
            let rows = items.iter().map(|item| row(item, &names)).collect();
            out.rows(
                &items,
                &["name", "state", "generation", "lag", "gateways", "addresses", "reaches", "problems"],
                rows,
            )
        }
        ClusterCommand::Create { name, labels, region, zone, join_token_file } => {
            let labels: serde_json::Map<_, _> = labels.into_iter().map(|(k, v)| (k, v.into())).collect();
            let body =
                json!({ "name": name, "labels": labels, "locality": { "region": region, "zone": zone } });
            let file = secret_file(join_token_file.as_deref())?;
            let made = client.create(&path, &body).await?;
            if out.for_people() {
                out.line(&out.paint(Mood::Good, &format!("cluster {name} made")));
            }
            join_token(client, &path, &name, file, made, out).await
        }
        ClusterCommand::Token { name, join_token_file } => {
            let file = secret_file(join_token_file.as_deref())?;
            let cluster = client.get(&format!("{path}/{name}")).await?.body;
            join_token(client, &path, &name, file, cluster, out).await
        }
        ClusterCommand::Tokens { name } => {
            let items = client.list(&format!("{path}/{name}/onboarding-tokens")).await?;
            let columns = ["id", "state", "created_by", "created_at", "expires_at"];
            let rows = items.iter().map(|t| columns.iter().map(|f| cell(text(t, f))).collect()).collect();
            out.rows(&items, &["id", "state", "made by", "made", "expires"], rows)
        }
        ClusterCommand::RevokeToken { name, id } => {
            client.delete(&format!("{path}/{name}/onboarding-tokens/{id}"), None).await?;
            if out.for_people() {
                out.line(&format!("nobody joins as {name} with token {id} any more"));
            }
            Ok(())
        }
        ClusterCommand::Manifest { name, manifest } => {
            out.line(kubernetes::manifest(client, &name, &manifest).await?.trim_end());
            Ok(())
        }
        ClusterCommand::Join(args) => kubernetes::join(client, args, out).await,
        ClusterCommand::Install(args) => install::install(client, *args, out).await,
        ClusterCommand::Upgrade { name, to, wait } => install::upgrade(client, &name, to, &wait, out).await,
        ClusterCommand::Rollback { name, wait } => install::rollback(client, &name, &wait, out).await,
        ClusterCommand::Uninstall { name, yes, kube, wait } => {
            install::uninstall(client, &name, yes, &kube, &wait, out).await
        }
        ClusterCommand::Show { name } => {
            let mut cluster = client.get(&format!("{path}/{name}")).await?.body;
            cluster["status"] = client.get(&format!("{path}/{name}/status")).await?.body;
            let certificates = client.in_org(&format!("/certificates?cluster={name}"))?;
            cluster["certificates"] = client.list(&certificates).await?.into();
            if !out.for_people() {
                return out.value(&cluster);
            }
            let names: Vec<String> =
                client.list(&path).await?.iter().map(|item| text(item, "name")).collect();
            show(&cluster, &names, out);
            Ok(())
        }
        ClusterCommand::Remove { name, yes } => {
            let found = client.get(&format!("{path}/{name}")).await?;
            confirm(yes, &format!("remove {name}? Its certificates are refused everywhere within seconds"))?;
            client.delete(&format!("{path}/{name}"), found.etag).await?;
            if out.for_people() {
                out.line(&format!("cluster {name} removed; its certificates are dead"));
            }
            Ok(())
        }
    }
}

/// The file for a token, with its path.
fn secret_file(path: Option<&Path>) -> Result<Option<(&Path, SecretFile)>> {
    path.map(|path| Ok((path, SecretFile::create(path)?))).transpose()
}

async fn join_token(
    client: &Client,
    path: &str,
    name: &ClusterName,
    file: Option<(&Path, SecretFile)>,
    cluster: Value,
    out: &Output,
) -> Result<()> {
    let mut token = client.create(&format!("{path}/{name}/onboarding-tokens"), &json!({})).await?;
    let secret = text(&token, "token");
    let file = match file {
        Some((path, file)) => {
            file.keep(&secret)?;
            token["token"] = json!(null);
            Some(path)
        }
        None => None,
    };
    if !out.for_people() {
        return out.value(&json!({ "cluster": cluster, "onboarding_token": token }));
    }
    match file {
        Some(file) => out.line(&format!(
            "its one-time token is in {}, good until {}",
            file.display(),
            text(&token, "expires_at")
        )),
        None => out
            .line(&format!("its one-time token, good until {}:\n\n  {secret}\n", text(&token, "expires_at"))),
    }
    let (manifest, put) = (text(&token, "manifest_command"), text(&token, "secret_command"));
    if !manifest.is_empty() && !put.is_empty() {
        let put = match file {
            Some(file) => put.replace("/dev/stdin", &quoted(file)),
            None => put,
        };
        let where_from =
            if file.is_some() { "" } else { " (the token goes to the second one's standard input)" };
        out.line(&format!("in Kubernetes{where_from}:\n\n  {manifest}\n  {put}\n"));
        out.line(&format!("then: tombolo cluster install {name}\n"));
    }
    let command = text(&token, "join_command");
    if !command.is_empty() {
        let command = match file {
            Some(file) => format!("{command} < {}", file.display()),
            None => command,
        };
        out.line(&format!("on a machine of {name} (the token goes to its standard input):\n\n  {command}\n"));
    }
    Ok(())
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn state_mood(state: &str) -> Mood {
    match state {
        "connected" => Mood::Good,
        "pending" => Mood::Warn,
        _ => Mood::Bad,
    }
}

fn row(cluster: &Value, names: &[String]) -> Vec<(Mood, String)> {
    let own = text(cluster, "name");
    let others: Vec<String> = names.iter().filter(|name| **name != own).cloned().collect();
    let status = &cluster["status"];
    let state = text(status, "state");
    let (applied, current) = (text(status, "applied_generation"), text(status, "current_generation"));
    let behind = status["applied_generation"].as_u64() < status["current_generation"].as_u64();
    let problems = status["problems"].as_array().map_or(0, Vec::len);
    let lag = status["lag_ms"].as_u64();
    vec![
        cell(text(cluster, "name")),
        (state_mood(&state), state),
        (if behind { Mood::Warn } else { Mood::Plain }, format!("{applied} of {current}")),
        cell(lag.map_or(String::new(), |ms| format!("{ms} ms"))),
        gateways::count(status),
        addresses(cluster),
        reach::reaches(status, &others),
        (if problems == 0 { Mood::Plain } else { Mood::Warn }, problems.to_string()),
    ]
}

/// How the addresses of its ingress gateways stand, in words.
fn addresses(cluster: &Value) -> (Mood, String) {
    let mut count = std::collections::BTreeMap::new();
    for address in cluster["addresses"].as_array().into_iter().flatten() {
        *count.entry(text(address, "state")).or_insert(0) += 1;
    }
    let mood = if count.contains_key("failing") { Mood::Warn } else { Mood::Plain };
    (mood, count.iter().map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", "))
}

/// Who reaches an address since when, or why not, in words.
fn said_of(address: &Value) -> String {
    let by = address["published_by"].as_array().into_iter().flatten();
    let by = by.map(|by| format!("{} since {}", text(by, "cluster"), text(by, "since")));
    let not = address["failing"].as_array().into_iter().flatten();
    let not = not.map(|not| format!("not {}: {}", text(not, "cluster"), text(not, "reason")));
    by.chain(not).collect::<Vec<_>>().join("; ")
}

fn show(cluster: &Value, names: &[String], out: &Output) {
    let status = &cluster["status"];
    out.line(&out.table(
        &["name", "state", "generation", "lag", "gateways", "addresses", "reaches", "problems"],
        vec![row(cluster, names)],
    ));
    if let Some((head, rows)) = gateways::table(status) {
        out.line("");
        out.line(&out.table(&head, rows));
    }
    let addresses: Vec<_> = cluster["addresses"].as_array().into_iter().flatten().collect();
    if !addresses.is_empty() {
        let rows = addresses.iter().map(|address| {
            let state = text(address, "state");
            let mood = match state.as_str() {
                "published" => Mood::Good,
                "failing" => Mood::Bad,
                _ => Mood::Warn,
            };
            vec![cell(text(address, "address")), (mood, state), cell(said_of(address))]
        });
        out.line("");
        out.line(&out.table(&["ingress address", "state", "by"], rows.collect()));
    }
    for line in install::lines(&status["install"], out) {
        out.line(&line);
    }
    let certificates: Vec<_> = cluster["certificates"].as_array().into_iter().flatten().collect();
    if !certificates.is_empty() {
        let columns = ["serial", "state", "not_before", "not_after"];
        let rows = certificates.iter().map(|c| columns.iter().map(|f| cell(text(c, f))).collect());
        out.line("");
        out.line(&out.table(&["certificate", "state", "begins", "ends"], rows.collect()));
    }
    for problem in status["problems"].as_array().into_iter().flatten() {
        out.line(&out.paint(
            Mood::Warn,
            &one_line(format!("problem: {}: {}", text(problem, "subject"), text(problem, "message"))),
        ));
    }
}

/// Asks a person; where there is none, says how to answer beforehand.
///
/// # Errors
/// The answer is no.
pub fn confirm(yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Usage(format!("{question}. Say --yes where nobody can be asked")).into());
    }
    let mut err = std::io::stderr();
    let _ = write!(err, "{question} [y/N] ");
    let _ = err.flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(CliError::No("nothing was changed".into()).into())
    }
}
