//! The ports of a service of the set, and who serves which.

use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    inventory::{PortSpec, Protocol},
    mcs::{ExportedPort, Transport},
};

/// The ports of several exports, oldest first.
pub(crate) struct Ports {
    /// The union. No two have one name, none stands twice.
    pub(crate) union: Vec<ExportedPort>,
    /// For each export, what it has of the union, by transport and number.
    pub(crate) served: Vec<BTreeSet<(Transport, u16)>>,
}

impl Ports {
    /// Merges: by name first, then by transport and number, the older before the younger.
    pub(crate) fn merge<'a>(exports: impl Iterator<Item = &'a [ExportedPort]>) -> Self {
        let (mut union, mut all): (Vec<ExportedPort>, Vec<_>) = (Vec::new(), Vec::new());
        for ports in exports {
            for port in ports {
                let same = |known: &ExportedPort| (known.protocol, known.port) == (port.protocol, port.port);
                if !union.iter().any(|known| same(known) || known.name == port.name) {
                    union.push(port.clone());
                }
            }
            all.push(ports);
        }
        // Under another name maybe; what calls is the number.
        let known: BTreeSet<_> = union.iter().map(|port| (port.protocol, port.port)).collect();
        let numbers = |ports: &[ExportedPort]| ports.iter().map(|port| (port.protocol, port.port)).collect();
        let served = all.into_iter().map(|ports| &numbers(ports) & &known).collect();
        Self { union, served }
    }

    /// The union as what is carried: one port for each number, and TCP where a number stands for two.
    pub(crate) fn carried(&self) -> Vec<PortSpec> {
        let mut carried: BTreeMap<u16, PortSpec> = BTreeMap::new();
        for port in &self.union {
            let protocol = match port.protocol {
                Transport::Tcp => Protocol::Tcp,
                Transport::Udp => Protocol::Udp,
                Transport::Sctp => continue,
            };
            let (name, app_protocol) = (port.name.clone(), port.app_protocol.clone());
            let spec = PortSpec { port: port.port, protocol, name, app_protocol };
            if protocol == Protocol::Tcp {
                carried.insert(port.port, spec);
            } else {
                carried.entry(port.port).or_insert(spec);
            }
        }
        carried.into_values().collect()
    }
}

/// What of these ports one export serves.
pub(crate) fn numbers(carried: &[PortSpec], served: &BTreeSet<(Transport, u16)>) -> BTreeSet<u16> {
    let transport = |port: &PortSpec| match port.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    carried
        .iter()
        .filter(|port| served.contains(&(transport(port), port.port)))
        .map(|port| port.port)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tombolo_model::DnsLabel;

    fn port(name: &str, port: u16, protocol: Transport) -> ExportedPort {
        let name = (!name.is_empty()).then(|| DnsLabel::parse(name).unwrap());
        ExportedPort { name, port, protocol, app_protocol: None }
    }

    fn merged(exports: &[Vec<ExportedPort>]) -> (Vec<String>, Vec<Vec<u16>>) {
        let ports = Ports::merge(exports.iter().map(Vec::as_slice));
        let text = |port: &ExportedPort| {
            let name = port.name.as_ref().map_or("", DnsLabel::as_str);
            format!("{name} {}/{}", port.port, port.protocol.as_str())
        };
        let carried = ports.carried();
        let served = ports.served.iter().map(|served| numbers(&carried, served).into_iter().collect());
        (ports.union.iter().map(text).collect(), served.collect())
    }

    #[test]
    fn the_rules_of_the_kep() {
        use Transport::{Sctp, Tcp, Udp};
        let first = vec![port("tcp", 42, Tcp), port("udp", 42, Udp)];
        // What no other has is there, and only at who has it.
        let more = vec![port("tcp", 42, Tcp), port("sctp", 142, Sctp)];
        assert_eq!(
            merged(&[first.clone(), more]),
            (
                vec!["tcp 42/TCP".into(), "udp 42/UDP".into(), "sctp 142/SCTP".into()],
                vec![vec![42], vec![42]]
            )
        );
        // One name with two numbers: the oldest number.
        let moved = vec![port("tcp", 4242, Tcp)];
        assert_eq!(merged(&[first.clone(), moved.clone()]).0, ["tcp 42/TCP", "udp 42/UDP"]);
        assert_eq!(merged(&[first.clone(), moved.clone()]).1, [vec![42], vec![]]);
        assert_eq!(merged(&[moved, first.clone()]).0, ["tcp 4242/TCP", "udp 42/UDP"]);
        // One number with two names: the oldest name, and both serve it.
        let renamed = vec![port("web", 42, Tcp)];
        assert_eq!(merged(&[first, renamed]).1, [vec![42], vec![42]]);
        let other = vec![port("tcp2", 4242, Tcp)];
        assert_eq!(merged(&[vec![port("tcp", 42, Tcp)], other]).1, [vec![42], vec![4242]]);
    }

    fn some_ports() -> impl Strategy<Value = Vec<ExportedPort>> {
        let one = (prop::sample::select(vec!["", "a", "b", "c"]), 80u16..84, 0..3).prop_map(
            |(name, number, kind)| {
                port(name, number, [Transport::Tcp, Transport::Udp, Transport::Sctp][kind as usize])
            },
        );
        prop::collection::vec(one, 0..4)
    }

    proptest! {
        #[test]
        fn what_holds_for_all_ports(exports in prop::collection::vec(some_ports(), 1..4)) {
            let ports = Ports::merge(exports.iter().map(Vec::as_slice));
            let names: BTreeSet<_> = ports.union.iter().map(|port| &port.name).collect();
            let numbers: BTreeSet<_> = ports.union.iter().map(|port| (port.protocol, port.port)).collect();
            prop_assert_eq!(names.len(), ports.union.len(), "no name twice");
            prop_assert_eq!(numbers.len(), ports.union.len(), "no number twice");
            for (export, served) in exports.iter().zip(&ports.served) {
                let own: BTreeSet<_> = export.iter().map(|port| (port.protocol, port.port)).collect();
                prop_assert!(served.is_subset(&own), "nobody serves what it has not");
                prop_assert!(served.is_subset(&numbers));
                prop_assert_eq!(served.clone(), own.intersection(&numbers).copied().collect::<BTreeSet<_>>());
            }
        }
    }
}
