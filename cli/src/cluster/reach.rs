//! Which clusters a cluster's egress gateways reach, for people: of every pair.

use crate::{
    org::text,
    output::{Mood, cell},
};
use serde_json::Value;

/// Each other cluster, with how many of the egress gateways get through to it. A gateway gets through where one of the
/// addresses answers. No gateway is told of a cluster that serves nothing which is called from here.
pub(super) fn reaches(status: &Value, others: &[String]) -> (Mood, String) {
    let gateways = status["gateways"].as_array().into_iter().flatten();
    let egress: Vec<&Value> = gateways.filter(|gateway| gateway["role"] == "egress").collect();
    if others.is_empty() {
        return cell(String::new());
    }
    if egress.is_empty() {
        return (Mood::Warn, "no egress gateway".to_owned());
    }
    let mut mood = Mood::Plain;
    let one = |other: &String| {
        let told: Vec<&Value> = egress.iter().map(|gateway| &gateway["status"]["peers"][other]).collect();
        if told.iter().all(|addresses| addresses.is_null()) {
            return format!("{other} not needed");
        }
        let through = told.iter().filter(|addresses| answers(addresses)).count();
        let worse = match through {
            0 => Mood::Bad,
            some if some < egress.len() => Mood::Warn,
            _ => Mood::Plain,
        };
        if worse == Mood::Bad || mood == Mood::Plain {
            mood = worse;
        }
        format!("{other} {through}/{}", egress.len())
    };
    let words = others.iter().map(one).collect::<Vec<_>>().join(", ");
    (mood, words)
}

fn answers(addresses: &Value) -> bool {
    let all = addresses.as_object().into_iter().flatten();
    all.map(|(_, state)| text(state, "health")).any(|health| health == "healthy" || health == "slow_start")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_pair_has_its_count() {
        let gateway = |role: &str, peers: Value| json!({ "role": role, "status": { "peers": peers } });
        let at = |health: &[&str]| {
            let all = health.iter().enumerate();
            Value::Object(all.map(|(n, health)| (format!("a{n}"), json!({ "health": health }))).collect())
        };
        let others = ["north", "south", "west"].map(str::to_owned);
        let said = |gateways: &[Value]| reaches(&json!({ "gateways": gateways }), &others);
        let good =
            gateway("egress", json!({ "west": at(&["healthy"]), "south": at(&["dead", "slow_start"]) }));
        let bad = gateway("egress", json!({ "west": at(&["dead"]), "south": at(&["healthy"]) }));
        let none = gateway("egress", json!({ "west": at(&["dead"]), "south": at(&["healthy"]) }));
        let sidecar = gateway("sidecar", json!({ "west": at(&["healthy"]) }));
        let told = |words: &str| words.to_owned();
        assert_eq!(
            said(&[good.clone(), good.clone(), sidecar.clone()]),
            (Mood::Plain, told("north not needed, south 2/2, west 2/2"))
        );
        assert_eq!(
            said(&[good.clone(), bad]),
            (Mood::Warn, told("north not needed, south 2/2, west 1/2")),
            "one good gateway is not all"
        );
        assert_eq!(said(&[none]), (Mood::Bad, told("north not needed, south 1/1, west 0/1")));
        // a gateway that was not told yet does not get through
        let new = gateway("egress", json!({}));
        assert_eq!(said(&[good, new]), (Mood::Warn, told("north not needed, south 1/2, west 1/2")));
        assert_eq!(said(&[sidecar]), (Mood::Warn, told("no egress gateway")));
        assert_eq!(reaches(&json!({}), &[]).1, "");
    }
}
