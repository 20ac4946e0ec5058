//! The vocabulary of Tombolo: typed ids, validated names, what people ask for (intent), what clusters
//! report (inventory) and what a cluster or a gateway is told (snapshot).
//!
//! No I/O, no async, no clocks. Everything that came from outside becomes one of these types at the edge,
//! through a parser that says what is wrong; a value of these types is valid.

pub mod bounds;
pub mod corefile;
mod few;
pub mod generation;
pub mod health;
mod held;
pub mod id;
pub mod identity;
pub mod install;
pub mod intent;
pub mod inventory;
pub mod locality;
pub mod mcs;
pub mod name;
mod place;
mod recent;
mod shared;
pub mod snapshot;
mod special;

pub use few::Few;
pub use generation::Generation;
pub use held::Held;
pub use identity::{GatewayRole, SpiffeId, SpiffePath, TrustDomain};
pub use locality::{Locality, Proximity};
pub use name::{AccountName, ClusterName, DnsLabel, Domain, GlobalName, NameError, NamespaceName, OrgName};
pub use place::Place;
pub use special::{Special, leads_to};
