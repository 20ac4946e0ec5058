//! What an order would do that is only tried, in words. Pure.

use super::{
    objects::AGENT,
    plan::{Action, Asked, Found, Pace, installation},
};
use tombolo_model::{
    NamespaceName,
    install::{Trial, TrialStatus},
};

/// The answer to a trial. Nothing of it is done.
pub(super) fn answer(
    asked: &Asked<'_>,
    trial: &Trial,
    namespace: &NamespaceName,
    found: &Found,
) -> TrialStatus {
    let plan = installation(asked, &trial.spec, namespace, found, Pace::AtOnce);
    let before = found.dns.config.as_ref().and_then(|config| config["data"]["Corefile"].as_str());
    let corefile = plan.actions.iter().find_map(|(_, action)| match action {
        Action::Corefile { text, .. } => Some(difference(before.unwrap_or_default(), text)),
        _ => None,
    });
    TrialStatus {
        number: trial.number,
        plan: lines(&plan.actions, found),
        corefile: corefile.unwrap_or_default(),
        problems: plan.problems.iter().map(|(subject, message)| format!("{subject}: {message}")).collect(),
    }
}

/// Actions in words.
fn lines(actions: &[(&'static str, Action)], found: &Found) -> Vec<String> {
    let mut all = Vec::new();
    for (_, action) in actions {
        match action {
            Action::Apply(key, _) if found.objects.contains_key(key) => all.push(format!("change {key}")),
            Action::Apply(key, _) => all.push(format!("make {key}")),
            Action::Delete(key) => all.push(format!("delete {key}")),
            Action::Scale(key, count) => all.push(format!("scale {key} to {count}")),
            Action::Agent { image } => all.push(format!("change Deployment {AGENT}: image {image}")),
            Action::Restart { .. } => {
                all.push("replace the pods of Deployment kube-system/coredns".to_owned())
            }
            Action::Corefile { .. } => all.push("change ConfigMap kube-system/coredns: Corefile".to_owned()),
        }
    }
    all
}

/// The lines that differ between two texts of which the beginning and the end are the same.
fn difference(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same..], &new[same..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let removed = old[..old.len() - end].iter().map(|line| format!("- {line}"));
    removed.chain(new[..new.len() - end].iter().map(|line| format!("+ {line}"))).collect()
}
