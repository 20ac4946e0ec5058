//! How a cluster is: whether its agent follows, how far behind it is, and what it says of its gateways.

use super::{
    Deps,
    caller::Scope,
    cluster::{self, State},
    error::Result,
    trial::Tried,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tombolo_model::{
    Generation,
    install::{InstallOrder, InstallStatus, InstallStep, StepState},
};
use utoipa::ToSchema;

/// How a cluster is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ClusterStatus {
    /// The cluster's name.
    #[schema(example = "cluster-1")]
    pub(crate) cluster: String,
    /// How it stands.
    pub(crate) state: State,
    /// The generation that its agent applied last; 0 before the first.
    pub(crate) applied_generation: u64,
    /// The last generation that changed something for it; 0 before the first.
    pub(crate) current_generation: u64,
    /// How long it has been behind, milliseconds; 0 where it is not.
    pub(crate) lag_ms: u64,
    /// Why its agent refused a newer generation; absent where it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// Its agent; absent before it ever spoke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<AgentInfo>,
    /// Its gateways, as its agent sees them.
    #[schema(value_type = Vec<GatewayInfo>)]
    pub(crate) gateways: Vec<Value>,
    /// Files, objects, ports or names that were left out, and why: by its agent, or because an older service of another
    /// cluster has the port.
    pub(crate) problems: Vec<LeftOut>,
    /// How what it was told to install goes; absent where it was told nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) install: Option<Installing>,
    /// What its agent would write for the order that it was asked to try last; absent where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trial: Option<Tried>,
    /// When its agent was last heard of; absent before it ever was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen: Option<DateTime<Utc>>,
}

/// A cluster's agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AgentInfo {
    /// The program and its version.
    #[schema(example = "tombolo-agent/0.1.0")]
    pub(crate) software: String,
}

/// Something that was left out, and why.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LeftOut {
    /// What: a file with its line, an object, a name.
    pub(crate) subject: String,
    /// Why, and what to do.
    pub(crate) message: String,
}

/// How an installation goes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Installing {
    /// The order that it is about.
    pub(crate) revision: u64,
    /// Its steps, in their order.
    pub(crate) steps: Vec<InstallingStep>,
}

/// A step of an installation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct InstallingStep {
    /// Which.
    #[schema(example = "egress")]
    pub(crate) step: String,
    /// `waiting`, `working`, `done` or `failed`.
    #[schema(value_type = String, example = "done")]
    pub(crate) state: StepState,
    /// What is there, what is waited for, or what is wrong and what to do.
    pub(crate) message: String,
}

impl Installing {
    pub(super) fn show(status: InstallStatus) -> Self {
        let steps = status.steps.into_iter();
        let step =
            |step: InstallStep| InstallingStep { step: step.step, state: step.state, message: step.message };
        Self { revision: status.revision, steps: steps.map(step).collect() }
    }
}

/// A gateway, as its agent sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GatewayInfo {
    /// The process.
    pub(crate) instance: String,
    /// `sidecar`, `node`, `egress` or `ingress`.
    pub(crate) role: String,
    /// The program and its version.
    pub(crate) software: String,
    /// What it said last: generation, connections, peers with their health, edges with their counts; of a node's proxy, by which way it
    /// captures (`capture.way`: `lookup` or `redirect`) and why not by the lookup (`capture.why`).
    #[schema(value_type = Object)]
    pub(crate) status: Value,
}

/// Conflicts told of one cluster.
const MOST_CONFLICTS: usize = 1000;

/// What of a cluster's services could not be given as it has them, as this replica compiled it; and what is wrong with
/// a name or a global namespace as such.
fn conflicts(deps: &Deps, scope: &Scope, cluster: &str) -> Vec<LeftOut> {
    let found = deps.view.with(scope.org.id, |compiled, _| compiled.conflicts()).unwrap_or_default();
    let told = found.into_iter().filter_map(|conflict| {
        let message = conflict.to_string();
        match (conflict.loser, conflict.service) {
            (Some(loser), _) if loser.cluster.as_str() != cluster => None,
            (Some(loser), _) => Some(LeftOut { subject: loser.service.to_string(), message }),
            (None, Some(service)) => {
                Some(LeftOut { subject: format!("{}/{service}", conflict.gns), message })
            }
            (None, None) => Some(LeftOut { subject: conflict.gns.to_string(), message }),
        }
    });
    told.take(MOST_CONFLICTS).collect()
}

/// What is wrong where an order has ranges that egress gateways never dial, and the agent that does as it says was not told of them all: it, or
/// the replica of the controller that told it, is of before such ranges. Nothing else would say that they are dialled. Pure.
fn ranges_unknown(cluster: &str, order: &InstallOrder, said: &InstallStatus) -> Option<LeftOut> {
    let (ordered, known) = (order.never_dial().len(), said.never_dial);
    // of an older order it says nothing yet of this one
    if said.revision != order.revision() || known >= ordered {
        return None;
    }
    let message = format!(
        "of the {ordered} ranges that the order has them never dial, its agent was told {known}: its egress gateways dial in the others. The agent, \
         or a replica of the controller, is older than these ranges: upgrade every replica, then the agent (tombolo cluster upgrade {cluster})"
    );
    Some(LeftOut { subject: "egress gateways".to_owned(), message })
}

/// How a cluster is.
///
/// # Errors
/// [`super::error::Kind::NotFound`].
pub(crate) async fn get(deps: &Deps, scope: &Scope, name: &str) -> Result<ClusterStatus> {
    let now = deps.now();
    let mut tx = deps.store.begin().await?;
    let row = cluster::find(&mut tx, scope, name, now).await?;
    let report = tx.cluster_report(scope.org.id, row.id).await?;
    let state = State::from(row.state);
    let conflicts = conflicts(deps, scope, name);
    let Some(report) = report else {
        return Ok(ClusterStatus {
            cluster: name.to_owned(),
            state,
            applied_generation: 0,
            current_generation: 0,
            lag_ms: 0,
            refused: None,
            agent: None,
            gateways: Vec::new(),
            problems: conflicts,
            install: None,
            trial: None,
            last_seen: (state == State::Connected).then_some(now),
        });
    };
    let last_seen = match state {
        State::Connected => Some(now),
        _ => report.last_seen_at.max(report.reported_at),
    };
    let unknown = match &report.install {
        Some(said) => {
            let order = tx.install(scope.org.id, row.id).await?;
            order.and_then(|row| ranges_unknown(name, &row.order, said))
        }
        None => None,
    };
    let gateways = report.gateways.iter().map(serde_json::to_value).collect::<std::result::Result<_, _>>();
    Ok(ClusterStatus {
        cluster: name.to_owned(),
        state,
        applied_generation: report.applied.get(),
        current_generation: report.published.get(),
        lag_ms: lag_ms(report.applied, report.published, report.published_at, now),
        refused: report.refused,
        agent: report.software.map(|software| AgentInfo { software }),
        gateways: gateways.map_err(super::error::Refusal::internal)?,
        problems: report
            .problems
            .into_iter()
            .map(|problem| LeftOut { subject: problem.subject, message: problem.message })
            .chain(unknown)
            .chain(conflicts)
            .collect(),
        install: report.install.map(Installing::show),
        trial: report.trial.map(Tried::show),
        last_seen,
    })
}

fn lag_ms(
    applied: Generation,
    published: Generation,
    published_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> u64 {
    match published_at {
        Some(since) if applied < published => (now - since).num_milliseconds().max(0).unsigned_abs(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn ranges_that_the_agent_was_not_told_are_a_problem() {
        let order: InstallOrder = serde_json::from_value(serde_json::json!({
            "state": "installed", "revision": 7, "version": "1.2.3", "registry": "r.example.com/t",
            "gateways": { "egress": { "replicas": 2, "min": 2, "max": 6, "never_dial": ["10.244.0.0/16", "fd00:1::/64"] } }
        }))
        .unwrap();
        let said = |revision, never_dial| InstallStatus { revision, never_dial, ..InstallStatus::default() };
        let wrong =
            |order: &InstallOrder, said| ranges_unknown("east", order, &said).map(|left| left.message);
        assert_eq!(wrong(&order, said(7, 2)), None);
        assert_eq!(wrong(&order, said(6, 0)), None, "it did not answer yet");
        let told = wrong(&order, said(7, 0)).unwrap();
        assert!(told.contains("of the 2 ranges") && told.contains("was told 0"), "{told}");
        assert!(told.contains("tombolo cluster upgrade east"), "{told}");
        assert_eq!(wrong(&InstallOrder::Removed { revision: 8 }, said(8, 0)), None);
    }

    #[test]
    fn lag_counts_from_the_generation_that_is_not_applied() {
        let now = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(100);
        let since = Some(now - TimeDelta::milliseconds(1500));
        let g = Generation::new;
        assert_eq!(lag_ms(g(3), g(4), since, now), 1500);
        assert_eq!(lag_ms(g(4), g(4), since, now), 0);
        assert_eq!(lag_ms(g(5), g(4), since, now), 0);
        assert_eq!(lag_ms(g(0), g(4), Some(now + TimeDelta::seconds(1)), now), 0);
    }
}
