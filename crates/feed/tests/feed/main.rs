//! The client against a small sender, over real sockets. Time is paused: it moves only when both sides wait.

mod cache;
mod follow;
mod requests;
mod sender;
mod tls;
