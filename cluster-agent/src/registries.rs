//! Where the images of an installation may come from. The controller's order names a registry, but whoever can write an order is not
//! therefore somebody whose programs may run in this cluster: that is for the person to say who applied the agent's manifest. Where an
//! order names another one, all of it is done but the change of images: what runs goes on. Pure.

use std::{collections::BTreeSet, fmt};
use tombolo_model::install::InstallSpec;

/// The registries that an order may name, and what runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// Those that were stated; else those of what ran when the agent first looked.
    allowed: BTreeSet<String>,
    stated: bool,
    /// Whether it is known what runs.
    read: bool,
    running: Vec<Image>,
}

/// An image by its registry and tag.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Image {
    registry: String,
    version: String,
}

impl Image {
    fn read(text: &str) -> Option<Self> {
        let (registry, name) = text.rsplit_once('/')?;
        let (_, version) = name.split_once(':').filter(|(name, _)| !name.contains('@'))?;
        Some(Self { registry: plain(registry).to_owned(), version: version.to_owned() })
    }
}

/// Images that an order does not get.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAllowed {
    #[error(
        "the order takes images from {registry}, and this cluster's agent takes them from {allowed}: the images stay as they are. Name one of \
         these in the order (tombolo cluster install --registry), or let whoever applied the agent's manifest add \
         --allowed-registry={registry} to the agent's arguments (chart: allowedRegistries)"
    )]
    Registry { registry: String, allowed: Allowed },
    #[error(
        "the order's version {0:?} is no tag of an image: the images stay as they are. Use letters, digits, '.', '_' and '-'"
    )]
    Version(String),
}

/// Registries, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowed(Vec<String>);

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(
                "nowhere, for it has no --allowed-registry, and nothing runs here whose image would say",
            );
        }
        f.write_str(&self.0.join(", "))
    }
}

/// An order with the images that it gets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Settled<'a> {
    /// As it says.
    Ordered(&'a InstallSpec),
    /// With those that run, and why.
    Standing(Box<InstallSpec>, NotAllowed),
    /// With none: nothing runs.
    Nothing(NotAllowed),
    /// That is not known yet.
    Unknown,
}

/// A registry as it is compared, and as it stands in an image.
pub(crate) fn plain(registry: &str) -> &str {
    registry.trim_matches(|c: char| c.is_whitespace() || c == '/')
}

impl Registries {
    /// Those that were stated; an empty list states nothing.
    pub fn stated(registries: impl IntoIterator<Item = String>) -> Self {
        let all = registries.into_iter().map(|one| plain(&one).to_owned()).filter(|one| !one.is_empty());
        let allowed: BTreeSet<String> = all.collect();
        Self { stated: !allowed.is_empty(), allowed, ..Self::default() }
    }

    /// The same, with the images that run: gateways first, then the agent. Where nothing was stated, and for the first time, where those
    /// come from is allowed.
    #[must_use]
    pub(crate) fn with_running<'a>(&self, images: impl IntoIterator<Item = &'a str>) -> Self {
        let running: Vec<Image> = images.into_iter().filter_map(Image::read).collect();
        let mut next = Self { running, read: true, ..self.clone() };
        if !next.stated && next.allowed.is_empty() {
            next.allowed = next.running.iter().map(|image| image.registry.clone()).collect();
        }
        next
    }

    /// The images that an order gets. Registries are compared as they are written: what is below an allowed one is another one.
    pub(crate) fn settle<'a>(&self, spec: &'a InstallSpec) -> Settled<'a> {
        if !self.stated && !self.read {
            return Settled::Unknown;
        }
        let registry = plain(&spec.registry);
        let tag = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let why = if !self.allowed.contains(registry) {
            let allowed = Allowed(self.allowed.iter().cloned().collect());
            NotAllowed::Registry { registry: registry.to_owned(), allowed }
        } else if spec.version.is_empty() || !spec.version.bytes().all(tag) {
            NotAllowed::Version(spec.version.clone())
        } else {
            return Settled::Ordered(spec);
        };
        if !self.read {
            return Settled::Unknown;
        }
        let allowed = self.running.iter().find(|image| self.allowed.contains(&image.registry));
        match allowed.or(self.running.first()).cloned() {
            Some(Image { registry, version }) => {
                Settled::Standing(Box::new(InstallSpec { registry, version, ..spec.clone() }), why)
            }
            None => Settled::Nothing(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(registry: &str, version: &str) -> InstallSpec {
        serde_json::from_value(json!({ "registry": registry, "version": version })).unwrap()
    }

    fn takes(registries: &Registries, registry: &str) -> bool {
        matches!(registries.settle(&spec(registry, "2")), Settled::Ordered(_))
    }

    #[test]
    fn what_was_stated_goes_before_what_runs() {
        let image = "r.example.com:5000/team/tombolo-agent:1.2";
        let own = Registries::default().with_running([image]);
        for good in ["r.example.com:5000/team", "r.example.com:5000/team/", " r.example.com:5000/team "] {
            assert!(takes(&own, good), "{good}");
        }
        for other in [
            "r.example.com:5000",
            "r.example.com:5000/team/x",
            "r.example.com:5000/tea",
            "r.example.com/team",
            "r.example.com:443/team",
            "R.example.com:5000/team",
            "r.example.com:5000.evil.example.org/team",
            "evil.example.org/team",
            "",
        ] {
            assert!(!takes(&own, other), "{other}");
        }
        let stated = ["a.example.com/", "b.example.com/x", " "].map(str::to_owned);
        let stated = Registries::stated(stated).with_running([image]);
        assert!(takes(&stated, "a.example.com") && takes(&stated, "b.example.com/x"));
        let wrong = spec("r.example.com:5000/team", "2");
        let Settled::Standing(standing, why) = stated.settle(&wrong) else { panic!("it is not allowed") };
        assert_eq!(
            (standing.registry.as_str(), standing.version.as_str()),
            ("r.example.com:5000/team", "1.2")
        );
        let why = why.to_string();
        assert!(
            why.contains("a.example.com, b.example.com/x") && why.contains("--allowed-registry="),
            "{why}"
        );
    }

    #[test]
    fn what_is_not_known_is_not_answered() {
        let wrong = spec("evil.example.org", "1");
        assert_eq!(Registries::default().settle(&wrong), Settled::Unknown);
        let stated = Registries::stated(["a.example.com".to_owned()]);
        assert_eq!(stated.settle(&wrong), Settled::Unknown, "what runs is not known");
        assert!(takes(&stated, "a.example.com"), "what is allowed is");
        let nothing = Registries::default().with_running(["no-registry:1", "r/x@sha256:00"]).settle(&wrong);
        assert!(
            matches!(&nothing, Settled::Nothing(why) if why.to_string().contains("nowhere")),
            "{nothing:?}"
        );
    }

    #[test]
    fn what_ran_first_stays_allowed_and_what_runs_now_stands() {
        let first = Registries::default()
            .with_running(["mirror.example.com/tombolo-gateway:1", "r.example.com/tombolo-agent:1"]);
        assert!(takes(&first, "mirror.example.com") && takes(&first, "r.example.com"));
        // somebody puts another image in by hand: it is not allowed for that
        let later =
            first.with_running(["evil.example.org/tombolo-gateway:6", "r.example.com/tombolo-agent:2"]);
        assert!(!takes(&later, "evil.example.org"));
        let wrong = spec("evil.example.org", "6");
        let Settled::Standing(standing, _) = later.settle(&wrong) else { panic!("it is not allowed") };
        assert_eq!((standing.registry.as_str(), standing.version.as_str()), ("r.example.com", "2"));
        let odd = spec("r.example.com", "2/../x");
        assert!(matches!(later.settle(&odd), Settled::Standing(_, NotAllowed::Version(_))));
    }
}
