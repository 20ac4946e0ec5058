//! What a transaction changed of the things that the compiler reads. Each becomes a line of the table `changes` under
//! the generation that the commit takes, so that a reader at the generation before reads just those rows again.

use super::{Error, Tx};
use tombolo_model::{
    Generation, GlobalName, NamespaceName,
    id::{ClusterId, GnsId, OrgId},
    inventory::ServiceKey,
};
use uuid::Uuid;

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// A cluster: its record, its intermediates, its ingress addresses, or that it is no more.
    Cluster(ClusterId),
    /// A global namespace.
    Gns(GnsId),
    /// A namespace in a cluster's inventory.
    Namespace(ClusterId, NamespaceName),
    /// A service in a cluster's inventory.
    Service(ClusterId, ServiceKey),
    /// Everything that a cluster reports.
    Inventory(ClusterId),
    /// The virtual IP of a name.
    Vip(GlobalName),
    /// The organization's roots.
    Roots,
    /// Everything may be another one.
    Whole,
    /// Nothing that the compiler reads: the audit log grew, and its readers follow by generation.
    Audit,
}

impl Change {
    fn parts(&self) -> (&'static str, String) {
        match self {
            Self::Cluster(id) => ("cluster", id.to_string()),
            Self::Gns(id) => ("gns", id.to_string()),
            Self::Namespace(cluster, name) => ("namespace", format!("{cluster}/{name}")),
            Self::Service(cluster, key) => ("service", format!("{cluster}/{key}")),
            Self::Inventory(cluster) => ("inventory", cluster.to_string()),
            Self::Vip(name) => ("vip", name.to_string()),
            Self::Roots => ("roots", String::new()),
            Self::Whole => ("whole", String::new()),
            Self::Audit => ("audit", String::new()),
        }
    }

    /// Reads a stored change; `None` for one that this version does not know, which is answered by reading everything.
    fn parse(kind: &str, reference: &str) -> Option<Self> {
        let in_cluster = || {
            let (cluster, rest) = reference.split_once('/')?;
            Some((cluster.parse().ok()?, rest.to_owned()))
        };
        Some(match kind {
            "cluster" => Self::Cluster(reference.parse().ok()?),
            "gns" => Self::Gns(reference.parse().ok()?),
            "namespace" => {
                let (cluster, name) = in_cluster()?;
                Self::Namespace(cluster, NamespaceName::parse(&name).ok()?)
            }
            "service" => {
                let (cluster, key) = in_cluster()?;
                Self::Service(cluster, key.try_into().ok()?)
            }
            "inventory" => Self::Inventory(reference.parse().ok()?),
            "vip" => Self::Vip(GlobalName::parse(reference).ok()?),
            "roots" => Self::Roots,
            "whole" => Self::Whole,
            "audit" => Self::Audit,
            _ => return None,
        })
    }
}

/// The channel on which every commit of changes names its organization.
pub(crate) const CHANNEL: &str = "tombolo_changes";

/// The channel on which commits name organizations of which something is to be seen that takes no generation: which
/// feeds are open, what agents say of their clusters.
pub(crate) const STATUS: &str = "tombolo_status";

/// More changes than this in one transaction are not worth their lines: the reader reads everything.
const MOST: usize = 2000;

impl Tx {
    /// Puts the organization's transactions in order: until the end of this one, no other may pass here.
    /// The generation it is at; `None` where there is no such organization.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn lock_org(&mut self, org: OrgId) -> Result<Option<Generation>, Error> {
        let row = sqlx::query!(
            "SELECT generation FROM organizations WHERE id = $1 FOR NO KEY UPDATE",
            org.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        row.map(|row| super::generation(row.generation)).transpose()
    }

    /// Takes the next generation of the organization and writes down what changed.
    pub(super) async fn write_changes(
        &mut self,
        org: OrgId,
        changes: &[Change],
    ) -> Result<Generation, Error> {
        let row = sqlx::query!(
            "UPDATE organizations SET generation = generation + 1, commit_id = $2 WHERE id = $1
             RETURNING generation, commit_id",
            org.as_uuid(),
            Uuid::now_v7()
        )
        .fetch_optional(self.conn())
        .await?;
        // an organization that this transaction deleted has nobody left to tell but the readers of the channel
        let Some(row) = row else {
            self.notify(org).await?;
            return Ok(Generation::ZERO);
        };
        let changes = if changes.len() <= MOST { changes } else { &[Change::Whole] };
        let (kinds, references): (Vec<String>, Vec<String>) =
            changes.iter().map(Change::parts).map(|(k, r)| (k.to_owned(), r)).unzip();
        sqlx::query!(
            "INSERT INTO changes (org_id, generation, commit_id, ordinal, kind, reference)
             SELECT $1, $2, $3, line.ordinal::integer, line.kind, line.reference
             FROM unnest($4::text[], $5::text[]) WITH ORDINALITY AS line(kind, reference, ordinal)",
            org.as_uuid(),
            row.generation,
            row.commit_id,
            &kinds,
            &references
        )
        .execute(self.conn())
        .await?;
        self.notify(org).await?;
        super::generation(row.generation)
    }

    async fn notify(&mut self, org: OrgId) -> Result<(), Error> {
        self.notify_on(CHANNEL, org).await
    }

    /// Names an organization on a channel, once the transaction is committed.
    pub(super) async fn notify_on(&mut self, channel: &str, org: OrgId) -> Result<(), Error> {
        sqlx::query!("SELECT pg_notify($1, $2)", channel, org.to_string()).execute(self.conn()).await?;
        Ok(())
    }

    /// What changed after `since`, up to and with `until`; `None` where the log does not reach back that far, or says
    /// something that this version does not know.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn changes_between(
        &mut self,
        org: OrgId,
        since: Generation,
        until: Generation,
    ) -> Result<Option<Vec<Change>>, Error> {
        let rows = sqlx::query!(
            "SELECT generation, kind, reference FROM changes
             WHERE org_id = $1 AND generation > $2 AND generation <= $3 ORDER BY generation, ordinal",
            org.as_uuid(),
            super::bigint(since),
            super::bigint(until)
        )
        .fetch_all(self.conn())
        .await?;
        // every generation left at least one line
        let mut expected = super::bigint(since);
        let mut changes = Vec::with_capacity(rows.len());
        for row in rows {
            if row.generation != expected {
                expected += 1;
                if row.generation != expected {
                    return Ok(None);
                }
            }
            match Change::parse(&row.kind, &row.reference) {
                Some(Change::Whole) | None => return Ok(None),
                Some(change) => changes.push(change),
            }
        }
        Ok((expected == super::bigint(until)).then_some(changes))
    }

    /// Drops lines that no reader will ask for: a reader further behind reads everything.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn prune_changes(&mut self, keep: i64) -> Result<u64, Error> {
        let done = sqlx::query!(
            "DELETE FROM changes USING organizations o
             WHERE changes.org_id = o.id AND changes.generation <= o.generation - $1",
            keep
        )
        .execute(self.conn())
        .await?;
        Ok(done.rows_affected())
    }

    /// Every organization, its generation, and the commit that led to it.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn generations(&mut self) -> Result<Vec<(OrgId, Generation, Uuid)>, Error> {
        let rows = sqlx::query!("SELECT id, generation, commit_id FROM organizations")
            .fetch_all(self.conn())
            .await?;
        rows.into_iter()
            .map(|row| Ok((OrgId::new(row.id), super::generation(row.generation)?, row.commit_id)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let cluster = ClusterId::new(Uuid::from_u128(7));
        for change in [
            Change::Cluster(cluster),
            Change::Gns(GnsId::new(Uuid::from_u128(8))),
            Change::Namespace(cluster, NamespaceName::parse("default").unwrap()),
            Change::Service(cluster, ServiceKey::try_from("default/catalog".to_owned()).unwrap()),
            Change::Inventory(cluster),
            Change::Vip(GlobalName::parse("catalog.acme.example.com").unwrap()),
            Change::Roots,
            Change::Whole,
            Change::Audit,
        ] {
            let (kind, reference) = change.parts();
            assert_eq!(Change::parse(kind, &reference), Some(change));
        }
        assert_eq!(Change::parse("weather", "rain"), None);
    }
}
