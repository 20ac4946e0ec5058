//! A sidecar as its unit runs it: as a user of its own, with those capabilities and no others, beside applications of other users.

use crate::install;
use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
    time::Duration,
};
use tombolo_model::{
    GatewayRole, Locality, SpiffeId,
    inventory::{PortSpec, Protocol},
    snapshot::{GatewayResource, RouteSpec, SelfSpec, WorkloadSelector, WorkloadSpec},
};
use tombolo_testkit::{agent::Agent, ca::Organization, process::Program, wait::until};

const SOON: Duration = Duration::from_secs(30);
/// The sidecar's user: nobody.
const OWN: u32 = 65_534;

/// The capabilities that systemd would give to a gateway of this role, as setpriv names them.
fn capabilities(units: &Path, role: GatewayRole) -> BTreeSet<String> {
    let mut files = vec![units.join("tombolo-gateway@.service")];
    let more = fs::read_dir(units.join(format!("tombolo-gateway@{role}.service.d"))).into_iter().flatten();
    files.extend(more.map(|entry| entry.unwrap().path()));
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let of = |key: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(key));
        lines
            .flat_map(str::split_whitespace)
            .map(|cap| cap.trim_start_matches("CAP_").to_lowercase())
            .collect()
    };
    let ambient = of("AmbientCapabilities=");
    assert_eq!(ambient, of("CapabilityBoundingSet="), "{role}");
    ambient
}

/// What the sidecar is told: one name, and who this test is.
fn resources(organization: &Organization, me: &SpiffeId, name: SocketAddr) -> Vec<GatewayResource> {
    let itself = SelfSpec {
        cluster: me.cluster.clone(),
        trust_domain: me.trust_domain.clone(),
        locality: Locality::default(),
    };
    let port = PortSpec { port: name.port(), protocol: Protocol::Tcp, name: None, app_protocol: None };
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let selectors = [WorkloadSelector::Uid(nix::unistd::geteuid().as_raw()), WorkloadSelector::Path(exe)];
    vec![
        GatewayResource::Itself(itself.into()),
        GatewayResource::Bundle(organization.bundle_spec().into()),
        GatewayResource::Route(
            RouteSpec {
                name: "catalog.acme.example.com".parse().unwrap(),
                addresses: [name.ip()].into(),
                ports: vec![port].into(),
                captured_at: Default::default(),
                targets: Vec::new(),
            }
            .into(),
        ),
        GatewayResource::Gateways { egress: Default::default() },
        GatewayResource::Workload(WorkloadSpec { identity: me.clone(), selectors: selectors.into() }.into()),
    ]
}

#[test]
fn gateways_that_others_reach_look_into_nobodys_processes() {
    let below = tempfile::tempdir().unwrap();
    let (installed, said) = install(below.path());
    assert!(installed, "{said}");
    let units = below.path().join("etc/systemd/system");
    for role in [GatewayRole::Egress, GatewayRole::Ingress] {
        assert_eq!(capabilities(&units, role), BTreeSet::from(["net_bind_service".to_owned()]), "{role}");
    }
}

#[tokio::test]
async fn a_sidecar_with_its_units_capabilities_knows_the_program_of_another_user() {
    let below = tempfile::tempdir().unwrap();
    let (installed, said) = install(below.path());
    assert!(installed, "{said}");
    let run = below.path().join("run");
    fs::create_dir(&run).unwrap();
    chown(&run, Some(OWN), Some(OWN)).expect("this test is run as root");
    fs::set_permissions(below.path(), PermissionsExt::from_mode(0o711)).unwrap();

    let mut organization = Organization::new("acme.test");
    let agent = Agent::new(organization.join("c1"));
    let me = agent.cluster().workload("default", "shopping");
    let name = TcpListener::bind("127.83.1.1:0").unwrap().local_addr().unwrap();
    agent.publish(1, resources(&organization, &me, name));
    let socket = run.join("agent.sock");
    let _listening = agent.listen(&socket);
    fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();

    let caps = capabilities(&below.path().join("etc/systemd/system"), GatewayRole::Sidecar);
    let caps: String = caps.iter().map(|cap| format!(",+{cap}")).collect();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &OWN.to_string(),
        "--regid",
        &OWN.to_string(),
        "--clear-groups",
        "--no-new-privs",
    ]);
    for set in ["--bounding-set", "--inh-caps", "--ambient-caps"] {
        command.arg(set).arg(format!("-all{caps}"));
    }
    command.arg(below.path().join("opt/tombolo/bin/tombolo-gateway"));
    command.args(["run", "--role", "sidecar", "--capture", "explicit", "--tunnel", "127.0.0.1:0"]);
    let (log, ready) = (run.join("access.log"), run.join("ready.json"));
    command.arg("--agent-socket").arg(&socket).arg("--access-log").arg(&log).arg("--ready-file").arg(&ready);
    let _sidecar = Program::start("sidecar", command, &ready, SOON).await;

    // There is no egress gateway, so the call is refused; by then it is known whose it was.
    let call = move || {
        let mut caller = TcpStream::connect(name).unwrap();
        caller.set_read_timeout(Some(SOON)).unwrap();
        caller.read(&mut [0])
    };
    let answered = tokio::task::spawn_blocking(call).await.unwrap();
    assert!(!matches!(answered, Ok(1..)), "{answered:?}");
    let line = || std::future::ready(fs::read_to_string(&log).unwrap_or_default());
    let line = until("the call in the access log", SOON, line, |text| text.ends_with('\n')).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["source"], me.to_string(), "{line:#}");
}
