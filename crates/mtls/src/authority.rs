//! Those who sign: an organization's root, a cluster's intermediate.

use crate::{Error, PrivateKey, Secret, Validity, certificate, csr, provider};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};
use time::OffsetDateTime;
use tombolo_model::{SpiffeId, SpiffePath, TrustDomain, snapshot::CaFingerprint};

/// What all certificates of ours have in common. The identity stands in the alternative names only; the subject is
/// just there to tell issuers apart, so it carries the begin of the key's hash.
pub(crate) fn params(what: &str, public_der: &[u8], validity: Validity) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    let hash: String = Sha256::digest(public_der).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Tombolo");
    params.distinguished_name.push(DnType::CommonName, format!("{what} {hash}"));
    params.not_before = moment(validity.not_before)?;
    params.not_after = moment(validity.not_after)?;
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The names that a TLS server answers to.
pub(crate) fn tls_names(names: &[String]) -> Result<Vec<SanType>, Error> {
    const WRONG: Error = Error::Request { what: "a TLS name that is neither a DNS name nor an IP address" };
    // rcgen takes any ASCII text for a DNS name.
    if names.iter().any(|name| ServerName::try_from(name.as_str()).is_err()) {
        return Err(WRONG);
    }
    Ok(CertificateParams::new(names).map_err(|_| WRONG)?.subject_alt_names)
}

fn moment(time: SystemTime) -> Result<OffsetDateTime, Error> {
    let seconds = time.duration_since(UNIX_EPOCH).map_err(|_| Error::Validity)?.as_secs();
    let seconds = i64::try_from(seconds).map_err(|_| Error::Validity)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Validity)
}

/// 127 random bits: never zero, never negative, never twice.
fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0u8; 16];
    provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| Error::Tls(rustls::Error::FailedToGetRandomBytes))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn issuer<'a>(cert_pem: &str, key: &'a PrivateKey) -> Result<Issuer<'static, &'a KeyPair>, Error> {
    Issuer::from_ca_cert_pem(cert_pem, key.pair())
        .map_err(|_| Error::Certificate { what: "not a CA certificate" })
}

/// The root CA of one organization. It signs the intermediates of its clusters, and nothing else.
pub struct Root {
    trust_domain: TrustDomain,
    validity: Validity,
    cert_pem: String,
    key: PrivateKey,
}

impl Root {
    /// A new root for a trust domain.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Validity`] or [`Error::Sign`].
    pub fn create(trust_domain: &TrustDomain, validity: Validity) -> Result<Self, Error> {
        let key = PrivateKey::generate()?;
        let mut params = params("root", &key.public_der(), validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![csr::uri(&format!("spiffe://{trust_domain}"))?];
        let cert_pem = params.self_signed(key.pair()).map_err(Error::Sign)?.pem();
        Self::new(cert_pem, key)
    }

    /// A root from its certificate and key, both PEM.
    ///
    /// # Errors
    /// [`Error::Certificate`] where it is no root of ours, [`Error::KeyKind`], [`Error::KeyMismatch`].
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        Self::new(cert_pem.to_owned(), PrivateKey::from_pem(key_pem)?)
    }

    fn new(cert_pem: String, key: PrivateKey) -> Result<Self, Error> {
        let der = certificate::first(&cert_pem)?;
        let parsed = certificate::parse(&der).map_err(Error::CertificateIdentity)?;
        if parsed.public_key().raw != key.public_der() {
            return Err(Error::KeyMismatch);
        }
        let uri = certificate::uri(&parsed).map_err(Error::CertificateIdentity)?;
        let trust_domain =
            uri.strip_prefix("spiffe://").and_then(|domain| TrustDomain::parse(domain).ok()).ok_or(
                Error::Certificate { what: "a root names spiffe://<trust domain>, and this one does not" },
            )?;
        if !parsed.is_ca() {
            return Err(Error::Certificate { what: "not a CA certificate" });
        }
        let validity = certificate::validity(&parsed);
        Ok(Self { trust_domain, validity, cert_pem, key })
    }

    /// The trust domain it is the root of.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
    /// From when until when it may sign.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }
    /// Its certificate, PEM: what goes into bundles.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }
    /// Its key, PEM: to be encrypted before it is stored.
    #[must_use]
    pub fn key_pem(&self) -> Secret {
        self.key.to_pem()
    }

    /// Signs a cluster's intermediate (PEM), which may itself sign leaves and no further CA. Its validity is cut to the root's own.
    ///
    /// # Errors
    /// [`Error::NotOurs`] if `cluster` is not the path [`SpiffePath::Cluster`] of this trust domain; [`Error::Request`] or
    /// [`Error::RequestIdentity`] for a request that is broken or asks for anybody else; [`Error::Validity`], [`Error::Sign`].
    pub fn sign_intermediate(
        &self,
        csr_pem: &str,
        cluster: &SpiffeId,
        validity: Validity,
    ) -> Result<String, Error> {
        if cluster.trust_domain != self.trust_domain || cluster.path != SpiffePath::Cluster {
            let issuer = format!("the root of {}", self.trust_domain);
            return Err(Error::NotOurs { issuer, asked: Box::new(cluster.clone()) });
        }
        let public = csr::public_key(csr_pem, cluster)?;
        let mut params =
            params("cluster", rcgen::PublicKeyData::der_bytes(&public), validity.within(self.validity)?)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![csr::uri(&cluster.to_string())?];
        let signed = params.signed_by(&public, &issuer(&self.cert_pem, &self.key)?).map_err(Error::Sign)?;
        Ok(signed.pem())
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({})", self.trust_domain)
    }
}

/// A cluster's CA, in its agent: it signs the leaves of its own cluster.
pub struct Intermediate {
    id: SpiffeId,
    fingerprint: CaFingerprint,
    validity: Validity,
    cert_pem: String,
    key: PrivateKey,
}

impl Intermediate {
    /// The intermediate of this key and the certificate that a root made of its request.
    ///
    /// # Errors
    /// [`Error::Certificate`] or [`Error::CertificateIdentity`] where it is no cluster's CA, [`Error::KeyMismatch`].
    pub fn new(key: PrivateKey, cert_pem: &str) -> Result<Self, Error> {
        let der = certificate::first(cert_pem)?;
        let parsed = certificate::parse(&der).map_err(Error::CertificateIdentity)?;
        if parsed.public_key().raw != key.public_der() {
            return Err(Error::KeyMismatch);
        }
        let id = certificate::identity(&parsed).map_err(Error::CertificateIdentity)?;
        if id.path != SpiffePath::Cluster || !parsed.is_ca() {
            return Err(Error::Certificate { what: "not the CA certificate of a cluster" });
        }
        let fingerprint = certificate::key_fingerprint(&parsed);
        let validity = certificate::validity(&parsed);
        Ok(Self { id, fingerprint, validity, cert_pem: cert_pem.to_owned(), key })
    }

    /// Whether a root (PEM) says that it is the issuer: by its name, which tells keys apart. For housekeeping; it proves nothing.
    ///
    /// # Errors
    /// [`Error::Certificate`] where the text holds no certificate.
    pub fn is_of(&self, root_pem: &str) -> Result<bool, Error> {
        let (own, root) = (certificate::first(&self.cert_pem)?, certificate::first(root_pem)?);
        let own = certificate::parse(&own).map_err(Error::CertificateIdentity)?;
        let root = certificate::parse(&root).map_err(Error::CertificateIdentity)?;
        Ok(own.issuer().as_raw() == root.subject().as_raw())
    }

    /// The cluster it stands for.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
    /// What bundles list it under.
    #[must_use]
    pub fn fingerprint(&self) -> CaFingerprint {
        self.fingerprint.clone()
    }
    /// From when until when it may sign.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }
    /// Its certificate, PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }
    /// Its key, PEM, for a file that only the agent reads.
    #[must_use]
    pub fn key_pem(&self) -> Secret {
        self.key.to_pem()
    }

    /// Signs a leaf; gives leaf and intermediate, PEM, as [`crate::Credentials::set`] takes them. Its validity is cut to the intermediate's own.
    ///
    /// # Errors
    /// [`Error::NotOurs`] for an identity that is not under this cluster, or is the cluster itself; [`Error::Request`] or
    /// [`Error::RequestIdentity`] for a request that is broken or asks for anybody else; [`Error::Validity`], [`Error::Sign`].
    pub fn sign_leaf(&self, csr_pem: &str, id: &SpiffeId, validity: Validity) -> Result<String, Error> {
        if id.trust_domain != self.id.trust_domain
            || id.cluster != self.id.cluster
            || id.path == SpiffePath::Cluster
        {
            return Err(Error::NotOurs { issuer: self.id.to_string(), asked: Box::new(id.clone()) });
        }
        let public = csr::public_key(csr_pem, id)?;
        let mut params =
            params("leaf", rcgen::PublicKeyData::der_bytes(&public), validity.within(self.validity)?)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![csr::uri(&id.to_string())?];
        let leaf = params.signed_by(&public, &issuer(&self.cert_pem, &self.key)?).map_err(Error::Sign)?;
        Ok(format!("{}{}", leaf.pem(), self.cert_pem))
    }

    /// A certificate for the HTTPS that this cluster's agent offers to its own API server, with a new key: chain and key, both PEM. It names
    /// DNS names and nobody: no peer of ours believes it.
    ///
    /// # Errors
    /// [`Error::Request`] for a name that is no DNS name; [`Error::Key`], [`Error::Validity`], [`Error::Sign`].
    pub fn sign_https(&self, names: &[String], validity: Validity) -> Result<(String, Secret), Error> {
        let key = PrivateKey::generate()?;
        let mut params = params("https", &key.public_der(), validity.within(self.validity)?)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = tls_names(names)?;
        let leaf = params.signed_by(key.pair(), &issuer(&self.cert_pem, &self.key)?).map_err(Error::Sign)?;
        Ok((format!("{}{}", leaf.pem(), self.cert_pem), key.to_pem()))
    }
}

impl fmt::Debug for Intermediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intermediate({}, {})", self.id, self.fingerprint)
    }
}
