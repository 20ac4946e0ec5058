//! `tombolo cluster uninstall`: the agent takes out what it made, and then it is taken out itself. Where there is no agent that could be
//! told, what is there is taken out, and what is left is said.

use super::follow::{Became, follow};
use crate::{
    args::{Kube, Wait},
    client::Client,
    cluster::confirm,
    kubernetes::{self, Cluster, There},
    org::text,
    output::{Mood, Output},
    problem::CliError,
};
use anyhow::Result;
use serde_json::{Value, json};
use tombolo_model::ClusterName;

/// Takes everything out.
///
/// # Errors
/// The controller or the API server said no; it is another cluster; something is left.
pub async fn uninstall(
    client: &Client,
    name: &ClusterName,
    yes: bool,
    kube: &Kube,
    wait: &Wait,
    out: &Output,
) -> Result<()> {
    let path = client.in_org(&format!("/clusters/{name}/install"))?;
    confirm(yes, &format!("take everything of Tombolo out of {name}? Its pods reach no global name then"))?;
    // which cluster it is gets looked at before anything is taken out of any
    let (cluster, there) = match kube.kubeconfig.is_some() || kube.context.is_some() {
        true => Some(kubernetes::of(client, kube, name).await?).unzip(),
        false => (None, None),
    };
    let state = match &there {
        Some(there) => kubernetes::standing(client, name, there).await?,
        None => None,
    };
    let state = match state {
        Some(state) => state,
        None => self::state(client, name).await?,
    };
    let ordered = client.find(&path).await?;
    let course = course(name, &state, ordered.is_some(), there.as_ref()).map_err(CliError::No)?;
    let mut away = course == Course::ByHand;
    if course == Course::Agent || (state == "pending" && ordered.is_some()) {
        let (tag, revision) =
            ordered.map_or((None, None), |found| (found.etag, found.body["revision"].as_u64()));
        client.delete(&path, Some(tag.unwrap_or_else(|| "*".to_owned()))).await?;
        if course == Course::Agent {
            let revision = revision.map_or(Value::Null, |revision| json!(revision + 1));
            if state == "disconnected" && !wait.no_wait && out.for_people() {
                out.line(&format!("the agent of {name} is away; it is waited for up to {} s", wait.timeout));
            }
            let became = follow(client, name, &revision, wait, out).await?;
            // an agent that came back meanwhile is left the time it needs
            away = match became {
                Became::Done => false,
                Became::Unknown => true,
                _ => state == "disconnected" && self::state(client, name).await? == "disconnected",
            };
            if !away || cluster.is_none() {
                became.good(name, wait)?;
            }
        }
    }
    match cluster {
        Some(cluster) if course != Course::Nothing => take_out(&cluster, client, name, away, out).await,
        Some(_) => {
            if out.for_people() {
                out.line(&nothing_left(name));
            }
            Ok(())
        }
        None => {
            if out.for_people() {
                out.line("what is left is the agent; to take it out, too:\n");
                out.line(&format!("  tombolo cluster manifest {name} | kubectl delete -f -\n"));
                out.line("installed by Helm: helm uninstall tombolo-agent -n tombolo-system\n");
            }
            Ok(())
        }
    }
}

async fn state(client: &Client, name: &ClusterName) -> Result<String> {
    Ok(text(&client.get(&client.in_org(&format!("/clusters/{name}"))?).await?.body, "state"))
}

fn nothing_left(name: &ClusterName) -> String {
    format!("nothing of Tombolo is left in {name}; `tombolo cluster remove {name}` forgets it")
}

/// Takes out the agent, and says what it would have taken out itself where it was `away`.
async fn take_out(
    cluster: &Cluster,
    client: &Client,
    name: &ClusterName,
    away: bool,
    out: &Output,
) -> Result<()> {
    if away && out.for_people() {
        let said = "no agent said that it took out what it made: what lies in its namespace is taken out, and what is left elsewhere is said";
        out.line(&out.paint(Mood::Warn, said));
    }
    cluster.take_out(client, name).await?;
    let left = if away { cluster.left().await? } else { Vec::new() };
    if !left.is_empty() {
        let said =
            format!("the agent is taken out of {name}; what it did not take out itself is still there:");
        return Err(CliError::No([vec![said], left].concat().join("\n  ")).into());
    }
    if out.for_people() {
        out.line(&nothing_left(name));
    }
    Ok(())
}

/// Who takes out what an agent made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// The agent is told.
    Agent,
    /// No agent can be told.
    ByHand,
    /// There is nothing.
    Nothing,
}

/// What to do about a cluster in this state, for which something is ordered or not, and with this in it, where that was looked at.
///
/// # Errors
/// What people must do first.
fn course(name: &ClusterName, state: &str, ordered: bool, there: Option<&There>) -> Result<Course, String> {
    let empty = there.map(There::is_empty);
    match (state, empty) {
        ("revoked", None) => Err(format!(
            "{name} was removed: its agent takes no orders. Name the cluster with --kubeconfig and --context, and what is there is taken out"
        )),
        // it joined, and its agent may be back at any time, wherever it is
        ("disconnected", Some(true)) if ordered => Err(format!(
            "nothing of Tombolo is in the cluster there; is it the right --context? Nothing was changed. ({name} joined, and its agent is away. \
             Where the cluster is gone for good, `tombolo cluster remove {name}` forgets it)"
        )),
        ("pending", None) => Ok(Course::Nothing),
        (_, Some(true)) => Ok(Course::Nothing),
        ("pending" | "revoked", _) => Ok(Course::ByHand),
        _ => Ok(Course::Agent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_out_what_an_agent_made() {
        let east = "east".parse().unwrap();
        let of = |state: &str, ordered, there: Option<&There>| course(&east, state, ordered, there);
        let (empty, agent) = (There::default(), There::of_agent());
        for ordered in [false, true] {
            for there in [None, Some(&agent)] {
                assert_eq!(of("connected", ordered, there), Ok(Course::Agent));
                assert_eq!(of("disconnected", ordered, there), Ok(Course::Agent));
            }
            assert_eq!(of("pending", ordered, Some(&agent)), Ok(Course::ByHand));
            assert_eq!(of("pending", ordered, Some(&empty)), Ok(Course::Nothing));
            assert_eq!(of("pending", ordered, None), Ok(Course::Nothing));
            assert_eq!(of("revoked", ordered, Some(&agent)), Ok(Course::ByHand), "nobody may order anything");
            assert_eq!(of("revoked", ordered, Some(&empty)), Ok(Course::Nothing));
            assert!(of("revoked", ordered, None).is_err_and(|why| why.contains("--kubeconfig")));
        }
        assert_eq!(of("disconnected", false, Some(&empty)), Ok(Course::Nothing), "it was taken out before");
        let why = of("disconnected", true, Some(&empty)).unwrap_err();
        assert!(
            why.contains("right --context"),
            "its agent would take everything out once it is back: {why}"
        );
    }
}
