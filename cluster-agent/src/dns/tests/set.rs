//! Names of the cluster set (KEP-1645), as a table.

use super::{answers::ask, *};
use tombolo_model::mcs::{ExportedPort, ImportKind, ImportSpec, Traits, Transport};

const SHOP: &str = "shop.svc.clusterset.local";

fn import(service: &str, kind: ImportKind) -> ClusterResource {
    let port = |name: Option<&str>, port, protocol| ExportedPort {
        name: name.map(|name| name.parse().unwrap()),
        port,
        protocol,
        app_protocol: None,
    };
    let ports = vec![
        port(Some("tcp"), 42, Transport::Tcp),
        port(Some("udp"), 42, Transport::Udp),
        port(Some("sctp"), 9, Transport::Sctp),
        port(None, 43, Transport::Tcp),
    ];
    ClusterResource::Import(
        ImportSpec {
            service: format!("shop/{service}").try_into().unwrap(),
            name: format!("{service}.{SHOP}").parse().unwrap(),
            kind,
            traits: Traits { ports, ..Traits::default() },
            labels: Default::default(),
            annotations: Default::default(),
            clusters: Default::default(),
            conflicts: vec![],
        }
        .into(),
    )
}

fn of_set(text: &str, kind: NameKind, index: u32, targets: &[(&str, u32)]) -> NameSpec {
    NameSpec {
        domain: Domain::cluster_set(),
        ports: vec![port(42, Some("tcp"), Protocol::Tcp)].into(),
        ..name(&format!("{text}.{SHOP}"), kind, index, targets)
    }
}

/// `hello`, exported by two clusters; `db`, headless, with a pod that is not ready; `idle` and `bare`, headless without named pods.
fn zone() -> Zone {
    use NameKind::{Pod, Service, ServiceInCluster};
    let mut all = resources([
        of_set("hello", Service, 1, &[("east", 0), ("west", 0)]),
        of_set("east.hello", ServiceInCluster, 2, &[("east", 0)]),
        headless(of_set("db", Service, 3, &[("east", 1), ("west", 1)])),
        of_set("db-0.east.db", Pod, 4, &[("east", 1)]),
        of_set("db-0.west.db", Pod, 5, &[("west", 1)]),
        of_set("db-1.west.db", Pod, 6, &[("west", 0)]),
        headless(of_set("idle", Service, 7, &[("east", 0)])),
        of_set("idle-0.east.idle", Pod, 8, &[("east", 0)]),
        of_set("bare", Service, 9, &[("east", 1)]),
        of_set("gone", Service, 10, &[("east", 0)]),
    ]);
    let kinds = [
        import("hello", ImportKind::ClusterSetIp),
        import("db", ImportKind::Headless),
        import("idle", ImportKind::Headless),
        import("bare", ImportKind::Headless),
        import("gone", ImportKind::Headless),
    ];
    let (domain, gns) = (Domain::cluster_set(), "clusterset".parse().unwrap());
    let domain = ClusterResource::Domain(DomainSpec { domain, gns, members: BTreeSet::new() }.into());
    all.extend(kinds.into_iter().chain([domain]).map(|resource| (resource.key(), resource)));
    build(&all, Generation::new(42), &AddressMode::Allocated, None)
}

#[test]
fn table() {
    use RecordType::{A, AAAA, SRV, TXT};
    let soa = "clusterset.local. SOA ns.dns.tombolo.clusterset.local. hostmaster.clusterset.local. 42 7200 1800 86400 3";
    let (nodata, nxdomain) = (format!("NoError | auth {soa}"), format!("NXDomain | auth {soa}"));
    let srv = |owner: &str, targets: &[(&str, u32)]| {
        let answers: Vec<_> =
            targets.iter().map(|(name, _)| format!("{owner}.{SHOP}. SRV 0 1 42 {name}.{SHOP}.")).collect();
        let more: Vec<_> = targets
            .iter()
            .map(|(name, at)| {
                format!("{name}.{SHOP}. A 240.0.0.{at}, {name}.{SHOP}. AAAA fd74:6f6d:6265:6c6f::{at}")
            })
            .collect();
        format!("NoError | {} | more {}", answers.join(", "), more.join(", "))
    };
    let a = |name: &str, at: u32| format!("{name}.{SHOP}. A 240.0.0.{at}");
    let pods = [("db-0.east.db", 4), ("db-0.west.db", 5)];
    let rows: &[(&str, RecordType, String)] = &[
        // A virtual IP stays while nothing is ready.
        ("hello", A, format!("NoError | {}", a("hello", 1))),
        ("hello", AAAA, format!("NoError | hello.{SHOP}. AAAA fd74:6f6d:6265:6c6f::1")),
        // Both transports of a port are one record at the bare name.
        (
            "hello",
            SRV,
            format!("NoError | {}", srv("hello", &[("hello", 1)]).trim_start_matches("NoError | "))
                .replace(" | more", &format!(", hello.{SHOP}. SRV 0 1 43 hello.{SHOP}. | more")),
        ),
        ("_tcp._tcp.hello", SRV, srv("_tcp._tcp.hello", &[("hello", 1)])),
        ("_udp._udp.hello", SRV, srv("_udp._udp.hello", &[("hello", 1)])),
        ("_43._tcp.hello", SRV, nxdomain.clone()),
        // The KEP keeps this form for itself.
        ("east.hello", A, nxdomain.clone()),
        // A headless service is its ready pods.
        ("db", A, format!("NoError | db.{SHOP}. A 240.0.0.4, db.{SHOP}. A 240.0.0.5")),
        ("db-0.west.db", A, format!("NoError | {}", a("db-0.west.db", 5))),
        ("db-1.west.db", A, nxdomain.clone()),
        ("west.db", A, nodata.clone()),
        ("_tcp._tcp.db", SRV, srv("_tcp._tcp.db", &pods)),
        ("idle", A, nxdomain.clone()),
        ("idle-0.east.idle", A, nxdomain.clone()),
        // Without named pods it is one address, while something is ready.
        ("bare", A, format!("NoError | {}", a("bare", 9))),
        ("gone", A, nxdomain.clone()),
        ("nobody", A, nxdomain.clone()),
    ];
    let zone = zone();
    for (name, kind, wanted) in rows {
        assert_eq!(ask(&zone, &format!("{name}.{SHOP}."), *kind), *wanted, "{name} {kind}");
    }
    assert_eq!(
        ask(&zone, "dns-version.clusterset.local.", TXT),
        "NoError | dns-version.clusterset.local. TXT 1.0.0"
    );
    assert_eq!(ask(&zone, "dns-version.clusterset.local.", A), nodata);
    assert_eq!(ask(&zone, "dns-version.acme.example.com.", TXT).split(' ').next(), Some("NXDomain"));
    // Without a member there is no such domain, and somebody else may have it.
    assert_eq!(ask(&super::zone(), &format!("hello.{SHOP}."), A), "elsewhere");
}
