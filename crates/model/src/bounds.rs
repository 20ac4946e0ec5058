//! How much a cluster may say of one service (of all of them: [`whole`]): it goes to every other cluster, and what one of them can't hold silences it. What an agent
//! leaves out of its report is what the controller would refuse.

pub mod whole;

use crate::{
    intent::Labels,
    inventory::{PortSpec, ServiceRecord},
    mcs::ExportedPort,
};

/// Ports of a service.
pub const PORTS: usize = 250;
/// Pods with names of their own of a headless service.
pub const PODS: usize = 5_000;
/// Service accounts that serve it.
pub const ACCOUNTS: usize = 250;
/// A text, as `appProtocol`, in bytes.
pub const TEXT: usize = 400;
/// The labels or the annotations that go with a service, in bytes of names and values.
pub const LABELS: usize = 16 << 10;

impl ServiceRecord {
    /// Leaves out what is too much.
    pub fn fit(&mut self) {
        let fits = |ports: &[PortSpec]| {
            ports.len() <= PORTS && !ports.iter().any(|port| is_long(port.app_protocol.as_ref()))
        };
        // who writes to it gets a list of his own
        if !fits(&self.ports) {
            self.ports.truncate(PORTS);
            self.ports.iter_mut().for_each(|port| fit_text(&mut port.app_protocol));
        }
        self.accounts.truncate(ACCOUNTS);
        while self.pods.len() > PODS {
            self.pods.pop_last();
        }
        let Some(export) = &mut self.export else { return };
        let traits = &mut export.traits;
        traits.ports.truncate(PORTS);
        traits.ports.iter_mut().for_each(|port| fit_text(&mut port.app_protocol));
        fit_text(&mut traits.internal_traffic_policy);
        fit_text(&mut traits.traffic_distribution);
        for labels in [&mut export.labels, &mut export.annotations] {
            if size(labels) > LABELS {
                labels.clear();
            }
        }
    }

    /// The field that has too much, and how much it may have.
    #[must_use]
    pub fn excess(&self) -> Option<(&'static str, usize)> {
        let of_port = |port: &PortSpec| is_long(port.app_protocol.as_ref());
        let of_export = |port: &ExportedPort| is_long(port.app_protocol.as_ref());
        let mut all = vec![
            (self.ports.len() > PORTS, "ports", PORTS),
            (self.ports.iter().any(of_port), "ports.app_protocol", TEXT),
            (self.accounts.len() > ACCOUNTS, "accounts", ACCOUNTS),
            (self.pods.len() > PODS, "pods", PODS),
        ];
        if let Some(export) = &self.export {
            let traits = &export.traits;
            all.extend([
                (traits.ports.len() > PORTS, "export.traits.ports", PORTS),
                (traits.ports.iter().any(of_export), "export.traits.ports.app_protocol", TEXT),
                (
                    is_long(traits.internal_traffic_policy.as_ref()),
                    "export.traits.internal_traffic_policy",
                    TEXT,
                ),
                (is_long(traits.traffic_distribution.as_ref()), "export.traits.traffic_distribution", TEXT),
                (size(&export.labels) > LABELS, "export.labels", LABELS),
                (size(&export.annotations) > LABELS, "export.annotations", LABELS),
            ]);
        }
        all.into_iter().find(|(exceeds, ..)| *exceeds).map(|(_, field, most)| (field, most))
    }
}

fn is_long(text: Option<&String>) -> bool {
    text.is_some_and(|text| text.len() > TEXT)
}

fn fit_text(text: &mut Option<String>) {
    if is_long(text.as_ref()) {
        *text = None;
    }
}

/// How much of [`LABELS`] they take.
#[must_use]
pub fn size(labels: &Labels) -> usize {
    labels.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inventory::{PodRecord, Protocol},
        mcs::{ExportRecord, Traits, Transport},
    };

    pub(super) fn record(many: usize) -> ServiceRecord {
        let text = "x".repeat(many);
        let port = |n: usize| u16::try_from(n + 1).unwrap();
        let labels: Labels = (0..many / 10).map(|n| (format!("l{n}"), "v".repeat(100))).collect();
        ServiceRecord {
            created_s: 0,
            ports: (0..many)
                .map(|n| PortSpec {
                    port: port(n),
                    protocol: Protocol::Tcp,
                    name: None,
                    app_protocol: Some(text.clone()),
                })
                .collect::<Vec<_>>()
                .into(),
            headless: true,
            ready: 0,
            total: 0,
            tunnelled: 0,
            accounts: (0..many).map(|n| format!("a{n}").parse().unwrap()).collect(),
            pods: (0..many * 10)
                .map(|n| (format!("p{n}").parse().unwrap(), PodRecord { ready: true, tunnelled: false }))
                .collect(),
            export: Some(Box::new(ExportRecord {
                created_s: 0,
                traits: Traits {
                    ports: (0..many)
                        .map(|n| ExportedPort {
                            name: None,
                            port: port(n),
                            protocol: Transport::Udp,
                            app_protocol: Some(text.clone()),
                        })
                        .collect(),
                    internal_traffic_policy: Some(text.clone()),
                    traffic_distribution: Some(text),
                    ..Traits::default()
                },
                labels: labels.clone(),
                annotations: labels,
            })),
        }
    }

    #[test]
    fn what_fits_is_not_touched() {
        let mut small = record(200);
        assert_eq!(small.excess(), None);
        let before = small.clone();
        small.fit();
        assert_eq!(small, before);
    }

    #[test]
    fn what_is_too_much_is_left_out() {
        let mut large = record(2_000);
        assert_eq!(large.excess(), Some(("ports", PORTS)));
        large.fit();
        assert_eq!(large.excess(), None);
        assert_eq!((large.ports.len(), large.accounts.len(), large.pods.len()), (PORTS, ACCOUNTS, PODS));
        let json = serde_json::to_vec(&large).unwrap();
        assert!(json.len() < 512 << 10, "{} bytes of one service", json.len());
    }

    #[test]
    fn each_field_is_named() {
        type Change = fn(&mut ServiceRecord, &ServiceRecord);
        let cases: [(&str, Change); 9] = [
            ("ports", |one, large| one.ports.clone_from(&large.ports)),
            ("ports.app_protocol", |one, large| {
                one.ports[0].app_protocol.clone_from(&large.ports[0].app_protocol)
            }),
            ("accounts", |one, large| one.accounts.clone_from(&large.accounts)),
            ("pods", |one, large| one.pods.clone_from(&large.pods)),
            ("export.traits.ports", |one, large| {
                one.export
                    .as_mut()
                    .unwrap()
                    .traits
                    .ports
                    .clone_from(&large.export.as_ref().unwrap().traits.ports);
            }),
            ("export.traits.internal_traffic_policy", |one, large| {
                one.export.as_mut().unwrap().traits.internal_traffic_policy =
                    large.export.as_ref().unwrap().traits.internal_traffic_policy.clone();
            }),
            ("export.traits.traffic_distribution", |one, large| {
                one.export.as_mut().unwrap().traits.traffic_distribution =
                    large.export.as_ref().unwrap().traits.traffic_distribution.clone();
            }),
            ("export.labels", |one, large| {
                one.export.as_mut().unwrap().labels.clone_from(&large.export.as_ref().unwrap().labels);
            }),
            ("export.annotations", |one, large| {
                one.export
                    .as_mut()
                    .unwrap()
                    .annotations
                    .clone_from(&large.export.as_ref().unwrap().annotations);
            }),
        ];
        let large = record(2_000);
        for (field, change) in cases {
            let mut one = record(100);
            change(&mut one, &large);
            assert_eq!(one.excess().map(|(field, _)| field), Some(field));
        }
    }
}
