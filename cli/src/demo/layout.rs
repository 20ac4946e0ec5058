//! Where everything of a demo lies: its folder, its addresses on loopback, its services.

use super::shop::Role;
use crate::problem::CliError;
use anyhow::{Context as _, Result};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// The organization of the demo.
pub(crate) const ORGANIZATION: &str = "acme";
/// The domain of its global namespace.
pub(crate) const DOMAIN: &str = "acme.example.com";
/// The catalog, by its global name.
pub(crate) const CATALOG: &str = "catalog.acme.example.com:8082";

/// The services of the shop, and the cluster (1 or 2) that runs each.
pub(crate) fn services() -> impl Iterator<Item = (Role, u8)> {
    Role::ALL.into_iter().map(|role| (role, if role == Role::Catalog { 2 } else { 1 }))
}

/// The folder and the addresses of one demo.
#[derive(Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
    /// The machines are 127.<base>.<cluster>.1, the addresses of names in a cluster 127.<base + cluster>.0.0/16.
    base: u8,
}

impl Layout {
    /// A new folder, and loopback addresses that nothing else uses.
    pub(crate) fn new(dir: Option<&Path>) -> Result<Self> {
        let dir = dir.map_or_else(
            || std::env::temp_dir().join(format!("tombolo-demo-{}", std::process::id())),
            Path::to_owned,
        );
        if dir.as_os_str().len() > 60 {
            return Err(CliError::Usage(format!(
                "{} is too long: sockets in it would pass 107 bytes; choose a shorter --dir",
                dir.display()
            ))
            .into());
        }
        // Others may pass through (as root, PostgreSQL runs as another user) but not look.
        std::fs::DirBuilder::new()
            .mode(0o711)
            .create(&dir)
            .with_context(|| format!("make the folder {} (a new one)", dir.display()))?;
        let base = (100..=240).step_by(5).find(|base| free(*base));
        let base = base
            .ok_or_else(|| CliError::No("no free addresses on loopback; are other demos running?".into()))?;
        let layout = Self { dir, base };
        for folder in ["logs", "bin"] {
            std::fs::create_dir(layout.dir.join(folder)).context("make the demo's folders")?;
        }
        Ok(layout)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
    pub(crate) fn cluster_dir(&self, cluster: u8) -> PathBuf {
        self.dir.join(format!("cluster-{cluster}"))
    }

    /// The address of a cluster's machine.
    pub(crate) fn machine(&self, cluster: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.base, cluster, 1)
    }
    /// Where the names are found in a cluster (capture mode `explicit`).
    pub(crate) fn prefix(&self, cluster: u8) -> String {
        format!("127.{}.0.0/16", self.base + cluster)
    }
    /// Whether an address is one of a cluster's names.
    pub(crate) fn in_prefix(&self, cluster: u8, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(v4) if v4.octets()[..2] == [127, self.base + cluster])
    }
    /// Where a cluster's DNS is.
    pub(crate) fn dns(&self, cluster: u8) -> SocketAddr {
        (self.machine(cluster), 5353).into()
    }
    /// Where a cluster's ingress gateway is.
    pub(crate) fn ingress(&self, cluster: u8) -> SocketAddr {
        (self.machine(cluster), 15443).into()
    }
    /// The shop's page.
    pub(crate) fn page(&self) -> String {
        format!("http://{}:8080/", self.machine(1))
    }
    /// The executable of a service: the same program under the service's name.
    pub(crate) fn executable(&self, service: Role) -> PathBuf {
        self.dir.join("bin").join(service.as_str())
    }
    /// Where a service listens.
    pub(crate) fn listens(&self, service: Role, cluster: u8) -> SocketAddr {
        (self.machine(cluster), service.usual_port()).into()
    }

    /// Removes everything.
    pub(crate) fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

fn free(base: u8) -> bool {
    services().all(|(role, cluster)| {
        TcpListener::bind((Ipv4Addr::new(127, base, cluster, 1), role.usual_port())).is_ok()
    }) && (1..=2).all(|c| TcpListener::bind((Ipv4Addr::new(127, base, c, 1), 15443)).is_ok())
        && (1..=2).all(|c| TcpListener::bind((Ipv4Addr::new(127, base + c, 0, 1), 0)).is_ok())
}
