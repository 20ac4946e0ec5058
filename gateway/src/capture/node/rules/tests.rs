use super::*;
use crate::capture::lookup::{Routes, steer};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

const INSIDE: &str = "TOMBOLO_TEST_NODE_NAMESPACE";
const V4: &str = "240.1.2.3:7000";
const V6: &str = "[fd74:6f6d:6265:6c6f:9::7]:7000";
/// A node with a bridge, and a pod behind it, whose network namespace is `pod`. Translation as kube-proxy has it for the same addresses.
const LAB: &str = "mount -t tmpfs none /run && ip netns add pod && ip link set lo up && \
    ip link add cni0 type bridge && ip addr add 10.244.0.1/24 dev cni0 && \
    ip addr add fd00::1/64 dev cni0 nodad && ip link set cni0 up && \
    ip link add veth0 type veth peer name eth0 netns pod && ip link set veth0 master cni0 up && \
    ip -n pod addr add 10.244.0.2/24 dev eth0 && ip -n pod addr add 10.244.0.3/24 dev eth0 && \
    ip -n pod addr add fd00::2/64 dev eth0 nodad && ip -n pod addr add fd00::3/64 dev eth0 nodad && \
    ip -n pod link set eth0 up && ip -n pod route add default via 10.244.0.1 && \
    ip -n pod -6 route add default via fd00::1 && \
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 && \
    nft 'add table inet kube; \
         add chain inet kube services { type nat hook prerouting priority -100; }; \
         add chain inet kube own { type nat hook output priority -100; }; \
         add rule inet kube services tcp dport 7000 redirect to :16384; \
         add rule inet kube own ip daddr 240.1.2.3 tcp dport 7000 redirect to :16384' && \
    exec \"$0\" \"$@\"";

fn rules(to: To) -> Rules {
    Rules {
        vips: vec!["240.0.0.0/4".parse().unwrap(), "fd74:6f6d:6265:6c6f::/64".parse().unwrap()],
        to,
        pods: ["10.244.0.2".parse().unwrap(), "fd00::2".parse().unwrap()].into(),
    }
}

#[test]
fn rules_name_the_pods_of_each_family() {
    for (to, does) in [(To::Port(15001), ["15001", "15001"]), (To::Itself, ["dnat", "dnat"])] {
        let mut wanted = rules(to);
        let text = serde_json::to_string(&wanted.rules()).unwrap();
        let order = [
            "-110",
            "l4proto",
            "saddr",
            "10.244.0.2",
            "240.0.0.0",
            does[0],
            "ip6",
            "fd00::2",
            "fd74",
            does[1],
        ];
        let mut at = 0;
        for needle in order {
            let found = text[at..].find(needle);
            assert!(found.is_some(), "{needle} after byte {at} in {text}");
            at += found.unwrap();
        }
        wanted.pods.clear();
        let text = serde_json::to_string(&wanted.rules()).unwrap();
        assert!(!text.contains("redirect") && !text.contains("dnat"), "nobody is captured");
    }
}

/// Runs the test of this name again, in a network of its own. Needs root, as the lookup does.
#[test]
fn a_lookup_beside_kube_proxy() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "BPF programs need root: run this test as root");
    let done = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", LAB])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "capture::node::rules::tests::inside_a_network_namespace", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux), ip (iproute2), sysctl (procps) and nft (nftables) are installed");
    let output = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && output.contains("steered beside"), "{output}\n{errors}");
}

/// A server that says what was dialled, or its word, and then echoes.
fn serve(listener: TcpListener, word: Option<&'static str>) {
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let dialled = stream.local_addr().unwrap().to_string();
                writeln!(stream, "{}", word.unwrap_or(&dialled)).unwrap();
                let mut reader = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
}

/// `nc` of a pod with this address: what it hears first, and the connection, which goes on.
fn dial(source: &str, to: &str) -> (std::process::Child, String) {
    let (host, port) = to.rsplit_once(':').unwrap();
    let host = host.trim_matches(['[', ']']);
    let mut child = Command::new("ip")
        .args(["netns", "exec", "pod", "nc.openbsd", "-w", "10", "-s", source, host, port])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = line(&mut child);
    (child, said)
}

fn line(child: &mut std::process::Child) -> String {
    let (mut said, mut byte) = (Vec::new(), [0]);
    // the connection goes on, so nothing behind the line may be waited for
    while child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        said.extend(byte);
    }
    String::from_utf8(said).unwrap()
}

fn heard(source: &str, to: &str) -> String {
    let (mut child, said) = dial(source, to);
    let _ = child.kill();
    let _ = child.wait();
    said
}

/// Does nothing but inside the network that the test above makes.
#[test]
fn inside_a_network_namespace() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    for kube in ["0.0.0.0:16384", "[::]:16384"] {
        let listener = socket2::Socket::new(
            if kube.starts_with('[') { socket2::Domain::IPV6 } else { socket2::Domain::IPV4 },
            socket2::Type::STREAM,
            None,
        );
        let listener = listener.unwrap();
        if kube.starts_with('[') {
            listener.set_only_v6(true).unwrap();
        }
        listener.bind(&kube.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        listener.listen(16).unwrap();
        serve(listener.into(), Some("kube"));
    }
    let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap()];
    let wanted = rules(To::Itself);
    let routes = Routes::default();
    let (mut early, said) = dial("10.244.0.2", V4);
    assert_eq!(said, "kube", "before there is a proxy");
    let steering = steer(&wanted.vips, &listeners, &routes, Some("10.244.0.1".parse().unwrap())).unwrap();
    for listener in listeners {
        serve(listener, None);
    }
    wanted.install().unwrap();
    wanted.install().unwrap();

    for (pod, stranger, to) in [("10.244.0.2", "10.244.0.3", V4), ("fd00::2", "fd00::3", V6)] {
        assert_eq!(heard(pod, to), to, "the pod's connection comes as it was dialled");
        assert_eq!(heard(stranger, to), "kube", "another pod's goes as ever");
    }
    let mut own = TcpStream::connect(V4).unwrap();
    let from = own.local_addr().unwrap();
    assert_eq!(from.ip().to_string(), "10.244.0.1", "the node's own programs have the node's address");
    let mut said = [0; 4];
    own.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"kube", "and go as ever");

    // What goes on stays where it is: connections of before, and those of the proxy once the rules are gone.
    let (mut kept, said) = dial("10.244.0.2", V4);
    assert_eq!(said, V4);
    Rules::remove().unwrap();
    drop(steering);
    assert_eq!(heard("10.244.0.2", V4), "kube", "new ones go as before");
    for (child, what) in [(&mut early, "one of before the proxy"), (&mut kept, "one of the proxy")] {
        child.stdin.as_mut().unwrap().write_all(b"still\n").unwrap();
        assert_eq!(line(child), "still", "{what}");
        let _ = child.kill();
        let _ = child.wait();
    }
    routes.remove();
    assert_eq!(heard("10.244.0.2", V4), "kube", "nothing is left");
    println!("steered beside");
}
