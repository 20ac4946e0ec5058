//! Whatever a peer sends, the answer is a refusal: no panic, and no belief in what was changed on the way.

use crate::signing::pem;
use proptest::prelude::*;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, UnixTime, pem::PemObject};
use std::{sync::LazyLock, time::SystemTime};
use tombolo_mtls::{PrivateKey, TrustBundle, Usage, certificate_info, peer_of};
use tombolo_testkit::{
    ca::{Cluster, Organization, valid},
    clock,
};

struct World {
    bundle: TrustBundle,
    cluster: Cluster,
    chain: Vec<Vec<u8>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut acme = Organization::new("acme.tombolo.internal");
    let cluster = acme.join("cluster-1");
    let (chain, _) = cluster.leaf(&cluster.agent(), valid());
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(|der| der.unwrap().to_vec()).collect();
    World { bundle: acme.bundle(), cluster, chain }
});

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

fn verify(chain: &[Vec<u8>]) -> bool {
    let chain: Vec<CertificateDer<'_>> =
        chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let _ = peer_of(Some(&chain));
    [Usage::Client, Usage::Server].iter().any(|usage| WORLD.bundle.verify(&chain, now(), *usage).is_ok())
}

#[test]
fn the_untouched_chain_holds() {
    assert!(verify(&WORLD.chain));
    assert!(!verify(&[]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_as_certificates(chain in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..4)) {
        prop_assert!(!verify(&chain));
    }

    #[test]
    fn a_changed_chain_does_not_hold(
        which in 0..2usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut chain = WORLD.chain.clone();
        for (place, byte) in changes {
            let place = place.index(chain[which].len());
            chain[which][place] = byte;
        }
        if let Some(cut) = cut {
            let length = cut.index(chain[which].len());
            chain[which].truncate(length);
        }
        prop_assert_eq!(verify(&chain), chain == WORLD.chain);
    }

    #[test]
    fn bytes_as_requests(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        noise in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let id = WORLD.cluster.agent();
        let sign = |pem: &str| WORLD.cluster.intermediate.sign_leaf(pem, &id, valid());
        prop_assert!(sign(&pem("CERTIFICATE REQUEST", &noise)).is_err());
        let good = PrivateKey::generate().unwrap().csr(&id).unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap().to_vec();
        let mut changed = der.clone();
        for (place, byte) in changes {
            let place = place.index(changed.len());
            changed[place] = byte;
        }
        // The signature covers all but its own encoding: a request that still holds is for the same identity.
        if changed != der && let Ok(chain) = sign(&pem("CERTIFICATE REQUEST", &changed)) {
            prop_assert_eq!(certificate_info(&chain).unwrap().id, Some(id.clone()));
        }
    }

    #[test]
    fn text_as_pem(text in "\\PC{0,200}", noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = certificate_info(&text);
        let _ = certificate_info(&pem("CERTIFICATE", &noise));
        let _ = PrivateKey::from_pem(&text);
        let _ = PrivateKey::from_pem(&pem("PRIVATE KEY", &noise));
    }
}
