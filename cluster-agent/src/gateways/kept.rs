//! What the set of gateways keeps on disk: who was in it, and where its generations stand.

use super::hub::Inner;
use crate::state::{DataDir, StateError};
use serde::{Deserialize, Serialize};
use std::time::UNIX_EPOCH;
use tombolo_model::Generation;
use tombolo_runtime::{clock::Clock, telemetry::chain};
use tombolo_wire::message::GatewayHello;

const FILE: &str = "gateways.json";

/// What is kept on disk, so that an agent that starts withdraws nothing.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) gateways: Vec<GatewayHello>,
}

impl Kept {
    pub(super) fn of(set: &Inner) -> Self {
        Self { gateways: set.entries.values().map(|entry| entry.hello.clone()).collect() }
    }

    pub(super) fn read(data: &DataDir) -> Self {
        let kept = data.read_json(FILE).unwrap_or_else(|error| {
            let error = chain(&error);
            tracing::warn!(error, "the gateways known before can't be read; they will come again");
            None
        });
        kept.unwrap_or_default()
    }

    pub(super) fn write(&self, data: &DataDir) {
        if let Err(error) = data.write_json(FILE, self) {
            tracing::warn!(error = chain(&error), "the set of gateways could not be kept on disk");
        }
    }
}

/// The first generation for the gateways of an agent that starts: above all that an agent on this directory gave
/// before, and above those of one whose directory was lost, as long as the clock goes forward.
///
/// # Errors
/// Where it can't be kept for the next start.
pub fn first_generation(data: &DataDir, clock: &dyn Clock) -> Result<Generation, StateError> {
    const FILE: &str = "gateway-generation.json";
    /// More changes than an agent makes in its life.
    const ROOM: u64 = 1 << 32;
    let now = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let kept: u64 = data.read_json(FILE).ok().flatten().unwrap_or_default();
    let first = kept.max(u64::try_from(now).unwrap_or_default());
    data.write_json(FILE, &(first + ROOM))?;
    Ok(Generation::new(first))
}
