//! tombolo-mtls
