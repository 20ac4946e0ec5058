//! tombolo-agent
