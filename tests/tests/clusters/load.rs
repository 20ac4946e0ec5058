//! A pod that calls until it is told to stop, and counts. It needs no API server meanwhile.

use crate::{lab::Cluster, onboard::SHOP, world::SOON};
use serde_json::{Value, json};
use tombolo_testkit::wait::{until, until_ok};

const POD: &str = "load";
/// How many call at once.
const CLIENTS: u64 = 4;

/// What it counted.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// The slowest one, in milliseconds.
    pub(crate) max_ms: f64,
    /// All that it said, for whoever reads a failure.
    pub(crate) said: Value,
}

impl Counts {
    /// How many requests the servers of a cluster answered.
    pub(crate) fn of(&self, cluster: &Cluster) -> u64 {
        self.said["servers"][&cluster.name].as_u64().unwrap_or(0)
    }

    /// That there were many, and none failed.
    pub(crate) fn assert_none_failed(&self) {
        assert!(self.requests > 50, "too few to say anything: {}", self.said);
        assert_eq!(self.failed, 0, "{}", self.said);
    }

    /// That there were many, and no more failed than what a client had under way when a gateway was killed, and what it began before the
    /// other gateways had noticed: the bytes that the dead one had taken are nobody's any more.
    pub(crate) fn assert_no_new_one_failed(&self) {
        assert!(self.requests > 50, "too few to say anything: {}", self.said);
        assert!(self.failed <= 2 * CLIENTS, "more failed than were under way: {}", self.said);
    }
}

/// It runs.
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    url: String,
}

impl<'a> Load<'a> {
    /// Four clients in a pod of this cluster, each with a new connection for each request, so that each is a choice of gateways.
    pub(crate) async fn start(cluster: &'a Cluster, url: &str) -> Self {
        let clients = CLIENTS.to_string();
        let args = ["load", "-for", "1h", "-clients", &clients, "-pause", "20ms", "-fresh", url];
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": POD, "namespace": SHOP },
            "spec": {
                "restartPolicy": "Never", "nodeName": cluster.node(1),
                "containers": [{ "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never", "args": args }],
            },
        });
        let load = Self { cluster, url: url.to_owned() };
        cluster.apply(&pod.to_string()).await.expect("a pod");
        let _ = until(
            "calls are made",
            SOON,
            || load.field(".status.phase"),
            |phase| *phase == Ok("Running".into()),
        )
        .await;
        load
    }

    async fn field(&self, path: &str) -> Result<String, String> {
        let path = format!("jsonpath={{{path}}}");
        self.cluster.kubectl(&["-n", SHOP, "get", "pod", POD, "-o", &path]).await
    }

    /// Ends it, and counts.
    pub(crate) async fn stop(self) -> Counts {
        assert_eq!(self.field(".status.phase").await, Ok("Running".into()), "it called all the while");
        let id = self.field(".status.containerStatuses[0].containerID").await.expect("a container");
        let id = id.trim_start_matches("containerd://");
        let kill = ["ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGTERM", id];
        self.cluster.node_exec(1, &kill).await.expect("told to stop");
        let phase = || self.field(".status.phase");
        let _ = until("it ends", SOON, phase, |phase| *phase == Ok("Succeeded".into())).await;
        let said = until_ok("its counts", SOON, || self.cluster.kubectl(&["-n", SHOP, "logs", POD])).await;
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        self.cluster.kubectl(&["-n", SHOP, "delete", "pod", POD, "--timeout=120s"]).await.expect("it goes");
        let count =
            |what: &str| said[what].as_u64().unwrap_or_else(|| panic!("{}: no {what}: {said}", self.url));
        let max_ms = said["max_ms"].as_f64().expect("a time");
        Counts { requests: count("requests"), failed: count("failed"), max_ms, said }
    }
}
