//! The REST API: reads requests, calls `app`, writes answers. One file per noun.

mod answer;
mod auth;
mod events;
mod extract;
pub(crate) mod limit;
mod openapi;
pub(crate) mod problem;
mod root;
mod router;

mod audit;
mod certificate;
mod cluster;
mod conditional;
mod gns;
mod install;
mod manifest;
mod meta;
mod onboarding;
mod organization;
mod owner;
mod service;
mod status;
mod token;
mod trial;

pub(crate) use openapi::document;
pub(crate) use router::router;

#[cfg(test)]
pub(crate) mod tests;
