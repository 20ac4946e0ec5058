//! What the controller's snapshot asks for: which namespaces have which mode, and whether pods get proxies, of which image. Pure.

use super::Config;
use crate::{
    capture::Chosen,
    install::{image, order},
    registries::{Registries, Settled},
};
use tombolo_model::{
    install::{FailurePolicy, InstallOrder},
    snapshot::{ClusterResource, ResourceKey, Resources},
};

/// The image of proxies.
const GATEWAY: &str = "tombolo-gateway";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which namespaces have which mode.
    pub chosen: Chosen,
    /// How pods get proxies; none where they get none.
    pub webhook: Option<Webhook>,
}

/// How pods get proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// What happens to pods while no agent answers.
    pub policy: FailurePolicy,
    /// The gateway's image.
    pub image: String,
}

impl Asked {
    /// What a snapshot asks for, else the options; none where things are to stay as they are: before the first snapshot, and before it is known
    /// where images may come from. An order that names another place gets the images that run.
    #[must_use]
    pub fn of(
        resources: &Resources<ClusterResource>,
        config: &Config,
        registries: &Registries,
    ) -> Option<Self> {
        resources.get(&ResourceKey::new("self", ""))?;
        let (mut chosen, policy) = (Chosen::of(resources), config.policy);
        chosen.apart.clone_from(&config.exclude);
        let webhook = match order(resources) {
            None => config.image.clone().map(|image| Webhook { policy, image }),
            Some(InstallOrder::Removed { .. }) => None,
            Some(InstallOrder::Installed(spec)) => {
                let image = match registries.settle(spec) {
                    Settled::Ordered(spec) => Some(image(spec, GATEWAY)),
                    Settled::Standing(standing, _) => Some(image(&standing, GATEWAY)),
                    Settled::Nothing(_) => config.image.clone(),
                    Settled::Unknown => return None,
                };
                let policy = spec.injector.failure_policy;
                image.filter(|_| spec.injector.enabled).map(|image| Webhook { policy, image })
            }
        };
        Some(Self { chosen, webhook })
    }
}
