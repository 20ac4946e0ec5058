//! The API as its callers see it, on a real PostgreSQL, without sockets.

mod audit;
mod bodies;
pub(crate) mod clusters;
mod conditional;
mod document;
mod events;
mod gns;
mod install;
mod limits;
mod onboarding;
mod once;
mod organizations;
mod pages;
mod roots;
mod services;
mod tokens;
mod wall;
mod world;

use world::Answered;
pub(crate) use world::Controller;
