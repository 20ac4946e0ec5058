//! The ways to the ingress gateways: `load-balancer`, `node-port[=PORT]`, `host-network`, or addresses. Pure.

use crate::{kubernetes::Way, problem::CliError};
use anyhow::Result;
use serde_json::{Value, json};

/// These ways, with these annotations; without any, a load balancer keeps those that it has in force.
///
/// # Errors
/// A way that is not understood; annotations without a load balancer.
pub(super) fn ways(
    given: &[String],
    annotations: &[(String, String)],
    in_force: &[Value],
) -> Result<Vec<Value>> {
    let (mut all, mut addresses) = (Vec::new(), Vec::new());
    for way in given {
        match way.parse()? {
            Way::LoadBalancer => {
                let before = in_force.iter().find(|way| is_balancer(way));
                all.push(before.cloned().unwrap_or_else(|| json!({ "type": "load_balancer" })));
            }
            Way::NodePort(None) => all.push(json!({ "type": "node_port" })),
            Way::NodePort(Some(port)) => all.push(json!({ "type": "node_port", "port": port })),
            Way::HostNetwork => all.push(json!({ "type": "host_network" })),
            Way::Address(address) => addresses.push(address),
        }
    }
    if !addresses.is_empty() {
        all.push(json!({ "type": "address", "addresses": addresses }));
    }
    if annotations.is_empty() { Ok(all) } else { with_annotations(all, annotations) }
}

/// These ways, whose load balancer has these annotations and no others.
///
/// # Errors
/// There is none.
pub(super) fn with_annotations(mut all: Vec<Value>, annotations: &[(String, String)]) -> Result<Vec<Value>> {
    let Some(balancer) = all.iter_mut().find(|way| is_balancer(way)) else {
        let message = "--ingress-annotation is for --ingress load-balancer, which is not asked for";
        return Err(CliError::Usage(message.to_owned()).into());
    };
    balancer["annotations"] = annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    Ok(all)
}

fn is_balancer(way: &Value) -> bool {
    way["type"] == "load_balancer"
}

/// A way as it is written here; nothing of what this program does not know.
pub(super) fn written(way: &Value) -> Option<String> {
    Some(match way["type"].as_str()? {
        "load_balancer" => {
            let notes = way["annotations"].as_object().into_iter().flatten();
            let notes: Vec<String> =
                notes.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            if notes.is_empty() {
                "load-balancer".to_owned()
            } else {
                format!("load-balancer ({})", notes.join(", "))
            }
        }
        "node_port" => {
            way["port"].as_u64().map_or_else(|| "node-port".to_owned(), |port| format!("node-port={port}"))
        }
        "host_network" => "host-network".to_owned(),
        "address" => {
            let all = way["addresses"].as_array()?.iter().filter_map(Value::as_str);
            all.collect::<Vec<_>>().join(", ")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(all: &[&str], notes: &[(String, String)], in_force: &[Value]) -> Result<Value> {
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        ways(&all, notes, in_force).map(Value::from)
    }

    #[test]
    fn ways_to_the_ingress_gateways() {
        let all = ["node-port=31443", "gw.example.com:443", "192.0.2.1:15443", "load-balancer"];
        let asked = read(&all, &[], &[]).unwrap();
        assert_eq!(
            asked,
            json!([{ "type": "node_port", "port": 31443 }, { "type": "load_balancer" },
                   { "type": "address", "addresses": ["gw.example.com:443", "192.0.2.1:15443"] }])
        );
        let shown: Vec<_> = asked.as_array().unwrap().iter().filter_map(written).collect();
        assert_eq!(shown, ["node-port=31443", "load-balancer", "gw.example.com:443, 192.0.2.1:15443"]);
        for wrong in
            ["nodeport", "node-port=x", "node-port=0", "gw.example.com", "gw.example.com:0", "host-network=1"]
        {
            assert!(read(&[wrong], &[], &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_load_balancer_keeps_its_annotations() {
        let note = [("example.com/internal".to_owned(), "true".to_owned())];
        let with = json!({ "type": "load_balancer", "annotations": { "example.com/internal": "true" } });
        assert_eq!(read(&["load-balancer"], &note, &[]).unwrap(), json!([with]));
        assert_eq!(written(&with).as_deref(), Some("load-balancer (example.com/internal=true)"));
        assert!(read(&["node-port"], &note, &[]).is_err(), "nobody would read it");
        assert!(with_annotations(vec![json!({ "type": "host_network" })], &note).is_err());
        let in_force = [with.clone(), json!({ "type": "host_network" })];
        assert_eq!(
            read(&["node-port", "load-balancer"], &[], &in_force).unwrap(),
            json!([{ "type": "node_port" }, with])
        );
        let other = [("example.com/other".to_owned(), "1".to_owned())];
        let all = read(&["load-balancer"], &other, &in_force).unwrap();
        assert_eq!(all, json!([{ "type": "load_balancer", "annotations": { "example.com/other": "1" } }]));
    }
}
