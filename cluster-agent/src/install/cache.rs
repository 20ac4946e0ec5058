//! `NodeLocal DNSCache`: where it is, pods ask the cache of their node, which asks the cluster's DNS for the cluster's own names alone.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use std::{collections::BTreeSet, net::IpAddr};

/// Where it lives, and what its pods are known by.
const SYSTEM: &str = "kube-system";
const PODS: &str = "k8s-app=node-local-dns";

/// Whether the cluster has it; none where the API server does not say.
pub(super) async fn is_there(client: &Client) -> Option<bool> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
    let found = pods.list_metadata(&ListParams::default().labels(PODS).limit(1)).await.ok()?;
    Some(!found.items.is_empty())
}

/// What a person has to add to it. The agent can't see whether that was done.
pub(super) fn by_hand(domains: &BTreeSet<String>, to: IpAddr) -> String {
    let list = domains.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    format!(
        "NodeLocal DNSCache is there: pods ask it, and for names outside of the cluster's own domain it passes CoreDNS by. Its Corefile \
         (ConfigMap kube-system/node-local-dns) needs a server block for each of {list}, as `DOMAIN:53 {{ errors; cache 5; bind 169.254.20.10; \
         forward . {to} {{ force_tcp }} }}`, a line each, with the binds of its other blocks; then restart the DaemonSet node-local-dns. Where \
         they are there already, nothing is missing"
    )
}
