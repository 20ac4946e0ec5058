//! Which workload a process is: pure, so that every rule of it has a plain test.

use std::path::PathBuf;
use tombolo_model::{
    SpiffeId,
    snapshot::{WorkloadSelector, WorkloadSpec},
};

/// What the kernel says about the process that holds a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessFacts {
    /// The user id that made the socket.
    pub(crate) uid: u32,
    /// The path of its executable. Not known where nothing asked for it, where it may not be read, and where
    /// the file at that path is no longer (or, seen from here, never was) what the process runs.
    pub(crate) exe: Option<PathBuf>,
    /// The path of its cgroup, in the v2 hierarchy (or systemd's own where there is no v2).
    pub(crate) cgroup: Option<String>,
}

/// Why a process is not one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// No workload's selectors agree with it.
    Nobody,
    /// More than one workload's selectors do.
    Several(Vec<SpiffeId>),
}

/// Whether all selectors of a workload agree with a process. A workload without selectors is nobody's, and one with
/// paths alone is too: whoever may run that program could load code of his own into it.
pub(crate) fn matches(spec: &WorkloadSpec, facts: &ProcessFacts) -> bool {
    proves(spec) && spec.selectors.iter().all(|selector| agrees(selector, facts))
}

/// Whether a workload's selectors say whose process it is, and not only which program.
fn proves(spec: &WorkloadSpec) -> bool {
    spec.selectors.iter().any(|s| matches!(s, WorkloadSelector::Uid(_) | WorkloadSelector::Cgroup(_)))
}

/// The one workload that a process is.
pub(crate) fn pick<'a>(
    specs: impl IntoIterator<Item = &'a WorkloadSpec>,
    facts: &ProcessFacts,
) -> Result<&'a WorkloadSpec, Mismatch> {
    let mut found: Vec<&WorkloadSpec> = specs.into_iter().filter(|spec| matches(spec, facts)).collect();
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(Mismatch::Nobody),
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            found.push(last);
            Err(Mismatch::Several(found.into_iter().map(|spec| spec.identity.clone()).collect()))
        }
    }
}

/// Whether the user id alone can't tell: some workload that agrees with it so far asks for more.
pub(crate) fn needs_process<'a>(specs: impl IntoIterator<Item = &'a WorkloadSpec>, uid: u32) -> bool {
    specs.into_iter().any(|spec| {
        proves(spec)
            && spec.selectors.iter().any(|s| !matches!(s, WorkloadSelector::Uid(_)))
            && spec.selectors.iter().all(|s| !matches!(s, WorkloadSelector::Uid(wanted) if *wanted != uid))
    })
}

fn agrees(selector: &WorkloadSelector, facts: &ProcessFacts) -> bool {
    match selector {
        // A connection's, never a process's.
        WorkloadSelector::Address(_) => false,
        WorkloadSelector::Uid(uid) => *uid == facts.uid,
        WorkloadSelector::Path(path) => {
            facts.exe.as_ref().is_some_and(|exe| exe.as_os_str() == path.as_str())
        }
        WorkloadSelector::Cgroup(wanted) => {
            facts.cgroup.as_deref().is_some_and(|path| in_cgroup(wanted, path))
        }
    }
}

/// A whole path (it begins with a slash) holds for that cgroup alone. A unit's name holds for a cgroup that ends in it
/// below slices only: what is below anything else (a service, a scope, a container) may be delegated to somebody who
/// makes cgroups of any name there, and below `user.slice` a user may.
fn in_cgroup(wanted: &str, path: &str) -> bool {
    if wanted.starts_with('/') {
        return wanted.trim_end_matches('/') == path.trim_end_matches('/');
    }
    let Some((above, unit)) = path.rsplit_once('/') else { return false };
    !wanted.is_empty()
        && unit == wanted
        && above.split('/').skip(1).all(|slice| slice.ends_with(".slice") && slice != "user.slice")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn spec(account: &str, selectors: &[WorkloadSelector]) -> WorkloadSpec {
        WorkloadSpec {
            identity: SpiffeId::parse(&format!("spiffe://acme.test/cluster/c1/ns/default/sa/{account}"))
                .unwrap(),
            selectors: selectors.iter().cloned().collect::<BTreeSet<_>>(),
        }
    }
    fn facts(uid: u32, exe: Option<&str>, cgroup: Option<&str>) -> ProcessFacts {
        ProcessFacts { uid, exe: exe.map(Into::into), cgroup: cgroup.map(Into::into) }
    }
    use WorkloadSelector::{Cgroup, Path, Uid};

    #[test]
    fn all_selectors_must_agree() {
        let both = spec("a", &[Uid(7), Path("/bin/a".into())]);
        assert!(matches(&both, &facts(7, Some("/bin/a"), None)));
        assert!(!matches(&both, &facts(8, Some("/bin/a"), None)));
        assert!(!matches(&both, &facts(7, Some("/bin/b"), None)));
        assert!(!matches(&both, &facts(7, None, None)));
        assert!(!matches(&spec("a", &[]), &facts(7, Some("/bin/a"), None)), "no selectors match nobody");
    }

    #[test]
    fn a_path_alone_proves_nothing() {
        let who = facts(7, Some("/bin/a"), Some("/system.slice/a.service"));
        assert!(!matches(&spec("a", &[Path("/bin/a".into())]), &who));
        assert!(!matches(&spec("a", &[Path("/bin/a".into()), Path("/bin/a".into())]), &who));
        assert!(matches(&spec("a", &[Path("/bin/a".into()), Uid(7)]), &who));
        assert!(matches(&spec("a", &[Path("/bin/a".into()), Cgroup("a.service".into())]), &who));
    }

    #[test]
    fn exactly_one_workload() {
        let one = spec("a", &[Uid(7)]);
        let two = spec("b", &[Uid(7), Path("/bin/a".into())]);
        let who = facts(7, Some("/bin/a"), None);
        assert_eq!(pick([&one], &who), Ok(&one));
        assert_eq!(
            pick([&one, &two], &who),
            Err(Mismatch::Several(vec![one.identity.clone(), two.identity.clone()]))
        );
        assert_eq!(pick([&one, &two], &facts(9, None, None)), Err(Mismatch::Nobody));
        assert_eq!(pick([], &who), Err(Mismatch::Nobody));
    }

    #[test]
    fn the_process_is_looked_for_only_where_it_matters() {
        assert!(!needs_process([&spec("a", &[Uid(7)])], 7));
        assert!(needs_process([&spec("a", &[Uid(7)]), &spec("b", &[Uid(7), Path("/b".into())])], 7));
        assert!(needs_process([&spec("b", &[Cgroup("/b".into())])], 7));
        assert!(!needs_process([&spec("b", &[Path("/b".into())])], 7), "it matches nobody");
        assert!(!needs_process([&spec("b", &[Uid(8), Path("/b".into())])], 7), "another user's path");
        assert!(needs_process([&spec("b", &[Uid(7), Cgroup("x.service".into())])], 7));
    }

    #[test]
    fn cgroups() {
        for (wanted, path, expect) in [
            ("shop.service", "/system.slice/shop.service", true),
            ("shop.service", "/system.slice/workshop.service", false),
            ("shop.service", "/system.slice/shop.service/child", false),
            ("shop.service", "/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service", false),
            ("/system.slice/shop.service", "/system.slice/shop.service", true),
            ("shop.service", "/system.slice/system-shop.slice/shop.service", true),
            ("shop.service", "/shop.service", true),
            ("shop.service", "/system.slice/runner.service/shop.service", false),
            ("shop.service", "/system.slice/docker-1.scope/system.slice/shop.service", false),
            ("shop.service", "/../system.slice/shop.service", false),
            ("shop.service", "/user.slice/shop.service", false),
            ("shop.service", "shop.service", false),
            ("/system.slice/shop.service", "/system.slice/shop.service/child", false),
            ("/system.slice/shop.service/", "/system.slice/shop.service", true),
            ("/", "/", true),
            ("/", "/system.slice", false),
            ("/system.slice/shop.service", "/system.slice/shop.service2", false),
            ("", "/", false),
        ] {
            assert_eq!(in_cgroup(wanted, path), expect, "{wanted} {path}");
        }
    }
}
