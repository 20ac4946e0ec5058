//! The zone and the answers, as tables.

use super::*;
use crate::dns::answer::Answer;
use hickory_proto::rr::DNSClass;
use std::net::IpAddr;

fn settings() -> Settings {
    Settings { addresses: vec!["192.0.2.53".parse().unwrap()], negative_ttl_s: 3, ..Settings::default() }
}

/// The reply on one line: code, then each section's records.
pub(super) fn ask(zone: &Zone, name: &str, kind: RecordType) -> String {
    show(resolve(zone, &question(name, kind), &settings()))
}

fn show(answer: Answer) -> String {
    let Answer::Ours(reply) = answer else { return "elsewhere".to_owned() };
    let section = |records: &[hickory_proto::rr::Record]| {
        let records: Vec<String> =
            records.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect();
        records.join(", ")
    };
    let mut text = format!("{:?}{}", reply.code, if reply.authoritative { "" } else { " (no authority)" });
    for (title, records) in
        [("", &reply.answers), ("auth ", &reply.authorities), ("more ", &reply.additionals)]
    {
        if !records.is_empty() {
            text += &format!(" | {title}{}", section(records));
        }
    }
    text
}

const ACME: &str = "acme.example.com. SOA ns.dns.tombolo.acme.example.com. hostmaster.acme.example.com. 42 7200 1800 86400 3";

#[test]
fn table() {
    let nodata = format!("NoError | auth {ACME}");
    let nxdomain = format!("NXDomain | auth {ACME}");
    use RecordType::*;
    let rows: &[(&str, RecordType, &str)] = &[
        // Nothing is ready behind it, and it resolves.
        ("catalog.acme.example.com.", A, "NoError | catalog.acme.example.com. A 240.0.0.1"),
        (
            "catalog.acme.example.com.",
            AAAA,
            "NoError | catalog.acme.example.com. AAAA fd74:6f6d:6265:6c6f::1",
        ),
        (
            "catalog.cluster-2.acme.example.com.",
            A,
            "NoError | catalog.cluster-2.acme.example.com. A 240.0.0.2",
        ),
        // The case of the letters comes back as it was asked.
        ("CataLOG.acme.EXAMPLE.com.", A, "NoError | CataLOG.acme.EXAMPLE.com. A 240.0.0.1"),
        // A name without records of the type.
        ("catalog.acme.example.com.", TXT, &nodata),
        ("catalog.acme.example.com.", HTTPS, &nodata),
        ("catalog.acme.example.com.", SVCB, &nodata),
        ("catalog.acme.example.com.", MX, &nodata),
        ("catalog.acme.example.com.", DS, &nodata),
        ("catalog.acme.example.com.", SRV, &nodata),
        // RFC 8482.
        ("catalog.acme.example.com.", ANY, "NoError | catalog.acme.example.com. HINFO RFC8482 "),
        ("nothing.acme.example.com.", ANY, &nxdomain),
        // Empty non-terminals.
        ("cluster-2.acme.example.com.", A, &nodata),
        ("_tcp.catalog.acme.example.com.", A, &nodata),
        ("_tcp.catalog.acme.example.com.", SRV, &nodata),
        ("tombolo.acme.example.com.", A, &nodata),
        ("dns.tombolo.acme.example.com.", A, &nodata),
        // Names that do not exist.
        ("nothing.acme.example.com.", A, &nxdomain),
        ("below.catalog.acme.example.com.", A, &nxdomain),
        ("cluster-1.acme.example.com.", A, &nxdomain),
        ("a.b.c.d.acme.example.com.", A, &nxdomain),
        ("_udp.catalog.acme.example.com.", SRV, &nxdomain),
        ("_grpc._tcp.catalog.acme.example.com.", SRV, &nxdomain),
        ("_http._udp.catalog.acme.example.com.", SRV, &nxdomain),
        ("_http._tcp.nothing.acme.example.com.", SRV, &nxdomain),
        ("http._tcp.catalog.acme.example.com.", SRV, &nxdomain),
        ("_8082._tcp.catalog.acme.example.com.", SRV, &nxdomain),
        // One label with a dot in it is not two labels.
        ("catalog\\.acme.example.com.", A, "elsewhere"),
        ("cata\\.log.acme.example.com.", A, &nxdomain),
        // Services.
        (
            "_http._tcp.catalog.acme.example.com.",
            SRV,
            "NoError | _http._tcp.catalog.acme.example.com. SRV 0 1 8082 catalog.acme.example.com. \
             | more catalog.acme.example.com. A 240.0.0.1, catalog.acme.example.com. AAAA fd74:6f6d:6265:6c6f::1",
        ),
        (
            "_9000._TCP.catalog.acme.example.com.",
            SRV,
            "NoError | _9000._TCP.catalog.acme.example.com. SRV 0 1 9000 catalog.acme.example.com. \
             | more catalog.acme.example.com. A 240.0.0.1, catalog.acme.example.com. AAAA fd74:6f6d:6265:6c6f::1",
        ),
        ("_http._tcp.catalog.acme.example.com.", A, &nodata),
        // A headless service is its pods, wherever they are; in one cluster, those of that cluster.
        (
            "db.acme.example.com.",
            A,
            "NoError | db.acme.example.com. A 240.0.0.5, db.acme.example.com. A 240.0.0.6",
        ),
        ("db.cluster-2.acme.example.com.", A, "NoError | db.cluster-2.acme.example.com. A 240.0.0.6"),
        ("db-0.db.acme.example.com.", A, "NoError | db-0.db.acme.example.com. A 240.0.0.5"),
        ("lone.acme.example.com.", A, "NoError | lone.acme.example.com. A 240.0.0.7"),
        (
            "_http._tcp.db.cluster-2.acme.example.com.",
            SRV,
            "NoError | _http._tcp.db.cluster-2.acme.example.com. SRV 0 1 8082 db-1.db.acme.example.com. \
             | more db-1.db.acme.example.com. A 240.0.0.6, db-1.db.acme.example.com. AAAA fd74:6f6d:6265:6c6f::6",
        ),
        // The domain.
        ("acme.example.com.", SOA, &format!("NoError | {ACME}")),
        (
            "acme.example.com.",
            NS,
            "NoError | acme.example.com. NS ns.dns.tombolo.acme.example.com. \
             | more ns.dns.tombolo.acme.example.com. A 192.0.2.53",
        ),
        ("acme.example.com.", A, &nodata),
        ("ns.dns.tombolo.acme.example.com.", A, "NoError | ns.dns.tombolo.acme.example.com. A 192.0.2.53"),
        ("ns.dns.tombolo.acme.example.com.", AAAA, &nodata),
        (
            "_tombolo.acme.example.com.",
            TXT,
            concat!(
                "NoError | _tombolo.acme.example.com. TXT software=tombolo-agent/",
                env!("CARGO_PKG_VERSION"),
                "cluster=cluster-1generation=42"
            ),
        ),
        ("_tombolo.acme.example.com.", A, &nodata),
        // Addresses.
        ("1.0.0.240.in-addr.arpa.", PTR, "NoError | 1.0.0.240.in-addr.arpa. PTR catalog.acme.example.com."),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.F.6.c.6.5.6.2.6.d.6.f.6.4.7.d.f.ip6.arpa.",
            PTR,
            "NoError | 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.F.6.c.6.5.6.2.6.d.6.f.6.4.7.d.f.ip6.arpa. PTR catalog.acme.example.com.",
        ),
        ("200.0.0.240.in-addr.arpa.", PTR, "elsewhere"),
        ("0.0.240.in-addr.arpa.", PTR, "elsewhere"),
        ("01.0.0.240.in-addr.arpa.", PTR, "elsewhere"),
        ("256.0.0.240.in-addr.arpa.", PTR, "elsewhere"),
        ("x.ip6.arpa.", PTR, "elsewhere"),
        // Names of others.
        ("example.com.", A, "elsewhere"),
        ("www.example.com.", A, "elsewhere"),
        ("notacme.example.com.", A, "elsewhere"),
        ("xacme.example.com.", A, "elsewhere"),
        (".", NS, "elsewhere"),
        // Never answered, whosever the name is.
        ("acme.example.com.", AXFR, "Refused (no authority)"),
        ("www.example.com.", IXFR, "Refused (no authority)"),
        ("acme.example.com.", OPT, "FormErr (no authority)"),
    ];
    let zone = zone();
    for (name, kind, expected) in rows {
        assert_eq!(ask(&zone, name, *kind).replace(".\" \"", "."), *expected, "{name} {kind}");
    }
}

/// The usual case: the same stateful set in two clusters, so that each pod's name leads to either.
#[test]
fn a_headless_service_in_one_cluster_answers_nothing_that_leads_to_another() {
    use NameKind::{Pod, Service, ServiceInCluster};
    let both = [("cluster-1", 1), ("cluster-2", 1)];
    let zone = build(
        &resources([
            headless(name("db.acme.example.com", Service, 1, &both)),
            headless(name("db.cluster-1.acme.example.com", ServiceInCluster, 2, &both[..1])),
            headless(name("db.cluster-2.acme.example.com", ServiceInCluster, 3, &both[1..])),
            name("db-0.db.acme.example.com", Pod, 4, &both),
            name("db-1.db.acme.example.com", Pod, 5, &both[..1]),
        ]),
        Generation::new(1),
        &AddressMode::Allocated,
        None,
    );
    for (asked, addresses) in [
        ("db.acme.example.com.", &["240.0.0.4", "240.0.0.5"][..]),
        ("db.cluster-1.acme.example.com.", &["240.0.0.2"]),
        ("db.cluster-2.acme.example.com.", &["240.0.0.3"]),
    ] {
        let records: Vec<String> = addresses.iter().map(|ip| format!("{asked} A {ip}")).collect();
        assert_eq!(ask(&zone, asked, RecordType::A), format!("NoError | {}", records.join(", ")));
    }
}

#[test]
fn reverse_names_are_zones_of_their_own() {
    let zone = zone();
    let apex = "1.0.0.240.in-addr.arpa.";
    assert!(ask(&zone, apex, RecordType::A).starts_with(&format!("NoError | auth {apex} SOA")));
    assert!(ask(&zone, apex, RecordType::SOA).starts_with(&format!("NoError | {apex} SOA")));
    assert!(ask(&zone, &format!("x.{apex}"), RecordType::PTR).starts_with("NXDomain | auth"));
}

#[test]
fn other_classes_are_refused_but_for_the_version() {
    let zone = zone();
    let ask = |name, kind, class| {
        let mut question = question(name, kind);
        question.set_query_class(class);
        show(resolve(&zone, &question, &settings()))
    };
    let version = concat!("NoError | version.bind. TXT tombolo-agent/", env!("CARGO_PKG_VERSION"));
    assert_eq!(ask("version.bind.", RecordType::TXT, DNSClass::CH), version);
    assert_eq!(ask("version.bind.", RecordType::A, DNSClass::CH), "Refused (no authority)");
    assert_eq!(ask("catalog.acme.example.com.", RecordType::A, DNSClass::CH), "Refused (no authority)");
    assert_eq!(ask("catalog.acme.example.com.", RecordType::A, DNSClass::HS), "Refused (no authority)");
    assert_eq!(ask("catalog.acme.example.com.", RecordType::A, DNSClass::ANY), "Refused (no authority)");
}

#[test]
fn explicit_mode_answers_the_mapped_address() {
    let mode = AddressMode::Explicit("127.101.0.0/29".parse().unwrap());
    let zone = build(&example(), Generation::new(42), &mode, None);
    let nodata = format!("NoError | auth {ACME}");
    let name = "catalog.acme.example.com.";
    assert_eq!(ask(&zone, name, RecordType::A), format!("NoError | {name} A 127.101.0.1"));
    assert_eq!(ask(&zone, name, RecordType::AAAA), nodata);
    for address in ["1.0.101.127", "1.0.0.240"] {
        let answer = ask(&zone, &format!("{address}.in-addr.arpa."), RecordType::PTR);
        assert_eq!(answer, format!("NoError | {address}.in-addr.arpa. PTR {name}"));
    }
    // The eighth name has no place in a prefix for seven: it is there, without an address, and says why.
    let lone = "lone.acme.example.com.";
    assert_eq!(ask(&zone, lone, RecordType::A), nodata);
    let Answer::Ours(reply) = resolve(&zone, &question(lone, RecordType::A), &settings()) else { panic!() };
    assert!(reply.explanation.unwrap().text.contains("wider prefix"));
    let problems: Vec<&str> = zone.problems().keys().map(GlobalName::as_str).collect();
    assert_eq!(problems, ["lone.acme.example.com"]);
}

#[test]
fn a_name_outside_its_domain_is_left_out_and_reported() {
    for bad in ["catalog.other.example.com", "acme.example.com"] {
        let zone = build(
            &resources([name(bad, NameKind::Service, 1, &[])]),
            Generation::ZERO,
            &AddressMode::Allocated,
            None,
        );
        assert_eq!(zone.problems().len(), 1, "{bad}");
        assert!(zone.entry(bad).is_none(), "{bad}");
        assert_eq!(zone.names_of(IpAddr::V4(vip(1).v4)).next(), None, "{bad}");
    }
}

#[test]
fn time_to_live() {
    let settings = Settings { ttl_s: 60, negative_ttl_s: 10, ..Settings::default() };
    let reply = |name| match resolve(&zone(), &question(name, RecordType::A), &settings) {
        Answer::Ours(reply) => reply,
        Answer::Elsewhere => panic!("{name} is ours"),
    };
    assert_eq!(reply("catalog.acme.example.com.").answers[0].ttl, 60);
    assert_eq!(reply("nothing.acme.example.com.").authorities[0].ttl, 10);
}

#[test]
fn the_longest_names_do_not_break_anything() {
    let label = "a".repeat(63);
    let domain = format!("{label}.{label}.{label}.{}", "b".repeat(59));
    let long = name(&format!("c.{domain}"), NameKind::Service, 1, &[]);
    let long = NameSpec { domain: domain.parse().unwrap(), ..long };
    let zone = build(&resources([long]), Generation::new(1), &AddressMode::Allocated, None);
    assert!(ask(&zone, &format!("c.{domain}."), RecordType::A).ends_with("A 240.0.0.1"));
    assert!(ask(&zone, &format!("{domain}."), RecordType::SOA).contains("SOA"));
}

/// Names that Services stand for, in mode `gateway`.
fn exposed_zone(exposed: &[(&str, &[&str], bool)]) -> Zone {
    use crate::expose::{Exposed, Exposure};
    let exposure = |(name, addresses, refused): &(&str, &[&str], bool)| {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        (name.parse().unwrap(), Exposure { addresses, refused: *refused, ports: Default::default() })
    };
    let exposed: Exposed = exposed.iter().map(exposure).collect();
    build(&example(), Generation::new(42), &AddressMode::Allocated, Some(&exposed))
}

/// A Service that carries the virtual IPs of a family lets the name have them. One that was not planned yet changes nothing.
#[test]
fn exposed_names_keep_their_virtual_addresses() {
    let zone = exposed_zone(&[("catalog.acme.example.com", &["240.0.0.1"], false)]);
    for (name, kind, answer) in [
        ("catalog.acme.example.com.", RecordType::A, "NoError | catalog.acme.example.com. A 240.0.0.1"),
        ("catalog.acme.example.com.", RecordType::AAAA, &format!("NoError | auth {ACME}")),
        (
            "catalog.cluster-2.acme.example.com.",
            RecordType::A,
            "NoError | catalog.cluster-2.acme.example.com. A 240.0.0.2",
        ),
    ] {
        assert_eq!(ask(&zone, name, kind), answer, "{name} {kind}");
    }
    assert!(zone.problems().is_empty());
}

/// Where Services may not carry virtual IPs, a name is at its Service, and nowhere before it has one.
#[test]
fn exposed_names_are_at_their_services() {
    let zone = exposed_zone(&[
        ("catalog.acme.example.com", &["10.96.0.7"], true),
        ("db-0.db.acme.example.com", &["10.96.0.8", "fd00::8"], true),
    ]);
    let nodata = format!("NoError | auth {ACME}");
    for (name, kind, answer) in [
        ("catalog.acme.example.com.", RecordType::A, "NoError | catalog.acme.example.com. A 10.96.0.7"),
        ("catalog.acme.example.com.", RecordType::AAAA, &nodata),
        ("catalog.cluster-2.acme.example.com.", RecordType::A, &nodata),
        // A headless name is its pods; one of the two has no Service yet.
        ("db.acme.example.com.", RecordType::A, "NoError | db.acme.example.com. A 10.96.0.8"),
        ("db.acme.example.com.", RecordType::AAAA, "NoError | db.acme.example.com. AAAA fd00::8"),
    ] {
        assert_eq!(ask(&zone, name, kind), answer, "{name} {kind}");
    }
    let problem = &zone.problems()[&"catalog.cluster-2.acme.example.com".parse::<GlobalName>().unwrap()];
    assert!(problem.contains("no Service in this cluster yet"), "{problem}");
}
