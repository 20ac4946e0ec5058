//! What a certificate says: read with x509-parser, never trusted for it. Trust is decided in [`crate::TrustBundle`].

use crate::{Error, VerifyError};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};
use tombolo_model::{SpiffeId, snapshot::CaFingerprint};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{ASN1Time, FromDer},
};

/// From when until when. Certificates count in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// The part of this that lies in `outer`: a certificate never outlives its issuer.
    pub(crate) fn within(self, outer: Self) -> Result<Self, Error> {
        let inner = Self {
            not_before: self.not_before.max(outer.not_before),
            not_after: self.not_after.min(outer.not_after),
        };
        if inner.not_before < inner.not_after { Ok(inner) } else { Err(Error::Validity) }
    }

    /// Whether `now` lies in it.
    #[must_use]
    pub fn contains(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// The moment to renew at: half of its life.
    #[must_use]
    pub fn half_life(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life / 2
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Its identity; none in a root or in a server certificate of the web.
    pub id: Option<SpiffeId>,
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// From when until when.
    pub validity: Validity,
    /// The SHA-256 of its public key: for an intermediate, what bundles list.
    pub fingerprint: CaFingerprint,
    /// The SHA-256 of the whole certificate in DER: for an authority, what [`crate::pinned_client_config`] pins.
    pub sha256: [u8; 32],
    /// The distinguished name of its issuer.
    pub issuer: String,
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// [`Error::Certificate`] where there is none, or it is not readable.
pub fn certificate_info(pem: &str) -> Result<CertificateInfo, Error> {
    info(&first(pem)?)
}

pub(crate) fn info(der: &CertificateDer<'_>) -> Result<CertificateInfo, Error> {
    let certificate = parse(der).map_err(|_| Error::Certificate { what: "not an X.509 certificate" })?;
    Ok(CertificateInfo {
        id: identity(&certificate).ok(),
        serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        validity: validity(&certificate),
        fingerprint: key_fingerprint(&certificate),
        sha256: Sha256::digest(der).into(),
        issuer: certificate.issuer().to_string(),
    })
}

/// All certificates of a PEM text, in their order.
pub(crate) fn all(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::Certificate { what: "broken PEM" })
}

pub(crate) fn first(pem: &str) -> Result<CertificateDer<'static>, Error> {
    all(pem)?.into_iter().next().ok_or(Error::Certificate { what: "no certificate in the text" })
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, VerifyError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(VerifyError::Unreadable { what: "bytes after its end" }),
        Err(_) => Err(VerifyError::Unreadable { what: "not an X.509 certificate" }),
    }
}

/// The one URI in a certificate's alternative names. A second name of any kind would make it two things at once.
pub(crate) fn uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, VerifyError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| VerifyError::Unreadable { what: "its alternative names" })?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    match names {
        [GeneralName::URI(uri)] => Ok(uri),
        _ => Err(VerifyError::Names { names: names.len() }),
    }
}

pub(crate) fn identity(certificate: &X509Certificate<'_>) -> Result<SpiffeId, VerifyError> {
    let name = uri(certificate)?;
    SpiffeId::parse(name)
        .map_err(|source| VerifyError::Identity { name: name.chars().take(256).collect(), source })
}

pub(crate) fn key_fingerprint(certificate: &X509Certificate<'_>) -> CaFingerprint {
    CaFingerprint::new(Sha256::digest(certificate.public_key().raw).into())
}

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let time = |time: ASN1Time| match u64::try_from(time.timestamp()) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => SystemTime::UNIX_EPOCH,
    };
    let validity = certificate.validity();
    Validity { not_before: time(validity.not_before), not_after: time(validity.not_after) }
}
