//! A pod that calls until it is told to stop, and counts. It needs no API server meanwhile.

#![expect(clippy::print_stdout, reason = "what is measured is for people to see")]

use crate::{lab::Cluster, onboard::SHOP, world::SOON};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tombolo_testkit::wait::{until, until_ok};

const POD: &str = "load";
/// The pods of those whose requests take long, and of those that keep their connections, beside the other one.
const SLOW: &str = "slow";
const KEPT: &str = "kept";
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

    /// That there were many, and all that began after a time were answered.
    pub(crate) fn assert_answered_after(&self, time: SystemTime) {
        assert!(self.requests > 50, "too few to say anything: {}", self.said);
        let time = time.duration_since(UNIX_EPOCH).expect("a time").as_millis();
        let failures: Vec<&Value> = self.said["failures"].as_array().into_iter().flatten().collect();
        let after =
            failures.iter().filter(|one| one["began_ms"].as_u64().is_none_or(|ms| u128::from(ms) > time));
        assert_eq!(after.count(), 0, "some failed that began after {time}: {}", self.said);
        println!("{} requests, {} failed", self.requests, self.failed);
    }

    /// That there were many, and that of those which were under way at a time, no more than one of each client, some may have failed: the bytes
    /// that a killed gateway had taken are nobody's any more. What began after it has not.
    pub(crate) fn assert_none_failed_after(&self, time: SystemTime) {
        self.assert_answered_after(time);
        assert!(self.failed <= CLIENTS, "more failed than were under way: {}", self.said);
    }
}

/// Now, by the clock that pods have, too.
#[expect(clippy::disallowed_methods, reason = "it is compared with what another program wrote down")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// How connections fared that are kept open, with a request on each now and then. Nobody tried anything again.
#[derive(Debug)]
pub(crate) struct Kept(Value);

impl Kept {
    /// New connections were always taken, and their first requests answered. Of those that are kept, some ended, as those of a gateway that ends do;
    /// not before it had its time; and no request was cut, but for one that met the end of its connection.
    pub(crate) fn assert_ended_in_order(&self, at_least: Duration) {
        let count = |what: &str| self.0[what].as_u64().unwrap_or_else(|| panic!("no {what}: {}", self.0));
        println!("connections that were kept: {}", self.0);
        assert!(count("requests") > 100, "too few to say anything: {}", self.0);
        assert_eq!(count("refused"), 0, "{}", self.0);
        assert!(count("closed") > 0, "none ended in order between two requests: {}", self.0);
        assert!(count("lost") <= 1, "{}", self.0);
        let shortest = self.0["shortest_ms"].as_f64().expect("a time");
        assert!(shortest >= at_least.as_secs_f64() * 1000.0, "one ended too soon: {}", self.0);
    }
}

/// It runs.
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    pod: &'static str,
    url: String,
}

impl<'a> Load<'a> {
    /// Four clients in a pod of this cluster, each with a new connection for each request, so that each is a choice of gateways. Some thirty calls
    /// a second: more would leave nothing of a small machine for what is to be seen. A hundred at least, however soon it is told to stop.
    pub(crate) async fn start(cluster: &'a Cluster, url: &str) -> Self {
        Self::with(cluster, POD, &["load", "-least", "100", "-pause", "100ms", "-fresh", url]).await
    }

    /// Four clients that do not pause, beside another load: whoever is asked has all hands full.
    pub(crate) async fn without_pause(cluster: &'a Cluster, url: &str) -> Self {
        Self::with(cluster, SLOW, &["load", "-timeout", "60s", url]).await
    }

    /// Four clients with a new connection for each request, each of which takes so long: what was under way, nobody tries again.
    pub(crate) async fn of_slow_requests(cluster: &'a Cluster, url: &str, takes: Duration) -> Self {
        let url = format!("{url}?wait={}s", takes.as_secs());
        Self::with(cluster, SLOW, &["load", "-timeout", "60s", "-fresh", &url]).await
    }

    /// Four connections that are kept open, beside another load; to be ended by `kept`.
    pub(crate) async fn of_kept_connections(cluster: &'a Cluster, url: &str) -> Self {
        Self::with(cluster, KEPT, &["keep", "-pause", "2s", url]).await
    }

    /// Four clients that keep their connections, and whose requests take two seconds each: some are always under way.
    pub(crate) async fn of_long_requests(cluster: &'a Cluster, url: &str) -> Self {
        Self::with(cluster, POD, &["load", "-timeout", "30s", &format!("{url}?wait=2s")]).await
    }

    /// A command of the tools, which takes how long and how many at once.
    async fn with(cluster: &'a Cluster, name: &'static str, command: &[&str]) -> Self {
        let clients = CLIENTS.to_string();
        let (program, options) = command.split_first().expect("a command");
        let args = [&[*program, "-for", "1h", "-clients", &clients], options].concat();
        let url = options.last().copied().unwrap_or_default();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": SHOP },
            "spec": {
                "restartPolicy": "Never", "nodeName": cluster.node(1),
                "containers": [{ "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never", "args": args }],
            },
        });
        let load = Self { cluster, pod: name, url: url.to_owned() };
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
        self.cluster.kubectl(&["-n", SHOP, "get", "pod", self.pod, "-o", &path]).await
    }

    /// Ends it, and counts.
    pub(crate) async fn stop(self) -> Counts {
        let said = self.end().await;
        let count =
            |what: &str| said[what].as_u64().unwrap_or_else(|| panic!("{}: no {what}: {said}", self.url));
        let max_ms = said["max_ms"].as_f64().expect("a time");
        Counts { requests: count("requests"), failed: count("failed"), max_ms, said }
    }

    /// Ends those that keep their connections.
    pub(crate) async fn kept(self) -> Kept {
        Kept(self.end().await)
    }

    async fn end(&self) -> Value {
        assert_eq!(self.field(".status.phase").await, Ok("Running".into()), "it called all the while");
        let id = self.field(".status.containerStatuses[0].containerID").await.expect("a container");
        let id = id.trim_start_matches("containerd://");
        let kill = ["ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGTERM", id];
        self.cluster.node_exec(1, &kill).await.expect("told to stop");
        let phase = || self.field(".status.phase");
        let _ = until("it ends", SOON, phase, |phase| *phase == Ok("Succeeded".into())).await;
        let logs = ["-n", SHOP, "logs", self.pod];
        let said = until_ok("its counts", SOON, || self.cluster.kubectl(&logs)).await;
        let delete = ["-n", SHOP, "delete", "pod", self.pod, "--timeout=120s"];
        self.cluster.kubectl(&delete).await.expect("it goes");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}
