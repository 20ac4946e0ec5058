//! tombolo-controller
