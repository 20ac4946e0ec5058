//! `CoreDNS`' Corefile with our domains in it: one marked block at its end. Everything else stays as it is, byte for byte,
//! and taking the block out gives back what was there.
//!
//! A domain that the file has a server block for already is left to it: two for one zone would keep `CoreDNS` from starting.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};
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

/// Answers as old as our own TTL, so that none is later for it; a name that was asked for before is answered on while no agent is there
/// (`verify`: only then).
const CACHE: &str = "    cache 5 {\n        denial 9984 1\n        serve_stale 1h verify\n    }\n";

/// The file with these domains forwarded to the agent's DNS; without our block, where there is none.
///
/// # Errors
/// Any [`CorefileError`].
pub(super) fn with(text: &str, domains: &BTreeSet<String>, to: IpAddr) -> Result<Merged, CorefileError> {
    let rest = without(text)?;
    let servers = servers(&rest)?;
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

/// The zones of all server blocks. Only the outermost level is looked at.
fn servers(text: &str) -> Result<Vec<Server>, CorefileError> {
    let (mut depth, mut keys, mut all) = (0_usize, Vec::new(), Vec::new());
    let mut importing = false;
    for (first, token) in tokens(text) {
        match token.as_str() {
            "{" => {
                if depth == 0 {
                    all.extend(keys.drain(..).filter_map(|key: String| server(&key)));
                }
                depth += 1;
            }
            "}" => depth = depth.checked_sub(1).ok_or(CorefileError::Braces)?,
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

/// The words of a Corefile, and whether each is the first of its line.
fn tokens(text: &str) -> Vec<(bool, String)> {
    let (mut all, mut quoted): (Vec<(bool, String)>, Option<String>) = (Vec::new(), None);
    for line in text.lines() {
        let mut first = true;
        let mut rest = line;
        loop {
            if let Some(mut open) = quoted.take() {
                match rest.find('"') {
                    Some(end) => {
                        open.push_str(&rest[..end]);
                        all.push((first, open));
                        first = false;
                        rest = &rest[end + 1..];
                    }
                    None => {
                        open.push_str(rest);
                        open.push('\n');
                        quoted = Some(open);
                        break;
                    }
                }
            }
            rest = rest.trim_start();
            if rest.is_empty() || rest.starts_with('#') {
                break;
            }
            if let Some(after) = rest.strip_prefix('"') {
                quoted = Some(String::new());
                rest = after;
                continue;
            }
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            all.push((first, rest[..end].to_owned()));
            first = false;
            rest = &rest[end..];
        }
    }
    all
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
