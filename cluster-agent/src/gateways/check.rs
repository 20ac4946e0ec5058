//! What a gateway must say of itself. Pure.

use super::problem::{Problem, problem};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tombolo_model::GatewayRole;
use tombolo_wire::{message::GatewayHello, version::ProtocolVersion};

pub(super) fn check_version(request: &Request<Incoming>) -> Result<(), Problem> {
    let Some(header) = request.headers().get(tombolo_feed::request::PROTOCOL_HEADER) else {
        return Err(problem(StatusCode::BAD_REQUEST, "the header tombolo-protocol is missing; send 1.0"));
    };
    let version = header.to_str().ok().and_then(|text| {
        let (major, minor) = text.split_once('.')?;
        Some(ProtocolVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
    });
    match version {
        Some(version) if version.meets(ProtocolVersion::CURRENT) => Ok(()),
        Some(version) => Err(too_far(version, ProtocolVersion::CURRENT)),
        None => Err(problem(StatusCode::BAD_REQUEST, "the header tombolo-protocol is not MAJOR.MINOR")),
    }
}

/// More minor versions apart than may be.
pub(super) fn too_far(theirs: ProtocolVersion, ours: ProtocolVersion) -> Problem {
    let older = if theirs < ours { "gateway" } else { "agent" };
    let detail = format!("the gateway speaks {theirs}, the agent {ours}; upgrade the {older} first");
    problem(StatusCode::UPGRADE_REQUIRED, detail)
}

/// A name of a process goes into paths, logs and dumps, so it is plain. In Kubernetes it is a pod's, with its namespace.
pub(super) fn check_instance(instance: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if instance.is_empty() || instance.len() > 320 || !instance.bytes().all(plain) {
        let detail = "instance: use 1 to 320 letters, digits, dots, hyphens and underscores";
        return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    Ok(())
}

/// Sidecars and egress gateways are dialled at the address they listen on; an ingress gateway at what it advertises.
pub(super) fn check_tunnel(hello: &GatewayHello) -> Result<(), Problem> {
    if hello.role == GatewayRole::Ingress || !hello.tunnel.ip().is_unspecified() {
        return Ok(());
    }
    let detail = format!(
        "tunnel: {} can't be dialled; give --tunnel the address that this cluster's gateways reach it at",
        hello.tunnel
    );
    Err(problem(StatusCode::UNPROCESSABLE_ENTITY, detail))
}
