//! The bodies of gateways' requests. What a request may be is known before a byte of its body is taken; how long the body may be follows
//! from that, and all of them together have a bound, of which nobody gets much.

use super::routes::Problem;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tombolo_model::GatewayRole;
use tombolo_runtime::{
    bodies::{Bodies, Unread},
    places::{Places, Shares},
};

/// All bodies that are being read, in bytes.
const ALL: usize = 16 << 20;
/// Bodies at a time.
const AT_ONCE: Shares = Shares { all: 256, each: 8 };
/// How long one may take, with the wait for room.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a gateway says of itself, or wants signed, in bytes.
const SMALL: usize = 64 << 10;
/// A hello: it names the workloads of a machine.
const HELLO: usize = 256 << 10;
/// A status of a gateway that many call through. It says of each edge how often it was used.
const LARGE: usize = 4 << 20;
/// A status of what stands before one pod.
const SIDECAR: usize = 512 << 10;

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
    bodies: Bodies,
    callers: Places<String>,
}

impl Default for Reading {
    fn default() -> Self {
        Self { bodies: Bodies::new(ALL), callers: Places::new(AT_ONCE) }
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
        let busy = || {
            let detail = "too many requests are being read; send it again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        };
        let place = self.callers.take(&caller.to_owned()).map_err(|_| busy())?;
        let (head, body) = request.into_parts();
        let read = self.bodies.read(&head.headers, body, kind.most(), PATIENCE);
        let body = tokio::select! {
            read = read => read.map_err(|unread| {
                let status = match unread {
                    Unread::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
                    Unread::Late => StatusCode::REQUEST_TIMEOUT,
                    Unread::TooLong(_) | Unread::Broken => StatusCode::PAYLOAD_TOO_LARGE,
                };
                Problem::new(status, unread)
            })?,
            () = place.lost() => return Err(busy()),
        };
        serde_json::from_slice(&body).map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error))
    }
}
