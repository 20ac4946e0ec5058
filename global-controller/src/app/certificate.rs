//! Whom an organization's workloads believe: its roots, and the intermediates of its clusters.

use super::{
    Deps,
    caller::Scope,
    error::{Refusal, Result},
    page::{List, Page},
};
use crate::store::report::{IntermediateRow, RootRow};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::{collections::BTreeMap, str::FromStr};
use tombolo_model::snapshot::CaFingerprint;
use utoipa::ToSchema;

/// Whom to believe: a certificate that chains to one of the roots over an intermediate that is listed for its cluster.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TrustBundle {
    /// The authority of every identity.
    #[schema(example = "acme.tombolo.internal")]
    pub(crate) trust_domain: String,
    /// The roots; several while a root rotates.
    pub(crate) roots: Vec<RootCertificate>,
    /// The fingerprints of the intermediates of each cluster in good standing. A cluster that is not here is not believed.
    pub(crate) clusters: BTreeMap<String, Vec<String>>,
}

/// A root of an organization.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RootCertificate {
    /// The SHA-256 of its public key.
    pub(crate) fingerprint: String,
    /// Whether new intermediates are signed by it.
    pub(crate) signing: bool,
    /// From when it is good.
    pub(crate) not_before: DateTime<Utc>,
    /// Until when it is good.
    pub(crate) not_after: DateTime<Utc>,
    /// The certificate, PEM.
    pub(crate) certificate: String,
}

/// A cluster's CA certificate.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ClusterCertificate {
    /// The cluster whose identities it vouches for.
    #[schema(example = "cluster-1")]
    pub(crate) cluster: String,
    /// The SHA-256 of its public key.
    pub(crate) fingerprint: String,
    /// Its serial number, hexadecimal.
    pub(crate) serial: String,
    /// Whether peers believe it.
    pub(crate) state: CertificateState,
    /// From when it is good.
    pub(crate) not_before: DateTime<Utc>,
    /// Until when it is good.
    pub(crate) not_after: DateTime<Utc>,
    /// When it was revoked; absent where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at: Option<DateTime<Utc>>,
    /// The certificate, PEM.
    pub(crate) certificate: String,
}

/// Whether peers believe a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CertificateState {
    /// They do.
    Valid,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl ClusterCertificate {
    fn show(row: IntermediateRow, now: DateTime<Utc>) -> Self {
        let state = if row.revoked_at.is_some() {
            CertificateState::Revoked
        } else if row.not_after <= now {
            CertificateState::Expired
        } else {
            CertificateState::Valid
        };
        Self {
            cluster: row.cluster.to_string(),
            fingerprint: row.fingerprint.to_string(),
            serial: row.serial,
            state,
            not_before: row.not_before,
            not_after: row.not_after,
            revoked_at: row.revoked_at,
            certificate: row.certificate,
        }
    }
}

/// The trust bundle, as every cluster of the organization is told it.
///
/// # Errors
/// As any query.
pub(crate) async fn bundle(deps: &Deps, scope: &Scope) -> Result<TrustBundle> {
    let now = deps.now();
    let mut tx = deps.store.begin_snapshot().await?;
    let roots = tx.list_roots(scope.org.id).await?;
    let intermediates = tx.list_intermediates(scope.org.id, None, Some(now), None, i64::MAX).await?;
    let mut clusters = BTreeMap::<String, Vec<String>>::new();
    for row in intermediates {
        clusters.entry(row.cluster.into()).or_default().push(row.fingerprint.to_string());
    }
    Ok(TrustBundle {
        trust_domain: scope.org.trust_domain.to_string(),
        roots: roots.iter().map(root).collect::<Result<_>>()?,
        clusters,
    })
}

/// A root, to show.
///
/// # Errors
/// [`super::error::Kind::Internal`] where what is stored is no certificate.
pub(crate) fn root(row: &RootRow) -> Result<RootCertificate> {
    let info = tombolo_mtls::certificate_info(&row.certificate).map_err(Refusal::internal)?;
    Ok(RootCertificate {
        fingerprint: info.fingerprint.to_string(),
        signing: row.signing,
        not_before: row.not_before,
        not_after: row.not_after,
        certificate: row.certificate.clone(),
    })
}

/// The certificates of the organization's clusters, revoked and expired ones too.
///
/// # Errors
/// As any query.
pub(crate) async fn list(
    deps: &Deps,
    scope: &Scope,
    cluster: Option<&str>,
    page: &Page,
) -> Result<List<ClusterCertificate>> {
    let now = deps.now();
    let after = page.after_id::<Place>()?.map(|place| (place.cluster, place.fingerprint));
    let mut tx = deps.store.begin().await?;
    let rows = tx.list_intermediates(scope.org.id, cluster, None, after.as_ref(), page.fetch()).await?;
    let shown = rows.into_iter().map(|row| ClusterCertificate::show(row, now)).collect();
    Ok(page.list(shown, |c: &ClusterCertificate| format!("{}/{}", c.cluster, c.fingerprint)))
}

/// A place in the list.
struct Place {
    cluster: String,
    fingerprint: CaFingerprint,
}

impl FromStr for Place {
    type Err = &'static str;
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let (cluster, fingerprint) = text.split_once('/').ok_or("has no slash")?;
        Ok(Self { cluster: cluster.to_owned(), fingerprint: fingerprint.parse()? })
    }
}
