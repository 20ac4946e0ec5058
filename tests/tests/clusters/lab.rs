//! The clusters under test: those of `tests/kubernetes` on this machine, made where they are missing, or those that `TOMBOLO_KUBECONFIGS`
//! names (`a.yaml:b.yaml`). All tests of this target share them, one after the other, and they stay up; `make test-clusters` takes down
//! what it made.

use crate::pair::Pair;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    sync::{Mutex, MutexGuard},
};

/// Whose turn it is.
pub(crate) type Turn = MutexGuard<'static, ()>;

/// Tests make faults that others would see, so they take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// The variable that names kubeconfigs of clusters to use instead.
const GIVEN: &str = "TOMBOLO_KUBECONFIGS";

pub(crate) fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in a checkout")
}

/// The slot of the clusters, of which each has its own networks and names.
pub(crate) fn slot() -> u8 {
    let file = checkout().join(".run/kubernetes/slot");
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Is there while a test has something in the clusters, and once one failed and left it.
fn litter() -> PathBuf {
    checkout().join(".run/kubernetes/littered")
}

/// Something is made that has to go before the clusters are as they were; one that can't note it is found by the test that comes next.
pub(crate) fn littered() {
    let _ = std::fs::write(litter(), "");
}

/// All that was made is gone.
pub(crate) fn tidied() {
    let _ = std::fs::remove_file(litter());
}

/// The address of this machine for nodes and pods of its clusters.
pub(crate) fn machine() -> String {
    format!("172.{}.0.2", 31 - slot())
}

/// Runs a command to its end; gives what it printed, or what it complained of.
async fn run(mut command: Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    // Its input ends here, even when it does not read it.
    if let Some(mut pipe) = child.stdin.take() {
        let _ = pipe.write_all(input.as_bytes()).await;
    }
    let said = child.wait_with_output().await.map_err(|error| error.to_string())?;
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    if said.status.success() { Ok(out.into_owned()) } else { Err(format!("{}: {out}{err}", said.status)) }
}

/// A script of `tests/kubernetes`.
async fn script<A: AsRef<OsStr>>(name: &str, args: &[A]) -> Result<String, String> {
    script_with(name, args, &[]).await
}

async fn script_with<A: AsRef<OsStr>>(
    name: &str,
    args: &[A],
    options: &[(String, String)],
) -> Result<String, String> {
    let mut command = Command::new(checkout().join("tests/kubernetes").join(name));
    command.args(args).envs(options.iter().cloned());
    run(command, "").await.map_err(|error| format!("tests/kubernetes/{name}: {error}"))
}

/// A process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "each test uses those it needs")]
pub(crate) enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Containerd,
    Kubelet,
    Proxy,
}

impl Component {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }
}

/// What befalls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// It is killed and stays down.
    Stop,
    /// It comes back.
    Start,
    /// It is killed, and comes back by itself.
    Kill,
    /// It says nothing any more.
    Freeze,
    /// It goes on.
    Thaw,
}

impl Act {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }
}

/// A cluster.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// `c1` and so on; also those given.
    pub(crate) name: String,
    pub(crate) kubeconfig: PathBuf,
    given: bool,
}

impl Cluster {
    /// A client that may everything. A client belongs to the runtime that it is made in, so each test makes its own.
    pub(crate) async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(file, &options).await.expect("a config");
        Client::try_from(config).expect("a client")
    }

    /// `kubectl` with these arguments and this input.
    pub(crate) async fn kubectl_with<A: AsRef<OsStr>>(
        &self,
        args: &[A],
        input: &str,
    ) -> Result<String, String> {
        let ours = checkout().join(".run/kubernetes/bin/kubectl");
        let mut command = Command::new(if ours.exists() { ours } else { PathBuf::from("kubectl") });
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        run(command, input).await.map_err(|error| format!("{}: kubectl: {error}", self.name))
    }

    /// `kubectl` with these arguments: what it prints, or what it complains of.
    pub(crate) async fn kubectl<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<String, String> {
        self.kubectl_with(args, "").await
    }

    /// Applies manifests, YAML or JSON.
    pub(crate) async fn apply(&self, manifests: &str) -> Result<String, String> {
        self.kubectl_with(&["apply", "-f", "-"], manifests).await
    }

    /// Runs a command in a pod, named as `pod/name` or `deploy/name`.
    pub(crate) async fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String, String> {
        self.kubectl(&[&["-n", namespace, "exec", pod, "--"], command].concat()).await
    }

    /// The name of node `number`, from 1.
    pub(crate) fn node(&self, number: usize) -> String {
        format!("{}n{number}", self.name)
    }

    /// The address of node `number`, from 1, which is what other clusters reach.
    pub(crate) async fn node_address(&self, number: usize) -> Result<String, String> {
        let path = r#"jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}"#;
        let all = self.kubectl(&["get", "nodes", "-o", path]).await?;
        let found = all.split_whitespace().nth(number - 1).map(str::to_owned);
        found.ok_or_else(|| format!("{} has no node {number}", self.name))
    }

    fn ours(&self) -> Result<(), String> {
        let refusal = || format!("{} was given by {GIVEN}: its machines are not ours to handle", self.name);
        if self.given { Err(refusal()) } else { Ok(()) }
    }

    /// Runs a command on node `number`, in all its namespaces.
    pub(crate) async fn node_exec(&self, number: usize, command: &[&str]) -> Result<String, String> {
        self.ours()?;
        script("node", &[&[self.node(number).as_str()], command].concat()).await
    }

    /// Stops, starts or kills a process of the first node.
    pub(crate) async fn service(&self, act: Act, component: Component) -> Result<(), String> {
        self.ours()?;
        script("svc", &[self.node(1).as_str(), act.as_str(), component.as_str()]).await.map(drop)
    }

    /// Builds images where they are out of date and imports them on every node of this cluster.
    pub(crate) async fn load(&self, images: &[&str]) -> Result<(), String> {
        self.ours()?;
        script("images", images).await?;
        let nodes = self.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).await?;
        let nodes: Vec<&str> = nodes.split_whitespace().collect();
        for image in images {
            script("load", &[&[*image], nodes.as_slice()].concat()).await?;
        }
        Ok(())
    }

    /// Brings up node `number`, where the nodes before it are up.
    pub(crate) async fn add_node(&self, number: usize) -> Result<(), String> {
        self.ours()?;
        let count = &self.name[1..];
        script_with("up", &[count], &[(format!("NODES_{count}"), number.to_string())]).await.map(drop)
    }

    /// Takes down the last node and forgets it.
    pub(crate) async fn remove_node(&self, number: usize) -> Result<(), String> {
        self.ours()?;
        script("down", &[self.node(number)]).await.map(drop)
    }

    /// Gives a LoadBalancer service (`namespace/name`) this address or host name, as a cloud's controller would.
    pub(crate) async fn give(&self, service: &str, address: &str) -> Result<(), String> {
        self.ours()?;
        script("lb", &[&self.name, service, address]).await.map(drop)
    }

    /// Gives every pending LoadBalancer service the address of the first node.
    pub(crate) async fn balance(&self) -> Result<(), String> {
        self.ours()?;
        script("lb", &[&self.name]).await.map(drop)
    }
}

/// Clusters, and the network between them.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) clusters: Vec<Cluster>,
    given: bool,
    _turn: Turn,
}

impl Lab {
    /// At least `count` clusters, for this test alone until this value is dropped. What runs is left as it is; what is missing is
    /// brought up; after a test that failed, all are made anew.
    ///
    /// # Panics
    /// When they can't be had, with what the scripts say, or when fewer are given.
    pub(crate) async fn up(count: usize) -> Self {
        loop {
            let turn = Self::turn().await;
            if !Pair::is_parked() {
                return Self::up_in(turn, count).await;
            }
            Pair::unparked(turn).await.down().await;
        }
    }

    /// Before anything of a test that handles machines: it can't run on given clusters, and must not count as passed there.
    ///
    /// # Panics
    /// Where clusters are given.
    pub(crate) fn machines() {
        let given = std::env::var_os(GIVEN).is_some_and(|paths| !paths.is_empty());
        assert!(
            !given,
            "{GIVEN} is set, and this test handles machines: leave it out, as scripts/test-clusters does"
        );
    }

    /// Clusters that are made anew with options of `tests/kubernetes/up`, for this test alone, which ends with `usual_again`.
    ///
    /// # Panics
    /// Where clusters are given, and when these can't be had.
    pub(crate) async fn anew(count: usize, options: &[(&str, &str)]) -> Self {
        Self::machines();
        let mut lab = Self::up(1).await;
        // until they are made as ever, nobody else can use them
        littered();
        script::<&str>("down", &[]).await.expect("the clusters go down");
        let options: Vec<_> =
            options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        script_with("up", &[count.to_string()], &options).await.expect("the clusters come up");
        lab.clusters = Self::of(count);
        lab
    }

    /// The clusters are made anew, without options.
    pub(crate) async fn usual_again(self) {
        script::<&str>("down", &[]).await.expect("the clusters go down");
        script("up", &[self.clusters.len().to_string()]).await.expect("the clusters come up");
        tidied();
    }

    /// The clusters of this machine.
    fn of(count: usize) -> Vec<Cluster> {
        let folder = checkout().join(".run/kubernetes/kubeconfigs");
        let cluster = |number| {
            let name = format!("c{number}");
            Cluster { kubeconfig: folder.join(format!("{name}.yaml")), name, given: false }
        };
        (1..=count).map(cluster).collect()
    }

    /// Waits until no other test has the clusters.
    pub(crate) async fn turn() -> Turn {
        TURN.lock().await
    }

    /// As `up`, in one's turn; what is parked in them stays.
    pub(crate) async fn up_in(turn: Turn, count: usize) -> Self {
        if let Some(paths) = std::env::var_os(GIVEN).filter(|paths| !paths.is_empty()) {
            let mut clusters: Vec<_> = std::env::split_paths(&paths)
                .zip(1..)
                .map(|(kubeconfig, number)| Cluster { name: format!("c{number}"), kubeconfig, given: true })
                .collect();
            assert!(clusters.len() >= count, "{GIVEN} names {} clusters, this needs {count}", clusters.len());
            clusters.truncate(count);
            return Self { clusters, given: true, _turn: turn };
        }
        if std::fs::remove_file(litter()).is_ok() {
            script::<&str>("down", &[]).await.expect("the clusters go down");
        }
        script("up", &[count.to_string()]).await.expect("the clusters come up");
        Self { clusters: Self::of(count), given: false, _turn: turn }
    }

    /// Whether the clusters are those of this machine, so that faults can be made.
    pub(crate) const fn is_ours(&self) -> bool {
        !self.given
    }

    /// Takes one cluster down; the others stay.
    pub(crate) async fn down(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.ours()?;
        script("down", &[&cluster.name]).await.map(drop)
    }

    /// Cuts all traffic between two clusters, until `heal`.
    pub(crate) async fn cut(&self, one: &Cluster, other: &Cluster) -> Result<(), String> {
        self.wan("cut", one, other).await
    }

    /// Ends a cut.
    pub(crate) async fn heal(&self, one: &Cluster, other: &Cluster) -> Result<(), String> {
        self.wan("heal", one, other).await
    }

    async fn wan(&self, what: &str, one: &Cluster, other: &Cluster) -> Result<(), String> {
        one.ours()?;
        other.ours()?;
        script("wan", &[what, &one.name[1..], &other.name[1..]]).await.map(drop)
    }

    /// Packets so far that left a cluster for an address which is no node's.
    pub(crate) async fn leaks(&self) -> Result<u64, String> {
        script("wan", &["leaks"]).await?.trim().parse().map_err(|error| format!("a count of leaks: {error}"))
    }
    /// The conformance suite of the Multi-Cluster Services API on the first two clusters: its counts, or what did not pass.
    pub(crate) async fn conformance(&self, args: &[&str]) -> Result<String, String> {
        script("mcs", args).await
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            littered();
        }
    }
}
