//! Where the agent learns what runs in its cluster. Without Kubernetes that is a directory of ordinary Kubernetes
//! manifests; the rest of the agent sees only [`Object`]s that come and go.
//!
//! The loss of a source withdraws nothing. A file that is damaged keeps the objects of its last good version, a
//! directory that can't be read keeps everything; only a file that is deleted, or a sound file without the object,
//! takes an object away. The last sound contents are kept on disk, so that this holds for an agent that starts, too.

mod convert;
pub mod directory;
mod document;
mod files;
pub mod keeper;
mod object;
mod scan;
mod unknown;

#[cfg(test)]
mod tests;

pub use files::Files;
pub use object::{
    AccountObject, Check, NamespaceObject, Object, ObjectKey, ObjectKind, ServiceObject, ServicePort,
    SliceEndpoint, SliceObject, SlicePort, TargetPort,
};

/// A change of the effective objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new, or has changed.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectKey),
}
