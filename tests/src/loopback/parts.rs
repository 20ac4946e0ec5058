//! The programs, each by its name: `controller`, `cluster-1-agent`, `cluster-2-ingress-b`.

use super::{SOON, USUAL_FILES};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tombolo_testkit::process::{Program, binary};

/// Where the programs live.
pub(super) struct Site {
    /// The second number of their addresses.
    pub(super) base: u8,
    pub(super) dir: tempfile::TempDir,
    pub(super) lives: Lives,
    /// Whether what is between the programs is in the hands of the test.
    pub(super) wires: bool,
    /// Where older programs are, which run until they are upgraded; and which were.
    pub(super) old: Option<(PathBuf, BTreeSet<String>)>,
    /// Programs whose clock is wrong: by how much, as faketime has it.
    pub(super) clocks: BTreeMap<String, &'static str>,
    /// The controllers' database; where there is none, each has its own.
    pub(super) database_url: Option<PathBuf>,
}

/// How long certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lives {
    /// As the programs have it.
    Usual,
    /// Those of workloads and gateways [`SHORT_LIFE`], and a root that was replaced a little longer.
    Short,
}

/// The life of a certificate in a world of [`Lives::Short`].
pub const SHORT_LIFE: Duration = Duration::from_secs(40);

impl Site {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn home(&self, cluster: u8) -> PathBuf {
        self.path(&format!("cluster-{cluster}"))
    }

    pub(super) const fn machine(&self, cluster: u8) -> Ipv4Addr {
        machine(self.base, cluster)
    }

    /// Starts a program, until it is ready.
    pub(super) async fn start(&self, name: &str) -> Program {
        let Some((cluster, part)) = name.strip_prefix("cluster-").and_then(|rest| rest.split_once('-'))
        else {
            return self.controller(name).await;
        };
        let cluster: u8 = cluster.parse().expect("the number of a cluster");
        let ready = self.path(&format!("{name}.json"));
        let mut command = match part {
            "agent" => self.agent(cluster, name),
            "dns" => self.dns(cluster, name),
            gateway => self.gateway(cluster, gateway, name),
        };
        command.arg("--ready-file").arg(&ready);
        self.set_clock(name, &mut command);
        Program::start(name, command, &ready, SOON).await
    }

    /// Which build of a program runs under this name.
    fn binary(&self, name: &str, program: &str) -> PathBuf {
        match &self.old {
            Some((folder, upgraded)) if !upgraded.contains(name) => folder.join(program),
            _ => binary(program),
        }
    }

    /// A program that is told another time than there is. How fast time goes by is as ever.
    fn set_clock(&self, name: &str, command: &mut Command) {
        let Some(off) = self.clocks.get(name) else { return };
        command.env("LD_PRELOAD", faketime()).env("FAKETIME", off);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    }

    async fn controller(&self, name: &str) -> Program {
        let ready = self.path(&format!("{name}.json"));
        let mut command = Command::new(self.binary(name, "tombolo-controller"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--allow-loopback-gateways").arg("--data").arg(self.path(name));
        command.arg("--owner-token-file").arg(self.path("owner-token")).arg("--ready-file").arg(&ready);
        if self.lives == Lives::Short {
            command.arg("--root-overlap").arg(format!("{}s", SHORT_LIFE.as_secs() + 5));
        }
        if let Some(url) = &self.database_url {
            command.arg("--database-url-file").arg(url).arg("--ca-key-file").arg(self.path("ca.key"));
        }
        self.set_clock(name, &mut command);
        Program::start(name, command, &ready, SOON).await
    }

    fn agent(&self, cluster: u8, name: &str) -> Command {
        let mut command = usual_limit(&self.binary(name, "tombolo-agent"));
        command.args(["run", "--admin", "127.0.0.1:0"]);
        for (option, name) in
            [("--data", "agent"), ("--manifests", "manifests"), ("--gateway-socket", SOCKET)]
        {
            command.arg(option).arg(self.home(cluster).join(name));
        }
        if self.lives == Lives::Short {
            command.arg("--leaf-life").arg(format!("{}s", SHORT_LIFE.as_secs()));
        }
        command.arg("--explicit-prefix").arg(format!("127.{}.0.0/16", self.base + cluster));
        command
    }

    fn dns(&self, cluster: u8, name: &str) -> Command {
        let mut command = Command::new(self.binary(name, "tombolo-agent"));
        command.args(["dns", "--dns-forward", "refuse", "--dns"]);
        command.arg(format!("{}:5353", self.machine(cluster)));
        command.arg("--data").arg(self.home(cluster).join("agent"));
        command
    }

    /// Where an ingress gateway takes tunnels, and where others are told that it does.
    pub(super) fn ingress(&self, cluster: u8, second: bool) -> [SocketAddr; 2] {
        let port = if second { PORTS[1] } else { PORTS[0] };
        let told = if self.wires { port + WIRED } else { port };
        [port, told].map(|port| (self.machine(cluster), port).into())
    }

    /// `name` is the role; a second gateway of the same role is called `<role>-b`.
    fn gateway(&self, cluster: u8, name: &str, whole_name: &str) -> Command {
        let (home, address) = (self.home(cluster), self.machine(cluster));
        let role = name.trim_end_matches("-b");
        let mut command = usual_limit(&self.binary(whole_name, "tombolo-gateway"));
        command.args(["run", "--role", role, "--admin", "127.0.0.1:0", "--instance", name]);
        let socket = if self.wires { WIRED_SOCKET } else { SOCKET };
        for (option, file) in [
            ("--agent-socket", socket.to_owned()),
            ("--access-log", format!("{name}-access.log")),
            ("--cache", format!("{name}.cache")),
        ] {
            command.arg(option).arg(home.join(file));
        }
        match role {
            "ingress" => {
                let [at, told] = self.ingress(cluster, name != role).map(|at| at.to_string());
                command.args(["--tunnel", &at, "--advertise", &told]);
            }
            "sidecar" => {
                command.args(["--tunnel", &format!("{address}:0"), "--capture", "explicit"]);
                command.args(["--serve", &address.to_string()]);
            }
            _ => {
                command.args(["--tunnel", &format!("{address}:0")]);
            }
        }
        command
    }
}

/// A program that begins with the limit of open files that a shell gives, not with the one that this process raised for itself.
fn usual_limit(program: &Path) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={USUAL_FILES}:")).arg(program);
    command
}

pub(super) const fn machine(base: u8, cluster: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, base, cluster, 1)
}

/// What a machine may be asked for: two ports of ingress gateways.
pub(super) const PORTS: [u16; 2] = [15443, 15444];
/// With wires: what is added to the port that others are told.
const WIRED: u16 = 10_000;
/// Where the agent takes its gateways' connections.
pub(super) const SOCKET: &str = "gateways.sock";
/// With wires: where the gateways dial.
pub(super) const WIRED_SOCKET: &str = "wire.sock";

/// The library that tells a program another time (the package libfaketime).
fn faketime() -> PathBuf {
    let libraries = ["x86_64-linux-gnu", "aarch64-linux-gnu"].into_iter();
    let mut paths = libraries.map(|at| Path::new("/usr/lib").join(at).join("faketime/libfaketimeMT.so.1"));
    paths.find(|path| path.exists()).expect("libfaketime (make deps-test)")
}

pub(super) fn manifests(home: &Path) -> PathBuf {
    home.join("manifests/all.yaml")
}
