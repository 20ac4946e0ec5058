//! What could not be given as it was asked for.

use std::fmt;
use tombolo_model::{ClusterName, DnsLabel, Domain, inventory::ServiceKey};

/// A service of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The cluster.
    pub cluster: ClusterName,
    /// The service in it.
    pub service: ServiceKey,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.service)
    }
}

/// Why something was left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The same port number with another transport.
    Protocol,
    /// The same port number with another `appProtocol`.
    AppProtocol,
    /// The same port name with another number.
    PortName(DnsLabel),
    /// One is headless and the other is not.
    Headless,
    /// The service is called like a member cluster, so `<pod>.<service>` would read as `<service>.<cluster>`.
    PodNames(ClusterName),
    /// A name with these labels in front of the domain would be longer than DNS allows.
    TooLong(String),
    /// The domain lies in another's, or the other in it.
    Overlap(Domain),
}

/// Something that was left out. The older service wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The global namespace.
    pub gns: DnsLabel,
    /// The service; none where it is about the global namespace as a whole.
    pub service: Option<DnsLabel>,
    /// The port it is about, as the loser has it.
    pub port: Option<u16>,
    /// Whose word stands.
    pub winner: Option<Source>,
    /// Whose does not.
    pub loser: Option<Source>,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |source: &Option<Source>| source.as_ref().map_or("another".to_owned(), Source::to_string);
        let (winner, loser, port) = (side(&self.winner), side(&self.loser), self.port.unwrap_or_default());
        match &self.reason {
            Reason::Protocol => write!(
                f,
                "port {port} of {loser} is left out: {winner}, which is older, has it with another transport"
            ),
            Reason::AppProtocol => write!(
                f,
                "port {port} of {loser} is left out: {winner}, which is older, has it with another appProtocol"
            ),
            Reason::PortName(name) => write!(
                f,
                "port {port} of {loser} is left out: {winner}, which is older, has another port called {name}"
            ),
            Reason::Headless => write!(
                f,
                "{loser} and {winner} differ in whether they are headless: {winner}, which is older, decides"
            ),
            Reason::PodNames(cluster) => write!(
                f,
                "the pods of {loser} have no names of their own: the service is called like the cluster {cluster}; \
                 rename the service"
            ),
            Reason::TooLong(labels) => {
                write!(f, "{labels} has no name: under this domain it would pass 253 characters")
            }
            Reason::Overlap(domain) => write!(
                f,
                "the global namespace is not in force: its domain overlaps {domain}, which is older; choose another"
            ),
        }
    }
}
