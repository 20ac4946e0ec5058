//! The controller's own HTTPS: pinned by fingerprint, and open to clients without a certificate.

use crate::common::{ALPN, name};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{collections::BTreeMap, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tombolo_model::TrustDomain;
use tombolo_mtls::{
    BundleLookup, Credentials, HandshakeError, LiveServerCertificate, Peer, ServerAuthority, TrustBundle,
    VerifyError, accept_optional, connect_pinned, format_pin, https_server_config, optional_server_config,
    parse_pin, pinned_client_config,
};
use tombolo_testkit::ca::{Organization, over, valid};

#[derive(Debug, Default)]
struct Bundles(BTreeMap<TrustDomain, Arc<TrustBundle>>);

impl BundleLookup for Bundles {
    fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>> {
        self.0.get(trust_domain).cloned()
    }
}

fn names() -> Vec<String> {
    vec!["localhost".into(), "127.0.0.1".into(), "::1".into()]
}

fn certificate(authority: &ServerAuthority) -> LiveServerCertificate {
    let (chain, key) = authority.issue(&names(), valid()).unwrap();
    LiveServerCertificate::new(&chain, &key).unwrap()
}

type Seen = (Result<(), HandshakeError>, Result<Option<Peer>, HandshakeError>);

async fn dial_name(
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    bundles: Bundles,
    certificate: &LiveServerCertificate,
) -> Seen {
    let server = optional_server_config(Arc::new(bundles), Arc::new(certificate.clone()), ALPN);
    let (left, right) = duplex(64 * 1024);
    let client = async {
        let mut stream = connect_pinned(left, client, name).await?;
        stream.write_u8(1).await.map_err(HandshakeError::of)?;
        stream.read_u8().await.map_err(HandshakeError::of)?;
        Ok(())
    };
    let server = async {
        let (mut stream, peer) = accept_optional(right, server).await?;
        stream.write_u8(2).await.map_err(HandshakeError::of)?;
        stream.read_u8().await.map_err(HandshakeError::of)?;
        Ok(peer)
    };
    tokio::join!(client, server)
}

async fn dial(client: Arc<ClientConfig>, bundles: Bundles, certificate: &LiveServerCertificate) -> Seen {
    dial_name(client, ServerName::try_from("localhost").unwrap(), bundles, certificate).await
}

#[tokio::test]
async fn a_person_comes_without_a_certificate() {
    let authority = ServerAuthority::create(valid()).unwrap();
    let certificate = certificate(&authority);
    assert_eq!(certificate.fingerprint(), authority.fingerprint());
    let client = pinned_client_config(authority.fingerprint(), None, ALPN);
    for host in ["localhost", "127.0.0.1", "::1"] {
        let host = ServerName::try_from(host).unwrap();
        let (dialled, served) = dial_name(client.clone(), host, Bundles::default(), &certificate).await;
        dialled.unwrap();
        assert_eq!(served.unwrap(), None);
    }
}

/// What an agent offers to its API server: certified by the cluster's intermediate, which the API server is told to believe.
#[tokio::test]
async fn an_agents_https_is_vouched_for_by_its_intermediate() {
    let mut organization = Organization::new("acme.test");
    let one = organization.join("c1");
    let host = "tombolo-agent.tombolo-system.svc".to_owned();
    let (chain, key) = one.intermediate.sign_https(std::slice::from_ref(&host), valid()).unwrap();
    let certificate = LiveServerCertificate::new(&chain, &key).unwrap();
    let server = https_server_config(Arc::new(certificate.clone()), &[b"http/1.1"]);
    for (asked, taken) in [(host.as_str(), true), ("tombolo-agent.other.svc", false)] {
        let (left, right) = duplex(64 * 1024);
        let client = pinned_client_config(certificate.fingerprint(), None, &[b"http/1.1"]);
        let name = ServerName::try_from(asked.to_owned()).unwrap();
        let (dialled, served) =
            tokio::join!(connect_pinned(left, client, name), accept_optional(right, server.clone()));
        assert_eq!((dialled.is_ok(), served.is_ok()), (taken, taken), "{asked}");
        assert!(!taken || served.unwrap().1.is_none());
    }
    assert!(one.intermediate.sign_https(&["not a name".to_owned()], valid()).is_err());
}

#[tokio::test]
async fn an_agent_is_judged_by_the_bundle_of_its_own_organization() {
    let authority = ServerAuthority::create(valid()).unwrap();
    let certificate = certificate(&authority);
    let mut acme = Organization::new("acme.tombolo.internal");
    let mut rival = Organization::new("rival.tombolo.internal");
    let (ours, theirs) = (acme.join("cluster-1"), rival.join("cluster-1"));
    let bundles = |acme: &Organization, rival: &Organization| {
        let both = [acme, rival].map(|org| (org.trust_domain.clone(), Arc::new(org.bundle())));
        Bundles(BTreeMap::from(both))
    };
    for cluster in [&ours, &theirs] {
        let client =
            pinned_client_config(authority.fingerprint(), Some(&cluster.credentials(&cluster.agent())), ALPN);
        let (_, served) = dial(client, bundles(&acme, &rival), &certificate).await;
        assert_eq!(served.unwrap().unwrap().id, cluster.agent());
    }
    // Before it has joined it has no certificate yet: it comes as a person does.
    let waiting = Credentials::new(ours.agent());
    let client = pinned_client_config(authority.fingerprint(), Some(&waiting), ALPN);
    assert_eq!(dial(client, bundles(&acme, &rival), &certificate).await.1.unwrap(), None);

    let client = pinned_client_config(authority.fingerprint(), Some(&ours.credentials(&ours.agent())), ALPN);
    let only_rival = Bundles(BTreeMap::from([(rival.trust_domain.clone(), Arc::new(rival.bundle()))]));
    let (_, served) = dial(client.clone(), only_rival, &certificate).await;
    assert!(
        matches!(served, Err(HandshakeError::Refused(VerifyError::UnknownTrustDomain { .. }))),
        "{served:?}"
    );
    acme.revoke(&ours.name);
    let (dialled, served) = dial(client, bundles(&acme, &rival), &certificate).await;
    assert!(matches!(served, Err(HandshakeError::Refused(VerifyError::Revoked))), "{served:?}");
    assert!(dialled.unwrap_err().is_revoked());
}

#[tokio::test]
async fn the_pin_the_name_and_the_time_count() {
    let authority = ServerAuthority::create(valid()).unwrap();
    let good = certificate(&authority);
    let pin = |authority: &ServerAuthority| pinned_client_config(authority.fingerprint(), None, ALPN);

    let other = ServerAuthority::create(valid()).unwrap();
    let (dialled, _) = dial(pin(&other), Bundles::default(), &good).await;
    assert!(matches!(dialled, Err(HandshakeError::Refused(VerifyError::Pin))), "{dialled:?}");

    let (dialled, _) = dial_name(pin(&authority), name(), Bundles::default(), &good).await;
    assert!(matches!(dialled, Err(HandshakeError::Refused(VerifyError::Chain { .. }))), "{dialled:?}");

    let (chain, key) = authority.issue(&names(), over()).unwrap();
    good.set(&chain, &key).unwrap();
    let (dialled, _) = dial(pin(&authority), Bundles::default(), &good).await;
    assert!(matches!(dialled, Err(HandshakeError::Refused(VerifyError::Expired))), "{dialled:?}");

    // Somebody who appends the pinned authority to a chain of their own.
    let (chain, key) = other.issue(&names(), valid()).unwrap();
    let chain = format!("{chain}{}", authority.cert_pem());
    let (dialled, _) =
        dial(pin(&authority), Bundles::default(), &LiveServerCertificate::new(&chain, &key).unwrap()).await;
    assert!(matches!(dialled, Err(HandshakeError::Refused(VerifyError::Chain { .. }))), "{dialled:?}");

    let late = ServerAuthority::create(over()).unwrap();
    let (chain, key) = late.issue(&names(), over()).unwrap();
    let (dialled, _) =
        dial(pin(&late), Bundles::default(), &LiveServerCertificate::new(&chain, &key).unwrap()).await;
    assert!(matches!(dialled, Err(HandshakeError::Refused(VerifyError::Expired))), "{dialled:?}");
}

#[tokio::test]
async fn a_certificate_of_ones_own_may_be_pinned_itself() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let certificate = LiveServerCertificate::new(&own.pem(), &key.serialize_pem()).unwrap();
    let client = pinned_client_config(certificate.fingerprint(), None, ALPN);
    dial(client.clone(), Bundles::default(), &certificate).await.0.unwrap();
    assert!(dial_name(client, name(), Bundles::default(), &certificate).await.0.is_err());
}

#[test]
fn an_authority_is_read_back_with_the_same_fingerprint() {
    let authority = ServerAuthority::create(valid()).unwrap();
    let read = ServerAuthority::from_pem(authority.cert_pem(), &authority.key_pem()).unwrap();
    assert_eq!(read.fingerprint(), authority.fingerprint());
    let other = ServerAuthority::create(valid()).unwrap();
    assert!(ServerAuthority::from_pem(authority.cert_pem(), &other.key_pem()).is_err());
    assert!(authority.issue(&["ünicode".into()], valid()).is_err());
    let (chain, _) = authority.issue(&names(), valid()).unwrap();
    assert!(LiveServerCertificate::new(&chain, &other.key_pem()).is_err());
}

#[test]
fn pins_are_read_as_they_are_written() {
    let text = format_pin(&[0xab; 32]);
    assert_eq!(text, format!("sha256:{}", "ab".repeat(32)));
    assert_eq!(parse_pin(&text), Ok([0xab; 32]));
    for bad in ["", "sha256:", "sha256:xyz", &text[7..], &format!("{text}0")] {
        assert!(parse_pin(bad).is_err(), "{bad}");
    }
}
