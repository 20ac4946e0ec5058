//! Signing requests. Whoever signs takes the public key and nothing else: names, uses and times are the signer's to decide. A request
//! that names another identity than the one it would get is refused all the same, for it shows a mistake or an attack.

use crate::Error;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKey, PublicKeyData, SanType,
};
use sha2::{Digest as _, Sha256};
use tombolo_model::{SpiffeId, snapshot::CaFingerprint};

/// A request of ours is below 1 KiB; nothing is gained by reading far more.
const MAX_PEM_BYTES: usize = 16 * 1024;

pub(crate) fn uri(text: &str) -> Result<SanType, Error> {
    let text = text.try_into().map_err(|_| Error::Request { what: "the identity is not ASCII" })?;
    Ok(SanType::URI(text))
}

pub(crate) fn request(pair: &KeyPair, id: Option<&SpiffeId>) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = id.map(|id| uri(&id.to_string())).into_iter().collect::<Result<_, _>>()?;
    params.serialize_request(pair).and_then(|request| request.pem()).map_err(Error::Sign)
}

/// What a certificate for a request's key is known by, once the request's signature shows that the asker holds the private half.
///
/// # Errors
/// As for a request that is to be signed for `id`.
pub fn request_fingerprint(pem: &str, id: &SpiffeId) -> Result<CaFingerprint, Error> {
    let key = public_key(pem, id)?;
    Ok(CaFingerprint::new(Sha256::digest(key.subject_public_key_info()).into()))
}

/// The public key of a request for `id`, once its signature shows that the asker holds the private half.
pub(crate) fn public_key(pem: &str, id: &SpiffeId) -> Result<PublicKey, Error> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(Error::Request { what: "it is larger than 16 KiB" });
    }
    let csr = CertificateSigningRequestParams::from_pem(pem).map_err(|error| match error {
        rcgen::Error::InvalidCertificationRequestSignature => {
            Error::Request { what: "its signature does not match its key" }
        }
        rcgen::Error::UnsupportedExtension => {
            Error::Request { what: "it asks for an extension we do not issue" }
        }
        _ => Error::Request { what: "it is not a PKCS #10 request in PEM" },
    })?;
    // An uncompressed point on P-256: 0x04, x, y.
    let point = csr.public_key.der_bytes();
    if PublicKeyData::algorithm(&csr.public_key) != &PKCS_ECDSA_P256_SHA256
        || point.len() != 65
        || point.first() != Some(&4)
    {
        return Err(Error::Request { what: "its key is not ECDSA P-256" });
    }
    let wanted = id.to_string();
    for name in &csr.params.subject_alt_names {
        let asked = match name {
            SanType::URI(uri) if uri.as_str() == wanted => continue,
            SanType::URI(uri) => uri.as_str().to_owned(),
            other => format!("{other:?}"),
        };
        return Err(Error::RequestIdentity { asked, allowed: Box::new(id.clone()) });
    }
    Ok(csr.public_key)
}
