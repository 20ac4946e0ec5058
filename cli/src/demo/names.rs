//! Questions to a cluster's DNS, as any program of the machine asks them.

use super::layout::Layout;
use anyhow::{Context as _, Result};
use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use std::net::IpAddr;

/// Over what it is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Udp,
    Tcp,
}

/// The IPv4 addresses that cluster-1's DNS answers for a name.
///
/// # Errors
/// There is no answer, or none with an address.
pub(crate) async fn ask(layout: &Layout, name: &str, over: Over) -> Result<Vec<IpAddr>> {
    let server = layout.dns(1);
    let mut connection = match over {
        Over::Udp => ConnectionConfig::udp(),
        Over::Tcp => ConnectionConfig::tcp(),
    };
    connection.port = server.port();
    let servers = vec![NameServerConfig::new(server.ip(), true, vec![connection])];
    let config = ResolverConfig::from_parts(None, vec![], servers);
    let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        .build()
        .context("make a resolver")?;
    let found =
        resolver.ipv4_lookup(format!("{name}.")).await.with_context(|| format!("ask {server} for {name}"))?;
    let mut addresses: Vec<IpAddr> = found.answers().iter().filter_map(|r| r.data.ip_addr()).collect();
    addresses.sort();
    Ok(addresses)
}
