//! tombolo-agent
fn main() {}
