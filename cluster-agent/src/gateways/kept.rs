//! What the set of gateways keeps on disk: who was in it, and where its generations stand.

use super::hub::Inner;
use crate::state::DataDir;
use serde::{Deserialize, Serialize};
use std::{error::Error as _, time::UNIX_EPOCH};
use tombolo_model::Generation;
use tombolo_runtime::{clock::Clock, telemetry::chain};
use tombolo_wire::message::GatewayHello;

const FILE: &str = "gateways.json";

/// What is kept on disk, so that an agent that starts withdraws nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) gateways: Vec<GatewayHello>,
    /// Whether there may be others: the set before was lost, and they had no time to come yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) partial: bool,
}

impl Kept {
    pub(super) fn of(set: &Inner, partial: bool) -> Self {
        Self { gateways: set.entries.values().map(|entry| entry.hello.clone()).collect(), partial }
    }

    /// None where there is none, or none that can be read.
    pub(super) fn read(data: &DataDir) -> Option<Self> {
        data.read_json(FILE).unwrap_or_else(|error| {
            // The error's remedy is for files that are not made anew.
            let error = error.source().map_or_else(|| error.to_string(), chain);
            tracing::warn!(
                file = FILE,
                error,
                "the gateways known before can't be read; they will come again"
            );
            None
        })
    }

    pub(super) fn write(&self, data: &DataDir) {
        if let Err(error) = data.write_json(FILE, self) {
            tracing::warn!(error = chain(&error), "the set of gateways could not be kept on disk");
        }
    }
}

/// More than the milliseconds of any time: what a start adds stays below the next one.
const ROOM: u64 = 1 << 42;
/// A generation from here on no replica has given, however often it was started (a start adds less than twice the room).
pub(super) const MADE_UP: u64 = 1 << 60;

/// The first generation for the gateways of an agent that starts: above all that an agent on this directory gave
/// before, and above those of one whose directory was lost, as long as the clock goes forward. Where it can't be kept (the disk is
/// full), the agent starts all the same: the next start has the clock to go by.
pub fn first_generation(data: &DataDir, clock: &dyn Clock) -> Generation {
    const FILE: &str = "gateway-generation.json";
    let now = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or_default().min(ROOM - 1);
    let kept: u64 = data.read_json(FILE).ok().flatten().unwrap_or_default();
    // The time is added to what was kept: two starts from the same number, because the first one could not keep its own, differ.
    let first = kept.max(now) + now;
    if let Err(error) = data.write_json(FILE, &(first + ROOM)) {
        let error = chain(&error);
        tracing::warn!(
            error,
            "the generations of the gateways can't be kept; until they can, don't set the clock back"
        );
    }
    Generation::new(first)
}
