//! What of an order is for admins alone. Pure.

use crate::app::{
    caller::Role,
    error::{Kind, Refusal, Result},
};
use std::collections::BTreeMap;
use tombolo_model::install::{Exposure, InstallSpec};

/// Whether this role may order it. What comes from a registry runs in the cluster with the rights of agent and proxies, so another one than
/// the controller's is for admins to choose. And an annotation of a Service commands whatever in the cluster listens to it: who gives names
/// to addresses, opens firewalls, keeps logs. Who may edit may keep what an admin chose. (The cluster's agent refuses images that whoever
/// applied its manifest did not allow.)
///
/// # Errors
/// [`Kind::Forbidden`], with the field.
pub(crate) fn may_order(
    role: Role,
    own: &str,
    spec: &InstallSpec,
    before: Option<&InstallSpec>,
) -> Result<()> {
    if role >= Role::Admin {
        return Ok(());
    }
    let forbidden = |what: &str| {
        let detail = format!("{what} needs the role {}; the token has {role}.", Role::Admin);
        Refusal::new(Kind::Forbidden, detail)
    };
    if spec.registry != own && before.is_none_or(|before| before.registry != spec.registry) {
        let remedy = format!("leave it out, for {own}, or let an admin of the organization ask for it once");
        let refusal = forbidden("Another registry than the controller's");
        return Err(refusal.field("registry", format!("is {:?}", spec.registry), remedy));
    }
    let there = before.map(annotations).unwrap_or_default();
    if let Some((key, _)) = annotations(spec).into_iter().find(|(key, value)| there.get(key) != Some(value)) {
        let remedy = "leave it out, or let an admin of the organization ask for it once";
        let refusal = forbidden("An annotation of the load balancer");
        return Err(refusal.field("gateways.ingress.exposure.annotations", format!("has {key:?}"), remedy));
    }
    Ok(())
}

/// What the Service of the ingress gateways is to have.
fn annotations(spec: &InstallSpec) -> BTreeMap<&str, &str> {
    let ways = spec.gateways.ingress.exposure.iter();
    ways.filter_map(|way| match way {
        Exposure::LoadBalancer { annotations } => Some(annotations),
        _ => None,
    })
    .flatten()
    .map(|(key, value)| (key.as_str(), value.as_str()))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(registry: &str, annotations: &[(&str, &str)]) -> InstallSpec {
        let spec = serde_json::json!({ "revision": 1, "version": "1.0.0", "registry": registry });
        let mut spec: InstallSpec = serde_json::from_value(spec).unwrap();
        let annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        spec.gateways.ingress.exposure = vec![Exposure::LoadBalancer { annotations }];
        spec
    }

    #[test]
    fn who_may_edit_keeps_what_an_admin_chose() {
        let dns = ("external-dns.example.com/hostname", "api.example.com");
        let theirs = order("r.example.com/t", &[dns]);
        for (spec, before, field) in [
            (order("localhost", &[]), None, None),
            (order("r.example.com/t", &[]), None, Some("registry")),
            (order("r.example.com/t", &[]), Some(&theirs), None),
            (order("s.example.com/t", &[]), Some(&theirs), Some("registry")),
            (order("localhost", &[dns]), None, Some("annotations")),
            (order("localhost", &[dns]), Some(&theirs), None),
            (order("localhost", &[(dns.0, "www.example.com")]), Some(&theirs), Some("annotations")),
        ] {
            let refused =
                may_order(Role::Editor, "localhost", &spec, before).map_err(|refusal| format!("{refusal:?}"));
            match field {
                None => assert_eq!(refused, Ok(()), "{spec:?}"),
                Some(field) => assert!(refused.is_err_and(|said| said.contains(field)), "{field}: {spec:?}"),
            }
            assert!(may_order(Role::Admin, "localhost", &spec, before).is_ok());
        }
    }
}
