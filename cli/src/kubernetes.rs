//! `tombolo cluster manifest` and `join`: the agent's manifest, and putting it into a cluster, after a look at whether all
//! that is needed is there.

mod apply;
mod preflight;

use crate::{
    args::{JoinArgs, Kube},
    client::Client,
    org::text,
    output::{Mood, Output},
    problem::CliError,
};
use anyhow::{Context as _, Result};
use apply::{Document, Marks};
pub(crate) use preflight::Way;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tombolo_model::ClusterName;

/// Where everything of the agent is.
const NAMESPACE: &str = "tombolo-system";
/// How long the agent may take until it is connected: images may have to be pulled.
const CONNECTED: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(300);

/// The manifest of a cluster's agent.
///
/// # Errors
/// The controller said no, or did not answer.
pub async fn manifest(
    client: &Client,
    name: &ClusterName,
    registry: Option<&str>,
    version: Option<&str>,
) -> Result<String> {
    let mut path = format!("/install/agent.yaml?organization={}&cluster={name}", client.organization()?);
    for (key, value) in [("registry", registry), ("version", version)] {
        let Some(value) = value else { continue };
        // the controller takes no other characters
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
        if !value.chars().all(plain) {
            return Err(CliError::Usage(format!("{value:?} is no {key} of images")).into());
        }
        path.push_str(&format!("&{key}={value}"));
    }
    client.text(&path).await
}

/// A cluster that can be written to.
pub struct Cluster {
    client: kube::Client,
}

/// The cluster that these options name, if it is this one of ours or none yet. A name alone says little: two organizations, and two
/// controllers, may each have an `east`.
///
/// # Errors
/// It can't be reached, or it is another one.
pub async fn of(client: &Client, kube: &Kube, name: &ClusterName) -> Result<Cluster> {
    let cluster = Cluster { client: connect(kube).await? };
    cluster.is_of(&apply::documents(&manifest(client, name, None, None).await?)?).await?;
    Ok(cluster)
}

impl Cluster {
    /// It joined as this manifest says, or not at all.
    async fn is_of(&self, documents: &[Document]) -> Result<()> {
        match another(&apply::marks(documents), &self.marks().await?) {
            Some(why) => Err(CliError::No(why).into()),
            None => Ok(()),
        }
    }
}

/// Why the cluster there is not ours, where it is not. What is not said there (as by the chart, in a namespace that others made) says nothing.
fn another(ours: &Marks, there: &Marks) -> Option<String> {
    let differs = |mark: &&&str| there.get(**mark).is_some_and(|found| ours.get(**mark) != Some(found));
    let marks = ["tombolo.io/organization", "tombolo.io/cluster", "tombolo.io/controller"];
    let mark = marks.iter().find(differs)?;
    let what = mark.rsplit('/').next().unwrap_or_default();
    let (found, wanted) =
        (there.get(*mark).cloned().unwrap_or_default(), ours.get(*mark).cloned().unwrap_or_default());
    Some(format!(
        "the cluster there joined with the {what} {found}, not {wanted}; is it the right --context? (Where the {what} was given another name: \
         kubectl annotate --overwrite namespace {NAMESPACE} {mark}={wanted})"
    ))
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

/// Makes a cluster join.
///
/// # Errors
/// Something that is needed is missing; the controller or the API server said no; the agent did not connect in time.
pub async fn join(client: &Client, args: JoinArgs, out: &Output) -> Result<()> {
    let cluster = Cluster { client: connect(&args.kube).await? };
    let text_of =
        manifest(client, &args.name, args.registry.as_deref(), args.image_version.as_deref()).await?;
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
                finding.said
            ));
        }
    }
    if missing > 0 {
        return Err(
            CliError::No(format!("{missing} of what is needed is missing; nothing was changed")).into()
        );
    }
    // after the look: who may do nothing there is told so
    cluster.is_of(&documents).await?;
    if args.check {
        return Ok(());
    }
    let path = client.in_org("/clusters")?;
    let one = format!("{path}/{}", args.name);
    let found = client.find(&one).await?;
    if found.as_ref().is_none_or(|found| found.body["state"] == "revoked") {
        client.create(&path, &json!({ "name": args.name })).await?;
    }
    let connected = found.is_some_and(|found| found.body["state"] == "connected");
    // the namespace, then the token, so that no agent starts without one
    let (first, rest): (Vec<&Document>, Vec<&Document>) =
        documents.iter().partition(|one| one.kind == "Namespace");
    cluster.apply(&first).await?;
    if !connected {
        let token = client.create(&format!("{one}/onboarding-tokens"), &json!({})).await?;
        cluster.put_token(&text(&token, "token")).await?;
    }
    cluster.apply(&rest).await?;
    if !connected {
        // an agent that waits for a token looks at it once a minute; a new pod does at once
        cluster.restart_agent().await?;
    }
    if out.for_people() {
        out.line(&format!("the agent of {} is applied", args.name));
    }
    await_connected(client, &args.name, out).await
}

async fn await_connected(client: &Client, name: &ClusterName, out: &Output) -> Result<()> {
    let path = client.in_org(&format!("/clusters/{name}"))?;
    let deadline = Instant::now() + CONNECTED;
    loop {
        let found = client.get(&path).await?.body;
        if found["state"] == "connected" {
            if out.for_people() {
                out.line(&out.paint(Mood::Good, &format!("{name} is connected")));
                out.line(&format!("next: tombolo cluster install {name}"));
                return Ok(());
            }
            return out.value(&found);
        }
        if Instant::now() >= deadline {
            let message = format!(
                "{name} is not connected after {} s; look at kubectl -n {NAMESPACE} get pods, and logs deploy/tombolo-agent",
                CONNECTED.as_secs()
            );
            return Err(CliError::No(message).into());
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_the_same_name_may_be_anothers() {
        let marks = |organization: &str, cluster: &str, controller: &str| -> Marks {
            [("organization", organization), ("cluster", cluster), ("controller", controller)]
                .map(|(mark, value)| (format!("tombolo.io/{mark}"), value.to_owned()))
                .into()
        };
        let ours = marks("acme", "east", "https://c.example.com:8443");
        assert_eq!(another(&ours, &ours), None);
        assert_eq!(another(&ours, &Marks::new()), None, "nobody joined it, or the chart did");
        for (there, part) in [
            (marks("globex", "east", "https://c.example.com:8443"), "the organization globex, not acme"),
            (marks("acme", "west", "https://c.example.com:8443"), "the cluster west, not east"),
            (
                marks("acme", "east", "https://other.example.com"),
                "the controller https://other.example.com, not",
            ),
        ] {
            let why = another(&ours, &there).expect("it is another one");
            assert!(why.contains(part), "{why}");
        }
    }
}
