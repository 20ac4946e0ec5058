//! tombolo-feed
