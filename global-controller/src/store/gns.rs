//! Global namespaces.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use tombolo_model::{
    DnsLabel, Domain,
    id::{GnsId, OrgId},
    intent::{CaptureMode, MappingRule},
};

/// A global namespace as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GnsRow {
    pub(crate) id: GnsId,
    pub(crate) name: DnsLabel,
    pub(crate) domain: Domain,
    pub(crate) rules: Vec<MappingRule>,
    pub(crate) capture: Option<CaptureMode>,
    /// Rises with each edit.
    pub(crate) version: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

struct Row {
    id: uuid::Uuid,
    name: String,
    domain: String,
    rules: serde_json::Value,
    capture: Option<String>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// A capture mode as it is stored.
///
/// # Errors
/// [`Error::corrupt`].
pub(super) fn capture(text: Option<String>) -> Result<Option<CaptureMode>, Error> {
    text.map(|text| text.parse().map_err(|_| Error::corrupt("capture mode", &text))).transpose()
}

impl TryFrom<Row> for GnsRow {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: GnsId::new(row.id),
            name: DnsLabel::parse(&row.name)
                .map_err(|_| Error::corrupt("global namespace's name", &row.name))?,
            domain: Domain::parse(&row.domain).map_err(|_| Error::corrupt("domain", &row.domain))?,
            rules: serde_json::from_value(row.rules).map_err(|e| Error::corrupt("mapping rule", &e))?,
            capture: capture(row.capture)?,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl Tx {
    /// The global namespace with this name.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn gns(&mut self, org: OrgId, name: &DnsLabel) -> Result<Option<GnsRow>, Error> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, name, domain, rules, capture, version, created_at, updated_at
             FROM global_namespaces WHERE org_id = $1 AND name = $2",
            org.as_uuid(),
            name.as_str()
        )
        .fetch_optional(self.conn())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Global namespaces by name, those after `after`.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn list_gns(
        &mut self,
        org: OrgId,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<GnsRow>, Error> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, name, domain, rules, capture, version, created_at, updated_at FROM global_namespaces
               WHERE org_id = $1 AND ($2::text IS NULL OR name COLLATE "C" > $2)
               ORDER BY name COLLATE "C" LIMIT $3"#,
            org.as_uuid(),
            after,
            limit
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The names and domains of all global namespaces of an organization, to find overlaps.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn gns_domains(&mut self, org: OrgId) -> Result<Vec<(GnsId, DnsLabel, Domain)>, Error> {
        let rows =
            sqlx::query!("SELECT id, name, domain FROM global_namespaces WHERE org_id = $1", org.as_uuid())
                .fetch_all(self.conn())
                .await?;
        rows.into_iter()
            .map(|row| {
                let name = DnsLabel::parse(&row.name)
                    .map_err(|_| Error::corrupt("global namespace's name", &row.name))?;
                let domain = Domain::parse(&row.domain).map_err(|_| Error::corrupt("domain", &row.domain))?;
                Ok((GnsId::new(row.id), name, domain))
            })
            .collect()
    }

    /// Stores a new global namespace.
    ///
    /// # Errors
    /// [`Error::Duplicate`] for a name or a domain that is taken.
    pub(crate) async fn insert_gns(&mut self, org: OrgId, gns: &GnsRow) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO global_namespaces (org_id, id, name, domain, rules, version, created_at, updated_at, capture)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            org.as_uuid(),
            gns.id.as_uuid(),
            gns.name.as_str(),
            gns.domain.as_str(),
            serde_json::json!(gns.rules),
            gns.version,
            gns.created_at,
            gns.updated_at,
            gns.capture.map(CaptureMode::as_str)
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Replaces domain, rules and capture mode of a global namespace.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn update_gns(&mut self, org: OrgId, gns: &GnsRow) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE global_namespaces SET domain = $3, rules = $4, version = $5, updated_at = $6, capture = $7
             WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            gns.id.as_uuid(),
            gns.domain.as_str(),
            serde_json::json!(gns.rules),
            gns.version,
            gns.updated_at,
            gns.capture.map(CaptureMode::as_str)
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Removes a global namespace. Its names' virtual IPs stay with the names.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn delete_gns(&mut self, org: OrgId, id: GnsId) -> Result<(), Error> {
        sqlx::query!(
            "DELETE FROM global_namespaces WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            id.as_uuid()
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }
}
