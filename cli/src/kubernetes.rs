//! `tombolo cluster manifest` and `join`: the agent's manifest, and putting it into a cluster, after a look at whether all
//! that is needed is there.

mod apply;
mod left;
mod preflight;
mod there;

use crate::{
    args::{JoinArgs, Kube, ManifestArgs},
    client::Client,
    org::text,
    output::{Mood, Output},
    plain::one_line,
    problem::CliError,
};
use anyhow::{Context as _, Result};
use apply::Document;
pub(crate) use preflight::Way;
use serde_json::{Value, json};
use std::time::Duration;
pub(crate) use there::There;
use tokio::time::{Instant, sleep};
use tombolo_model::ClusterName;

/// Where everything of the agent is.
const NAMESPACE: &str = "tombolo-system";
/// How long the agent may take until it is connected: images may have to be pulled.
const CONNECTED: Duration = Duration::from_secs(180);
/// How long an agent that joined before may take until it is connected again, before it is given a new token.
const RETURNS: Duration = Duration::from_secs(60);
/// How long a cluster may still be connected whose agent just went.
const PARTING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(300);

/// The manifest of a cluster's agent.
///
/// # Errors
/// The controller said no, or did not answer.
pub async fn manifest(client: &Client, name: &ClusterName, args: &ManifestArgs) -> Result<String> {
    let mut path = format!("/install/agent.yaml?organization={}&cluster={name}", client.organization()?);
    for (key, value) in [("registry", &args.registry), ("version", &args.image_version)] {
        let Some(value) = value else { continue };
        // the controller takes no other characters
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
        if !value.chars().all(plain) {
            return Err(CliError::Usage(format!("{value:?} is no {key} of images")).into());
        }
        path.push_str(&format!("&{key}={value}"));
    }
    if !args.never_dial.is_empty() {
        let networks: Vec<String> = args.never_dial.iter().map(ToString::to_string).collect();
        path.push_str(&format!("&never_dial={}", networks.join(",")));
    }
    client.text(&path).await
}

/// A cluster that can be written to.
pub struct Cluster {
    client: kube::Client,
}

/// The cluster that these options name, if it is this one of ours or none yet, and what of ours is in it.
///
/// # Errors
/// It can't be reached, or it is another one.
pub async fn of(client: &Client, kube: &Kube, name: &ClusterName) -> Result<(Cluster, There)> {
    let cluster = Cluster { client: connect(kube).await? };
    let there =
        cluster.of(&apply::documents(&manifest(client, name, &ManifestArgs::default()).await?)?).await?;
    Ok((cluster, there))
}

impl Cluster {
    /// What of ours is there, if it joined as this manifest says, or not at all.
    async fn of(&self, documents: &[Document]) -> Result<There> {
        let there = self.there().await?;
        match there.another(documents) {
            Some(why) => Err(CliError::No(why).into()),
            None => Ok(there),
        }
    }
}

async fn connect(kube: &Kube) -> Result<kube::Client> {
    use kube::config::{KubeConfigOptions, Kubeconfig};
    let file = match &kube.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?,
        None => Kubeconfig::read().context("read the kubeconfig; name it with --kubeconfig")?,
    };
    let options = KubeConfigOptions { context: kube.context.clone(), ..KubeConfigOptions::default() };
    let mut config = kube::Config::from_custom_kubeconfig(file, &options)
        .await
        .context("use the kubeconfig; see --context")?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(30));
    kube::Client::try_from(config).context("make a client for the API server")
}

/// The cluster's state, where the controller knows it, if what is there can be it.
///
/// # Errors
/// It can't; the controller said no, or did not answer.
pub async fn standing(client: &Client, name: &ClusterName, there: &There) -> Result<Option<String>> {
    let path = client.in_org(&format!("/clusters/{name}"))?;
    let deadline = Instant::now() + PARTING;
    loop {
        let state = client.find(&path).await?.map(|found| text(&found.body, "state"));
        match there.astray(name, state.as_deref().unwrap_or_default()) {
            None => return Ok(state),
            Some(why) if Instant::now() >= deadline => return Err(CliError::No(why).into()),
            Some(_) => sleep(LOOK).await,
        }
    }
}

/// The ways of `--ingress`; the default where there are none.
///
/// # Errors
/// One that is not understood.
fn ways(given: &[String]) -> Result<Vec<Way>, CliError> {
    if given.is_empty() {
        return Ok(vec![Way::LoadBalancer]);
    }
    given.iter().map(|way| way.parse()).collect()
}

/// Whether a one-time token is made. Joining again takes what the cluster's agent showed before out of trust, and ends the connections that rely
/// on it: nobody who is only disconnected for a moment is to lose calls by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// None: it is connected.
    None,
    /// Only where the agent there does not come back.
    Later,
    /// At once.
    Now,
}

impl Token {
    fn of(state: Option<&str>, there: &There, rejoin: bool) -> Self {
        match state {
            _ if rejoin => Self::Now,
            Some("connected") => Self::None,
            Some("disconnected") if there.has_agent() => Self::Later,
            _ => Self::Now,
        }
    }
}

/// Makes a cluster join.
///
/// # Errors
/// Something that is needed is missing; the controller or the API server said no; the agent did not connect in time.
pub async fn join(client: &Client, args: JoinArgs, out: &Output) -> Result<()> {
    let cluster = Cluster { client: connect(&args.kube).await? };
    let text_of = manifest(client, &args.name, &args.manifest).await?;
    let documents = apply::documents(&text_of)?;
    let ways = ways(&args.ingress)?;
    let findings = preflight::look(&cluster.client, &documents, &ways).await;
    let mut missing = 0;
    for finding in &findings {
        let (mood, mark) = match finding.verdict {
            preflight::Verdict::Good => (Mood::Good, "ok"),
            preflight::Verdict::Less => (Mood::Warn, "less"),
            preflight::Verdict::Missing => (Mood::Bad, "missing"),
        };
        missing += usize::from(mood == Mood::Bad);
        if out.for_people() {
            out.line(&format!(
                "{} {}: {}",
                out.paint(mood, &format!("{mark:<7}")),
                finding.what,
                one_line(finding.said.clone())
            ));
        }
    }
    if missing > 0 {
        return Err(
            CliError::No(format!("{missing} of what is needed is missing; nothing was changed")).into()
        );
    }
    // after the look: who may do nothing there is told so
    let there = cluster.of(&documents).await?;
    let path = client.in_org("/clusters")?;
    let one = format!("{path}/{}", args.name);
    let state = standing(client, &args.name, &there).await?;
    if args.check {
        return Ok(());
    }
    if state.as_deref().is_none_or(|state| state == "revoked") {
        client.create(&path, &json!({ "name": args.name })).await?;
    }
    let token = Token::of(state.as_deref(), &there, args.rejoin);
    if state.as_deref() == Some("disconnected") && there.is_empty() && out.for_people() {
        let before =
            format!("{} joined before, and its agent is away: the cluster there takes its place", args.name);
        out.line(&out.paint(Mood::Warn, &before));
    }
    // the namespace, then the token, so that no agent starts without one
    let (first, rest): (Vec<&Document>, Vec<&Document>) =
        documents.iter().partition(|one| one.kind == "Namespace");
    cluster.apply(&first).await?;
    if token == Token::Now {
        cluster.give_token(client, &one).await?;
    }
    cluster.apply(&rest).await?;
    if token == Token::Now {
        // an agent that waits for a token looks at it once a minute; a new pod does at once
        cluster.restart_agent().await?;
    }
    if out.for_people() {
        out.line(&format!("the agent of {} is applied", args.name));
    }
    if token == Token::Later {
        if out.for_people() {
            out.line(&format!(
                "{} joined before, and is not connected; its agent has {} s to come back (--rejoin waits for nothing)",
                args.name,
                RETURNS.as_secs()
            ));
        }
        if cluster.connects(client, &args.name, RETURNS).await?.is_ok() {
            return cluster.await_connected(client, &args.name, out).await;
        }
        if out.for_people() {
            let again = "it does not come back, and joins again with a new token: what it showed before is believed no more, and connections \
                         that rely on it end";
            out.line(&out.paint(Mood::Warn, again));
        }
        cluster.give_token(client, &one).await?;
        cluster.restart_agent().await?;
    }
    cluster.await_connected(client, &args.name, out).await
}

impl Cluster {
    /// A one-time token of the cluster at this path, for its agent.
    async fn give_token(&self, client: &Client, path: &str) -> Result<()> {
        let token = client.create(&format!("{path}/onboarding-tokens"), &json!({})).await?;
        self.put_token(&text(&token, "token")).await
    }

    /// Waits until the cluster is connected, and an agent there is ready: another cluster's may be what is connected.
    async fn await_connected(&self, client: &Client, name: &ClusterName, out: &Output) -> Result<()> {
        match self.connects(client, name, CONNECTED).await? {
            Ok(_) if out.for_people() => {
                out.line(&out.paint(Mood::Good, &format!("{name} is connected")));
                out.line(&format!("next: tombolo cluster install {name}"));
                Ok(())
            }
            Ok(found) => out.value(&found),
            Err(not) => {
                let message = format!(
                    "{name} {not} after {} s; look at kubectl -n {NAMESPACE} get pods, and logs deploy/tombolo-agent",
                    CONNECTED.as_secs()
                );
                Err(CliError::No(message).into())
            }
        }
    }

    /// The cluster, once it is connected and an agent there is ready; what it is not, where that takes longer than `time`.
    async fn connects(
        &self,
        client: &Client,
        name: &ClusterName,
        time: Duration,
    ) -> Result<Result<Value, &'static str>> {
        let path = client.in_org(&format!("/clusters/{name}"))?;
        let deadline = Instant::now() + time;
        loop {
            let found = client.get(&path).await?.body;
            let connected = found["state"] == "connected";
            if connected && self.there().await?.is_ready() {
                return Ok(Ok(found));
            }
            if Instant::now() >= deadline {
                return Ok(Err(if connected {
                    "is connected, but no agent in the cluster there is ready (is it another cluster that is connected?)"
                } else {
                    "is not connected"
                }));
            }
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_come_back_gets_no_token_at_once() {
        let (agent, none) = (There::of_agent(), There::default());
        for (state, there, rejoin, token) in [
            (Some("connected"), &agent, false, Token::None),
            (Some("connected"), &agent, true, Token::Now),
            (Some("disconnected"), &agent, false, Token::Later),
            (Some("disconnected"), &agent, true, Token::Now),
            (Some("disconnected"), &none, false, Token::Now),
            (Some("pending"), &agent, false, Token::Now),
            (Some("revoked"), &agent, false, Token::Now),
            (None, &none, false, Token::Now),
        ] {
            assert_eq!(Token::of(state, there, rejoin), token, "{state:?} {there:?} {rejoin}");
        }
    }
}
