//! Pure functions: the world of an organization in, what each cluster must know out. No I/O, no clock, no
//! randomness; ordered maps throughout, so that equal input gives equal bytes on every replica.
//!
//! - [`World`]: all that is read, in one transaction.
//! - [`names_needed`]: the names that want virtual addresses. The shell allocates them, and puts them in the world;
//!   a name without addresses is in no snapshot.
//! - [`snapshot`]: everything for one cluster.
//! - [`Incremental`]: the same, kept current change by change; a property test holds the two equal.
//! - [`check`]: a second opinion on a snapshot; [`Severity::Fatal`] blocks publishing.
//! - [`diff`], [`text`]: for people.
//!
//! # Who is a member
//! A cluster is a member of a global namespace (GNS) when it has joined (a revoked one has not) and some rule's
//! cluster selector chooses it. Members answer the GNS's domain and may call its services, whether or not a
//! namespace of theirs is mapped. Nothing of a GNS reaches a cluster that is not a member.
//!
//! Beside the GNSs there is one cluster set (`set`): its members are the clusters whose agents make ServiceImports. What a member
//! exports reaches the members that have its namespace.

mod capture;
mod check;
mod conflict;
mod derive;
mod incremental;
mod merge;
mod render;
mod set;
mod text;
mod world;

pub use check::{Finding, Flaw, Severity, check};
pub use conflict::{Conflict, Reason, Source};
pub use incremental::{Affected, ClusterChange, Incremental, Listed, Wanted};
pub use text::{diff, text};
pub use world::{Change, World};

use derive::Derived;
use std::collections::BTreeSet;
use tombolo_model::{
    GlobalName,
    id::ClusterId,
    snapshot::{ClusterResource, Resources},
};

/// The names that exist in this world, and so want virtual addresses.
#[must_use]
pub fn names_needed(world: &World) -> BTreeSet<GlobalName> {
    Derived::new(world).owners.into_keys().collect()
}

/// What could not be given as it was asked for, and what was given instead; in the order of names.
#[must_use]
pub fn conflicts(world: &World) -> Vec<Conflict> {
    Derived::new(world).conflicts(world)
}

/// Everything that a cluster must know. Empty for a cluster that is not in this world.
#[must_use]
pub fn snapshot(world: &World, cluster: ClusterId) -> Resources<ClusterResource> {
    render::whole(world, &Derived::new(world), &render::bundle(world), cluster)
}
