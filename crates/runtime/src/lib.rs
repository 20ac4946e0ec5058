//! tombolo-runtime
