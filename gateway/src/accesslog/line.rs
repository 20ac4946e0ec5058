//! A record as a line of JSON.
//!
//! Everything in it came through a parser of ours or is escaped, so that no caller can write a line of its own.

use super::Record;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use std::{net::SocketAddr, time::Duration};
use tombolo_model::{ClusterName, SpiffeId};

/// The longest text for people in a line.
const DETAIL: usize = 400;

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    trace: &'a str,
    role: &'static str,
    direction: &'static str,
    conn: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a SpiffeId>,
    source_verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a SpiffeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a ClusterName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_peer: Option<&'a SpiffeId>,
    end_to_end: bool,
    attempts: u32,
    bytes_up: u64,
    bytes_down: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    duration_ms: f64,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hop: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_group: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cipher: Option<&'static str>,
}

/// The line of a record, with its end.
pub(super) fn render(record: &Record) -> Vec<u8> {
    let tls = record.tls.unwrap_or_default();
    let line = Line {
        time: DateTime::<Utc>::from(record.start).to_rfc3339_opts(SecondsFormat::Micros, true),
        trace: &record.trace,
        role: record.role.as_str(),
        direction: record.direction.as_str(),
        conn: record.conn,
        source: record.source.as_ref(),
        source_verified: record.source_verified,
        peer: record.peer.as_ref(),
        client: record.client,
        original: record.original,
        destination: record.name.as_ref().map(|name| match record.port {
            Some(port) => format!("{name}:{port}"),
            None => name.to_string(),
        }),
        cluster: record.cluster.as_ref(),
        upstream: record.upstream.as_deref(),
        next_peer: record.next_peer.as_ref(),
        end_to_end: record.end_to_end,
        attempts: record.attempts,
        bytes_up: record.bytes_up,
        bytes_down: record.bytes_down,
        connect_ms: record.connect.map(milliseconds),
        duration_ms: milliseconds(record.duration),
        reason: record.outcome(),
        hop: record.hop.as_deref(),
        detail: record.detail.as_deref().map(|text| clip(text, DETAIL)),
        tls_group: tls.group,
        tls_cipher: tls.cipher,
    };
    let mut bytes = Vec::with_capacity(768);
    // nothing of a line can fail to become JSON, and writing to memory does not fail
    if serde_json::to_writer(&mut bytes, &line).is_err() {
        bytes.clear();
        bytes.extend_from_slice(b"{\"reason\":\"unprintable\"}");
    }
    bytes.push(b'\n');
    bytes
}

/// Milliseconds to three places.
fn milliseconds(duration: Duration) -> f64 {
    u32::try_from(duration.as_micros())
        .map_or_else(|_| duration.as_millis() as f64, |us| f64::from(us) / 1000.0)
}

fn clip(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_between_characters() {
        assert_eq!(clip("aé", 2), "a");
        assert_eq!(clip("aé", 3), "aé");
        assert_eq!(clip("", 3), "");
    }

    #[test]
    fn times() {
        assert!((milliseconds(Duration::from_micros(1234)) - 1.234).abs() < 1e-9);
        assert!((milliseconds(Duration::from_secs(100_000)) - 1e8).abs() < 1e-9);
    }
}
