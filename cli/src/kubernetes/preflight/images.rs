//! Whether nodes can pull the images that the manifest names. Whether they may, only they can say.

use super::{Finding, Verdict, finding};
use crate::kubernetes::apply::Document;
use std::net::IpAddr;

const WHAT: &str = "images";

pub(super) fn look(documents: &[Document]) -> Finding {
    let agent = documents.iter().find(|one| one.kind == "Deployment");
    let containers =
        agent.and_then(|one| one.value["spec"]["template"]["spec"]["containers"].as_array()).into_iter();
    match containers.flatten().find_map(|one| one["image"].as_str()) {
        Some(image) => pulled(image),
        None => finding(WHAT, Verdict::Less, "the manifest does not say which"),
    }
}

fn pulled(image: &str) -> Finding {
    let host = image.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let is_own = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !is_own {
        return finding(WHAT, Verdict::Good, format!("{image}; the cluster's nodes must be able to pull it"));
    }
    let said = format!(
        "{image} is of each node's own {host}, from which nothing is pulled: every node must have it already, as with `make clusters`. Push the images where the nodes may pull, and start \
         the controller with --image-registry (docs/kubernetes.md, \"Where images come from\")"
    );
    finding(WHAT, Verdict::Less, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_pulls_from_a_nodes_own_registry() {
        for own in [
            "localhost/tombolo-agent:dev",
            "localhost:5000/a/tombolo-agent:1",
            "127.0.0.1:5000/tombolo-agent:1",
        ] {
            assert_eq!(pulled(own).verdict, Verdict::Less, "{own}");
        }
        for good in
            ["registry.example.com/tombolo/tombolo-agent:1", "10.0.0.1:5000/tombolo-agent:1", "tombolo/agent"]
        {
            assert_eq!(pulled(good).verdict, Verdict::Good, "{good}");
        }
    }
}
