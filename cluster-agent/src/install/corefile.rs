//! `CoreDNS`' Corefile with our domains in it: one marked block at its end. Everything else stays as it is, byte for byte,
//! and taking the block out gives back what was there.
//!
//! A domain that the file has a server block for already is left to it: two for one zone would keep `CoreDNS` from starting. One that overlaps
//! the cluster's own domain is not forwarded: who may choose a domain must not come to answer the cluster's names.

use super::words::words;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};
use thiserror::Error;

const BEGIN: &str = "\n# tombolo: begin. Made by tombolo-agent, which takes it out again; what is changed in here is written over.\n";
const END: &str = "# tombolo: end\n";
/// The port of servers that say none.
const PORT: u16 = 53;

/// Why a Corefile is left alone.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum CorefileError {
    /// Braces do not match.
    #[error("its braces do not match")]
    Braces,
    /// Half of our marks.
    #[error("one of the two marks of Tombolo's block is gone; take the rest of the block out by hand")]
    Marks,
    /// No server for everything else.
    #[error(
        "it has no server block for the root (`.`), so that it is not known at which port the cluster asks"
    )]
    NoRoot,
}

/// A Corefile with our block in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    /// The whole text.
    pub(super) text: String,
    /// Domains that it has server blocks of others for.
    pub(super) taken: BTreeSet<String>,
}

/// The file without our block.
///
/// # Errors
/// [`CorefileError::Marks`].
pub(super) fn without(text: &str) -> Result<String, CorefileError> {
    match (text.find(BEGIN), text.find(END)) {
        (None, None) => Ok(text.to_owned()),
        (Some(begin), Some(end)) if begin < end => {
            let rest = format!("{}{}", &text[..begin], &text[end + END.len()..]);
            if rest.contains(BEGIN) || rest.contains(END) { Err(CorefileError::Marks) } else { Ok(rest) }
        }
        _ => Err(CorefileError::Marks),
    }
}

/// Our block in the file, where it has one.
pub(super) fn block(text: &str) -> Option<&str> {
    let begin = text.find(BEGIN)?;
    let end = text.find(END)? + END.len();
    text.get(begin..end)
}

/// Answers as old as our own TTL, so that none is later for it; a name that was asked for before is answered on while no agent is there
/// (`verify`: only then).
const CACHE: &str = "    cache 5 {\n        denial 9984 1\n        serve_stale 1h verify\n    }\n";

/// The file with these domains forwarded to the agent's DNS; without our block, where there is none.
///
/// # Errors
/// Any [`CorefileError`].
pub(super) fn with(text: &str, domains: &BTreeSet<String>, to: IpAddr) -> Result<Merged, CorefileError> {
    let rest = without(text)?;
    let servers = zones(&rest)?.servers;
    let port = servers.iter().find(|server| server.zone == ".").ok_or(CorefileError::NoRoot)?.port;
    let is_taken = |domain: &&String| servers.iter().any(|s| s.zone == **domain && s.port == port);
    let (taken, free): (BTreeSet<&String>, BTreeSet<&String>) = domains.iter().partition(is_taken);
    let mut text = rest;
    if !free.is_empty() {
        text.push_str(BEGIN);
        for domain in free {
            // writing to a string does not fail
            let _ =
                write!(text, "{domain}:{port} {{\n    errors\n{CACHE}    forward . {}\n}}\n", Address(to));
        }
        text.push_str(END);
    }
    Ok(Merged { text, taken: taken.into_iter().cloned().collect() })
}

/// As `forward` reads it.
struct Address(IpAddr);

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "{ip}"),
            IpAddr::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

/// A zone that a server block stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    /// In lower case, without a dot at its end.
    zone: String,
    port: u16,
}

/// Of these domains, those that lie in a zone of the cluster's own names, or have one in them; each with that zone.
pub(super) fn own(text: &str, domains: &BTreeSet<String>) -> BTreeMap<String, String> {
    // what is not understood is left alone, and told of elsewhere
    let Ok(Zones { own, .. }) = zones(text) else { return BTreeMap::new() };
    let lies_in = |name: &str, zone: &str| {
        name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let of =
        |domain: &String| own.iter().find(|zone| lies_in(domain, zone) || lies_in(zone, domain)).cloned();
    domains.iter().filter_map(|domain| Some((domain.clone(), of(domain)?))).collect()
}

/// What a Corefile stands for.
#[derive(Debug, Default)]
struct Zones {
    servers: Vec<Server>,
    /// The zones of the plugin `kubernetes`: the cluster's own names.
    own: BTreeSet<String>,
}

impl Zones {
    /// The line of the plugin ended: one without zones has those of its server block.
    fn end(&mut self, plugin: &mut Option<Vec<String>>, block: &[Server]) {
        let Some(zones) = plugin.take() else { return };
        let zones =
            if zones.is_empty() { block.iter().map(|server| server.zone.clone()).collect() } else { zones };
        // all names are nobody's own
        self.own.extend(zones.into_iter().filter(|zone| zone != "."));
    }
}

/// The zones of all server blocks, and of the plugin in them that has the cluster's names.
fn zones(text: &str) -> Result<Zones, CorefileError> {
    let (mut depth, mut keys, mut all) = (0_usize, Vec::new(), Zones::default());
    let (mut importing, mut block, mut plugin) = (false, Vec::new(), None);
    for (first, token) in words(text) {
        if depth == 1 && (first || token == "{") {
            all.end(&mut plugin, &block);
        }
        match token.as_str() {
            "{" => {
                if depth == 0 {
                    block = keys.drain(..).filter_map(|key: String| server(&key)).collect();
                    all.servers.extend(block.iter().cloned());
                }
                depth += 1;
            }
            "}" => {
                all.end(&mut plugin, &block);
                depth = depth.checked_sub(1).ok_or(CorefileError::Braces)?;
            }
            "kubernetes" if depth == 1 && first => plugin = Some(Vec::new()),
            zone if depth == 1 => {
                if let Some(zones) = &mut plugin {
                    zones.extend(server(zone).map(|server| server.zone));
                }
            }
            // at this level, `import FILES` is a line of its own
            "import" if depth == 0 && first => importing = true,
            _ if depth == 0 && importing && !first => importing = false,
            _ if depth == 0 => {
                importing = false;
                keys.extend(token.split(',').filter(|key| !key.is_empty()).map(str::to_owned));
            }
            _ => {}
        }
    }
    if depth == 0 { Ok(all) } else { Err(CorefileError::Braces) }
}

/// A key of a server block: `zone`, `zone:port`, `dns://zone:port`. Snippets, and protocols that are not plain DNS, are none.
fn server(key: &str) -> Option<Server> {
    if key.starts_with('(') {
        return None;
    }
    let bare = match key.split_once("://") {
        Some(("dns", bare)) => bare,
        Some(_) => return None,
        None => key,
    };
    let (zone, port) = match bare.rsplit_once(':') {
        Some((zone, port)) if !zone.contains(':') => (zone, port.parse().ok()?),
        Some(_) => return None,
        None => (bare, PORT),
    };
    let zone = zone.to_ascii_lowercase();
    let zone =
        if zone == "." || zone.is_empty() { ".".to_owned() } else { zone.trim_end_matches('.').to_owned() };
    Some(Server { zone, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KUBEADM: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
";

    fn domains(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }
    fn ip() -> IpAddr {
        IpAddr::from([10, 96, 7, 9])
    }

    #[test]
    fn our_domains_come_behind_what_is_there() {
        let merged = with(KUBEADM, &domains(&["clusterset.local", "acme.example.com"]), ip()).unwrap();
        let block = merged.text.strip_prefix(KUBEADM).unwrap();
        assert_eq!(
            block,
            format!(
                "{BEGIN}acme.example.com:53 {{\n    errors\n{CACHE}    forward . 10.96.7.9\n}}\n\
                 clusterset.local:53 {{\n    errors\n{CACHE}    forward . 10.96.7.9\n}}\n{END}"
            )
        );
        assert!(merged.taken.is_empty());
        // again, with other domains, and out
        let more = with(&merged.text, &domains(&["beta.example.com"]), ip()).unwrap();
        assert!(more.text.contains("beta") && !more.text.contains("acme"));
        assert_eq!(with(&more.text, &domains(&[]), ip()).unwrap().text, KUBEADM);
        assert_eq!(without(&more.text).unwrap(), KUBEADM);
    }

    #[test]
    fn a_domain_that_has_a_server_is_left_to_it() {
        for theirs in [
            "acme.example.com {\n}\n",
            "other.test:53, ACME.example.com.:53 {\n}\n",
            "dns://acme.example.com:53 { forward . 1.1.1.1\n}\n",
            "\"acme.example.com\" {\n}\n",
        ] {
            let file = format!("{KUBEADM}{theirs}");
            let merged = with(&file, &domains(&["acme.example.com"]), ip()).unwrap();
            assert_eq!((merged.text, merged.taken.len()), (file, 1), "{theirs}");
        }
        for others in [
            "acme.example.com:5353 {\n}\n",
            "tls://acme.example.com {\n}\n",
            "# acme.example.com {\n",
            "(acme.example.com) {\n}\n",
            "import acme.example.com\n",
            "sub.acme.example.com {\n  acme.example.com {\n  }\n}\n",
        ] {
            let merged = with(&format!("{KUBEADM}{others}"), &domains(&["acme.example.com"]), ip()).unwrap();
            assert!(merged.taken.is_empty() && merged.text.contains(BEGIN), "{others}");
        }
    }

    #[test]
    fn the_clusters_own_domain_is_known() {
        let all = domains(&[
            "svc.k8s.example.com",
            "k8s.example.com",
            "example.com",
            "other.example.com",
            "notk8s.example.com",
            "clusterset.local",
        ]);
        let own_of = |text: &str| own(text, &all).into_keys().collect::<Vec<_>>();
        let root = KUBEADM.replace("kubernetes cluster.local", "kubernetes K8s.Example.com.");
        for theirs in [
            root.as_str(),
            "k8s.example.com:53 {\n  kubernetes\n}\n.:53 {\n}\n",
            "k8s.example.com {\n  kubernetes {\n    pods insecure\n  }\n}\n. {\n}\n",
            ". {\n  kubernetes k8s.example.com#x\n}\n",
            ". {\n  log . \"{remote} \\\"\"\n  kubernetes k8s.example.com\n}\n",
            "(own) {\n  errors\n  kubernetes \"k8s.example.com\" in-addr.arpa\n}\n. {\n  import own\n}\n",
        ] {
            assert_eq!(own_of(theirs), ["example.com", "k8s.example.com", "svc.k8s.example.com"], "{theirs}");
        }
        for other in [
            KUBEADM,
            ". {\n  kubernetes\n}\n",
            ". {\n  # kubernetes k8s.example.com\n  forward k8s.example.com 1.1.1.1\n}\n",
            ". {\n  template {\n    kubernetes k8s.example.com\n  }\n}\n",
            "k8s.example.com {\n  file db\n}\n. {\n  errors kubernetes\n}\n",
            "} kubernetes k8s.example.com",
        ] {
            assert!(own_of(other).is_empty(), "{other}: {:?}", own_of(other));
        }
    }

    #[test]
    fn the_port_is_that_of_the_root() {
        let merged = with("import /etc/x/*\n.:1053 {\n}\n", &domains(&["a.test"]), ip()).unwrap();
        assert!(merged.text.contains("\na.test:1053 {\n"), "{}", merged.text);
        let bare = with(". {\n}", &domains(&["a.test"]), "fd00::1".parse().unwrap()).unwrap();
        assert!(
            bare.text.contains(&format!("\na.test:53 {{\n    errors\n{CACHE}    forward . [fd00::1]\n}}\n"))
        );
        assert_eq!(without(&bare.text).unwrap(), ". {\n}", "even where no line ended");
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let all = domains(&["a.test"]);
        assert_eq!(with(".:53 {\n", &all, ip()), Err(CorefileError::Braces));
        assert_eq!(with("}\n.:53 {\n}\n", &all, ip()), Err(CorefileError::Braces));
        assert_eq!(with("b.test {\n}\n", &all, ip()), Err(CorefileError::NoRoot));
        let merged = with(KUBEADM, &all, ip()).unwrap().text;
        assert_eq!(without(&merged.replace(END, "")), Err(CorefileError::Marks));
        assert_eq!(with(&merged.replace(BEGIN, ""), &all, ip()), Err(CorefileError::Marks));
        // what somebody puts behind our block stays
        let after = format!("{merged}c.test {{\n}}\n");
        assert_eq!(without(&after).unwrap(), format!("{KUBEADM}c.test {{\n}}\n"));
    }

    proptest! {
        #[test]
        fn what_was_there_comes_back(file in "(([a-z.]{1,9}|\\{|\\}|#|\"|,|:53)[ \n]?){0,20}", names in prop::collection::btree_set("[a-z]{1,5}\\.test", 0..4)) {
            let Ok(merged) = with(&file, &names, ip()) else { return Ok(()) };
            prop_assert_eq!(without(&merged.text).unwrap(), file);
            prop_assert_eq!(with(&merged.text, &names, ip()).unwrap(), merged);
        }
    }
}
