//! The trace of a connection over all hops (W3C Trace Context).

use http::HeaderValue;
use rand::RngCore as _;
use std::fmt;

/// A trace id, with the span of the hop before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: u128,
}

impl Trace {
    /// A trace of its own.
    #[must_use]
    pub fn fresh() -> Self {
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        // Zero is no trace id.
        Self { id: u128::from_be_bytes(bytes).max(1) }
    }

    /// The trace of a `traceparent` header; none where it is no valid one.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let mut parts = header.split('-');
        let (version, id, span) = (parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || version == "ff" || id.len() != 32 || span.len() != 16 {
            return None;
        }
        if !hex(version) || !hex(id) || !hex(span) {
            return None;
        }
        u128::from_str_radix(id, 16).ok().filter(|id| *id != 0).map(|id| Self { id })
    }

    /// The `traceparent` header for the next hop, with a span of this one.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        let span = rand::rng().next_u64().max(1);
        let text = format!("00-{:032x}-{span:016x}-01", self.id);
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_from_hop_to_hop() {
        let trace = Trace::fresh();
        let header = trace.header();
        assert_eq!(Trace::parse(header.to_str().unwrap()), Some(trace));
        assert_ne!(header, trace.header(), "each hop has a span of its own");
        for bad in ["", "00-0-0-01", "00-00000000000000000000000000000000-0000000000000001-01", "zz"] {
            assert_eq!(Trace::parse(bad), None, "{bad}");
        }
    }
}
