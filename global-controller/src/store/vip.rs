//! Virtual IPs: an index into the installation's pools for each name, for life.

use super::{Change, Error, Tx};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{GlobalName, id::OrgId};

/// What became of a request for virtual IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocated {
    /// Names that have one in use now and had none.
    pub(crate) given: u64,
    /// Names for which the pool has none left.
    pub(crate) exhausted: u64,
}

impl Tx {
    /// Gives each name that has none the next index that no name ever had. Call it with the organization's row locked
    /// ([`Tx::lock_org`]): two replicas then cannot take the same one. `last` is the last index of the pool.
    pub(crate) async fn allocate_vips(
        &mut self,
        org: OrgId,
        names: &BTreeSet<GlobalName>,
        last: u64,
        now: DateTime<Utc>,
    ) -> Result<Allocated, Error> {
        let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
        // what another replica gave a moment ago, or gave back, is no news, and makes no generation
        let rows = sqlx::query!(
            r#"SELECT name, released_at IS NOT NULL AS "released!" FROM virtual_ips WHERE org_id = $1 AND name = ANY($2)"#,
            org.as_uuid(),
            &texts
        )
        .fetch_all(self.conn())
        .await?;
        let back: Vec<String> = rows.iter().filter(|row| row.released).map(|row| row.name.clone()).collect();
        let had: BTreeSet<String> = rows.into_iter().map(|row| row.name).collect();
        if !back.is_empty() {
            sqlx::query!(
                "UPDATE virtual_ips SET released_at = NULL WHERE org_id = $1 AND name = ANY($2)",
                org.as_uuid(),
                &back
            )
            .execute(self.conn())
            .await?;
        }
        let next =
            sqlx::query_scalar!("SELECT next_vip_index FROM organizations WHERE id = $1", org.as_uuid())
                .fetch_one(self.conn())
                .await?;
        let room = i64::try_from(last).unwrap_or(i64::MAX).saturating_add(1).saturating_sub(next).max(0);
        let wanted: Vec<&GlobalName> = names.iter().filter(|name| !had.contains(name.as_str())).collect();
        let fits = wanted.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let new: Vec<String> = wanted.iter().take(fits).map(ToString::to_string).collect();
        if !new.is_empty() {
            sqlx::query!(
                "INSERT INTO virtual_ips (org_id, name, index, allocated_at)
                 SELECT $1, line.name, $3 + line.place - 1, $4
                 FROM unnest($2::text[]) WITH ORDINALITY AS line(name, place)",
                org.as_uuid(),
                &new,
                next,
                now
            )
            .execute(self.conn())
            .await?;
            sqlx::query!(
                "UPDATE organizations SET next_vip_index = next_vip_index + $2 WHERE id = $1",
                org.as_uuid(),
                i64::try_from(fits).unwrap_or(i64::MAX)
            )
            .execute(self.conn())
            .await?;
        }
        for name in back.iter().chain(&new).filter_map(|name| names.get(name.as_str())) {
            self.changed(org, Change::Vip(name.clone()));
        }
        Ok(Allocated { given: (fits + back.len()) as u64, exhausted: (wanted.len() - fits) as u64 })
    }

    /// Marks the indexes of these names as tombstones: kept for the name, should it come back.
    pub(crate) async fn release_vips(
        &mut self,
        org: OrgId,
        names: &BTreeSet<GlobalName>,
        now: DateTime<Utc>,
    ) -> Result<u64, Error> {
        let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
        let released = sqlx::query_scalar!(
            "UPDATE virtual_ips SET released_at = $3
             WHERE org_id = $1 AND released_at IS NULL AND name = ANY($2) RETURNING name",
            org.as_uuid(),
            &texts,
            now
        )
        .fetch_all(self.conn())
        .await?;
        for name in released.iter().filter_map(|name| names.get(name.as_str())) {
            self.changed(org, Change::Vip(name.clone()));
        }
        Ok(released.len() as u64)
    }

    /// The index of every name that is in use, or of the given ones of them.
    pub(crate) async fn vips(
        &mut self,
        org: OrgId,
        only: Option<&[String]>,
    ) -> Result<BTreeMap<GlobalName, u64>, Error> {
        let rows = sqlx::query!(
            "SELECT name, index FROM virtual_ips
             WHERE org_id = $1 AND released_at IS NULL AND ($2::text[] IS NULL OR name = ANY($2))",
            org.as_uuid(),
            only
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter()
            .map(|row| {
                let name = GlobalName::parse(&row.name).map_err(|_| Error::corrupt("name", &row.name))?;
                let index = u64::try_from(row.index).map_err(|_| Error::corrupt("index", &row.index))?;
                Ok((name, index))
            })
            .collect()
    }
}
