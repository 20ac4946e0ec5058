//! Which command lines there are.

use super::*;
use tombolo_gateway::config::{Bring, Capture};

fn run(args: &str) -> Result<Config, String> {
    let args = format!("tombolo-gateway run --agent-socket /a.sock --tunnel 127.0.0.1:15008 {args}");
    let options = Options::try_parse_from(args.split_whitespace()).map_err(|e| e.to_string())?;
    match options.command {
        Command::Run(run) => run.config(),
        Command::Redirect(_) => unreachable!("it says run"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Options::command().debug_assert();
}

#[test]
fn a_sidecar_of_a_machine() {
    let config =
        run("--role sidecar --capture explicit --serve 127.0.0.1 --serve ::1 --access-log -").unwrap();
    assert_eq!((config.capture, config.serve.len()), (Capture::Explicit, 2));
    assert_eq!(config.instance, "sidecar-127.0.0.1-15008");
    assert_eq!(config.outbound_port, 15001);
}

#[test]
fn tunnels_are_kept_as_long_as_asked() {
    let timing = |args: &str| run(args).map(|config| config.timing);
    let usual = timing("--role egress").unwrap();
    let kept = |timing: Timing| (timing.keepalive, timing.idle, timing.idle_taken);
    assert_eq!(kept(usual), kept(Timing::default()));
    let asked = timing("--role egress --keepalive 1 --idle 2").unwrap();
    assert_eq!(kept(asked), (Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)));
    for wrong in ["--keepalive 0", "--idle 0", "--idle 1h"] {
        timing(&format!("--role egress {wrong}")).unwrap_err();
    }
}

#[test]
fn what_may_wait_is_a_part_of_the_memory_or_as_asked() {
    let buffers = |args: &str| run(args).map(|config| config.limits.buffers);
    assert_eq!(buffers("--role egress --buffers 64"), Ok(64 << 20));
    assert_eq!(buffers("--role egress"), Ok(budget::usual(limits::memory())));
    assert!(buffers("--role egress --buffers 0").is_err());
}

#[test]
fn a_sidecar_of_a_pod_and_an_ingress() {
    let config = run("--role sidecar --capture sidecar --workload default/shopping").unwrap();
    assert_eq!(config.workload.unwrap().1.as_str(), "shopping");
    let config = run("--role ingress --advertise gw.example.com:15443 --advertise [fd00::1]:1").unwrap();
    assert_eq!(config.advertise.len(), 2);
}

#[test]
fn what_does_not_fit_is_said_all_at_once() {
    let wrong = run("--role egress --capture explicit --serve 127.0.0.1 --advertise a:1").unwrap_err();
    assert!(
        wrong.contains("--capture") && wrong.contains("--serve") && wrong.contains("--advertise"),
        "{wrong}"
    );
    for bad in [
        "--role nowhere",
        "--role sidecar --workload shopping",
        "--role ingress --never-dial 10.0.0.0/8",
        "--role egress --never-dial 10.0.0.1/33",
        "--role sidecar --capture node",
        "--role node --capture sidecar",
        "--role egress --admin 15020",
        "--role sidecar --workload default/Shop_ping!",
        "--role ingress --advertise gw.example.com",
        "--role ingress --advertise gw:0",
        "--role ingress --advertise fd00::1:80",
    ] {
        assert!(run(bad).is_err(), "{bad}");
    }
}

#[test]
fn in_a_pod() {
    let pod = |name: &str| match name {
        "POD_NAMESPACE" => Some("shop".to_owned()),
        "POD_NAME" => Some("cart-1".to_owned()),
        "POD_IP" => Some("10.0.0.7".to_owned()),
        "POD_IPS" => Some("10.0.0.7,fd00::7".to_owned()),
        "SERVICE_ACCOUNT" => Some("cart".to_owned()),
        "KUBERNETES_SERVICE_HOST" => Some("10.96.0.1".to_owned()),
        "TOMBOLO_AGENT_ROOTS" => Some("PEM".to_owned()),
        _ => None,
    };
    let run = |args: &str, pod: &dyn Fn(&str) -> Option<String>| {
        let args = format!("tombolo-gateway run {args}");
        let options = Options::try_parse_from(args.split_whitespace()).map_err(|e| e.to_string())?;
        match options.command {
            Command::Run(run) => run.config_in(pod),
            Command::Redirect(_) => unreachable!("it says run"),
        }
    };
    let agent = "--agent https://agent:15012 --agent-token-file /t --cluster c1 --trust-domain acme.internal";
    let config = run(&format!("--role sidecar --capture sidecar --admin 15020 {agent}"), &pod).unwrap();
    assert_eq!(config.admin.unwrap().to_string(), "10.0.0.7:15020");
    assert_eq!(
        (config.instance.as_str(), config.tunnel.to_string().as_str()),
        ("shop.cart-1", "10.0.0.7:15008")
    );
    let both = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    assert_eq!(config.serve, BTreeSet::from(both));
    assert_eq!(config.workload.unwrap().1.as_str(), "cart");
    for (role, tunnel) in
        [("egress", "10.0.0.7:15008"), ("ingress", "10.0.0.7:15443"), ("node", "10.0.0.7:15008")]
    {
        let config = run(&format!("--role {role} {agent}"), &pod).unwrap();
        assert_eq!(config.tunnel.to_string(), tunnel);
        let beside = if role == "egress" { BTreeSet::from([both[1]]) } else { BTreeSet::new() };
        assert_eq!(config.beside, beside, "{role}");
        let never: Vec<String> = config.never_dial.iter().map(ToString::to_string).collect();
        let own = ["10.96.0.1/32", "10.0.0.7/32", "fd00::7/128"];
        assert_eq!(never, if role == "egress" { &own[..] } else { &[] }, "{role}");
        assert!(config.serve.is_empty() && config.workload.is_none(), "{role}");
        let node = Capture::Node(Bring::Auto);
        assert_eq!(config.capture, if role == "node" { node } else { Capture::None });
    }
    let told = run(&format!("--role egress --never-dial 10.244.0.0/16 {agent}"), &pod).unwrap();
    let told: Vec<String> = told.never_dial.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.96.0.1/32", "10.0.0.7/32", "fd00::7/128", "10.244.0.0/16"], "beside its own");
    for (args, why) in [
        ("--role egress".to_owned(), "--agent-socket"),
        ("--role egress --agent https://agent:1 --cluster c1".to_owned(), "--agent-token-file"),
        (format!("--role egress --agent-socket /s {agent}"), "cannot be used with"),
        (format!("--role egress --agent-roots /none/roots.pem {agent}"), "/none/roots.pem"),
    ] {
        let error = run(&args, &pod).unwrap_err();
        assert!(error.contains(why), "{args}: {error}");
    }
    let error = run(&format!("--role egress {agent}"), &|_| None).unwrap_err();
    assert!(error.contains("TOMBOLO_AGENT_ROOTS"), "{error}");
    let nowhere = |name: &str| (name == "TOMBOLO_AGENT_ROOTS").then(|| "PEM".to_owned());
    let error = run(&format!("--role egress {agent}"), &nowhere).unwrap_err();
    assert!(error.contains("--tunnel"), "{error}");
}

#[test]
fn redirects() {
    let parse =
        |args: &str| Options::try_parse_from(format!("tombolo-gateway redirect {args}").split_whitespace());
    let Command::Redirect(install) = parse("--vips 240.0.0.0/4 --port 15001").unwrap().command else {
        unreachable!("it says redirect")
    };
    assert_eq!(install.wanted().unwrap().vips.len(), 1);
    let Command::Redirect(remove) = parse("--remove").unwrap().command else {
        unreachable!("it says redirect")
    };
    assert_eq!(remove.wanted(), None);
    assert!(parse("").is_err(), "neither");
    assert!(parse("--remove --vips 240.0.0.0/4").is_err(), "both");
}
