//! The agent of a cluster: joins it to the controller, reports its services, answers global names, issues its
//! certificates and feeds its gateways. It keeps working from its last state when the controller is away.

pub mod vip;
