//! The bodies of gateways' requests. What a request may be is known before a byte of its body is taken; how long the body may be follows
//! from that, and all of them together have a bound, of which nobody gets much.

use super::problem::Problem;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tombolo_model::GatewayRole;
use tombolo_runtime::{
    bodies::{Bodies, Bounds, Unread},
    places::Shares,
};

/// How long a body may take, with the wait for room.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is short, and must not wait behind what is long: in bytes.
const SHORT: Bounds = Bounds { all: 8 << 20, each: 1 << 20, bodies: Shares { all: 256, each: 8 } };
/// Statuses of sidecars: anybody may have one.
const SIDECARS: Bounds = Bounds { all: 8 << 20, each: 2 << 20, bodies: Shares { all: 64, each: 1 } };
/// Statuses of the agent's own gateways.
const GATEWAYS: Bounds = Bounds { all: 16 << 20, each: 4 << 20, bodies: Shares { all: 16, each: 2 } };
/// What a gateway acknowledges, wants signed or asks another replica, in bytes.
const SMALL: usize = 64 << 10;
/// A hello: it names the workloads of a machine.
const HELLO: usize = 256 << 10;
/// A status of a gateway that many call through. It says of each edge how often it was used.
const LARGE: usize = 4 << 20;
/// A status of what stands before one pod.
const SIDECAR: usize = 2 << 20;

/// What a body is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hello,
    Ack,
    Certificate,
    Replica,
    Status(GatewayRole),
}

impl Kind {
    /// How long it may be, in bytes.
    pub(super) const fn most(self) -> usize {
        match self {
            Self::Hello => HELLO,
            Self::Ack | Self::Certificate | Self::Replica => SMALL,
            Self::Status(GatewayRole::Sidecar) => SIDECAR,
            Self::Status(_) => LARGE,
        }
    }
}

/// Reads bodies. Clones share the bounds.
#[derive(Clone, Debug)]
pub struct Reading {
    short: Bodies<String>,
    sidecars: Bodies<String>,
    gateways: Bodies<String>,
}

impl Default for Reading {
    fn default() -> Self {
        Self { short: Bodies::new(SHORT), sidecars: Bodies::new(SIDECARS), gateways: Bodies::new(GATEWAYS) }
    }
}

impl Reading {
    /// The body of a request, from this caller.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        request: Request<Incoming>,
        caller: &str,
        kind: Kind,
    ) -> Result<T, Problem> {
        let bodies = match kind {
            Kind::Status(GatewayRole::Sidecar) => &self.sidecars,
            Kind::Status(_) => &self.gateways,
            Kind::Hello | Kind::Ack | Kind::Certificate | Kind::Replica => &self.short,
        };
        let (head, body) = request.into_parts();
        let read = bodies.read(&caller.to_owned(), &head.headers, body, kind.most(), PATIENCE).await;
        let body = read.map_err(|unread| {
            let status = match unread {
                Unread::Late => StatusCode::SERVICE_UNAVAILABLE,
                Unread::TooLong(_) | Unread::Broken => StatusCode::PAYLOAD_TOO_LARGE,
            };
            Problem::new(status, unread)
        })?;
        serde_json::from_slice(&body).map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error))
    }
}
