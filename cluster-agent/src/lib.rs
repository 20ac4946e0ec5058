//! The agent of a cluster: joins it to the controller, reports its services, answers global names, issues its
//! certificates and feeds its gateways. It keeps working from its last state when the controller is away.

pub mod certificate;
pub mod controller;
pub mod dns;
pub mod health;
pub mod index;
pub mod join;
pub mod source;
pub mod state;
pub mod synthesis;
pub mod vip;
