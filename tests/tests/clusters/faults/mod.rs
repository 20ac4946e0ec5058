//! What befalls two clusters while a pod of one calls the other. Given clusters are left out by this module's name, for their machines are not
//! ours to handle.

mod agent;
mod apiserver;
mod autoscaler;
mod changes;
mod controller;
mod endpoint;
pub(crate) mod exports;
mod gateway;
mod measured;
mod namespace;
mod node;
mod objects;
mod proxy;
mod refused;
mod sidecars;
mod token;
mod two_names;
mod versions;
mod webhook;
