//! How an order goes, step by step, as the agent says it.

use super::LOOK;
use crate::{
    args::Wait,
    client::Client,
    org::text,
    output::{Mood, Output},
    problem::CliError,
};
use anyhow::Result;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tombolo_model::ClusterName;

/// How long a first handshake with the peers is waited for, once all else is done: another cluster may not be there yet.
const PEERS: Duration = Duration::from_secs(20);

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Became {
    /// All is done; or all but what only other clusters can do, which is said.
    Done,
    /// Nobody waited for it.
    Unknown,
    /// It is not done after the time that was given.
    Open(String),
    /// All is done but the cluster's DNS, which somebody has to tell: what, in the agent's words.
    ByHand(String),
    /// The agent said nothing of it.
    Silence,
}

/// The steps for people, a line each.
#[must_use]
pub fn lines(install: &Value, out: &Output) -> Vec<String> {
    let steps = install["steps"].as_array().into_iter().flatten();
    steps.map(|step| line(step, out)).collect()
}

fn line(step: &Value, out: &Output) -> String {
    let state = text(step, "state");
    let mood = match state.as_str() {
        "done" => Mood::Good,
        "failed" => Mood::Bad,
        _ => Mood::Warn,
    };
    format!("{:<9} {} {}", text(step, "step"), out.paint(mood, &format!("{state:<8}")), text(step, "message"))
}

/// The state of the installation, where it is about this order.
async fn state(client: &Client, name: &ClusterName, revision: &Value) -> Result<Option<Value>> {
    let path = client.in_org(&format!("/clusters/{name}/status"))?;
    let mut status = client.get(&path).await?.body;
    let install = status["install"].take();
    Ok((install["revision"].as_u64() >= revision.as_u64() && !install.is_null()).then_some(install))
}

/// How far the steps are.
#[derive(Debug, PartialEq, Eq)]
enum Far {
    All,
    /// Only other clusters are missing: why, in the agent's words.
    ButPeers(String),
    /// The cluster's DNS is left alone, or can't be written: why, and what to do, in the agent's words. Other clusters may be missing, too.
    ButDns(String),
    Not,
}

fn far(steps: &[Value]) -> Far {
    let open: Vec<&Value> = steps.iter().filter(|step| step["state"] != "done").collect();
    let is_dns = |step: &Value| step["step"] == "dns" && step["state"] == "failed";
    let Some(first) = open.first() else { return if steps.is_empty() { Far::Not } else { Far::All } };
    if !open.iter().all(|step| step["step"] == "peers" || is_dns(step)) {
        return Far::Not;
    }
    match open.iter().find(|step| is_dns(step)) {
        Some(dns) => Far::ButDns(text(dns, "message")),
        None => Far::ButPeers(text(first, "message")),
    }
}

/// What is said where all is there, and no call to another cluster has gone through yet.
fn without_peers(name: &ClusterName, why: &str) -> String {
    format!(
        "all of it is there, but whether calls from {name} get through is not known yet: it waits {why}. Is that cluster installed, and are \
         its addresses reached from here? `tombolo cluster show {name}` says how it goes on, `tombolo cluster list` which cluster reaches which"
    )
}

/// Shows the steps as they change, until all are done.
///
/// # Errors
/// The controller said no, or did not answer.
pub(super) async fn follow(
    client: &Client,
    name: &ClusterName,
    revision: &Value,
    wait: &Wait,
    out: &Output,
) -> Result<Became> {
    if wait.no_wait {
        return Ok(Became::Unknown);
    }
    let deadline = Instant::now() + Duration::from_secs(wait.timeout);
    let (mut shown, mut all_but_peers): (Vec<String>, Option<Instant>) = (Vec::new(), None);
    loop {
        let install = state(client, name, revision).await?;
        let steps: Vec<Value> =
            install.as_ref().and_then(|i| i["steps"].as_array().cloned()).unwrap_or_default();
        for step in &steps {
            let line = line(step, out);
            if out.for_people() && !shown.contains(&line) {
                out.line(&line);
                shown.retain(|old| !old.starts_with(&format!("{:<9} ", text(step, "step"))));
                shown.push(line);
            }
        }
        let done = match far(&steps) {
            Far::All => Some(None),
            Far::ButPeers(why) if all_but_peers.get_or_insert_with(Instant::now).elapsed() >= PEERS => {
                Some(Some(without_peers(name, &why)))
            }
            // nobody adds it while somebody waits here
            Far::ButDns(why) if all_but_peers.get_or_insert_with(Instant::now).elapsed() >= PEERS => {
                return Ok(Became::ByHand(why));
            }
            Far::ButPeers(_) | Far::ButDns(_) => None,
            Far::Not => {
                all_but_peers = None;
                None
            }
        };
        if let Some(but) = done {
            match but {
                _ if !out.for_people() => out.value(&install)?,
                Some(but) => out.line(&out.paint(Mood::Warn, &but)),
                None => {}
            }
            return Ok(Became::Done);
        }
        if Instant::now() >= deadline {
            return Ok(if steps.is_empty() { Became::Silence } else { Became::Open(open(&steps)) });
        }
        sleep(LOOK).await;
    }
}

/// What is not done yet.
fn open(steps: &[Value]) -> String {
    let open = steps.iter().filter(|step| step["state"] != "done");
    open.map(|step| format!("{}: {}", text(step, "step"), text(step, "message")))
        .collect::<Vec<_>>()
        .join("; ")
}

impl Became {
    /// Only what is done is good.
    ///
    /// # Errors
    /// It is not done.
    pub(super) fn good(self, name: &ClusterName, wait: &Wait) -> Result<()> {
        let said = match self {
            Self::Done | Self::Unknown => return Ok(()),
            Self::Open(said) => said,
            Self::ByHand(said) => {
                let said = format!(
                    "all that was asked for is in {name} but its DNS, without which no global name resolves there. {said}. Once that is \
                     done, say so: tombolo cluster install {name} --no-dns"
                );
                return Err(CliError::No(said).into());
            }
            Self::Silence => {
                "its agent said nothing of it; is it connected (tombolo cluster list)? The order stands: the agent does it once it is back"
                    .to_owned()
            }
        };
        Err(CliError::No(format!("{name} is not there after {} s: {said}", wait.timeout)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn step(step: &str, state: &str) -> Value {
        json!({ "step": step, "state": state, "message": format!("{step} says so") })
    }

    #[test]
    fn how_far_an_order_is() {
        assert_eq!(far(&[]), Far::Not, "an agent that said nothing did nothing");
        assert_eq!(far(&[step("agent", "done"), step("peers", "done")]), Far::All);
        let but_peers = [step("agent", "done"), step("peers", "waiting")];
        assert_eq!(far(&but_peers), Far::ButPeers("peers says so".to_owned()));
        assert_eq!(far(&[step("dns", "working"), step("peers", "waiting")]), Far::Not);
        assert_eq!(open(&but_peers), "peers: peers says so");
        let by_hand = [step("dns", "failed"), step("peers", "waiting")];
        assert_eq!(far(&by_hand), Far::ButDns("dns says so".to_owned()), "nothing comes of waiting for it");
        assert_eq!(far(&by_hand[..1]), Far::ButDns("dns says so".to_owned()));
        assert_eq!(far(&[step("egress", "working"), step("dns", "failed")]), Far::Not);
        assert_eq!(far(&[step("egress", "failed")]), Far::Not, "pods may come yet");
    }

    #[test]
    fn what_is_not_proved_is_said() {
        let said = without_peers(&"east".parse().unwrap(), "for a first handshake with west");
        assert!(said.contains("not known yet") && said.contains("handshake with west"), "{said}");
        assert!(said.contains("tombolo cluster show east"), "{said}");
    }

    #[test]
    fn only_what_is_done_is_good() {
        let (east, wait) = ("east".parse().unwrap(), Wait { no_wait: false, timeout: 7 });
        assert!(Became::Done.good(&east, &wait).is_ok() && Became::Unknown.good(&east, &wait).is_ok());
        let said = Became::Silence.good(&east, &wait).unwrap_err().to_string();
        assert!(said.contains("after 7 s") && said.contains("The order stands"), "{said}");
        assert!(Became::Open("dns: no".to_owned()).good(&east, &wait).is_err());
        let said =
            Became::ByHand("forward it yourself".to_owned()).good(&east, &wait).unwrap_err().to_string();
        assert!(said.contains("forward it yourself") && said.contains("install east --no-dns"), "{said}");
    }
}
