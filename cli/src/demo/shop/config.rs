//! What a service is told by its environment.

use super::Role;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};
use thiserror::Error;

/// The configuration of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The cluster it runs in, to be shown.
    pub cluster: String,
    /// Where the services are that it calls.
    pub peers: BTreeMap<Role, Target>,
    /// The DNS server for their names; none for the system's.
    pub resolver: Option<SocketAddr>,
    /// Where to write that it is up.
    pub ready_file: Option<PathBuf>,
}

/// Where a service is: a name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(v6)) => write!(f, "[{v6}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Target {
    /// Reads `name:port`, `ip:port`, `[ip]:port`, or a name or address alone, which has `usual_port`.
    #[must_use]
    pub fn parse(text: &str, usual_port: u16) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { host: address.ip().to_string(), port: address.port() });
        }
        if text.parse::<IpAddr>().is_ok() {
            return Some(Self { host: text.to_owned(), port: usual_port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, usual_port),
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        let good = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        (port != 0 && name.len() <= 253 && name.split('.').all(good))
            .then(|| Self { host: name.to_owned(), port })
    }
}

/// What is wrong with the environment: everything at once.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads the configuration of `role` from variables.
    ///
    /// # Errors
    /// Every variable that can't be read, and what it should look like.
    pub fn read(role: Role, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());

        let mut listen = SocketAddr::from(([127, 0, 0, 1], role.usual_port()));
        match (set("LISTEN"), set("PORT")) {
            (Some(text), _) => match text.parse() {
                Ok(address) => listen = address,
                Err(_) => problems.push(format!("LISTEN={text} is no IP:PORT, as 127.0.0.1:8082")),
            },
            (None, Some(text)) => match text.parse() {
                Ok(port) => listen.set_port(port),
                Err(_) => problems.push(format!("PORT={text} is no port, as 8082")),
            },
            (None, None) => {}
        }
        let mut peers = BTreeMap::new();
        for peer in role.calls() {
            let name = format!("{}_HOST", peer.as_str().to_uppercase());
            let target = match set(&name) {
                None => Target { host: "127.0.0.1".to_owned(), port: peer.usual_port() },
                Some(text) => match Target::parse(&text, peer.usual_port()) {
                    Some(target) => target,
                    None => {
                        problems.push(format!(
                            "{name}={text} is no name:port, as {peer}.acme.example.com:{}",
                            peer.usual_port()
                        ));
                        continue;
                    }
                },
            };
            peers.insert(*peer, target);
        }
        let mut resolver = None;
        if let Some(text) = set("RESOLVER") {
            match text.parse() {
                Ok(address) => resolver = Some(address),
                Err(_) => problems.push(format!("RESOLVER={text} is no IP:PORT, as 127.0.0.1:53")),
            }
        }
        let cluster = set("CLUSTER").unwrap_or_else(|| "no cluster".to_owned());
        if cluster.len() > 63 || !cluster.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            problems.push("CLUSTER is no name of up to 63 letters, digits and hyphens".to_owned());
        }
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        Ok(Self { listen, cluster, peers, resolver, ready_file: set("READY_FILE").map(PathBuf::from) })
    }
}
