//! tombolo-testkit
