//! Whether pods can reach the controller by the address that the manifest gives them. Whether they do, only they can say.

use super::{Finding, Verdict, finding};
use crate::kubernetes::apply::Document;
use std::net::IpAddr;

const WHAT: &str = "controller";

pub(super) fn look(documents: &[Document]) -> Finding {
    let namespace = documents.iter().find(|one| one.kind == "Namespace");
    let url =
        namespace.and_then(|one| one.value["metadata"]["annotations"]["tombolo.io/controller"].as_str());
    match url {
        Some(url) => address(url),
        None => finding(WHAT, Verdict::Less, "the manifest does not say where it is"),
    }
}

fn address(url: &str) -> Finding {
    let place = url.strip_prefix("https://").unwrap_or(url);
    let place = place.split('/').next().unwrap_or_default();
    let host = match place.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => place.rsplit_once(':').map_or(place, |(host, _)| host),
    };
    let is_here =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
    if is_here {
        let said = format!(
            "{url} is this machine's own: no pod reaches it. Start the controller with --public-url at an address that the cluster's nodes reach"
        );
        return finding(WHAT, Verdict::Missing, said);
    }
    finding(WHAT, Verdict::Good, format!("{url}; the cluster's pods must reach it there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_reaches_no_loopback() {
        for here in
            ["https://127.0.0.1:8443", "https://localhost:8443/", "https://[::1]:8443", "https://0.0.0.0:1"]
        {
            assert_eq!(address(here).verdict, Verdict::Missing, "{here}");
        }
        for good in
            ["https://controller.example.com:8443", "https://10.0.0.1:8443", "https://[2001:db8::1]:8443"]
        {
            assert_eq!(address(good).verdict, Verdict::Good, "{good}");
        }
    }
}
