//! Bounded fuzzing of what strangers can send: random bytes and edits of good input, a fixed number of each. Nothing may panic, and what is taken must
//! come back the same. CONNECT requests are fuzzed in `gateway/tests/path/fuzz.rs`.

use proptest::{prelude::*, test_runner::TestRunner};
use std::fmt::Display;
use tombolo_agent::source::Files;
use tombolo_model::{
    Generation,
    identity::{SpiffeId, TrustDomain},
    name::{ClusterName, DnsLabel, Domain, GlobalName},
    snapshot::{ClusterResource, GatewayResource, Resource},
};
use tombolo_wire::{codec::LineDecoder, digest::Stated, message::FeedLine, session::Receiver};

/// Inputs of each target.
const CASES: u32 = 4_000;

/// Random bytes, or a seed with some of its bytes replaced, cut out or put in.
fn inputs(seeds: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let edits =
        prop::collection::vec((any::<usize>(), 0usize..6, prop::collection::vec(any::<u8>(), 0..6)), 0..5);
    let edited = (prop::sample::select(seeds), edits).prop_map(|(seed, edits)| {
        let mut bytes = seed.to_vec();
        for (at, len, with) in edits {
            let at = at % (bytes.len() + 1);
            let end = (at + len).min(bytes.len());
            bytes.splice(at..end, with);
        }
        bytes
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..600), 3 => edited]
}

fn fuzz(target: &str, seeds: &'static [&'static [u8]], take: impl Fn(&[u8])) {
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let ran = TestRunner::new(config).run(&inputs(seeds), |bytes| {
        take(&bytes);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{target}: {error}"));
    eprintln!("{target}: {CASES} inputs");
}

#[test]
fn dns_packets() {
    const A: &[u8] =
        b"\x07\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07catalog\x04acme\x07example\x03com\x00\x00\x01\x00\x01";
    const EDNS: &[u8] =
        b"\x01\x02\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\xff\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00";
    fuzz("dns packets", &[A, EDNS], |bytes| {
        tombolo_agent::dns::fuzz(bytes);
    });
}

#[test]
fn feed_lines() {
    const LINES: &[&[u8]] = &[
        b"{\"line\":\"heartbeat\",\"generation\":7}\n",
        b"{\"line\":\"hello\",\"software\":\"0.1.0\",\"protocol\":\"1.0\",\"minimum\":\"1.0\"}\n{\"line\":\"heartbeat\",\"generation\":1}\n",
        b"{\"line\":\"snapshot\",\"generation\":3,\"digest\":\"00000000000000000000000000000000\",\"resources\":{}}\n",
        b"{\"line\":\"delta\",\"base\":1,\"generation\":2,\"digest\":\"00\",\"upserts\":{},\"removes\":[\"route/a\"]}\n",
        b"{\"line\":\"part\",\"generation\":3,\"resources\":{}}\n{\"line\":\"current\",\"generation\":3,\"digest\":\"00\"}\n",
        // Whole sessions, with an agent's and a gateway's resources of every type.
        include_bytes!("../../crates/wire/tests/golden/agent-feed-1.0.jsonl"),
        include_bytes!("../../crates/wire/tests/golden/gateway-feed-1.0.jsonl"),
        include_bytes!("../../crates/wire/tests/golden/gateway-feed-1.2.jsonl"),
    ];
    fuzz("feed lines", LINES, |bytes| {
        follow::<GatewayResource>(bytes);
        follow::<ClusterResource>(bytes);
    });
}

/// Takes any bytes as a feed, in pieces as they come.
fn follow<R: Resource>(bytes: &[u8]) {
    let mut decoder = LineDecoder::new();
    let mut receiver = Receiver::<R>::new();
    receiver.begin();
    let mut last = Generation::ZERO;
    for chunk in bytes.chunks(7) {
        decoder.push(chunk);
        while let Ok(Some(line)) = decoder.next_message::<FeedLine<Stated<R>>>() {
            let _ = receiver.accept(line);
            assert!(receiver.generation() >= last, "a feed went back");
            last = receiver.generation();
        }
    }
}

#[test]
fn manifests() {
    const SERVICE: &[u8] = b"apiVersion: v1\nkind: Service\nmetadata:\n  name: catalog\n  annotations:\n    tombolo.io/health-check: http:/healthz\nspec:\n  ports:\n    - name: http\n      port: 8082\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n";
    const SLICE: &[u8] = b"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: a-1\n  labels: {kubernetes.io/service-name: a}\naddressType: IPv4\nports: [{port: 80}]\nendpoints:\n  - addresses: [\"127.0.0.1\"]\n    conditions: {ready: true}\n";
    const ACCOUNT: &[u8] = b"apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: a\n  annotations:\n    tombolo.io/selector: \"path=/bin/a,uid=7\"\n";
    const LIST: &[u8] = b"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a, nam: b}\n- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 1}]}}\n";
    fuzz("manifests", &[SERVICE, SLICE, ACCOUNT, LIST], |bytes| {
        let mut files = Files::default();
        files.load("good.yaml", SERVICE);
        files.load("any.yaml", bytes);
        files.load("any.yaml", SERVICE);
        files.remove("any.yaml");
        assert!(files.problems().is_empty(), "a file that is gone left problems");
    });
}

/// What is taken is written as a text that is taken again, as the same.
fn same<T: Display + PartialEq, E: Display>(parsed: Result<T, E>, parse: impl Fn(&str) -> Result<T, E>) {
    match parsed {
        Ok(value) => assert!(parse(&value.to_string()).is_ok_and(|again| again == value), "{value}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn identities() {
    const SEEDS: &[&[u8]] = &[
        b"spiffe://acme.tombolo/cluster/cluster-1/ns/default/sa/catalog",
        b"spiffe://acme.tombolo/cluster/cluster-1/gateway/egress",
        b"spiffe://acme.tombolo/cluster/cluster-1/agent",
    ];
    fuzz("SPIFFE identities", SEEDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        same(SpiffeId::parse(&text), SpiffeId::parse);
        same(TrustDomain::parse(&text), TrustDomain::parse);
    });
}

#[test]
fn names() {
    const SEEDS: &[&[u8]] =
        &[b"catalog.acme.example.com", b"cluster-1", b"xn--bcher-kva.example", b"a.svc.cluster.local"];
    fuzz("names", SEEDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        same(ClusterName::parse(&text), ClusterName::parse);
        same(DnsLabel::parse(&text), DnsLabel::parse);
        same(Domain::parse(&text), Domain::parse);
        same(GlobalName::parse(&text), GlobalName::parse);
    });
}
