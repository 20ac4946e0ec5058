//! What programs say to one another: versioned messages, their JSON-lines codec, and the rules of a feed
//! session without I/O (so that controller→agent and agent→gateway are one implementation).

pub mod codec;
pub mod digest;
pub mod message;
pub mod problem;
pub mod session;
pub mod version;
