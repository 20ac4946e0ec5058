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
        let (owner, controller) = (dir.path().join("owner-token"), serve(dir.path(), 0).await);
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

    /// The controller ends, and nothing takes its place until `back`.
    pub(crate) async fn away(&mut self) {
        assert!(self.controller.stop(SOON).await.success(), "the controller ends well");
    }

    /// The controller is there again, where it was.
    pub(crate) async fn back(&mut self) {
        let port = self.controller.address("api").port();
        self.controller = serve(self.dir.path(), port).await;
    }

    /// What only time does otherwise, done in the controller's own database.
    pub(crate) async fn sql(&self, sql: &str) -> String {
        let mut command = Command::new("psql");
        command.args([
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "tombolo",
            "-d",
            "tombolo",
            "-c",
            sql,
        ]);
        command.arg("-h").arg(self.path("controller/postgres/run"));
        said(command, "").await.unwrap_or_else(|error| panic!("{sql}: {error}"))
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
        let kubeconfig = cluster.kubeconfig.display().to_string();
        self.shell(&kubeconfig, line, input).await.map_err(|error| format!("{}: {error}", cluster.name))
    }

    /// Lines of a shell in a folder of this world, with these kubeconfigs (`a:b`).
    pub(crate) async fn shell(&self, kubeconfig: &str, lines: &str, input: &str) -> Result<String, String> {
        let programs = binary("tombolo").parent().expect("a folder").to_owned();
        let kubectl = lab::programs();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", lines]).current_dir(self.dir.path());
        command.env("PATH", format!("{}:{}:{path}", programs.display(), kubectl.display()));
        command.env("KUBECONFIG", kubeconfig).env("TOMBOLO_CONFIG", self.config());
        said(command, input).await.map_err(|error| format!("{lines}: {error}"))
    }
}

/// A controller that keeps its data in this folder.
async fn serve(dir: &Path, port: u16) -> Program {
    let machine = std::env::var("TOMBOLO_MACHINE").unwrap_or_else(|_| lab::machine());
    let ready = dir.join("controller.json");
    let mut command = std::process::Command::new(binary("tombolo-controller"));
    command.args(["serve", "--listen", &format!("{machine}:{port}"), "--tls-name", &machine]);
    command.args(["--image-registry", "localhost", "--image-version", "dev"]);
    command.arg("--data").arg(dir.join("controller"));
    command.arg("--owner-token-file").arg(dir.join("owner-token")).arg("--ready-file").arg(&ready);
    Program::start("controller", command, &ready, SOON).await
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
