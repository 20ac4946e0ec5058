//! What is written and read of orders and of how they go, by those of before too.

use super::*;

#[test]
fn what_is_left_out_is_the_default() {
    let spec: InstallSpec =
        serde_json::from_str(r#"{"version":"1.2.3","registry":"r.example.com/t","later":1}"#).unwrap();
    assert_eq!(spec.gateways.egress, Egress::default());
    assert_eq!(spec.gateways.egress.replicas.replicas, 2);
    assert_eq!(spec.gateways.ingress.exposure, [Exposure::LoadBalancer { annotations: Labels::new() }]);
    assert!(spec.dns.corefile && spec.injector.enabled && !spec.node.enabled);
    let order = InstallOrder::Installed(InstallSpec { revision: 7, ..spec });
    let text = serde_json::to_string(&order).unwrap();
    assert_eq!(serde_json::from_str::<InstallOrder>(&text).unwrap(), order);
    assert_eq!(order.revision(), 7);
}

/// What an agent of before the field reads, and what one of today does.
#[test]
fn a_mode_that_is_new_is_the_usual_one_to_an_older_agent() {
    let mut spec: InstallSpec = serde_json::from_str(r#"{"version":"1","registry":"r"}"#).unwrap();
    assert_eq!(spec.capture(), CaptureMode::Gateway);
    for (mode, before, field) in [
        (CaptureMode::Sidecar, "gateway", true),
        (CaptureMode::None, "none", false),
        (CaptureMode::Node, "gateway", true),
        (CaptureMode::Gateway, "gateway", false),
    ] {
        spec.set_capture(mode);
        let json = serde_json::to_value(&spec).unwrap();
        assert_eq!((json["default_mode"].as_str(), json.get("capture").is_some()), (Some(before), field));
        assert_eq!(serde_json::from_value::<InstallSpec>(json).unwrap().capture(), mode);
    }
}

/// What stands in databases and on agents' disks from before the field, and what those of before read.
#[test]
fn ranges_are_new_beside_what_egress_gateways_had() {
    let counts = r#"{"replicas":3,"min":2,"max":6}"#;
    let mut egress: Egress = serde_json::from_str(counts).unwrap();
    assert_eq!(serde_json::to_string(&egress).unwrap(), counts);
    egress.never_dial = ["fd00:1::/64", "10.244.0.0/16"].map(|net| net.parse().unwrap()).into();
    let text = serde_json::to_string(&egress).unwrap();
    assert_eq!(serde_json::from_str::<Egress>(&text).unwrap(), egress);
    assert_eq!(serde_json::from_str::<Replicas>(&text).unwrap(), egress.replicas, "to those of before");
}

#[test]
fn an_agent_says_of_how_many_ranges_it_was_told() {
    let mut spec: InstallSpec =
        serde_json::from_str(r#"{"revision":7,"version":"1.2.3","registry":"r.example.com/t"}"#).unwrap();
    let said = |spec: &InstallSpec| {
        let status = InstallStatus::of(&InstallOrder::Installed(spec.clone()), Vec::new());
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<InstallStatus>(&text).unwrap(), status);
        text
    };
    let before = r#"{"revision":7,"steps":[]}"#;
    assert_eq!(said(&spec), before);
    spec.gateways.egress.never_dial = ["fd00:1::/64", "10.244.0.0/16"].map(|net| net.parse().unwrap()).into();
    assert_eq!(said(&spec), r#"{"revision":7,"steps":[],"never_dial":2}"#);
    assert_eq!(serde_json::from_str::<InstallStatus>(before).unwrap().never_dial, 0, "of those of before");
}

#[test]
fn namespaces_are_chosen() {
    let name = |text: &str| NamespaceName::parse(text).unwrap();
    let these = BTreeSet::from([name("a")]);
    assert!(Namespaces::default().chooses(&name("a")));
    assert!(!Namespaces::Exclude(these.clone()).chooses(&name("a")));
    assert!(Namespaces::Include(these.clone()).chooses(&name("a")));
    assert!(!Namespaces::Include(these).chooses(&name("b")));
}
