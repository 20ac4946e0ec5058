//! tombolo-controller
fn main() {}
