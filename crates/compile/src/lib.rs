//! tombolo-compile
