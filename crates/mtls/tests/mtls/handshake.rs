//! True handshakes over an in-memory pipe: who is let in, who is not, and that open connections outlive rotations.

use crate::common::{ALPN, Side, dial, end, refused, shake};
use rustls::{AlertDescription, NamedGroup, ProtocolVersion};
use std::{collections::BTreeSet, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tombolo_model::{GatewayRole, SpiffeId};
use tombolo_mtls::{
    BundleStore, Credentials, Expect, HandshakeError, PrivateKey, TrustBundle, VerifyError, client_config,
    server_config,
};
use tombolo_testkit::ca::{Cluster, Forger, Forgery, Organization, over, valid};

fn two() -> (Organization, Cluster, Cluster) {
    let mut acme = Organization::new("acme.tombolo.internal");
    let (one, other) = (acme.join("cluster-1"), acme.join("cluster-2"));
    (acme, one, other)
}

#[tokio::test]
async fn good_peers_meet_with_a_post_quantum_key_exchange() {
    let (acme, one, other) = two();
    let (client, server) = (one.workload("default", "shopping"), other.workload("default", "catalog"));
    let store = acme.store();
    let dialled = dial(
        client_config(&store, &one.credentials(&client), Expect::AnyInBundle, ALPN),
        server_config(&store, &other.credentials(&server), ALPN),
    )
    .await;
    let ((client_end, seen_by_client), (_, seen_by_server)) = (dialled.0.unwrap(), dialled.1.unwrap());
    assert_eq!(seen_by_client.id, server);
    assert_eq!(seen_by_client.intermediate, other.intermediate.fingerprint());
    assert_eq!(seen_by_server.id, client);
    let session = client_end.get_ref().1;
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(session.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn no_session_is_ever_resumed() {
    let (acme, one, other) = two();
    let store = acme.store();
    let client = client_config(&store, &one.credentials(&one.agent()), Expect::AnyInBundle, ALPN);
    let server = server_config(&store, &other.credentials(&other.agent()), ALPN);
    for _ in 0..3 {
        let (client_end, server_end) = dial(client.clone(), server.clone()).await;
        let ((mut client_end, _), (mut server_end, _)) = (client_end.unwrap(), server_end.unwrap());
        // A ticket would be read with the first bytes.
        server_end.write_all(b"x").await.unwrap();
        client_end.read_u8().await.unwrap();
        assert_eq!(client_end.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(client_end.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_stolen_cluster_speaks_for_itself_only() {
    let (acme, one, other) = two();
    let forged = Forgery::leaf(&other.workload("default", "catalog"));
    let thief = one.forger();
    let (leaf, key) = thief.sign(&forged);

    // Under its own intermediate: the names say so.
    let chain = format!("{leaf}{}", thief.cert_pem());
    let why = refused(&acme.store(), &chain, &key).await;
    assert!(matches!(why, VerifyError::OtherCluster { .. }), "{why:?}");
    // Under the other's intermediate, which is public: the signature says so.
    let chain = format!("{leaf}{}", other.intermediate.cert_pem());
    let why = refused(&acme.store(), &chain, &key).await;
    assert!(matches!(why, VerifyError::Chain { .. }), "{why:?}");
    // With a CA of its own making below its intermediate, that names the other cluster.
    let ca = SpiffeId::cluster(&acme.trust_domain, &other.name);
    let (ca, ca_key) = thief.sign(&Forgery { ca: true, ..Forgery::leaf(&ca) });
    let (leaf, key) = Forger::new(&ca, &ca_key).sign(&forged);
    let why = refused(&acme.store(), &format!("{leaf}{ca}"), &key).await;
    assert!(matches!(why, VerifyError::Chain { .. }), "{why:?}");
    let why = refused(&acme.store(), &format!("{leaf}{ca}{}", thief.cert_pem()), &key).await;
    assert_eq!(why, VerifyError::ChainLength { certificates: 3 });
    // As its own CA: that is no peer.
    let chain = format!("{0}{0}", thief.cert_pem());
    let why = refused(&acme.store(), &chain, &one.intermediate.key_pem()).await;
    assert!(matches!(why, VerifyError::Role { .. }), "{why:?}");
}

#[tokio::test]
async fn an_intermediate_that_the_bundle_does_not_list_is_revoked() {
    let (acme, one, other) = two();
    let stranger = acme.intermediate("cluster-2", valid());
    let id = stranger.workload("default", "catalog");
    let (client, server) = shake(
        Side::client(&acme.store(), &one.credentials(&one.agent())),
        Side::server(&acme.store(), &stranger.credentials(&id)),
    )
    .await;
    assert!(matches!(client, Err(HandshakeError::Refused(VerifyError::Revoked))), "{client:?}");
    let server = server.unwrap_err();
    assert!(
        matches!(server, HandshakeError::RefusedByPeer(AlertDescription::CertificateRevoked)),
        "{server:?}"
    );
    assert!(server.is_revoked());

    // The other way round the client learns it from its first read.
    let (client, server) = shake(
        Side::client(&acme.store(), &stranger.credentials(&id)),
        Side::server(&acme.store(), &other.credentials(&other.agent())),
    )
    .await;
    assert!(matches!(server, Err(HandshakeError::Refused(VerifyError::Revoked))), "{server:?}");
    let client = client.unwrap_err();
    assert!(client.is_revoked(), "{client:?}");
}

#[tokio::test]
async fn refuses_a_chain_that_is_out_of_time_or_out_of_place() {
    let (acme, one, _) = two();
    let id = one.workload("default", "shopping");
    let store = acme.store();

    let (chain, key) = one.leaf(&id, over());
    assert_eq!(refused(&store, &chain, &key.to_pem()).await, VerifyError::Expired);

    let signer = one.forger();
    for (uris, names) in [
        (vec![id.to_string(), one.agent().to_string()], 2),
        (vec![id.to_string(), id.to_string()], 2),
        (vec![], 0),
    ] {
        let (leaf, key) = signer.sign(&Forgery { uris, ..Forgery::leaf(&id) });
        let why = refused(&store, &format!("{leaf}{}", signer.cert_pem()), &key).await;
        assert_eq!(why, VerifyError::Names { names });
    }
    let (leaf, key) =
        signer.sign(&Forgery { dns: vec!["catalog.acme.example.com".into()], ..Forgery::leaf(&id) });
    let why = refused(&store, &format!("{leaf}{}", signer.cert_pem()), &key).await;
    assert_eq!(why, VerifyError::Names { names: 2 });
    let (leaf, key) = signer.sign(&Forgery { uris: vec!["spiffe://acme/x".into()], ..Forgery::leaf(&id) });
    let why = refused(&store, &format!("{leaf}{}", signer.cert_pem()), &key).await;
    assert!(matches!(why, VerifyError::Identity { .. }), "{why:?}");
    let (leaf, key) = signer
        .sign(&Forgery { uses: vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning], ..Forgery::leaf(&id) });
    let why = refused(&store, &format!("{leaf}{}", signer.cert_pem()), &key).await;
    assert!(matches!(why, VerifyError::Chain { .. }), "{why:?}");

    // A leaf that a root signed itself would escape revocation: alone, and with an innocent intermediate beside it.
    let root = Forger::root(acme.root());
    let (leaf, key) = root.sign(&Forgery::leaf(&id));
    assert_eq!(refused(&store, &leaf, &key).await, VerifyError::ChainLength { certificates: 1 });
    let why = refused(&store, &format!("{leaf}{}", one.intermediate.cert_pem()), &key).await;
    assert!(matches!(why, VerifyError::Chain { .. }), "{why:?}");
}

#[tokio::test]
async fn another_trust_domain_is_another_world() {
    let (acme, _, _) = two();
    let mut rival = Organization::new("rival.tombolo.internal");
    let theirs = rival.join("cluster-1");
    let id = theirs.workload("default", "shopping");
    let (chain, key) = theirs.leaf(&id, valid());
    let why = refused(&acme.store(), &chain, &key.to_pem()).await;
    assert!(matches!(why, VerifyError::TrustDomain { .. }), "{why:?}");

    // A root of theirs that signs in our name.
    let (_, one, _) = two();
    let cluster = SpiffeId::cluster(&acme.trust_domain, &one.name);
    let (ca, ca_key) = Forger::root(rival.root()).sign(&Forgery { ca: true, ..Forgery::leaf(&cluster) });
    let (leaf, key) = Forger::new(&ca, &ca_key).sign(&Forgery::leaf(&one.workload("default", "shopping")));
    let why = refused(&acme.store(), &format!("{leaf}{ca}"), &key).await;
    assert!(matches!(why, VerifyError::Chain { .. }), "{why:?}");
}

#[tokio::test]
async fn a_root_past_its_time_vouches_for_nobody() {
    let (_, one, _) = two();
    let mut late = Organization::new("acme.tombolo.internal");
    late.add_root(over());
    late.drop_oldest_root();
    let store = late.store();
    let (chain, key) = one.leaf(&one.agent(), valid());
    assert_eq!(refused(&store, &chain, &key.to_pem()).await, VerifyError::Expired);
}

#[tokio::test]
async fn a_revocation_counts_from_the_next_handshake_and_tells_which_connections_fall() {
    let (mut acme, one, other) = two();
    let store = acme.store();
    let client = client_config(&store, &one.credentials(&one.agent()), Expect::AnyInBundle, ALPN);
    let server = server_config(&store, &other.credentials(&other.agent()), ALPN);
    let (_, peer) = dial(client.clone(), server.clone()).await.0.unwrap();
    let mut changes = store.subscribe();
    changes.mark_unchanged();
    assert!(store.get().unwrap().stands(&peer));

    acme.revoke(&other.name);
    store.set(acme.bundle());
    assert!(changes.has_changed().unwrap());
    assert!(!store.get().unwrap().stands(&peer));
    let why = dial(client.clone(), server.clone()).await.0.unwrap_err();
    assert!(matches!(why, HandshakeError::Refused(VerifyError::Revoked)), "{why:?}");

    // It joins again: its new intermediate stands, the old one never again.
    let again = acme.join("cluster-2");
    store.set(acme.bundle());
    assert!(dial(client.clone(), server).await.0.is_err());
    let server = server_config(&store, &again.credentials(&again.agent()), ALPN);
    assert!(dial(client, server).await.0.is_ok());
    assert!(!store.get().unwrap().stands(&peer));
}

#[tokio::test]
async fn rotating_credentials_drops_no_connection() {
    let (acme, one, other) = two();
    let store = acme.store();
    let id = other.gateway(GatewayRole::Ingress);
    let credentials = other.credentials(&id);
    let client = client_config(&store, &one.credentials(&one.agent()), Expect::AnyInBundle, ALPN);
    let server = server_config(&store, &credentials, ALPN);
    let (client_end, server_end) = dial(client.clone(), server.clone()).await;
    let ((mut client_end, _), (mut server_end, _)) = (client_end.unwrap(), server_end.unwrap());
    let leaf = |end: &end::Client| end.get_ref().1.peer_certificates().unwrap()[0].clone();
    let before = leaf(&client_end);

    let (chain, key) = other.leaf(&id, valid());
    credentials.set(&chain, key).unwrap();
    for word in [b"before", b"after!"] {
        client_end.write_all(word).await.unwrap();
        let mut heard = [0; 6];
        server_end.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, word);
    }
    assert_eq!(leaf(&client_end), before);
    let (new, _) = dial(client, server).await.0.unwrap();
    assert_ne!(leaf(&new), before);
}

#[tokio::test]
async fn a_root_rotates_by_overlap() {
    let (mut acme, one, other) = two();
    let old = Side::client(&acme.store(), &one.credentials(&one.agent()));
    // Both roots are in the bundle; cluster 2 has an intermediate of each.
    acme.add_root(valid());
    let renewed = acme.join("cluster-2");
    let both = acme.store();
    for cluster in [&other, &renewed] {
        let side = Side::server(&both, &cluster.credentials(&cluster.agent()));
        let (client, server) = shake(Side::client(&both, &one.credentials(&one.agent())), side).await;
        assert!(client.is_ok() && server.is_ok(), "{client:?} {server:?}");
    }
    // Whoever has not got the new root yet refuses what stands under it.
    let (client, _) = shake(old, Side::server(&both, &renewed.credentials(&renewed.agent()))).await;
    assert!(client.is_err());
    // The old root goes, and with it all that it signed.
    acme.drop_oldest_root();
    let new = acme.store();
    let renewed_one = acme.join("cluster-1");
    new.set(acme.bundle());
    let dial_with = || Side::client(&new, &renewed_one.credentials(&renewed_one.agent()));
    let (client, _) = shake(dial_with(), Side::server(&new, &other.credentials(&other.agent()))).await;
    assert!(matches!(client, Err(HandshakeError::Refused(VerifyError::Chain { .. }))), "{client:?}");
    let (client, server) =
        shake(dial_with(), Side::server(&new, &renewed.credentials(&renewed.agent()))).await;
    assert!(client.is_ok() && server.is_ok(), "{client:?} {server:?}");
}

#[tokio::test]
async fn without_a_bundle_or_a_certificate_there_is_no_handshake() {
    let (acme, one, other) = two();
    let (ready, store) = (one.credentials(&one.agent()), acme.store());
    let (empty, waiting) = (BundleStore::new(), Credentials::new(one.agent()));
    let server = || Side::server(&store, &other.credentials(&other.agent()));

    let (client, _) = shake(Side::client(&empty, &ready), server()).await;
    assert!(matches!(client, Err(HandshakeError::Refused(VerifyError::NoBundle))), "{client:?}");
    let (client, _) = shake(Side::client(&store, &waiting), server()).await;
    assert!(matches!(client, Err(HandshakeError::Refused(VerifyError::NoCredentials))), "{client:?}");
    let (_, served) = shake(Side::client(&store, &ready), Side::server(&empty, &ready)).await;
    assert!(matches!(served, Err(HandshakeError::Refused(VerifyError::NoBundle))), "{served:?}");
    let (client, served) = shake(Side::client(&store, &ready), Side::server(&store, &waiting)).await;
    assert!(client.is_err() && served.is_err());

    // The same objects, once they are filled.
    empty.set(acme.bundle());
    let (chain, key) = one.leaf(&one.agent(), valid());
    waiting.set(&chain, key).unwrap();
    waiting.wait_ready().await;
    let (client, served) = shake(Side::client(&empty, &waiting), Side::server(&empty, &waiting)).await;
    assert!(client.is_ok() && served.is_ok());
}

#[tokio::test]
async fn only_the_expected_peer_is_taken() {
    let (acme, one, other) = two();
    let store = acme.store();
    let ingress = other.gateway(GatewayRole::Ingress);
    let accepts = async |expect: Expect| {
        let side = Side::Client(client_config(&store, &one.credentials(&one.agent()), expect, ALPN));
        shake(side, Side::server(&store, &other.credentials(&ingress))).await.0
    };
    let gateway =
        |cluster: Option<&str>, role| Expect::Gateway { cluster: cluster.map(|c| c.parse().unwrap()), role };
    let one_of = |id: SpiffeId| Expect::OneOf(Arc::new(BTreeSet::from([id])));

    for good in [
        gateway(None, GatewayRole::Ingress),
        gateway(Some("cluster-2"), GatewayRole::Ingress),
        one_of(ingress.clone()),
    ] {
        assert_eq!(accepts(good).await.unwrap().id, ingress);
    }
    for bad in [
        gateway(None, GatewayRole::Egress),
        gateway(Some("cluster-1"), GatewayRole::Ingress),
        one_of(other.workload("default", "catalog")),
        Expect::OneOf(Arc::default()),
    ] {
        let why = accepts(bad).await.unwrap_err();
        assert!(matches!(why, HandshakeError::Refused(VerifyError::NotExpected { .. })), "{why:?}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let (acme, _, other) = two();
    let server = Side::server(&acme.store(), &other.credentials(&other.agent()));
    let config = crate::common::anybody();
    let (_, served) = shake(Side::Client(config), server).await;
    assert!(matches!(served, Err(HandshakeError::Tls(rustls::Error::NoCertificatesPresented))), "{served:?}");
}

#[test]
fn credentials_take_only_what_is_theirs() {
    let (_, one, other) = two();
    let credentials = one.credentials(&one.agent());
    let serial = || credentials.subscribe().borrow().as_ref().unwrap().info.serial.clone();
    let before = serial();
    let (chain, key) = one.leaf(&one.workload("default", "shopping"), valid());
    assert!(credentials.set(&chain, key).is_err(), "another identity");
    let (chain, key) = other.leaf(&other.agent(), valid());
    assert!(credentials.set(&chain, key).is_err(), "another cluster");
    let (chain, _) = one.leaf(&one.agent(), valid());
    assert!(credentials.set(&chain, PrivateKey::generate().unwrap()).is_err(), "another key");
    let leaf_only = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    assert!(credentials.set(leaf_only, PrivateKey::generate().unwrap()).is_err(), "no intermediate");
    assert_eq!(serial(), before);
    assert!(credentials.not_after().is_some() && credentials.ready());
}

#[test]
fn a_bundle_needs_roots() {
    let (acme, ..) = two();
    let mut spec = acme.bundle_spec();
    spec.roots = vec!["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()];
    assert!(TrustBundle::from_spec(&spec).is_err());
    spec.roots.clear();
    assert!(TrustBundle::from_spec(&spec).is_err());
}
