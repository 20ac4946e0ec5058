//! The trail of a forwarded query: which of our servers it passed. A server that finds itself on it has found a
//! forwarding loop.
//!
//! It is an EDNS option for local use (RFC 6891, section 9) with eight bytes for each server, random for each
//! process. Servers of others ignore it, and most forwarders keep it.

use hickory_proto::{
    op::Edns,
    rr::rdata::opt::{EdnsCode, EdnsOption},
};

/// The option: "tb" in the range for local use.
pub(super) const OPTION: u16 = 65_140;

/// The most servers that a query may pass.
pub(super) const LONGEST: usize = 4;

/// A server, for as long as its process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerId([u8; 8]);

impl ServerId {
    /// An id that no other server has.
    #[must_use]
    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

/// The servers that a query passed, first to last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trail(Vec<ServerId>);

/// Reads the trail of a query.
#[must_use]
pub(super) fn read(edns: &Edns) -> Trail {
    let Some(EdnsOption::Unknown(_, data)) = edns.option(EdnsCode::Unknown(OPTION)) else {
        return Trail::default();
    };
    // More than the longest is too long already, however long it is.
    Trail(data.chunks_exact(8).take(LONGEST + 1).filter_map(|id| id.try_into().ok().map(ServerId)).collect())
}

impl Trail {
    /// Whether the query passed this server.
    #[must_use]
    pub(super) fn has(&self, server: ServerId) -> bool {
        self.0.contains(&server)
    }
    /// Whether it passed as many servers as it may.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= LONGEST
    }
    /// The option for the query as it leaves `server`.
    #[must_use]
    pub(super) fn option(&self, server: ServerId) -> EdnsOption {
        let data = self.0.iter().chain([&server]).flat_map(|id| id.0).collect();
        EdnsOption::Unknown(OPTION, data)
    }
}
