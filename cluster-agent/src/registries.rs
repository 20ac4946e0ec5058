//! Where the images of an installation may come from. The controller's order names a registry, but whoever can write an order is not
//! therefore somebody whose programs may run in this cluster: that is for the person to say who applied the agent's manifest.

use std::{collections::BTreeSet, fmt};

/// The registries that an order may name: those that were stated, else the one that the agent's own image comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    stated: BTreeSet<String>,
    own: Option<String>,
}

/// A registry that an order may not name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the order takes images from {registry}, and this cluster's agent takes them from {allowed}; name one of these in the order \
     (tombolo cluster install --registry), or let whoever applied the agent's manifest add --allowed-registry={registry} to the agent's \
     arguments (chart: allowedRegistries)"
)]
pub(crate) struct NotAllowed {
    registry: String,
    allowed: Allowed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed(Vec<String>);

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(
                "nowhere, for it has no --allowed-registry and no Deployment whose image would say",
            );
        }
        f.write_str(&self.0.join(", "))
    }
}

impl Registries {
    /// Those that were stated; an empty list states nothing.
    pub fn stated(registries: impl IntoIterator<Item = String>) -> Self {
        let stated = registries.into_iter().map(|one| one.trim_end_matches('/').to_owned());
        Self { stated: stated.filter(|one| !one.is_empty()).collect(), own: None }
    }

    /// The same, for an agent of this image.
    #[must_use]
    pub(crate) fn of_image(&self, image: Option<&str>) -> Self {
        let own = image.and_then(|image| image.rsplit_once('/')).map(|(registry, _)| registry.to_owned());
        Self { own, ..self.clone() }
    }

    /// Whether images may come from there. Compared as it is written: what is below an allowed one is another one.
    ///
    /// # Errors
    /// [`NotAllowed`] says what may be done.
    pub(crate) fn check(&self, registry: &str) -> Result<(), NotAllowed> {
        let registry = registry.trim_end_matches('/');
        let allowed: Vec<String> = match self.stated.is_empty() {
            true => self.own.iter().cloned().collect(),
            false => self.stated.iter().cloned().collect(),
        };
        if allowed.iter().any(|one| one == registry) {
            return Ok(());
        }
        Err(NotAllowed { registry: registry.to_owned(), allowed: Allowed(allowed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stated_goes_before_the_agents_own() {
        let image = Some("r.example.com:5000/team/tombolo-agent:1.2");
        let own = Registries::default().of_image(image);
        assert_eq!(own.check("r.example.com:5000/team"), Ok(()));
        assert_eq!(own.check("r.example.com:5000/team/"), Ok(()));
        for other in [
            "r.example.com:5000",
            "r.example.com:5000/team/x",
            "r.example.com:5000/tea",
            "evil.example.org/team",
            "",
        ] {
            assert!(own.check(other).is_err(), "{other}");
        }
        let stated =
            Registries::stated(["a.example.com/".to_owned(), "b.example.com/x".to_owned(), String::new()]);
        let stated = stated.of_image(image);
        assert!(stated.check("a.example.com").is_ok() && stated.check("b.example.com/x").is_ok());
        let refused = stated.check("r.example.com:5000/team").unwrap_err().to_string();
        assert!(
            refused.contains("a.example.com, b.example.com/x") && refused.contains("--allowed-registry="),
            "{refused}"
        );
        let nobody = Registries::default().of_image(None).check("r").unwrap_err().to_string();
        assert!(nobody.contains("nowhere"), "{nobody}");
    }
}
