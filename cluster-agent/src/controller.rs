//! The way to the controller: its address, and whom to believe there.

use http::Uri;
use rustls::ClientConfig;
use std::sync::Arc;
use thiserror::Error;
use tombolo_feed::{TlsConnector, connect::ConnectError};
use tombolo_mtls::{Credentials, InvalidPin, parse_pin, pinned_client_config};

/// Where the controller listens where its URL names no port.
const DEFAULT_PORT: u16 = 443;

/// Why the controller can't be dialled at all.
#[derive(Debug, Error)]
pub enum AddressError {
    /// Not an `https` URL of a host.
    #[error("{url:?} is not the URL of a controller; write https://host:port")]
    Url {
        /// What was given.
        url: String,
    },
    /// Not a fingerprint.
    #[error("the CA fingerprint {text:?} {source}")]
    Fingerprint {
        /// What was given.
        text: String,
        /// What is wrong.
        source: InvalidPin,
    },
    /// Not a host.
    #[error("the controller can't be dialled")]
    Host(#[from] ConnectError),
}

/// A connector to the controller. `credentials` are shown where there are any.
///
/// # Errors
/// [`AddressError`], which says what to write instead.
pub fn connector(
    url: &str,
    fingerprint: &str,
    credentials: Option<&Credentials>,
) -> Result<TlsConnector, AddressError> {
    let wrong = || AddressError::Url { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong());
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong());
    }
    let pin = parse_pin(fingerprint)
        .map_err(|source| AddressError::Fingerprint { text: fingerprint.to_owned(), source })?;
    let config: Arc<ClientConfig> = pinned_client_config(pin, credentials, &[b"h2"]);
    Ok(TlsConnector::new(host, uri.port_u16().unwrap_or(DEFAULT_PORT), config)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_feed::Connector;

    #[test]
    fn urls() {
        let pin = format!("sha256:{}", "ab".repeat(32));
        for (url, authority) in [
            ("https://controller.example.com", Some("controller.example.com:443")),
            ("https://127.0.0.1:7443/", Some("127.0.0.1:7443")),
            ("https://[::1]:7443", Some("[::1]:7443")),
            ("http://127.0.0.1:7443", None),
            ("https://user@host", None),
            ("https://host/path", None),
            ("host:7443", None),
            ("", None),
        ] {
            let found = connector(url, &pin, None).ok().map(|c| c.authority().to_owned());
            assert_eq!(found.as_deref(), authority, "{url}");
        }
        let error = connector("https://host", "sha256:zz", None).unwrap_err();
        assert!(error.to_string().contains("copy it from the controller's join command"), "{error}");
    }
}
