//! Versions that meet politely: every handshake states them, and two minor versions of skew work.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// The version of the protocol between our programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProtocolVersion {
    /// Another major version does not understand this one.
    pub major: u16,
    /// Within a major version, at most [`ProtocolVersion::SKEW`] apart.
    pub minor: u16,
}

impl ProtocolVersion {
    /// What this build speaks. 1.1: gateways of role `node`, selectors by address, gateways over TLS.
    pub const CURRENT: Self = Self { major: 1, minor: 1 };
    /// How many minor versions apart two programs may be.
    pub const SKEW: u16 = 2;

    /// Whether the two can work together.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= Self::SKEW
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Who speaks: the first thing each side says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol it speaks.
    pub protocol: ProtocolVersion,
    /// The program and its version, as `tombolo-agent/0.1.0`.
    pub software: String,
    /// What it can do beyond the protocol's minimum. Unknown ones are ignored.
    #[serde(default)]
    pub capabilities: BTreeSet<String>,
}

impl Hello {
    /// This build, as the given program.
    #[must_use]
    pub fn current(program: &str) -> Self {
        let software = format!("{program}/{}", env!("CARGO_PKG_VERSION"));
        Self { protocol: ProtocolVersion::CURRENT, software, capabilities: BTreeSet::new() }
    }
}
