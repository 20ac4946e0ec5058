use super::*;
use crate::reason::Reason;
use serde_json::Value;
use std::{path::Path, time::SystemTime};
use tombolo_model::{ClusterName, GatewayRole, GlobalName, SpiffeId};

const SOON: Duration = Duration::from_secs(10);

fn record() -> Record {
    let mut record = Record::new(SystemTime::UNIX_EPOCH, GatewayRole::Egress, 7, Direction::Transit);
    record.trace = "0af7651916cd43dd8448eb211c80319c".into();
    record.source = Some(SpiffeId::parse("spiffe://acme.test/cluster/c1/ns/default/sa/shopping").unwrap());
    record.name = Some(GlobalName::parse("catalog.acme.example.com").unwrap());
    record.port = Some(8082);
    record.cluster = Some(ClusterName::parse("cluster-2").unwrap());
    record.upstream = Some("192.0.2.1:15008".into());
    record.bytes_up = 10;
    record.bytes_down = 2000;
    record.connect = Some(Duration::from_micros(1500));
    record.duration = Duration::from_millis(20);
    record.tls = Some(Tls { group: Some("X25519MLKEM768"), cipher: Some("TLS13_AES_256_GCM_SHA384") });
    record
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_for_a_connection_and_one_for_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = AccessLog::open(Target::File(path.clone())).unwrap();
    log.write(&record());
    let mut refused = record();
    refused.reason = Some(Reason::NotACaller);
    refused.hop = Some("ingress@cluster-2".into());
    refused.detail = Some("with \"quotes\" and\na new line".into());
    refused.connect = None;
    log.write(&refused);
    assert!(log.flush(SOON));

    let found = lines(&path);
    assert_eq!(found.len(), 2, "one line each, whatever the text");
    assert_eq!(
        found[0],
        serde_json::json!({
            "time": "1970-01-01T00:00:00.000000Z", "trace": "0af7651916cd43dd8448eb211c80319c", "role": "egress",
            "direction": "transit", "conn": 7, "source": "spiffe://acme.test/cluster/c1/ns/default/sa/shopping",
            "source_verified": false, "destination": "catalog.acme.example.com:8082", "cluster": "cluster-2",
            "upstream": "192.0.2.1:15008", "end_to_end": false, "attempts": 0, "bytes_up": 10, "bytes_down": 2000,
            "connect_ms": 1.5, "duration_ms": 20.0, "reason": "ok", "tls_group": "X25519MLKEM768",
            "tls_cipher": "TLS13_AES_256_GCM_SHA384"
        })
    );
    assert_eq!(found[1]["reason"], "not_a_caller");
    assert_eq!(found[1]["hop"], "ingress@cluster-2");
    assert_eq!(found[1]["detail"], "with \"quotes\" and\na new line");
    assert_eq!(found[1].get("connect_ms"), None);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn appends_and_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    std::fs::write(&path, "{}\n").unwrap();
    let log = AccessLog::open(Target::File(path.clone())).unwrap();
    log.write(&record());
    assert!(log.flush(SOON));
    assert_eq!(lines(&path).len(), 2, "appended");
    std::fs::rename(&path, &old).unwrap();
    log.reopen();
    log.write(&record());
    assert!(log.flush(SOON));
    assert_eq!((lines(&old).len(), lines(&path).len()), (2, 1));
}

#[test]
fn a_disk_that_hangs_costs_lines_and_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // a pipe that is open for reading, and that nobody reads, fills after 64 KiB
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let log = AccessLog::with_queue(Target::File(path), 8).unwrap();
    let start = std::time::Instant::now();
    loop {
        log.write(&record());
        if !log.flush(Duration::from_millis(500)) {
            break;
        }
        assert!(start.elapsed() < SOON, "it never fills");
    }
    let start = std::time::Instant::now();
    for _ in 0..2000 {
        log.write(&record());
    }
    assert!(start.elapsed() < SOON);
    assert!(log.dropped() > 0);
    assert!(!log.flush(Duration::from_millis(50)), "the disk hangs");
    drop(reader);
}

#[test]
fn a_full_disk_is_counted() {
    if !Path::new("/dev/full").exists() {
        panic!("/dev/full is missing");
    }
    let log = AccessLog::open(Target::File("/dev/full".into())).unwrap();
    log.write(&record());
    assert!(log.flush(SOON));
    assert_eq!(log.dropped(), 1);
}
