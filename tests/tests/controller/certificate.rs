//! A server certificate of the operator's own.

use crate::support::{Site, database};
use std::time::Duration;
use tombolo_controller::config::Tls;
use tombolo_feed::Connector as _;
use tombolo_mtls::{ServerAuthority, Validity, format_pin};
use tombolo_runtime::clock::{Clock as _, SystemClock};

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_certificate_is_the_one_that_is_shown_and_pinned() {
    let (database, folder) = (database().await, tempfile::tempdir().unwrap());
    let hour = Duration::from_secs(3600);
    let now = SystemClock.now();
    let validity = Validity { not_before: now - hour, not_after: now + hour };
    let authority = ServerAuthority::create(validity).unwrap();
    let (chain, key) = authority.issue(&["127.0.0.1".to_owned()], validity).unwrap();
    let files = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    std::fs::write(&files.0, chain).unwrap();
    std::fs::write(&files.1, key.as_str()).unwrap();
    let site =
        Site::start_with(&database, folder.path(), |config| config.tls = Tls::Files(files.0, files.1)).await;
    assert_eq!(site.bound.ca_fingerprint, format_pin(&authority.fingerprint()));
    site.connector(None).connect().await.unwrap();
    // agents are told that one
    let acme = site.organization("acme").await;
    site.cluster(&acme, "cluster-1").await;
    let path = acme.path("/clusters/cluster-1/onboarding-tokens");
    let made = site.must(&acme.admin, "POST", &path, Some(serde_json::json!({}))).await;
    let command = made["join_command"].as_str().unwrap();
    assert!(command.contains(&format!("--ca-fingerprint {}", site.bound.ca_fingerprint)), "{command}");
    site.agent(&acme, "cluster-2").await;
    site.bound.drain().await;
}
