//! What the API does, one file per noun: checks a request, does it in one transaction, writes the audit log, and says
//! what the API shows. Knows nothing of HTTP.

pub(crate) mod audit;
pub(crate) mod caller;
pub(crate) mod capture;
pub(crate) mod certificate;
pub(crate) mod cluster;
pub(crate) mod error;
pub(crate) mod follow;
pub(crate) mod gns;
pub(crate) mod install;
pub(crate) mod labels;
pub(crate) mod manifest;
pub(crate) mod onboarding;
pub(crate) mod once;
pub(crate) mod organization;
pub(crate) mod owner;
pub(crate) mod page;
pub(crate) mod reach;
pub(crate) mod root;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod trial;
pub(crate) mod version;
pub(crate) mod work;

use crate::{ca::Vault, publish::View, store::Store};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use std::sync::Arc;
use tombolo_model::id::OrgId;
use tombolo_runtime::{
    clock::Clock,
    drain,
    places::{Places, Shares},
};

/// What the API works with.
pub(crate) struct Deps {
    /// The database.
    pub(crate) store: Store,
    /// Makes and uses the organizations' roots.
    pub(crate) ca: Vault,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// What the compiler says of each organization, and when it changes.
    pub(crate) view: View,
    /// Where agents and people reach this controller.
    pub(crate) public_url: String,
    /// `sha256:<hex>` of the CA that signs the controller's own certificate.
    pub(crate) ca_fingerprint: String,
    /// Where the images are that clusters install, where the request does not say.
    pub(crate) image_registry: String,
    /// Their version, the same.
    pub(crate) image_version: String,
    /// The pools of virtual addresses, IPv4 and IPv6.
    pub(crate) vip_pools: (String, String),
    /// How long the old root of a rotation stays once no cluster signs under it: as long as certificates live.
    pub(crate) root_overlap: TimeDelta,
    /// Who follows events.
    pub(crate) followers: Places<OrgId>,
    /// When to send followers away.
    pub(crate) stop: drain::Watch,
}

/// How many may follow events of one process at a time, and how many of one organization: the oldest goes for another one, and comes back.
pub(crate) const FOLLOWERS: Shares = Shares { all: 1000, each: 250 };

impl Deps {
    /// The time, to the microsecond that Postgres keeps.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        DateTime::<Utc>::from(self.clock.now()).trunc_subsecs(6)
    }
}
