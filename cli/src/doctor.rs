//! `tombolo doctor`: looks for what is wrong, or will be.

use crate::{
    args::Global,
    client::Client,
    config,
    org::text,
    output::{Mood, Output},
    plain::one_line,
    problem::CliError,
};
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is: `ok`, `warning`, `broken`.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// How it is.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but look.
    Warning,
    /// Broken.
    Broken,
}

/// Runs it.
///
/// # Errors
/// Something is broken.
pub async fn run(global: &Global, out: &Output) -> Result<()> {
    let mut findings = Vec::new();
    match look(global, &mut findings).await {
        Ok(()) => {}
        Err(error) => findings.push(Finding {
            level: Level::Broken,
            subject: "controller".into(),
            // The first line: what follows names this command.
            detail: format!("{error}").lines().next().unwrap_or_default().to_owned(),
            remedy: Some(
                "check --server, --ca-fingerprint and --token-file, or `tombolo login` again".into(),
            ),
        }),
    }
    if out.for_people() {
        for finding in &findings {
            let (mark, mood) = match finding.level {
                Level::Ok => ("✓", Mood::Good),
                Level::Warning => ("!", Mood::Warn),
                Level::Broken => ("✗", Mood::Bad),
            };
            let said = one_line(format!("{}: {}", finding.subject, finding.detail));
            out.line(&format!("{} {said}", out.paint(mood, mark)));
            if let Some(remedy) = &finding.remedy {
                out.line(&format!("    → {remedy}"));
            }
        }
    } else {
        out.value(&findings)?;
    }
    let broken = findings.iter().filter(|f| f.level == Level::Broken).count();
    if broken > 0 { Err(CliError::No(format!("{broken} broken")).into()) } else { Ok(()) }
}

async fn look(global: &Global, findings: &mut Vec<Finding>) -> Result<()> {
    let client = Client::connect(config::resolve(global)?).await?;
    let me = client.get("/api/v1/whoami").await?.body;
    let detail = format!("{} answers, the token is good ({})", client.server(), text(&me, "role"));
    findings.push(Finding { level: Level::Ok, subject: "controller".into(), detail, remedy: None });
    if client.organization().is_err() {
        return Ok(());
    }
    for cluster in client.list(&client.in_org("/clusters")?).await? {
        let name = text(&cluster, "name");
        let status = client.get(&client.in_org(&format!("/clusters/{name}/status"))?).await?.body;
        findings.extend(judge(&name, &status));
    }
    for service in client.list(&client.in_org("/services")?).await? {
        let conflicts = service["conflicts"].as_array().map_or(0, Vec::len);
        if conflicts > 0 {
            findings.push(Finding {
                level: Level::Warning,
                subject: text(&service, "name"),
                detail: format!("{conflicts} conflicts between its clusters"),
                remedy: Some(format!("tombolo service show {}", text(&service, "name"))),
            });
        }
    }
    Ok(())
}

/// What to do where a cluster runs no gateway of a role. Only an agent in a Kubernetes cluster says how an installation goes; of one
/// that was not asked for any it is not known what it stands in.
pub(crate) fn missing(cluster: &str, status: &Value, role: &str, options: &str) -> String {
    let install = format!("tombolo cluster install {cluster}");
    if status["install"].is_object() {
        return format!("{install}; tombolo cluster show {cluster} says how that goes");
    }
    let space = if options.is_empty() { "" } else { " " };
    format!(
        "in Kubernetes {install}; else start one there: tombolo-gateway run --role {role}{space}{options} …"
    )
}

/// What a cluster's status says of its health.
#[must_use]
pub fn judge(name: &str, status: &Value) -> Vec<Finding> {
    let finding = |level, detail: String, remedy: Option<&str>| Finding {
        level,
        subject: name.to_owned(),
        detail,
        remedy: remedy.map(str::to_owned),
    };
    let mut found = Vec::new();
    match status["state"].as_str() {
        Some("connected") => {}
        Some("pending") => {
            return vec![finding(
                Level::Warning,
                "has not joined".into(),
                Some("tombolo cluster token gives a token to join with"),
            )];
        }
        Some("revoked") => return vec![finding(Level::Warning, "was removed".into(), None)],
        _ => found.push(finding(
            Level::Broken,
            match status["last_seen"].as_str() {
                Some(seen) => {
                    format!("is not connected since {seen}; it works on with its last known state")
                }
                None => "is not connected, and never was: its agent has joined only".into(),
            },
            Some("is tombolo-agent running there, and can it reach the controller?"),
        )),
    }
    // a later one that had nothing new for it may be applied, too
    if status["applied_generation"].as_u64() < status["current_generation"].as_u64() {
        let detail = format!(
            "is at generation {} of {}",
            text(status, "applied_generation"),
            text(status, "current_generation")
        );
        found.push(finding(Level::Warning, detail, None));
    }
    for step in status["install"]["steps"].as_array().into_iter().flatten() {
        let (called, state) = (text(step, "step"), text(step, "state"));
        let level = match (called.as_str(), state.as_str()) {
            (_, "done") => continue,
            // a person may have done by hand what the agent could not
            ("dns", "failed") => Level::Warning,
            (_, "failed") => Level::Broken,
            _ => Level::Warning,
        };
        let detail = format!("installation, step {called} ({state}): {}", text(step, "message"));
        found.push(finding(level, detail, Some(&format!("tombolo cluster show {name} says how it goes"))));
    }
    let gateways: Vec<&Value> = status["gateways"].as_array().into_iter().flatten().collect();
    for role in ["egress", "ingress"] {
        if !gateways.iter().any(|g| g["role"] == role) {
            found.push(finding(
                Level::Broken,
                format!("runs no {role} gateway"),
                Some(&missing(name, status, role, "")),
            ));
        }
    }
    for (peer, addresses) in gateways.iter().filter_map(|g| g["status"]["peers"].as_object()).flatten() {
        for (address, state) in addresses.as_object().into_iter().flatten() {
            if state["health"] == "dead" {
                let detail = format!("does not reach {peer} at {address}: {}", text(state, "error"));
                found.push(finding(
                    Level::Broken,
                    detail,
                    Some("is that ingress gateway running, and is its address reachable from here?"),
                ));
            }
        }
    }
    for problem in status["problems"].as_array().into_iter().flatten() {
        found.push(finding(
            Level::Warning,
            format!("{}: {}", text(problem, "subject"), text(problem, "message")),
            None,
        ));
    }
    if found.is_empty() {
        found.push(finding(
            Level::Ok,
            format!("connected, generation {}", text(status, "applied_generation")),
            None,
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_dead_peer_and_a_missing_gateway_are_broken() {
        let status = json!({ "state": "connected", "applied_generation": 1, "current_generation": 1, "gateways": [
            { "role": "egress", "status": { "peers": { "b": { "10.0.0.1:1": { "health": "dead", "error": "refused" } } } } } ] });
        let found = judge("a", &status);
        assert_eq!(found.iter().filter(|f| f.level == Level::Broken).count(), 2, "{found:#?}");
    }

    #[test]
    fn what_is_missing_in_kubernetes_is_installed() {
        let mut status = json!({ "state": "connected", "applied_generation": 1, "current_generation": 1 });
        let remedies =
            |status: &Value| judge("east", status).into_iter().filter_map(|f| f.remedy).collect::<Vec<_>>();
        let told = remedies(&status);
        assert!(
            told[0].contains("cluster install east") && told[0].contains("run --role egress …"),
            "{told:?}"
        );
        status["install"] = json!({ "revision": 1, "steps": [] });
        let told = remedies(&status);
        assert!(told.len() == 2 && told[0].starts_with("tombolo cluster install east"), "{told:?}");
        assert!(!told.concat().contains("tombolo-gateway"), "{told:?}");
    }

    #[test]
    fn a_step_that_is_not_done_is_said() {
        let step = |step: &str, state: &str| json!({ "step": step, "state": state, "message": format!("why {step}") });
        let mut status = json!({ "state": "connected", "applied_generation": 1, "current_generation": 1,
            "gateways": [{ "role": "egress" }, { "role": "ingress" }] });
        let all = [
            step("egress", "done"),
            step("ingress", "failed"),
            step("dns", "failed"),
            step("address", "waiting"),
            step("node", "working"),
        ];
        status["install"] = json!({ "revision": 1, "steps": all });
        let found: Vec<_> = judge("east", &status).into_iter().map(|f| (f.level, f.detail)).collect();
        let said = |level, step: &str, state: &str| {
            (level, format!("installation, step {step} ({state}): why {step}"))
        };
        let (broken, warning) = (Level::Broken, Level::Warning);
        assert_eq!(
            found,
            [
                said(broken, "ingress", "failed"),
                said(warning, "dns", "failed"),
                said(warning, "address", "waiting"),
                said(warning, "node", "working"),
            ]
        );
    }

    #[test]
    fn an_agent_that_never_came_is_not_said_to_have_gone() {
        let found = judge("a", &json!({ "state": "disconnected" }));
        assert!(found[0].detail.contains("never was"), "{found:#?}");
        let found = judge("a", &json!({ "state": "disconnected", "last_seen": "2026-01-01T00:00:00Z" }));
        assert!(found[0].detail.contains("since 2026-01-01"), "{found:#?}");
    }

    #[test]
    fn a_whole_cluster_is_ok() {
        let status = json!({ "state": "connected", "applied_generation": 1, "current_generation": 1,
            "gateways": [{ "role": "egress" }, { "role": "ingress" }] });
        assert!(judge("a", &status).iter().all(|f| f.level == Level::Ok));
    }

    #[test]
    fn who_has_applied_less_is_behind() {
        let behind = |applied: u64, current: u64| {
            let status =
                json!({ "state": "connected", "applied_generation": applied, "current_generation": current });
            judge("a", &status).into_iter().any(|found| found.detail.starts_with("is at generation"))
        };
        assert!(behind(4, 5) && !behind(5, 5) && !behind(6, 5));
    }
}
