//! How the cluster's agent is reached, and what a pod knows of itself.

use clap::Args;
use std::{net::IpAddr, path::PathBuf};
use tombolo_gateway::config::{Agent, RemoteAgent};
use tombolo_model::{AccountName, ClusterName, NamespaceName, TrustDomain};

/// The roots, where no file has them.
const ROOTS: &str = "TOMBOLO_AGENT_ROOTS";

/// One of a socket and a URL.
#[derive(Debug, Args)]
pub(super) struct AgentOptions {
    /// The unix socket of the cluster's agent.
    #[arg(long, value_name = "PATH", required_unless_present = "agent")]
    agent_socket: Option<PathBuf>,
    /// The user under which the agent runs, where that is neither root nor the user of this process.
    #[arg(long, value_name = "UID", requires = "agent_socket")]
    agent_uid: Option<u32>,
    /// In a pod, in place of the socket: the cluster's agent.
    #[arg(
        long, value_name = "https://HOST:PORT", conflicts_with = "agent_socket",
        requires_all = ["agent_token_file", "cluster", "trust_domain"]
    )]
    agent: Option<String>,
    /// The projected token of the pod's service account, with the audience tombolo-agent.
    #[arg(long, value_name = "FILE", requires = "agent")]
    agent_token_file: Option<PathBuf>,
    /// The organization's roots, PEM; TOMBOLO_AGENT_ROOTS has the text itself where no file is given.
    #[arg(long, value_name = "FILE", requires = "agent")]
    agent_roots: Option<PathBuf>,
    /// The cluster whose agent that must be.
    #[arg(long, value_name = "NAME", requires = "agent")]
    cluster: Option<ClusterName>,
    /// The organization's trust domain.
    #[arg(long, value_name = "NAME", requires = "agent")]
    trust_domain: Option<TrustDomain>,
}

impl AgentOptions {
    /// Where the agent is, and what this pod is: nothing for a process of a machine.
    ///
    /// # Errors
    /// What can't be used, for people.
    pub(super) fn read(self, variable: &dyn Fn(&str) -> Option<String>) -> Result<(Agent, Pod), String> {
        if let Some(path) = self.agent_socket {
            return Ok((Agent::Socket { path, uid: self.agent_uid }, Pod::default()));
        }
        let missing =
            || "give --agent-socket, or --agent with its token file, cluster and trust domain".to_owned();
        let (Some(url), Some(token), Some(cluster), Some(trust_domain)) =
            (self.agent, self.agent_token_file, self.cluster, self.trust_domain)
        else {
            return Err(missing());
        };
        let (host, port) = authority(&url)
            .ok_or_else(|| format!("--agent: {url:?} is not https://HOST:PORT, and nothing behind"))?;
        let roots = match &self.agent_roots {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("--agent-roots: can't read {}: {error}", path.display()))?,
            None => {
                variable(ROOTS).ok_or_else(|| format!("give --agent-roots, or {ROOTS} in the environment"))?
            }
        };
        let remote = RemoteAgent { host, port, token, roots: vec![roots], cluster, trust_domain };
        Ok((Agent::Remote(remote), Pod::read(variable)?))
    }
}

fn authority(url: &str) -> Option<(String, u16)> {
    let (host, port) = url.strip_prefix("https://")?.trim_end_matches('/').rsplit_once(':')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty() && host.bytes().all(plain)).then(|| (host.to_owned(), port))
}

/// What Kubernetes tells a pod of itself (downward API).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    /// `POD_NAMESPACE.POD_NAME`.
    pub(super) instance: Option<String>,
    /// `POD_IPS`, or `POD_IP`; the first one is where the gateway listens.
    pub(super) addresses: Vec<IpAddr>,
    /// `POD_NAMESPACE` and `SERVICE_ACCOUNT`.
    pub(super) workload: Option<(NamespaceName, AccountName)>,
}

impl Pod {
    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| variable(name).filter(|text| !text.is_empty());
        let namespace = set("POD_NAMESPACE");
        let instance =
            namespace.as_ref().zip(set("POD_NAME")).map(|(namespace, pod)| format!("{namespace}.{pod}"));
        let addresses = set("POD_IPS").or_else(|| set("POD_IP")).unwrap_or_default();
        let addresses = addresses.split(',').map(str::trim).filter(|text| !text.is_empty());
        let addresses = addresses
            .map(|text| text.parse().map_err(|_| format!("POD_IPS: {text:?} is not an IP address")))
            .collect::<Result<_, String>>()?;
        let workload = match namespace.zip(set("SERVICE_ACCOUNT")) {
            None => None,
            Some((namespace, account)) => Some((
                NamespaceName::parse(&namespace).map_err(|error| format!("POD_NAMESPACE {error}"))?,
                AccountName::parse(&account).map_err(|error| format!("SERVICE_ACCOUNT {error}"))?,
            )),
        };
        Ok(Self { instance, addresses, workload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let at = |url| authority(url);
        assert_eq!(at("https://agent.svc:15012"), Some(("agent.svc".to_owned(), 15012)));
        assert_eq!(at("https://[fd00::1]:15012/"), Some(("[fd00::1]".to_owned(), 15012)));
        for wrong in
            ["http://a:1", "https://a", "https://:1", "https://a:0", "https://a:1/x", "https://a b:1", "a:1"]
        {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_pod() {
        let all = |name: &str| match name {
            "POD_NAMESPACE" => Some("shop".to_owned()),
            "POD_NAME" => Some("cart-1".to_owned()),
            "POD_IP" => Some("10.0.0.7".to_owned()),
            "POD_IPS" => Some("10.0.0.7,fd00::7".to_owned()),
            "SERVICE_ACCOUNT" => Some("cart".to_owned()),
            _ => None,
        };
        let pod = Pod::read(&all).unwrap();
        assert_eq!(pod.instance.as_deref(), Some("shop.cart-1"));
        assert_eq!(pod.addresses, ["10.0.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(pod.workload.unwrap().1.as_str(), "cart");
        assert_eq!(Pod::read(&|_| None), Ok(Pod::default()));
        assert!(Pod::read(&|name| (name == "POD_IP").then(|| "nowhere".to_owned())).is_err());
    }
}
