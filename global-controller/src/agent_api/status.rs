//! An agent says how its cluster is.

use super::{Agent, body::Body, peer::AgentPeer};
use crate::app::error::{Kind, Refusal};
use axum::{extract::State, http::StatusCode};
use std::net::SocketAddr;
use tombolo_model::AccountName;
use tombolo_wire::message::AgentStatus;

/// How many of each may be reported; more are left out.
const MOST: usize = 1000;

/// `POST /agent/v1/status`
pub(super) async fn status(
    State(agent): State<Agent>,
    peer: AgentPeer,
    Body(mut status): Body<AgentStatus>,
) -> Result<StatusCode, Refusal> {
    for address in &status.ingress {
        check_address(address)?;
    }
    if status.ingress.len() > MOST {
        return Err(Refusal::new(Kind::InvalidField, "There are more than 1000 ingress addresses."));
    }
    status.problems.truncate(MOST);
    status.gateways.truncate(MOST);
    let (org, cluster) = (peer.org.id, peer.cluster);
    let mut tx = agent.deps.store.begin().await?;
    // the addresses are compiled into what peers are told; the rest is only looked at
    if tx.ingress(org, cluster).await?.is_some_and(|stored| stored != status.ingress) {
        tx.lock_org(org).await?;
        tx.set_ingress(org, cluster, &status.ingress).await?;
    }
    let now = agent.deps.now();
    tx.set_status(org, cluster, &status.software, &status.problems, &status.gateways, now).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `host:port`, the host an address or a DNS name.
fn check_address(text: &str) -> Result<(), Refusal> {
    let named = || {
        let (host, port) = text.rsplit_once(':')?;
        AccountName::parse(host).ok()?;
        port.parse::<u16>().ok().filter(|port| *port > 0)
    };
    if text.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0) || named().is_some() {
        return Ok(());
    }
    let shown: String = text.chars().take(100).collect();
    Err(Refusal::new(Kind::InvalidField, format!("{shown:?} is not an address that peers can dial.")).field(
        "ingress",
        "is not host:port",
        "give --advertise of the ingress gateway as host:port, [v6]:port or address:port",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["10.0.0.1:15443", "[fd00::1]:15443", "gw.example.com:443", "localhost:1"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in
            ["10.0.0.1", "gw.example.com:0", "gw.example.com:70000", "http://x:1", "fd00::1:15443x", ":1"]
        {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
