//! In what the exports of a service differ.

use super::view::Export;
use std::collections::BTreeSet;
use tombolo_model::mcs::{ConflictReason as Reason, ExportConflict, ExportedPort, SessionAffinity};

/// All differences between these exports, the oldest first; it decides.
pub(crate) fn conflicts(exports: &[Export<'_>]) -> Vec<ExportConflict> {
    let Some(oldest) = exports.first() else { return Vec::new() };
    let mut all = Vec::new();
    let mut find = |reason, differs: &dyn Fn(&Export<'_>) -> bool, what: &str| {
        let count = exports.iter().filter(|export| differs(export)).count();
        if count > 0 {
            let (cluster, of) = (oldest.cluster_name, exports.len());
            let message =
                format!("{what} from the oldest export, of {cluster}; {count}/{of} clusters disagree");
            all.push(ExportConflict { reason, message });
        }
    };
    find(
        Reason::Port,
        &|export| ports(export) != ports(oldest),
        "Conflicting ports. All of them are exposed, each leads to the clusters that have it, and where two are in each other's \
         way it is the one",
    );
    let kind = oldest.kind().as_str();
    find(
        Reason::Type,
        &|export| export.kind() != oldest.kind(),
        &format!("Conflicting type. Using {kind:?}"),
    );
    let affinity = |export: &Export<'_>| match export.traits().affinity {
        SessionAffinity::None => ("None", None),
        SessionAffinity::ClientIp(seconds) => ("ClientIP", Some(seconds)),
    };
    let own = affinity(oldest);
    find(
        Reason::SessionAffinity,
        &|export| affinity(export).0 != own.0,
        &format!("Conflicting sessionAffinity. Using {:?}", own.0),
    );
    if let Some(seconds) = own.1 {
        find(
            Reason::SessionAffinityConfig,
            &|export| affinity(export).1.is_some_and(|other| other != seconds),
            &format!("Conflicting sessionAffinityConfig. Using {seconds} s"),
        );
    }
    let policy = &oldest.traits().internal_traffic_policy;
    find(
        Reason::InternalTrafficPolicy,
        &|export| export.traits().internal_traffic_policy != *policy,
        &format!("Conflicting internalTrafficPolicy. Using {}", said(policy)),
    );
    let distribution = &oldest.traits().traffic_distribution;
    find(
        Reason::TrafficDistribution,
        &|export| export.traits().traffic_distribution != *distribution,
        &format!("Conflicting trafficDistribution. Using {}", said(distribution)),
    );
    find(
        Reason::Labels,
        &|export| export.record.labels != oldest.record.labels,
        "Conflicting exportedLabels. Using those",
    );
    find(
        Reason::Annotations,
        &|export| export.record.annotations != oldest.record.annotations,
        "Conflicting exportedAnnotations. Using those",
    );
    all.sort();
    all
}

fn ports<'a>(export: &Export<'a>) -> BTreeSet<&'a ExportedPort> {
    export.traits().ports.iter().collect()
}

fn said(text: &Option<String>) -> String {
    text.as_ref().map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}
