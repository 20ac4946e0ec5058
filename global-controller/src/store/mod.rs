//! Postgres. One file per noun; each adds methods to [`Tx`]. One transaction per use case: `now` and ids come from the
//! caller, `Option` says that something is not there, and the organization is an argument of every query of a tenant's row.

pub(crate) mod change;
pub(crate) mod install;
pub(crate) mod installation;
pub(crate) mod intermediate;
pub(crate) mod inventory;
pub(crate) mod join;
pub(crate) mod lineage;
pub(crate) mod reach;
pub(crate) mod replica;
pub(crate) mod root;
pub(crate) mod status;
pub(crate) mod trial;
pub(crate) mod vip;
pub(crate) mod world;
// nouns of the API, by name:
pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod error;
pub(crate) mod gns;
pub(crate) mod idempotency;
pub(crate) mod onboarding;
pub(crate) mod organization;
pub(crate) mod report;
pub(crate) mod token;

pub(crate) use change::Change;
pub(crate) use error::Error;

use chrono::{DateTime, Utc};
use sqlx::{
    PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tombolo_model::{Generation, id::OrgId};

/// The schema, in the program.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// A pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: PgPool,
}

impl Store {
    /// Connects, and brings the schema up to this version. Replicas that start together wait for one another.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without a database, [`Error::Schema`] where a migration fails or was edited.
    pub(crate) async fn open(options: PgConnectOptions, connections: u32) -> Result<Self, Error> {
        // a request that waits this long for another one's lock has lost anyway
        let options =
            options.options([("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", "60s")]);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(5))
            .connect_with(options)
            .await?;
        MIGRATIONS.run(&pool).await.map_err(|source| Error::Schema { source: Box::new(source) })?;
        Ok(Self { pool })
    }

    /// The pool, for what needs a connection of its own.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Closes all connections, once their transactions are over.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Begins a transaction. Dropped without [`Tx::commit`], it changes nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where no connection comes free within 5 s.
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        Ok(Tx { inner: self.pool.begin().await?, changes: BTreeMap::new(), seen: BTreeSet::new() })
    }

    /// Begins a transaction that sees one state of everything, whatever others commit.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub(crate) async fn begin_snapshot(&self) -> Result<Tx, Error> {
        let mut tx = self.begin().await?;
        sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(tx.conn()).await?;
        Ok(tx)
    }
}

/// A transaction.
#[derive(Debug)]
pub(crate) struct Tx {
    inner: Transaction<'static, Postgres>,
    changes: BTreeMap<OrgId, BTreeSet<Change>>,
    seen: BTreeSet<OrgId>,
}

impl Tx {
    /// The connection, for a query.
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    /// What time it is where the database runs.
    pub(crate) async fn time(&mut self) -> Result<DateTime<Utc>, Error> {
        Ok(sqlx::query_scalar("SELECT now()").fetch_one(self.conn()).await?)
    }

    /// Notes that this transaction changes something that the compiler reads.
    pub(crate) fn changed(&mut self, org: OrgId, change: Change) {
        self.changes.entry(org).or_default().insert(change);
    }

    /// Notes that this transaction changes something that people see, and the compiler does not read.
    pub(crate) fn shown(&mut self, org: OrgId) {
        self.seen.insert(org);
    }

    /// Ends the transaction. Where something was noted as changed, each organization takes its next generation here, at
    /// the end, so that its row is locked no longer than needed. Organizations go in the order of their ids, so that
    /// two transactions over the same ones cannot wait for each other.
    ///
    /// # Errors
    /// As any query; nothing is changed then.
    pub(crate) async fn commit(mut self) -> Result<BTreeMap<OrgId, Generation>, Error> {
        let mut taken = BTreeMap::new();
        for (org, changes) in std::mem::take(&mut self.changes) {
            let changes: Vec<Change> = changes.into_iter().collect();
            taken.insert(org, self.write_changes(org, &changes).await?);
        }
        // a new generation tells its readers anyway
        for org in std::mem::take(&mut self.seen) {
            if !taken.contains_key(&org) {
                self.notify_on(change::STATUS, org).await?;
            }
        }
        self.inner.commit().await?;
        Ok(taken)
    }
}

/// A generation as Postgres has it.
pub(crate) fn bigint(generation: Generation) -> i64 {
    i64::try_from(generation.get()).unwrap_or(i64::MAX)
}

/// A generation as we have it.
pub(crate) fn generation(stored: i64) -> Result<Generation, Error> {
    u64::try_from(stored).map(Generation::new).map_err(|_| Error::corrupt("generation", &stored))
}

#[cfg(test)]
mod tests;
