//! What can be done to the world.

use std::fmt;

/// The programs of the nearer cluster that serves.
const NEAR: [&str; 5] =
    ["cluster-2-agent", "cluster-2-dns", "cluster-2-ingress", "cluster-2-ingress-b", "cluster-2-sidecar"];

/// Something that is done to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// These programs are killed (SIGKILL), and come back.
    Kill(&'static [&'static str]),
    /// This one hangs (SIGSTOP), and goes on.
    Hang(&'static str),
    /// This one is told to end (SIGTERM), and is started again.
    End(&'static str),
    /// PostgreSQL is killed, and comes back.
    Postgres,
    /// So many kills of controllers and PostgreSQL in a row, at random moments.
    Strikes(u64),
    /// A rotation of the root begins.
    Rotate,
    /// This cluster joins again while it is up: what vouched for it is out of trust, another one vouches.
    Join(u8),
    /// This cluster is removed, made again, and joins.
    Revoke(u8),
}

/// Where it hurts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    Control,
    Agents,
    Callers,
    Near,
    Far,
}

impl Fault {
    /// All gateways of the nearer cluster that answer calls.
    pub(super) const GATEWAYS: Self = Self::Kill(&["cluster-2-ingress", "cluster-2-ingress-b"]);
    /// The whole of the nearer cluster.
    pub(super) const CLUSTER: Self = Self::Kill(&NEAR);
    /// The only way into the far cluster.
    pub(super) const FAR: Self = Self::Kill(&["cluster-3-ingress"]);
    /// All of the controller.
    pub(super) const REPLICAS: Self = Self::Kill(&["controller", "controller-b"]);

    /// The programs that it ends.
    #[must_use]
    pub const fn ended(&self) -> &[&'static str] {
        match self {
            Self::Kill(names) => names,
            Self::End(name) => std::slice::from_ref(name),
            Self::Strikes(_) => &["controller", "controller-b"],
            _ => &[],
        }
    }

    fn regions(&self) -> Vec<Region> {
        let of = |name: &&str| match *name {
            name if name.starts_with("controller") => Region::Control,
            name if name.ends_with("-agent") => Region::Agents,
            name if name.starts_with("cluster-1-") => Region::Callers,
            name if name.starts_with("cluster-2-") => Region::Near,
            _ => Region::Far,
        };
        match self {
            Self::Kill(names) => names.iter().map(of).collect(),
            Self::Hang(name) | Self::End(name) => vec![of(name)],
            Self::Postgres => vec![Region::Control],
            Self::Strikes(_) | Self::Rotate | Self::Join(_) | Self::Revoke(_) => Vec::new(),
        }
    }

    /// Whether an agent is away meanwhile. Others of its cluster need it when they start, so it is mended first.
    #[must_use]
    pub fn hits_an_agent(&self) -> bool {
        self.regions().contains(&Region::Agents)
    }

    /// Whether it hits what answers in the nearer cluster.
    #[must_use]
    pub fn hits_near(&self) -> bool {
        matches!(self, Self::Join(2) | Self::Revoke(2)) || self.regions().contains(&Region::Near)
    }

    /// Whether the nearer cluster answers nothing.
    fn takes_near(&self) -> bool {
        match self {
            Self::Kill(names) => {
                names.contains(&"cluster-2-sidecar")
                    || names.len() > 1 && self.regions().contains(&Region::Near)
            }
            Self::Hang(name) | Self::End(name) => *name == "cluster-2-sidecar",
            _ => false,
        }
    }

    /// Whether something is left to answer when both are there at once: they hit other regions, and not both clusters that serve. What changes who is
    /// trusted, and what lasts, comes alone.
    #[must_use]
    pub fn goes_with(&self, other: &Self) -> bool {
        let (mine, others) = (self.regions(), other.regions());
        let both_serve = |one: &Self, two: &[Region]| !(one.takes_near() && two.contains(&Region::Far));
        !mine.is_empty()
            && !others.is_empty()
            && !mine.iter().any(|region| others.contains(region))
            && both_serve(self, &others)
            && both_serve(other, &mine)
    }

    /// Whether bytes go through what it hits, so that requests that are under way may be lost: bytes in a process that ends are gone, and a cluster
    /// that is not trusted any more carries none.
    #[must_use]
    pub fn cuts(&self) -> bool {
        let carries = |region: &Region| matches!(region, Region::Callers | Region::Near | Region::Far);
        matches!(self, Self::Join(_) | Self::Revoke(_)) || self.regions().iter().any(carries)
    }

    /// What it is, whoever it hits: for counting.
    #[must_use]
    pub fn kind(&self) -> String {
        let part = |name: &str| match name.trim_end_matches("-b").rsplit_once('-') {
            Some((_, part)) => part.to_owned(),
            None => "controller".to_owned(),
        };
        match *self {
            Self::CLUSTER => "kill the nearer cluster".to_owned(),
            Self::GATEWAYS => "kill all ingress of the nearer cluster".to_owned(),
            Self::FAR => "kill ingress of the far cluster".to_owned(),
            Self::REPLICAS => "kill both controllers".to_owned(),
            Self::Kill(names) => {
                format!("kill {}", names.iter().map(|name| part(name)).collect::<Vec<_>>().join(", "))
            }
            Self::Hang(name) => format!("hang {}", part(name)),
            Self::End(name) => format!("end {}", part(name)),
            Self::Postgres => "kill PostgreSQL".to_owned(),
            Self::Strikes(_) => "random kills of the control plane".to_owned(),
            Self::Rotate => "rotate the root".to_owned(),
            Self::Join(_) => "join again".to_owned(),
            Self::Revoke(_) => "revoke, join again".to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(names) => write!(f, "kill {}", names.join(", ")),
            Self::Hang(name) => write!(f, "hang {name}"),
            Self::End(name) => write!(f, "end {name}"),
            Self::Strikes(count) => write!(f, "{count} random kills of controllers and PostgreSQL"),
            Self::Join(cluster) => write!(f, "cluster-{cluster} joins again"),
            Self::Revoke(cluster) => write!(f, "cluster-{cluster} is revoked"),
            Self::Postgres | Self::Rotate => f.write_str(&self.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_there_at_once() {
        let (egress, sidecar) = (Fault::Kill(&["cluster-1-egress"]), Fault::Kill(&["cluster-2-sidecar"]));
        let fine = [
            (Fault::Postgres, Fault::Kill(&["cluster-1-agent"])),
            (egress, Fault::Hang("cluster-2-ingress")),
            (egress, Fault::CLUSTER),
            (Fault::Kill(&["cluster-2-ingress"]), Fault::Kill(&["cluster-3-ingress"])),
            (sidecar, Fault::REPLICAS),
        ];
        let wrong = [
            (Fault::Postgres, Fault::REPLICAS),
            (egress, Fault::End("cluster-1-egress-b")),
            (sidecar, Fault::Kill(&["cluster-3-sidecar"])),
            (Fault::GATEWAYS, Fault::Kill(&["cluster-3-ingress"])),
            (Fault::CLUSTER, Fault::Kill(&["cluster-3-sidecar"])),
            (Fault::CLUSTER, Fault::Kill(&["cluster-1-agent"])),
            (Fault::Revoke(2), Fault::Kill(&["cluster-3-ingress"])),
            (Fault::Rotate, Fault::Postgres),
        ];
        for (one, two) in fine {
            assert!(one.goes_with(&two) && two.goes_with(&one), "{one} and {two}");
        }
        for (one, two) in wrong {
            assert!(!one.goes_with(&two) && !two.goes_with(&one), "{one} and {two}");
        }
    }

    #[test]
    fn what_cuts() {
        let cutting =
            [Fault::Kill(&["cluster-1-egress-b"]), Fault::GATEWAYS, Fault::CLUSTER, Fault::Revoke(2)];
        let quiet = [
            Fault::Postgres,
            Fault::REPLICAS,
            Fault::Rotate,
            Fault::Strikes(9),
            Fault::Hang("cluster-2-agent"),
        ];
        assert!(cutting.iter().all(Fault::cuts));
        assert!(!quiet.iter().any(Fault::cuts));
    }

    #[test]
    fn it_is_counted_by_its_kind() {
        let kinds = [Fault::Kill(&["cluster-1-egress-b"]), Fault::Hang("controller-b"), Fault::CLUSTER];
        assert_eq!(
            kinds.map(|one| one.kind()),
            ["kill egress", "hang controller", "kill the nearer cluster"]
        );
        assert_eq!(Fault::Kill(&["cluster-2-agent"]).to_string(), "kill cluster-2-agent");
    }
}
