//! How a cluster comes to be part of it: its record, its agent's joining, its programs, and what is between them.

use super::{
    disk::Disk,
    parts::{SOCKET, WIRED_SOCKET},
    wire::Wire,
    world::{Shape, World},
};
use std::fs;

impl World {
    pub(super) async fn onboard(&mut self, cluster: u8, shape: Shape) {
        let name = format!("cluster-{cluster}");
        let home = self.site.home(cluster);
        fs::create_dir_all(&home).unwrap();
        if self.site.wires {
            self.disks.push(Disk::mount(&home));
            self.wire_up(cluster).await;
        }
        fs::create_dir_all(home.join("manifests")).unwrap();
        self.admit(cluster).await;
        let mut parts = vec!["agent", "dns", "egress", "ingress", "sidecar"];
        match cluster {
            1 if shape == Shape::Twins => parts.push("egress-b"),
            2 if shape == Shape::Twins => parts.push("ingress-b"),
            _ => {}
        }
        for part in parts {
            self.restart(&format!("{name}-{part}")).await;
        }
    }

    /// The wires of a cluster: its agent's to the controller, its gateways' to the agent, others' to its ingress gateways.
    async fn wire_up(&mut self, cluster: u8) {
        let (site, home) = (&self.site, self.site.home(cluster));
        let balancer = self.balancer.as_ref().expect("a world with wires has two of each");
        let to_controller = Wire::tcp(([127, 0, 0, 1], 0).into(), balancer.address).await;
        let to_agent = Wire::unix(home.join(WIRED_SOCKET), home.join(SOCKET));
        self.wires.insert(format!("controller-{cluster}"), to_controller);
        self.wires.insert(format!("agent-{cluster}"), to_agent);
        for (name, second) in [("ingress", false), ("ingress-b", true)] {
            let [at, told] = site.ingress(cluster, second);
            self.wires.insert(format!("{name}-{cluster}"), Wire::tcp(told, at).await);
        }
    }

    /// A wire: `controller-1` is the one of cluster-1's agent to the controller, `agent-1` the one of its gateways to the agent, `ingress-2`
    /// and `ingress-b-2` those of other clusters to cluster-2's gateways.
    #[must_use]
    pub fn wire(&self, name: &str) -> &Wire {
        self.wires.get(name).unwrap_or_else(|| panic!("there is no wire {name}"))
    }
}
