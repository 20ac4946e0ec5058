//! Who signs what: an issuer takes a public key, and decides the rest itself.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, SanType};
use std::time::Duration;
use tombolo_model::SpiffeId;
use tombolo_mtls::{Error, Intermediate, PrivateKey, Root, Validity, certificate_info};
use tombolo_testkit::ca::{Cluster, Organization, valid};

fn two() -> (Organization, Cluster, Cluster) {
    let mut acme = Organization::new("acme.tombolo.internal");
    let (one, other) = (acme.join("cluster-1"), acme.join("cluster-2"));
    (acme, one, other)
}

#[test]
fn a_cluster_cannot_ask_for_another_clusters_identity() {
    let (acme, one, other) = two();
    let key = PrivateKey::generate().unwrap();
    let asks = key.csr(other.intermediate.id()).unwrap();
    // The controller knows by the token or the certificate that it is cluster 1.
    let why = acme.root().sign_intermediate(&asks, one.intermediate.id(), valid()).unwrap_err();
    assert!(matches!(why, Error::RequestIdentity { .. }), "{why:?}");
    assert!(why.to_string().contains("/cluster/cluster-2") && why.to_string().contains("/cluster/cluster-1"));

    let asks = key.csr(&other.workload("default", "catalog")).unwrap();
    let why = one.intermediate.sign_leaf(&asks, &one.workload("default", "catalog"), valid()).unwrap_err();
    assert!(matches!(why, Error::RequestIdentity { .. }), "{why:?}");
}

#[test]
fn issuers_vouch_for_their_own_only() {
    let (acme, one, other) = two();
    let rival = Organization::new("rival.tombolo.internal");
    let key = PrivateKey::generate().unwrap();
    for id in [
        other.workload("default", "catalog"),
        one.intermediate.id().clone(),
        SpiffeId::agent(&rival.trust_domain, &one.name),
    ] {
        let why = one.intermediate.sign_leaf(&key.csr(&id).unwrap(), &id, valid()).unwrap_err();
        assert!(matches!(why, Error::NotOurs { .. }), "{why:?}");
    }
    for id in [one.agent(), SpiffeId::cluster(&rival.trust_domain, &one.name)] {
        let why = acme.root().sign_intermediate(&key.csr(&id).unwrap(), &id, valid()).unwrap_err();
        assert!(matches!(why, Error::NotOurs { .. }), "{why:?}");
    }
}

#[test]
fn requests_that_are_refused() {
    let (_, one, _) = two();
    let id = one.agent();
    let sign = |pem: &str| one.intermediate.sign_leaf(pem, &id, valid());
    let good = PrivateKey::generate().unwrap().csr(&id).unwrap();
    assert!(sign(&good).is_ok());

    let mut params = CertificateParams::default();
    let request =
        |params: &CertificateParams, key: &KeyPair| params.serialize_request(key).unwrap().pem().unwrap();
    let key = KeyPair::generate().unwrap();
    // Without a name: fine, for names are not the asker's to give.
    assert!(sign(&request(&params, &key)).is_ok());
    assert!(sign(&PrivateKey::generate().unwrap().unnamed_csr().unwrap()).is_ok());
    params.subject_alt_names = vec![SanType::DnsName("catalog.acme.example.com".try_into().unwrap())];
    assert!(matches!(sign(&request(&params, &key)), Err(Error::RequestIdentity { .. })));
    params.subject_alt_names.clear();
    let large = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    assert!(matches!(sign(&request(&params, &large)), Err(Error::Request { .. })));

    // Another key in the same request: its signature does not hold.
    let (one_key, two_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut der = params.serialize_request(&one_key).unwrap().der().to_vec();
    let at = der.windows(65).position(|bytes| bytes == one_key.public_key_raw()).unwrap();
    der[at..at + 65].copy_from_slice(two_key.public_key_raw());
    let stolen = pem("CERTIFICATE REQUEST", &der);
    assert!(matches!(sign(&stolen), Err(Error::Request { what }) if what.contains("signature")));

    for text in ["", "hello", one.intermediate.cert_pem(), &"x".repeat(20_000)] {
        assert!(matches!(sign(text), Err(Error::Request { .. })), "{text:.40}");
    }
}

#[test]
fn what_a_leaf_says() {
    let (_, one, _) = two();
    let id = one.workload("default", "shopping");
    let (chain, _) = one.leaf(&id, valid());
    let info = certificate_info(&chain).unwrap();
    assert_eq!(info.id, Some(id.clone()));
    assert_eq!(info.serial.len(), 32);
    assert_ne!(info.serial, certificate_info(&one.leaf(&id, valid()).0).unwrap().serial);
    assert_ne!(info.fingerprint, one.intermediate.fingerprint());
    let ca = certificate_info(one.intermediate.cert_pem()).unwrap();
    assert_eq!(ca.fingerprint, one.intermediate.fingerprint());
    assert_eq!(ca.id.as_ref(), Some(one.intermediate.id()));
    assert!(chain.ends_with(one.intermediate.cert_pem()));
    assert!(certificate_info("nothing").is_err());
}

#[test]
fn nobody_outlives_the_issuer() {
    let (acme, one, _) = two();
    let long = Validity {
        not_before: valid().not_before,
        not_after: valid().not_after + Duration::from_secs(1 << 30),
    };
    let (chain, _) = one.leaf(&one.agent(), long);
    assert_eq!(certificate_info(&chain).unwrap().validity.not_after, one.intermediate.validity().not_after);
    let cluster = acme.intermediate("cluster-3", long);
    assert_eq!(cluster.intermediate.validity().not_after, acme.root().validity().not_after);
    let after = one.intermediate.validity().not_after + Duration::from_secs(10);
    let late = Validity { not_before: after, not_after: after + Duration::from_secs(10) };
    let request = PrivateKey::generate().unwrap().csr(&one.agent()).unwrap();
    assert!(matches!(one.intermediate.sign_leaf(&request, &one.agent(), late), Err(Error::Validity)));
    let day = valid();
    assert_eq!(day.half_life().duration_since(day.not_before).unwrap(), Duration::from_secs(25 * 1_800));
}

#[test]
fn issuers_are_read_back_from_their_files() {
    let (acme, one, other) = two();
    let root = Root::from_pem(acme.root().cert_pem(), &acme.root().key_pem()).unwrap();
    assert_eq!(root.trust_domain(), &acme.trust_domain);
    let key = || PrivateKey::from_pem(&one.intermediate.key_pem()).unwrap();
    let read = Intermediate::new(key(), one.intermediate.cert_pem()).unwrap();
    assert_eq!((read.id(), read.fingerprint()), (one.intermediate.id(), one.intermediate.fingerprint()));

    assert!(matches!(Intermediate::new(key(), other.intermediate.cert_pem()), Err(Error::KeyMismatch)));
    assert!(matches!(
        Root::from_pem(acme.root().cert_pem(), &one.intermediate.key_pem()),
        Err(Error::KeyMismatch)
    ));
    assert!(Root::from_pem(one.intermediate.cert_pem(), &one.intermediate.key_pem()).is_err());
    let (leaf, leaf_key) = one.leaf(&one.agent(), valid());
    assert!(Intermediate::new(leaf_key, &leaf).is_err());
    assert!(matches!(PrivateKey::from_pem("no key"), Err(Error::KeyKind)));
    let large = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    assert!(matches!(PrivateKey::from_pem(&large), Err(Error::KeyKind)));
}

#[test]
fn keys_do_not_print() {
    let key = PrivateKey::generate().unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(..)");
    assert!(key.to_pem().starts_with("-----BEGIN PRIVATE KEY-----"));
}

/// DER as PEM, by hand: the libraries write only what they made.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let word =
                three.iter().chain([&0; 2]).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
            for place in 0..4 {
                let digit = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
                text.push(if place > three.len() { '=' } else { char::from(digit) });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
