//! A controller on this machine, and the command line, as a person has them who makes clusters join.

use crate::lab::{self, Cluster};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, process::Command};
use tombolo_testkit::process::{Program, binary};

/// A pod is ready in seconds; on a machine that does other things, in more.
pub(crate) const SOON: Duration = Duration::from_secs(240);

/// A controller, and who is logged in there.
pub(crate) struct World {
    pub(crate) controller: Program,
    dir: tempfile::TempDir,
}

impl World {
    /// A controller with the organization `acme`, and a command line that is logged in to it.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("tombolo-clusters-").tempdir().expect("a folder");
        // As root, PostgreSQL runs as another user and must get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("permissions");
        let machine = std::env::var("TOMBOLO_MACHINE").unwrap_or_else(|_| lab::machine());
        let (ready, owner) = (dir.path().join("controller.json"), dir.path().join("owner-token"));
        let mut command = std::process::Command::new(binary("tombolo-controller"));
        command.args(["serve", "--listen", &format!("{machine}:0"), "--tls-name", &machine]);
        command.args(["--image-registry", "localhost", "--image-version", "dev"]);
        command.arg("--data").arg(dir.path().join("controller"));
        command.arg("--owner-token-file").arg(&owner).arg("--ready-file").arg(&ready);
        let controller = Program::start("controller", command, &ready, SOON).await;
        let world = Self { controller, dir };
        let fingerprint =
            world.controller.ready()["ca_fingerprint"].as_str().expect("a fingerprint").to_owned();
        let server = format!("https://{}", world.controller.address("api"));
        let log_in = |token: PathBuf| {
            let token = token.display().to_string();
            vec![
                "login".to_owned(),
                format!("--server={server}"),
                format!("--ca-fingerprint={fingerprint}"),
                format!("--token-file={token}"),
            ]
        };
        world.run(&log_in(owner)).await.expect("logged in as the owner");
        let admin = world.path("admin-token");
        let create = ["org", "create", "acme", "--admin-token-file", &admin.display().to_string()];
        world.tombolo(&create).await.expect("an organization");
        world.run(&log_in(admin)).await.expect("logged in");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("config.yaml")
    }

    /// `tombolo` with these arguments: what it prints, or what it complains of.
    pub(crate) async fn tombolo(&self, args: &[&str]) -> Result<String, String> {
        self.run(&args.iter().map(ToString::to_string).collect::<Vec<_>>()).await
    }

    async fn run(&self, args: &[String]) -> Result<String, String> {
        let mut command = Command::new(binary("tombolo"));
        command.args(args).env("TOMBOLO_CONFIG", self.config());
        said(command, "").await.map_err(|error| format!("tombolo {}: {error}", args.join(" ")))
    }

    /// A line of a shell, as a person pastes it, in a terminal whose kubectl speaks to this cluster.
    pub(crate) async fn paste(&self, cluster: &Cluster, line: &str, input: &str) -> Result<String, String> {
        let programs = binary("tombolo").parent().expect("a folder").to_owned();
        let kubectl = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.run/kubernetes/bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", line]);
        command.env("PATH", format!("{}:{}:{path}", programs.display(), kubectl.display()));
        command.env("KUBECONFIG", &cluster.kubeconfig).env("TOMBOLO_CONFIG", self.config());
        said(command, input).await.map_err(|error| format!("{}: {line}: {error}", cluster.name))
    }
}

/// Runs a command to its end; gives what it printed, or what it complained of.
pub(crate) async fn said(mut command: Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(mut pipe) = child.stdin.take() {
        // one that does not read has ended already, and says why
        let _ = pipe.write_all(input.as_bytes()).await;
    }
    let said = child.wait_with_output().await.map_err(|error| error.to_string())?;
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    if said.status.success() { Ok(out.into_owned()) } else { Err(format!("{}: {out}{err}", said.status)) }
}
