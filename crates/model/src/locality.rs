//! Where something runs, and how near two places are.

use serde::{Deserialize, Serialize};

/// Region and zone, as `topology.kubernetes.io/region` and `…/zone` have them. Unknown is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locality {
    /// The region, as `eu-central-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The zone inside the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// How near a destination is; the nearer sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proximity {
    /// In the same cluster.
    Cluster,
    /// In another cluster of the same zone.
    Zone,
    /// In the same region.
    Region,
    /// Anywhere else, or unknown.
    Elsewhere,
}

impl Locality {
    /// How near `other`, in another cluster, is to this place. What is unknown is elsewhere.
    #[must_use]
    pub fn proximity(&self, other: &Self) -> Proximity {
        match (&self.region, &other.region) {
            (Some(a), Some(b)) if a == b => match (&self.zone, &other.zone) {
                (Some(x), Some(y)) if x == y => Proximity::Zone,
                _ => Proximity::Region,
            },
            _ => Proximity::Elsewhere,
        }
    }
}
