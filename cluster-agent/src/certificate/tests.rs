use super::{
    authority::{Authority, seconds},
    bundle::Bundle,
    pace::Pace,
    renewal::{CURRENT, NEXT, Renewal},
};
use crate::state::{DataDir, Membership};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tombolo_model::{SpiffeId, snapshot::CaFingerprint};
use tombolo_mtls::{Intermediate, PrivateKey, Root, Validity};
use tombolo_runtime::clock::{Clock as _, ManualClock};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn begin() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn membership() -> Membership {
    Membership {
        controller: "https://127.0.0.1:7443".to_owned(),
        ca_fingerprint: format!("sha256:{}", "ab".repeat(32)),
        organization: "acme".parse().unwrap(),
        trust_domain: "acme.internal".parse().unwrap(),
        cluster: "c1".parse().unwrap(),
    }
}

fn intermediate(root: &Root, from: SystemTime) -> Intermediate {
    let key = PrivateKey::generate().unwrap();
    let id = membership().cluster_id();
    let validity = Validity { not_before: from, not_after: from + 90 * DAY };
    let pem = root.sign_intermediate(&key.csr(&id).unwrap(), &id, validity).unwrap();
    Intermediate::new(key, &pem).unwrap()
}

#[test]
fn leaves_last_a_day_and_never_outlive_the_intermediate() {
    let root = Root::create(
        &membership().trust_domain,
        Validity { not_before: begin(), not_after: begin() + 3650 * DAY },
    )
    .unwrap();
    let clock = ManualClock::new(begin() + DAY);
    let authority = Authority::new(intermediate(&root, begin()), Arc::new(clock.clone()));
    let id: SpiffeId = "spiffe://acme.internal/cluster/c1/ns/default/sa/cart".parse().unwrap();
    let csr = PrivateKey::generate().unwrap().csr(&id).unwrap();
    let leaf = authority.issue(&csr, &id).unwrap();
    assert_eq!(leaf.not_after_s, seconds(begin() + 2 * DAY));
    clock.set(begin() + 90 * DAY - Duration::from_secs(60));
    assert_eq!(authority.issue(&csr, &id).unwrap().not_after_s, seconds(begin() + 90 * DAY));
    clock.set(begin() + 91 * DAY);
    assert!(authority.issue(&csr, &id).is_err());
    clock.set(begin() + DAY);
    for foreign in [
        "spiffe://acme.internal/cluster/c2/ns/default/sa/cart",
        "spiffe://other.internal/cluster/c1/ns/default/sa/cart",
        "spiffe://acme.internal/cluster/c1",
    ] {
        let id: SpiffeId = foreign.parse().unwrap();
        let csr = PrivateKey::generate().unwrap().csr(&id).unwrap();
        assert!(authority.issue(&csr, &id).is_err(), "{foreign}");
    }
}

#[test]
fn a_new_intermediate_is_due_at_half_life_or_when_another_root_signs() {
    let validity = Validity { not_before: begin(), not_after: begin() + 3650 * DAY };
    let [root, next] = [0; 2].map(|_| Root::create(&membership().trust_domain, validity).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let clock = ManualClock::new(begin() + DAY);
    let authority = Arc::new(Authority::new(intermediate(&root, begin()), Arc::new(clock.clone())));
    let renewal = Renewal::start(authority, membership(), data, Arc::new(clock)).unwrap();
    let signed_by = |root: Option<&Root>| Bundle {
        signing: root.map(|root| root.cert_pem().to_owned()),
        ..Bundle::default()
    };
    for (bundle, day, due) in [
        (signed_by(None), 1, false),
        (signed_by(Some(&root)), 1, false),
        (signed_by(Some(&next)), 1, true),
        (signed_by(Some(&root)), 46, true),
        (Bundle { signing: Some("?".to_owned()), ..Bundle::default() }, 1, false),
    ] {
        assert_eq!(renewal.is_due(&bundle, begin() + day * DAY), due, "{day}: {bundle:?}");
    }
}

#[test]
fn a_new_intermediate_signs_once_peers_have_it() {
    let root = Root::create(
        &membership().trust_domain,
        Validity { not_before: begin(), not_after: begin() + 3650 * DAY },
    )
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let clock = ManualClock::new(begin() + 46 * DAY);
    let old = intermediate(&root, begin());
    let authority = Arc::new(Authority::new(old, Arc::new(clock.clone())));
    let old = authority.intermediate().fingerprint();
    let new = intermediate(&root, begin() + 46 * DAY);
    let new_print = new.fingerprint();
    // As after a restart between the renewal and the switch.
    data.store_intermediate(NEXT, &new).unwrap();
    let mut renewal =
        Renewal::start(Arc::clone(&authority), membership(), data.clone(), Arc::new(clock.clone())).unwrap();
    assert!(renewal.credentials().ready());
    let both = BTreeSet::from([old.clone(), new_print.clone()]);
    let only_old = BTreeSet::from([old.clone()]);
    let mut step = |advance: Duration, listed: &BTreeSet<CaFingerprint>| {
        clock.advance(advance);
        renewal.switch(clock.now(), listed).unwrap();
        authority.intermediate().fingerprint()
    };
    assert_eq!(step(Duration::ZERO, &only_old), old);
    assert_eq!(step(Pace::default().spread(), &both), old, "listed just now");
    assert_eq!(step(Pace::default().spread() / 2, &both), old);
    assert_eq!(
        step(Pace::default().spread() / 2, &only_old),
        old,
        "gone from the list: the wait begins anew"
    );
    assert_eq!(step(Pace::default().spread(), &both), old);
    assert_eq!(step(Pace::default().spread(), &both), new_print);
    let kept = data.intermediate(CURRENT, &membership()).unwrap().unwrap();
    assert_eq!(kept.fingerprint(), new_print);
    assert!(data.intermediate(NEXT, &membership()).unwrap().is_none());
    // Joined again while the agent runs.
    let third = intermediate(&root, begin() + 46 * DAY);
    data.store_joined(&membership(), &third).unwrap();
    renewal.adopt().unwrap();
    assert_eq!(authority.intermediate().fingerprint(), third.fingerprint());
    let issuer = renewal.credentials().subscribe().borrow().as_ref().map(|l| l.info.issuer.clone());
    assert!(issuer.is_some());
}
