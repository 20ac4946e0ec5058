//! tombolo-tests
