//! The API as its callers see it, on a real PostgreSQL, without sockets.

mod document;
mod wall;
mod world;

use world::{Answered, Controller};
