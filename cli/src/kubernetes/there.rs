//! What of ours is in a cluster, and whose it is: its namespace says so, and the agent's own arguments. A name alone says little: two
//! organizations, and two controllers, may each have an `east`.

use super::{
    Cluster, NAMESPACE,
    apply::{Document, resource},
};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use tombolo_model::ClusterName;

/// Whose an agent is: what is written on its namespace.
type Marks = BTreeMap<String, String>;

const CLUSTER: &str = "tombolo.io/cluster";
const CONTROLLER: &str = "tombolo.io/controller";
const MARKS: [&str; 3] = ["tombolo.io/organization", CLUSTER, CONTROLLER];

/// What of ours is in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct There {
    marks: Marks,
    /// The agent's Deployment, and whether a pod of it is ready.
    agent: Option<bool>,
}

impl There {
    /// Nobody ever put an agent there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.agent.is_none()
    }

    /// The agent's Deployment is there.
    pub(super) fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    /// A pod of the agent is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.agent == Some(true)
    }

    /// One that an agent is in.
    #[cfg(test)]
    pub(crate) fn of_agent() -> Self {
        Self { marks: Marks::new(), agent: Some(false) }
    }

    /// As namespace and Deployment say. The chart leaves a namespace that others made as it is.
    fn read(namespace: Option<&Value>, deployment: Option<&Value>) -> Self {
        let mut marks = namespace.map(written).unwrap_or_default();
        let containers = deployment.map(|found| &found["spec"]["template"]["spec"]["containers"]);
        let arguments = containers.and_then(Value::as_array).into_iter().flatten();
        let arguments = arguments.filter_map(|one| one["args"].as_array()).flatten();
        for argument in arguments.filter_map(Value::as_str) {
            for (option, mark) in [("--cluster=", CLUSTER), ("--controller=", CONTROLLER)] {
                if let Some(value) = argument.strip_prefix(option) {
                    marks.entry(mark.to_owned()).or_insert_with(|| value.to_owned());
                }
            }
        }
        let ready = |found: &Value| found["status"]["availableReplicas"].as_u64().is_some_and(|n| n > 0);
        Self { marks, agent: deployment.map(ready) }
    }

    /// Why it is not the cluster of this manifest, where it is not. What is not said there says nothing.
    pub(super) fn another(&self, documents: &[Document]) -> Option<String> {
        let namespace = documents.iter().find(|one| one.kind == "Namespace");
        self.differs(&namespace.map(|one| written(&one.value)).unwrap_or_default())
    }

    fn differs(&self, ours: &Marks) -> Option<String> {
        let differs =
            |mark: &&&str| self.marks.get(**mark).is_some_and(|found| ours.get(**mark) != Some(found));
        let mark = MARKS.iter().find(differs)?;
        let what = mark.rsplit('/').next().unwrap_or_default();
        let (found, wanted) = (
            self.marks.get(*mark).cloned().unwrap_or_default(),
            ours.get(*mark).cloned().unwrap_or_default(),
        );
        Some(format!(
            "the cluster there joined with the {what} {found}, not {wanted}; is it the right --context? (Where the {what} was given another name: \
             kubectl annotate --overwrite namespace {NAMESPACE} {mark}={wanted})"
        ))
    }

    /// Why it is not the cluster of this name, where that is connected: its agent runs, and not there.
    #[must_use]
    pub fn astray(&self, name: &ClusterName, state: &str) -> Option<String> {
        (state == "connected" && self.is_empty()).then(|| {
            format!(
                "{name} is connected, and nothing of Tombolo is in the cluster there; is it the right --context? Nothing was changed. (Where {name} \
                 is to be another cluster from now on: `tombolo cluster uninstall {name}` with the --context where it is, or `tombolo cluster \
                 remove {name}`, and then join)"
            )
        })
    }
}

/// The marks that are written on a namespace.
fn written(namespace: &Value) -> Marks {
    let annotations = namespace["metadata"]["annotations"].as_object();
    let text = |(key, value): (&String, &Value)| {
        MARKS.contains(&key.as_str()).then(|| Some((key.clone(), value.as_str()?.to_owned())))?
    };
    annotations.into_iter().flatten().filter_map(text).collect()
}

impl Cluster {
    /// What of ours is there.
    ///
    /// # Errors
    /// The API server said no, or did not answer.
    pub(super) async fn there(&self) -> Result<There> {
        let namespaces = self.api(&resource("v1", "Namespace", "namespaces"), None);
        let deployments = self.api(&resource("apps/v1", "Deployment", "deployments"), Some(NAMESPACE));
        let namespace = namespaces.get_opt(NAMESPACE).await.context("ask the API server")?;
        let deployment = deployments.get_opt("tombolo-agent").await.context("ask the API server")?;
        let [namespace, deployment] = [namespace, deployment].map(|found| {
            found.map(|found| serde_json::to_value(found).context("read what the API server has")).transpose()
        });
        Ok(There::read(namespace?.as_ref(), deployment?.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn marks(organization: &str, cluster: &str, controller: &str) -> Marks {
        [("organization", organization), ("cluster", cluster), ("controller", controller)]
            .map(|(mark, value)| (format!("tombolo.io/{mark}"), value.to_owned()))
            .into()
    }

    fn deployment(args: &[&str], available: u64) -> Value {
        json!({ "spec": { "template": { "spec": { "containers": [{ "args": args }] } } },
                "status": { "availableReplicas": available } })
    }

    #[test]
    fn a_cluster_of_the_same_name_may_be_anothers() {
        let ours = marks("acme", "east", "https://c.example.com:8443");
        let differs = |marks: Marks| There { marks, agent: None }.differs(&ours);
        assert_eq!(differs(ours.clone()), None);
        assert_eq!(differs(Marks::new()), None, "nobody joined it");
        for (there, part) in [
            (marks("globex", "east", "https://c.example.com:8443"), "the organization globex, not acme"),
            (marks("acme", "west", "https://c.example.com:8443"), "the cluster west, not east"),
            (
                marks("acme", "east", "https://other.example.com"),
                "the controller https://other.example.com, not",
            ),
        ] {
            let why = differs(there).expect("it is another one");
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn an_agent_says_whose_it_is_where_its_namespace_does_not() {
        let ours = marks("acme", "east", "https://c.example.com:8443");
        let args = ["run", "--cluster=west", "--controller=https://c.example.com:8443"];
        let found = There::read(
            Some(&json!({ "metadata": { "name": "tombolo-system" } })),
            Some(&deployment(&args, 0)),
        );
        assert!(found.differs(&ours).is_some_and(|why| why.contains("the cluster west, not east")));
        assert!(!found.is_empty() && !found.is_ready());
        let namespace = json!({ "metadata": { "annotations": { CLUSTER: "east", "example.com/x": "y" } } });
        let found = There::read(Some(&namespace), Some(&deployment(&args, 1)));
        assert_eq!(found.differs(&ours), None, "the namespace has the last word");
        assert!(found.is_ready());
    }

    #[test]
    fn where_nothing_is_no_connected_cluster_is() {
        let east: ClusterName = "east".parse().unwrap();
        // a namespace that somebody made, with what others wrote on it
        let namespace = json!({ "metadata": { "annotations": { "example.com/x": "y" } } });
        for empty in [There::default(), There::read(Some(&namespace), None)] {
            assert!(empty.is_empty());
            let why = empty.astray(&east, "connected").expect("it is somewhere else");
            assert!(why.contains("--context") && why.contains("Nothing was changed"), "{why}");
            for state in ["pending", "disconnected", "revoked"] {
                assert_eq!(empty.astray(&east, state), None, "{state}");
            }
        }
        let found = There::read(None, Some(&deployment(&[], 0)));
        assert_eq!(found.astray(&east, "connected"), None);
    }
}
