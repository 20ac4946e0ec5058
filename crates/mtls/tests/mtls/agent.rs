//! From a pod to the agent of its cluster, with roots alone.

use crate::common::{ALPN, name};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tombolo_mtls::{
    BundleStore, Credentials, HandshakeError, VerifyError, accept_optional, agent_client_config,
    agent_server_config, connect_pinned,
};
use tombolo_testkit::ca::{Cluster, Organization, valid};

async fn dial(
    roots: &[&str],
    bundles: &BundleStore,
    expected: &Cluster,
    shown: &Credentials,
) -> Result<(), HandshakeError> {
    let roots: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
    let client = agent_client_config(&roots, bundles, &expected.agent(), ALPN).unwrap();
    let server = agent_server_config(shown, ALPN);
    let (left, right) = duplex(64 * 1024);
    let client = async {
        let mut stream = connect_pinned(left, client, name()).await?;
        stream.read_u8().await.map_err(HandshakeError::of)?;
        Ok(())
    };
    let server = async {
        if let Ok((mut stream, peer)) = accept_optional(right, server).await {
            assert_eq!(peer, None, "no certificate is shown");
            stream.write_u8(1).await.unwrap();
            let _ = stream.flush().await;
        }
    };
    tokio::join!(client, server).0
}

fn why(refused: Result<(), HandshakeError>) -> VerifyError {
    match refused {
        Err(HandshakeError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_agent_of_its_cluster_and_nobody_else() {
    let mut organization = Organization::new("acme.internal");
    let (c1, c2) = (organization.join("c1"), organization.join("c2"));
    let root = organization.root().cert_pem().to_owned();
    let none = BundleStore::new();
    dial(&[&root], &none, &c1, &c1.credentials(&c1.agent())).await.unwrap();
    // One that joined anew: nobody lists its intermediate yet.
    let anew = organization.intermediate("c1", valid());
    dial(&[&root], &organization.store(), &c1, &anew.credentials(&anew.agent())).await.unwrap();
    for shown in [
        c2.credentials(&c2.agent()),
        c1.credentials(&c1.gateway(tombolo_model::GatewayRole::Egress)),
        c1.credentials(&"spiffe://acme.internal/cluster/c1/ns/default/sa/cart".parse().unwrap()),
    ] {
        let why = why(dial(&[&root], &none, &c1, &shown).await);
        assert!(matches!(why, VerifyError::NotExpected { .. }), "{why}");
    }
    let mut other = Organization::new("acme.internal");
    let forged = other.join("c1");
    let why = why(dial(&[&root], &none, &c1, &forged.credentials(&forged.agent())).await);
    assert!(!matches!(why, VerifyError::NotExpected { .. }), "{why}");
}

#[tokio::test]
async fn roots_rotate_by_overlap() {
    let mut organization = Organization::new("acme.internal");
    let old = organization.root().cert_pem().to_owned();
    organization.add_root(valid());
    let c1 = organization.join("c1");
    let shown = c1.credentials(&c1.agent());
    assert!(dial(&[&old], &BundleStore::new(), &c1, &shown).await.is_err(), "nobody told it of the new root");
    let new = organization.root().cert_pem().to_owned();
    dial(&[&format!("{old}{new}")], &BundleStore::new(), &c1, &shown).await.unwrap();
    dial(&[&old], &organization.store(), &c1, &shown).await.unwrap();
    assert!(agent_client_config(&["none".to_owned()], &BundleStore::new(), &c1.agent(), ALPN).is_err());
}
