//! The zone in force, behind one atomic pointer: a query sees one zone, whole, and a new zone waits for none.

use super::zone::Zone;
use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// Where the zone is put.
#[derive(Debug, Default)]
pub struct ZoneWriter(Arc<ArcSwapOption<Zone>>);

/// Where the zone is read. Empty until the first one is put.
#[derive(Clone, Debug, Default)]
pub struct ZoneReader(Arc<ArcSwapOption<Zone>>);

impl ZoneWriter {
    /// A place without a zone yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// The zone in force from now on.
    pub fn set(&self, zone: Zone) {
        self.0.store(Some(Arc::new(zone)));
    }
    /// For those who read it.
    #[must_use]
    pub fn reader(&self) -> ZoneReader {
        ZoneReader(Arc::clone(&self.0))
    }
}

impl ZoneReader {
    /// The zone in force.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Zone>> {
        self.0.load_full()
    }
}
