//! The agent of a cluster: joins it to the controller, reports its services, answers global names, issues its
//! certificates and feeds its gateways. It keeps working from its last state when the controller is away.

mod admin;
pub mod agent;
pub mod ages;
pub mod capture;
pub mod certificate;
mod chosen;
pub mod controller;
pub mod dns;
pub mod engine;
pub mod expose;
mod farewell;
pub mod gateways;
pub mod health;
pub mod index;
pub mod inject;
mod install;
pub mod join;
pub mod lease;
pub mod locality;
mod mcs;
pub mod pod;
mod private;
mod readiness;
pub mod registries;
pub mod report;
mod sorted;
pub mod source;
pub mod state;
pub mod status;
pub mod synthesis;
pub mod vip;
