//! Where the agent is asked what.

use std::fmt::Write as _;

/// The paths of the agent's socket, for one instance.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) hello: String,
    pub(super) feed: String,
    pub(super) ack: String,
    pub(super) certificate: String,
    pub(super) status: String,
}

impl Paths {
    pub(super) fn of(instance: &str) -> Self {
        let instance = escape(instance);
        let path = |what: &str| format!("/gateway/v1/{what}?instance={instance}");
        Self {
            hello: "/gateway/v1/hello".to_owned(),
            feed: path("feed"),
            ack: path("ack"),
            certificate: path("certificate"),
            status: path("status"),
        }
    }
}

/// A text as a query's value (RFC 3986, section 2.3: all but the unreserved is escaped).
fn escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // writing to a String does not fail
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_can_have_any_name() {
        assert_eq!(Paths::of("egress-1").feed, "/gateway/v1/feed?instance=egress-1");
        assert_eq!(Paths::of("a b&c/é").ack, "/gateway/v1/ack?instance=a%20b%26c%2F%C3%A9");
    }
}
