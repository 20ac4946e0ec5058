//! Roots and intermediates: made, sealed, stored; signed, recorded.

use super::{Error, Purpose, Vault};
use crate::store::{
    Change, Tx,
    intermediate::{IntermediateRow, Keep},
    root::RootRow,
};
use chrono::{DateTime, TimeDelta, Utc};
use tombolo_model::{
    ClusterName, Generation, SpiffeId, TrustDomain,
    id::{ClusterId, OrgId},
};
use tombolo_mtls::{Root, Validity, certificate_info};
use uuid::Uuid;

/// How long a cluster's intermediate is good for. Agents renew at half of it.
const LIFE: TimeDelta = TimeDelta::days(90);

/// How long a root is good for.
const ROOT_LIFE: TimeDelta = TimeDelta::days(3650);

/// Certificates begin a little earlier, for receivers whose clock is behind.
const SKEW: TimeDelta = TimeDelta::hours(1);

/// A signed intermediate, recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    /// The certificate, PEM.
    pub(crate) certificate: String,
    /// Its serial number, hex.
    pub(crate) serial: String,
    /// When it ends.
    pub(crate) not_after: DateTime<Utc>,
}

impl Vault {
    /// Makes a root of an organization: the first one, which signs at once, or the next one (`since` the generation that tells of it).
    ///
    /// # Errors
    /// [`Error::Certificate`], [`Error::Seal`], [`Error::Store`].
    pub(crate) async fn create_root(
        &self,
        tx: &mut Tx,
        org: OrgId,
        trust_domain: &TrustDomain,
        (since, now): (Generation, DateTime<Utc>),
    ) -> Result<(), Error> {
        let validity = validity(now, ROOT_LIFE);
        let root = Root::create(trust_domain, validity).map_err(|source| Error::Certificate { source })?;
        let sealed =
            self.seal(Purpose::Root(org), &root.key_pem()).map_err(|source| Error::Seal { source })?;
        let row = RootRow {
            id: Uuid::now_v7(),
            certificate: root.cert_pem().to_owned(),
            key_sealed: sealed,
            not_before: validity.not_before.into(),
            not_after: validity.not_after.into(),
        };
        tx.insert_root(org, &row, (since, now)).await?;
        Ok(())
    }

    /// Signs the intermediate of a cluster, and lets peers trust it from the next generation on.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::RevokedKey`] where the asker is at fault, else as [`Vault::create_root`]; [`Error::NoRoot`].
    pub(crate) async fn sign_intermediate(
        &self,
        tx: &mut Tx,
        (org, trust_domain): (OrgId, &TrustDomain),
        (cluster, name): (ClusterId, &ClusterName),
        csr: &str,
        (keep, now): (Keep, DateTime<Utc>),
    ) -> Result<Issued, Error> {
        let stored = tx.signing_root(org).await?.ok_or(Error::NoRoot)?;
        let key =
            self.open(Purpose::Root(org), &stored.key_sealed).map_err(|source| Error::Seal { source })?;
        let root =
            Root::from_pem(&stored.certificate, &key).map_err(|source| Error::Certificate { source })?;
        let id = SpiffeId::cluster(trust_domain, name);
        let certificate = root
            .sign_intermediate(csr, &id, validity(now, LIFE))
            .map_err(|source| Error::Request { source })?;
        let info = certificate_info(&certificate).map_err(|source| Error::Certificate { source })?;
        let not_after = info.validity.not_after.into();
        let row = IntermediateRow {
            fingerprint: info.fingerprint,
            serial: info.serial.clone(),
            certificate: certificate.clone(),
            not_before: info.validity.not_before.into(),
            not_after,
            root: stored.id,
        };
        if !tx.insert_intermediate(org, cluster, &row, (keep, now)).await? {
            return Err(Error::RevokedKey);
        }
        tx.changed(org, Change::Cluster(cluster));
        Ok(Issued { certificate, serial: info.serial, not_after })
    }
}

fn validity(now: DateTime<Utc>, life: TimeDelta) -> Validity {
    Validity { not_before: (now - SKEW).into(), not_after: (now + life).into() }
}
