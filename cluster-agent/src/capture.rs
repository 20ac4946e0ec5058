//! Which capture mode the pods of a namespace have: what the namespace's label says, else its global namespace, else the
//! installation. Pure.

use std::collections::BTreeMap;
use tombolo_model::{
    NamespaceName,
    install::Namespaces,
    intent::{CaptureMode, Labels},
};

/// The label of a namespace that chooses.
pub const LABEL: &str = "tombolo.io/capture";

/// How modes are chosen where a namespace has no label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// By the global namespace that a namespace belongs to.
    pub by_gns: BTreeMap<NamespaceName, CaptureMode>,
    /// By the installation.
    pub default: CaptureMode,
    /// The namespaces that take part at all.
    pub namespaces: Namespaces,
}

impl Default for Chosen {
    fn default() -> Self {
        Self { by_gns: BTreeMap::new(), default: CaptureMode::Gateway, namespaces: Namespaces::default() }
    }
}

impl Chosen {
    /// The mode of a namespace. A label that is no mode counts as none: it was meant to choose, so nothing else does.
    #[must_use]
    pub fn mode(&self, namespace: &NamespaceName, labels: &Labels) -> CaptureMode {
        if !self.namespaces.chooses(namespace) {
            return CaptureMode::None;
        }
        match labels.get(LABEL) {
            Some(label) => label.parse().unwrap_or(CaptureMode::None),
            None => self.by_gns.get(namespace).copied().unwrap_or(self.default),
        }
    }

    /// The namespaces whose global namespace chose this mode for them. Their labels may say otherwise.
    pub fn by_gns(&self, mode: CaptureMode) -> impl Iterator<Item = &NamespaceName> {
        self.by_gns.iter().filter(move |(_, chosen)| **chosen == mode).map(|(namespace, _)| namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_goes_before_the_gns_before_the_default() {
        let name = |text: &str| NamespaceName::parse(text).unwrap();
        let chosen = Chosen {
            by_gns: [(name("shop"), CaptureMode::Sidecar)].into(),
            namespaces: Namespaces::Exclude([name("apart")].into()),
            ..Chosen::default()
        };
        let labelled = |label: &str| Labels::from([(LABEL.to_owned(), label.to_owned())]);
        for (namespace, labels, mode) in [
            ("shop", Labels::new(), CaptureMode::Sidecar),
            ("shop", labelled("node"), CaptureMode::Node),
            ("shop", labelled("none"), CaptureMode::None),
            ("shop", labelled("side-car"), CaptureMode::None),
            ("bank", Labels::new(), CaptureMode::Gateway),
            ("bank", labelled("sidecar"), CaptureMode::Sidecar),
            ("apart", labelled("sidecar"), CaptureMode::None),
        ] {
            assert_eq!(chosen.mode(&name(namespace), &labels), mode, "{namespace} {labels:?}");
        }
        assert_eq!(chosen.by_gns(CaptureMode::Sidecar).count(), 1);
        assert_eq!(chosen.by_gns(CaptureMode::Node).count(), 0);
    }
}
