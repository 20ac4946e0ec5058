//! The nftables rules of one network namespace.

use clap::Args;
use ipnet::IpNet;
use tombolo_gateway::capture::redirect::{Inbound, Redirect};

#[derive(Debug, Args)]
pub(crate) struct RedirectOptions {
    /// The virtual addresses; several with commas between, or the option given several times.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', required_unless_present = "remove")]
    vips: Vec<IpNet>,
    /// The sidecar's --outbound-port.
    #[arg(long, default_value_t = 15001)]
    port: u16,
    /// Connections of this user pass untouched.
    #[arg(long, value_name = "UID")]
    exclude_uid: Option<u32>,
    /// Connections with this socket mark pass untouched.
    #[arg(long, value_name = "MARK")]
    exclude_mark: Option<u32>,
    /// Connections to these ports pass untouched.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_outbound_ports: Vec<u16>,
    /// The ports whose incoming connections are redirected too.
    #[arg(long, value_name = "PORTS", value_delimiter = ',', requires = "inbound_port")]
    inbound: Vec<u16>,
    /// The sidecar's --inbound-port.
    #[arg(long, value_name = "PORT", requires = "inbound")]
    inbound_port: Option<u16>,
    /// Removes the rules.
    #[arg(long, conflicts_with_all = ["vips", "exclude_uid", "exclude_mark", "exclude_outbound_ports", "inbound"])]
    remove: bool,
}

impl RedirectOptions {
    /// What to install; nothing where the rules are to be removed.
    pub(crate) fn wanted(&self) -> Option<Redirect> {
        (!self.remove).then(|| Redirect {
            vips: self.vips.clone(),
            port: self.port,
            exclude_uid: self.exclude_uid,
            exclude_mark: self.exclude_mark,
            exclude_ports: self.exclude_outbound_ports.iter().copied().collect(),
            inbound: self
                .inbound_port
                .map(|port| Inbound { port, ports: self.inbound.iter().copied().collect() }),
        })
    }
}
