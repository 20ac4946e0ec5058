//! Where the agent learns what runs in its cluster. Without Kubernetes that is a directory of ordinary Kubernetes
//! manifests ([`directory`]), in Kubernetes its API server ([`kubernetes`]); the rest of the agent sees only [`Object`]s
//! that come and go.
//!
//! The loss of a source withdraws nothing. A file that is damaged keeps the objects of its last good version, a
//! directory that can't be read keeps everything; only a file that is deleted, or a sound file without the object,
//! takes an object away. The last sound contents are kept on disk, so that this holds for an agent that starts, too.

mod convert;
pub mod directory;
mod document;
mod files;
pub mod keeper;
pub mod kubernetes;
mod object;
mod scan;
mod uid;
mod unknown;

#[cfg(test)]
mod tests;

pub use files::Files;
pub use kubernetes::McsVersion;
pub use object::{
    AccountObject, Check, ExportObject, NamespaceObject, NodeObject, Object, ObjectKey, ObjectKind,
    PodObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject, SlicePort, TargetPort,
};

pub use uid::Uid;

use tombolo_wire::message::Problem;

/// What a source found since the last time.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// What changed. May be empty the first time: then it is known that there is nothing.
    pub changes: Vec<Change>,
    /// All that is wrong now.
    pub problems: Vec<Problem>,
    /// Whether it is known what there is. Not before that is anything known to be gone.
    pub read: bool,
    /// The version of the Multi-Cluster Services API that the cluster has, where it has one that this program knows.
    pub mcs: Option<McsVersion>,
}

/// A change of the effective objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new, or has changed.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectKey),
}
