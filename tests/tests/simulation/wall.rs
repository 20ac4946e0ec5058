//! No byte of a tenant reaches another's cluster, and no pod's address leaves its cluster.

/// The words that stand in all that is an organization's own: its name, its trust domain, its accounts, its gateways' addresses.
pub(crate) const MARKS: [&str; 2] = ["acme", "globex"];

/// What is told to somebody of this tenant.
pub(crate) fn told(tenant: usize, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for (other, mark) in MARKS.iter().enumerate().filter(|(other, _)| *other != tenant) {
        assert!(
            !text.contains(mark),
            "a byte of tenant {other} reaches a cluster of tenant {tenant}: {text}"
        );
    }
}

/// What leaves a cluster: the pods' addresses all begin with `10.`.
pub(crate) fn leaves(tenant: usize, bytes: &[u8]) {
    told(tenant, bytes);
    let text = String::from_utf8_lossy(bytes);
    assert!(!text.contains("\"10."), "a pod's address leaves its cluster: {text}");
}
