//! A rotation of the root, which goes on for minutes beside everything else.

use crate::{
    SOON, World,
    certificates::{ROTATED, ROTATION, roots, rotation},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use tombolo_testkit::wait::{until, until_ok};

/// It waits for clusters that are away, and here one is all the time.
const PATIENCE: Duration = ROTATED.saturating_mul(2);

/// Rotations that went on, and the one that does.
#[derive(Default)]
pub(super) struct Rotations {
    now: Option<(Instant, Vec<Value>)>,
    /// How long each of the others took.
    pub(super) took: Vec<Duration>,
}

impl Rotations {
    /// Begins one, where none goes on.
    pub(super) async fn begin(&mut self, world: &World) -> bool {
        if self.now.is_some() {
            return false;
        }
        let old = roots(world).await;
        let begin = || async {
            match world.api.try_post(ROTATION, &json!({})).await {
                // begun by the call before, whose answer was lost
                Err(error) if error.starts_with("409") => Ok(()),
                begun => begun.map(drop),
            }
        };
        until_ok("a rotation of the root begins", SOON, begin).await;
        self.now = Some((Instant::now(), old));
        true
    }

    /// Looks whether it has ended: with another root, and that one alone.
    pub(super) async fn look(&mut self, world: &World) {
        let Some((begin, old)) = &self.now else { return };
        if rotation(world).await.is_none() {
            let new = roots(world).await;
            assert!(new.len() == 1 && new != *old, "{old:?}, then {new:?}");
            self.took.push(begin.elapsed());
            self.now = None;
        } else {
            let elapsed = begin.elapsed();
            assert!(
                elapsed < PATIENCE,
                "the rotation goes on after {elapsed:?}: {:?}",
                rotation(world).await
            );
        }
    }

    /// Waits until none goes on.
    pub(super) async fn end(&mut self, world: &World) {
        if self.now.is_some() {
            let look = || async { rotation(world).await.map(|body| body["phase"].clone()) };
            until("the rotation ends", PATIENCE, look, Option::is_none).await;
            self.look(world).await;
        }
    }
}
