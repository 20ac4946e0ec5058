//! Whether what is stored follows from what a reader holds. A database that was restored from a backup does not know the
//! generations given out after it, and gives their numbers to other commits.

use super::{Change, Error, Tx};
use chrono::{DateTime, TimeDelta, Utc};
use tombolo_model::{Generation, id::OrgId};
use uuid::Uuid;

/// A reader further ahead than so many epochs says nonsense: a database that was restored as often has one in between.
const LEAP: u64 = 16;

/// The last epoch; numbers beyond it are not exact in every JSON reader.
const LAST: u64 = 8000;

/// On an agent's word a new epoch begins at most this often: an agent that lies costs its own organization a number.
const PAUSE: TimeDelta = TimeDelta::minutes(10);

/// Who holds a generation that the database does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    /// A replica: it read it from the database.
    Replica,
    /// An agent, which says so.
    Agent,
}

impl Tx {
    /// Whether the generation was led to by this commit; also no where that is too long ago to know.
    pub(crate) async fn led_to(
        &mut self,
        org: OrgId,
        generation: Generation,
        commit: Uuid,
    ) -> Result<bool, Error> {
        let found = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT 1 FROM changes
                WHERE org_id = $1 AND generation = $2 AND commit_id = $3) AS "found!""#,
            org.as_uuid(),
            super::bigint(generation),
            commit
        )
        .fetch_one(self.conn())
        .await?;
        Ok(found)
    }

    /// Begins a new epoch where somebody holds a generation that the organization never came to: everything from now on
    /// is newer than all that was given out before the database was restored. The generation before, and the one that
    /// the commit takes; none where nothing is to be done, or the witness is not believed.
    pub(crate) async fn begin_epoch(
        &mut self,
        org: OrgId,
        (seen, witness): (Generation, Witness),
        now: DateTime<Utc>,
    ) -> Result<Option<(Generation, Generation)>, Error> {
        let Some(stored) = self.lock_org(org).await? else { return Ok(None) };
        let at = sqlx::query_scalar!("SELECT epoch_at FROM organizations WHERE id = $1", org.as_uuid())
            .fetch_one(self.conn())
            .await?;
        let soon = witness == Witness::Agent && at.is_some_and(|at| now - at < PAUSE);
        let Some(next) = next(stored, seen).filter(|_| !soon) else { return Ok(None) };
        sqlx::query!(
            "UPDATE organizations SET generation = $2, epoch_at = $3 WHERE id = $1",
            org.as_uuid(),
            super::bigint(next) - 1,
            now
        )
        .execute(self.conn())
        .await?;
        self.changed(org, Change::Whole);
        Ok(Some((stored, next)))
    }
}

/// The first generation after all that may have been given out, where `seen` says that `stored` is not the newest.
fn next(stored: Generation, seen: Generation) -> Option<Generation> {
    let epoch = seen.epoch() + 1;
    let believed = seen >= stored && seen.epoch() <= stored.epoch() + LEAP && epoch <= LAST;
    believed.then(|| Generation::first_of(epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_above_all_that_was_seen() {
        let g = Generation::new;
        let first = next(g(60), g(100)).unwrap();
        assert_eq!(first, Generation::first_of(1));
        assert_eq!((first.epoch(), g(100).epoch()), (1, 0));
        // restored once more, from a backup of before
        let later = next(g(60), g(first.get() + 5)).unwrap();
        assert_eq!(later, Generation::first_of(2));
        assert_eq!(next(g(101), g(100)), None);
        assert_eq!(next(g(60), g(u64::MAX)), None, "nonsense");
        assert_eq!(next(Generation::first_of(LAST), g(Generation::first_of(LAST).get() + 1)), None);
    }
}
