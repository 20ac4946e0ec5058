//! tombolo-gateway
