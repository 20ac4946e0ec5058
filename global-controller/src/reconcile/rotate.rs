//! Takes the steps of rotations of roots (`ca::rotation`), each once the clusters are ready for it. Any replica may.

use crate::{
    app::audit,
    ca::rotation::{Step, progress},
    store::{self, Store, Tx},
};
use chrono::{DateTime, TimeDelta, Utc};
use std::{sync::Arc, time::Duration};
use tombolo_model::id::OrgId;
use tombolo_runtime::{clock::Clock, drain, telemetry};

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(2);

/// Looks every other second, until the draining begins.
pub(crate) async fn run(store: Store, overlap: TimeDelta, clock: Arc<dyn Clock>, stop: drain::Watch) {
    let mut tick = tokio::time::interval(PERIOD);
    while super::due(&mut tick, &stop).await {
        if let Err(error) = once(&store, overlap, clock.now().into()).await {
            tracing::warn!(
                error = telemetry::chain(&error),
                "a rotation of a root could not go on; trying again"
            );
        }
    }
}

/// One look at all rotations.
pub(crate) async fn once(store: &Store, overlap: TimeDelta, now: DateTime<Utc>) -> Result<(), store::Error> {
    let orgs = store.begin().await?.rotating().await?;
    for org in orgs {
        // the lock is for those who write
        if next_step(&mut store.begin().await?, org, (overlap, now)).await?.is_none() {
            continue;
        }
        let mut tx = store.begin().await?;
        let Some(generation) = tx.lock_org(org).await? else { continue };
        let Some(step) = next_step(&mut tx, org, (overlap, now)).await? else { continue };
        let (action, root) = match step {
            Step::Sign(root) => {
                tx.sign_with_root(org, root).await?;
                ("root.sign", root)
            }
            Step::Retire(root) => {
                tx.delete_root(org, root).await?;
                ("root.retire", root)
            }
        };
        tx.insert_audit(&audit::of_root(org, generation.next(), action, root, now)).await?;
        tx.commit().await?;
        tracing::info!(org.id = %org, root.id = %root, action, "a rotation of a root went on");
    }
    Ok(())
}

async fn next_step(
    tx: &mut Tx,
    org: OrgId,
    times: (TimeDelta, DateTime<Utc>),
) -> Result<Option<Step>, store::Error> {
    let (roots, clusters) = tx.rotation(org).await?;
    Ok(progress(&roots, &clusters, times).and_then(|(_, step)| step))
}
