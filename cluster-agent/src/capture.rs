//! Which capture mode the pods of a namespace have: what the namespace's label says, else its global namespace, else the
//! installation. Pure.

use crate::install::order;
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    NamespaceName,
    install::{InstallOrder, InstallSpec, Namespaces},
    intent::{CAPTURE_LABEL as LABEL, CaptureMode, Labels},
    snapshot::{CaptureSpec, ClusterResource, ResourceKey, Resources},
};
use tombolo_wire::message::Problem;

/// So many a problem names; more are counted.
const NAMED: usize = 5;

/// How modes are chosen where a namespace has no label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// By the global namespace that a namespace belongs to.
    pub by_gns: BTreeMap<NamespaceName, CaptureMode>,
    /// By the installation.
    pub default: CaptureMode,
    /// The namespaces that take part at all.
    pub namespaces: Namespaces,
    /// Namespaces that take no part whatever is asked for: the agent does not read them.
    pub apart: BTreeSet<NamespaceName>,
}

impl Default for Chosen {
    fn default() -> Self {
        Self {
            by_gns: BTreeMap::new(),
            default: CaptureMode::Gateway,
            namespaces: Namespaces::default(),
            apart: BTreeSet::new(),
        }
    }
}

impl Chosen {
    /// As the controller's snapshot has it.
    #[must_use]
    pub fn of(resources: &Resources<ClusterResource>) -> Self {
        let by_gns = specs(resources).map(|spec| (spec.namespace.clone(), spec.mode)).collect();
        let mut chosen = Self { by_gns, ..Self::default() };
        match order(resources) {
            None => {}
            Some(InstallOrder::Installed(spec)) => {
                chosen.default = spec.capture();
                chosen.namespaces.clone_from(&spec.namespaces);
            }
            Some(InstallOrder::Removed { .. }) => chosen.namespaces = Namespaces::Include(BTreeSet::new()),
        }
        chosen
    }

    /// The mode of a namespace. A label that is no mode counts as none: it was meant to choose, so nothing else does.
    #[must_use]
    pub fn mode(&self, namespace: &NamespaceName, labels: &Labels) -> CaptureMode {
        if !self.takes_part(namespace) {
            return CaptureMode::None;
        }
        match labels.get(LABEL) {
            Some(label) => label.parse().unwrap_or(CaptureMode::None),
            None => self.by_gns.get(namespace).copied().unwrap_or(self.default),
        }
    }

    /// Whether a namespace takes part at all.
    #[must_use]
    pub fn takes_part(&self, namespace: &NamespaceName) -> bool {
        self.namespaces.chooses(namespace) && !self.apart.contains(namespace)
    }

    /// The namespaces whose global namespace chose this mode for them, or did not. Their labels may say otherwise.
    pub fn by_gns(&self, mode: CaptureMode, is: bool) -> impl Iterator<Item = &NamespaceName> {
        self.by_gns.iter().filter(move |(_, chosen)| (**chosen == mode) == is).map(|(namespace, _)| namespace)
    }
}

fn specs(resources: &Resources<ClusterResource>) -> impl Iterator<Item = &CaptureSpec> {
    resources.range(ResourceKey::new("capture", "")..).map_while(|(_, resource)| match resource {
        ClusterResource::Capture(capture) => Some(&**capture),
        _ => None,
    })
}

/// What can't be as it was chosen, and what to do about it: one problem of each kind. `namespaces` are those of the cluster, with their labels.
#[must_use]
pub fn problems(
    resources: &Resources<ClusterResource>,
    namespaces: &BTreeMap<NamespaceName, Labels>,
) -> Vec<Problem> {
    let chosen = Chosen::of(resources);
    let unlabelled = |name: &NamespaceName| {
        chosen.takes_part(name) && namespaces.get(name).is_some_and(|labels| !labels.contains_key(LABEL))
    };
    let disputed = specs(resources).filter(|spec| !spec.against.is_empty() && unlabelled(&spec.namespace));
    let disputed: Vec<String> = disputed.map(dispute).collect();
    let part = namespaces.iter().filter(|(name, _)| chosen.takes_part(name));
    let labelled = part.filter_map(|(name, labels)| Some((name, labels.get(LABEL)?)));
    let wrong = labelled.filter(|(_, label)| label.parse::<CaptureMode>().is_err());
    let wrong: Vec<String> = wrong.map(|(name, label)| format!("{name} ({label})")).collect();
    let mut all = Vec::new();
    if let Some(named) = list(&disputed) {
        let message = format!(
            "global namespaces choose different ones for {named}; the first by name decides; let the others leave the namespace out, or \
             give it the label {LABEL}"
        );
        all.push(Problem { subject: "capture modes".to_owned(), message });
    }
    if let Some(named) = list(&wrong) {
        let message = format!(
            "none of gateway, sidecar, node, none is the label of {named}; it counts as none; mend it"
        );
        all.push(Problem { subject: format!("label {LABEL}"), message });
    }
    if let Some(InstallOrder::Installed(spec)) = order(resources) {
        all.extend(missing(spec, &chosen, namespaces));
    }
    all
}

fn dispute(spec: &CaptureSpec) -> String {
    let against: Vec<String> = spec.against.iter().map(|(gns, mode)| format!("{gns} {mode}")).collect();
    format!("{} ({} {}, {})", spec.namespace, spec.gns, spec.mode, against.join(", "))
}

/// The first of them, and how many more there are; nothing where there are none.
fn list(all: &[String]) -> Option<String> {
    let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => None,
        1..=NAMED => Some(named),
        count => Some(format!("{named} and {} more", count - NAMED)),
    }
}

/// The modes that namespaces have, and that are not installed.
fn missing<'a>(
    spec: &'a InstallSpec,
    chosen: &'a Chosen,
    namespaces: &'a BTreeMap<NamespaceName, Labels>,
) -> impl Iterator<Item = Problem> + 'a {
    let modes = [
        (CaptureMode::Node, spec.node.enabled, "there are no proxies on the nodes", "with --node"),
        (CaptureMode::Sidecar, spec.injector.enabled, "there is no injector", "without --no-injector"),
    ];
    modes.into_iter().filter(|(_, there, ..)| !there).filter_map(|(mode, _, lacks, how)| {
        let wanted = namespaces.iter().filter(|(name, labels)| chosen.mode(name, labels) == mode);
        let wanted: Vec<String> = wanted.map(|(name, _)| name.to_string()).collect();
        let message = format!(
            "{lacks}, and it is the mode of {}: their pods go as in mode gateway, and servers do not see who they are; install again {how} \
             (tombolo cluster install)",
            list(&wanted)?
        );
        Some(Problem { subject: format!("capture mode {mode}"), message })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_model::{DnsLabel, snapshot::Resource as _};

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
        assert_eq!(chosen.by_gns(CaptureMode::Sidecar, true).count(), 1);
        assert_eq!(chosen.by_gns(CaptureMode::Node, true).count(), 0);
        assert_eq!(chosen.by_gns(CaptureMode::Node, false).count(), 1);
    }

    fn spec(namespace: &str, mode: CaptureMode, against: &[(&str, CaptureMode)]) -> ClusterResource {
        ClusterResource::Capture(
            CaptureSpec {
                namespace: NamespaceName::parse(namespace).unwrap(),
                mode,
                gns: DnsLabel::parse("acme").unwrap(),
                against: against.iter().map(|(gns, mode)| (DnsLabel::parse(gns).unwrap(), *mode)).collect(),
            }
            .into(),
        )
    }

    fn installed(more: &str) -> ClusterResource {
        let text = format!(r#"{{"version":"1","registry":"r"{more}}}"#);
        ClusterResource::Install(InstallOrder::Installed(serde_json::from_str(&text).unwrap()).into())
    }

    fn told(all: impl IntoIterator<Item = ClusterResource>) -> Resources<ClusterResource> {
        all.into_iter().map(|resource| (resource.key(), resource)).collect()
    }

    #[test]
    fn the_snapshot_chooses() {
        let name = |text: &str| NamespaceName::parse(text).unwrap();
        assert_eq!(Chosen::of(&Resources::new()), Chosen::default());
        let shop = spec("shop", CaptureMode::Node, &[]);
        let more = r#","capture":"sidecar","namespaces":{"exclude":["apart"]}"#;
        let chosen = Chosen::of(&told([shop.clone(), installed(more)]));
        for (namespace, mode) in
            [("shop", CaptureMode::Node), ("bank", CaptureMode::Sidecar), ("apart", CaptureMode::None)]
        {
            assert_eq!(chosen.mode(&name(namespace), &Labels::new()), mode, "{namespace}");
        }
        let removed = ClusterResource::Install(InstallOrder::Removed { revision: 1 }.into());
        let chosen = Chosen::of(&told([shop, removed]));
        assert_eq!(chosen.mode(&name("shop"), &Labels::new()), CaptureMode::None, "nothing takes part");
    }

    #[test]
    fn what_is_chosen_and_can_not_be_is_said() {
        let labelled = |label: &str| Labels::from([(LABEL.to_owned(), label.to_owned())]);
        let cluster = |all: &[(&str, Labels)]| -> BTreeMap<NamespaceName, Labels> {
            all.iter().map(|(name, labels)| (NamespaceName::parse(name).unwrap(), labels.clone())).collect()
        };
        let said = |told: &Resources<ClusterResource>, all: &[(&str, Labels)]| -> Vec<String> {
            let found = problems(told, &cluster(all)).into_iter();
            found.map(|problem| format!("{}: {}", problem.subject, problem.message)).collect()
        };
        let two = spec("shop", CaptureMode::Sidecar, &[("beta", CaptureMode::Node)]);
        let shop = [("shop", Labels::new())];
        let all = said(&told([two.clone()]), &shop);
        assert!(
            all.len() == 1 && all[0].contains("for shop (acme sidecar, beta node); the first"),
            "{all:?}"
        );
        assert_eq!(said(&told([two.clone()]), &[]), [""; 0], "it is not there");
        assert_eq!(said(&told([two.clone()]), &[("shop", labelled("none"))]), [""; 0], "the label decides");
        let apart = installed(r#","namespaces":{"exclude":["shop"]}"#);
        assert_eq!(said(&told([two, apart]), &shop), [""; 0], "it takes no part");
        let all = said(&told([]), &[("shop", labelled("side-car"))]);
        assert!(all.len() == 1 && all[0].contains("is the label of shop (side-car); it"), "{all:?}");
        let many: Vec<String> = (0..300).map(|n| format!("n{n:03}")).collect();
        let many: Vec<(&str, Labels)> = many.iter().map(|name| (name.as_str(), labelled("x"))).collect();
        let all = said(&told([]), &many);
        assert!(all.len() == 1 && all[0].contains("n004 (x) and 295 more"), "{all:?}");
        // Modes that are not installed.
        let node = || spec("shop", CaptureMode::Node, &[]);
        assert_eq!(said(&told([node()]), &shop), [""; 0], "nobody installed anything");
        assert_eq!(said(&told([node(), installed(r#","node":{"enabled":true}"#)]), &shop), [""; 0]);
        let all = said(&told([node(), installed("")]), &shop);
        assert!(all.len() == 1 && all[0].starts_with("capture mode node: there are no proxies"), "{all:?}");
        let many: Vec<(String, Labels)> = (0..7).map(|n| (format!("n{n}"), Labels::new())).collect();
        let many: Vec<(&str, Labels)> = many.iter().map(|(name, all)| (name.as_str(), all.clone())).collect();
        let all = said(&told([installed(r#","capture":"sidecar","injector":{"enabled":false}"#)]), &many);
        assert!(all.len() == 1 && all[0].contains("the mode of n0, n1, n2, n3, n4 and 2 more"), "{all:?}");
    }
}
