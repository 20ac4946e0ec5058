//! tombolo-gateway
fn main() {}
