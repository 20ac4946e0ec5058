//! The server certificate: one of our own authority, renewed by ourselves, or the operator's, read again when its file changes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use thiserror::Error;
use tombolo_mtls::{LiveServerCertificate, ServerAuthority, Validity, certificate_info, format_pin};
use tombolo_runtime::telemetry;

/// How long a certificate of our own authority is good for. It is renewed at half of that.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Certificates begin a little earlier, for clients whose clock is behind.
const SKEW: Duration = Duration::from_secs(3600);

/// Why there is no server certificate.
#[derive(Debug, Error)]
pub(crate) enum CertificateError {
    /// A file of the operator's.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate or key is not usable.
    #[error("the server certificate is not usable")]
    Certificate {
        /// Why.
        #[from]
        source: tombolo_mtls::Error,
    },
}

#[derive(Debug)]
enum Source {
    /// Our own authority.
    Own { authority: ServerAuthority, names: Vec<String>, renew_at: Mutex<SystemTime> },
    /// Files of the operator's.
    Files { chain: PathBuf, key: PathBuf, seen: Mutex<Option<SystemTime>> },
}

/// The certificate in use. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    live: LiveServerCertificate,
    source: Arc<Source>,
}

impl Certificate {
    /// Signs one with our own authority.
    pub(crate) fn own(
        authority: ServerAuthority,
        names: Vec<String>,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let (chain, key, renew_at) = issue(&authority, &names, now)?;
        let live = LiveServerCertificate::new(&chain, &key)?;
        let source = Source::Own { authority, names, renew_at: Mutex::new(renew_at) };
        Ok(Self { live, source: Arc::new(source) })
    }

    /// Reads the operator's.
    pub(crate) fn files(chain: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let seen = Mutex::new(changed_at(&chain));
        let live = LiveServerCertificate::new(&read(&chain)?, &read(&key)?)?;
        Ok(Self { live, source: Arc::new(Source::Files { chain, key, seen }) })
    }

    /// For the TLS configuration.
    pub(crate) fn live(&self) -> LiveServerCertificate {
        self.live.clone()
    }

    /// What agents and the command line pin: `sha256:<hex>` of the last certificate of the chain.
    pub(crate) fn pin(&self) -> String {
        format_pin(&self.live.fingerprint())
    }

    /// Takes a new one into use where it is time, or where the file changed. What was in use stays if that fails.
    pub(crate) fn renew(&self, now: SystemTime) {
        let renewed = match &*self.source {
            Source::Own { authority, names, renew_at } => {
                let mut renew_at = renew_at.lock().unwrap_or_else(PoisonError::into_inner);
                if now < *renew_at {
                    return;
                }
                issue(authority, names, now).and_then(|(chain, key, next)| {
                    self.live.set(&chain, &key)?;
                    *renew_at = next;
                    Ok(())
                })
            }
            Source::Files { chain, key, seen } => {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = changed_at(chain);
                if changed == *seen {
                    return;
                }
                read(chain).and_then(|chain| {
                    self.live.set(&chain, &read(key)?)?;
                    *seen = changed;
                    Ok(())
                })
            }
        };
        match renewed {
            Ok(()) => tracing::info!("a new server certificate is in use"),
            Err(error) => tracing::warn!(
                error = telemetry::chain(&error),
                "the server certificate could not be renewed; the old one stays"
            ),
        }
    }
}

fn issue(
    authority: &ServerAuthority,
    names: &[String],
    now: SystemTime,
) -> Result<(String, tombolo_mtls::Secret, SystemTime), CertificateError> {
    let (chain, key) = authority.issue(names, Validity { not_before: now - SKEW, not_after: now + LIFE })?;
    let renew_at = certificate_info(&chain)?.validity.half_life();
    Ok((chain, key, renew_at))
}

fn read(path: &Path) -> Result<String, CertificateError> {
    fs::read_to_string(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_runtime::clock::{Clock as _, SystemClock};

    fn authority() -> ServerAuthority {
        let now = SystemClock.now();
        ServerAuthority::create(Validity { not_before: now - SKEW, not_after: now + LIFE * 4 }).unwrap()
    }

    fn write(path: &Path, text: &str, modified: SystemTime) {
        fs::write(path, text).unwrap();
        fs::File::options().append(true).open(path).unwrap().set_modified(modified).unwrap();
    }

    #[test]
    fn our_own_is_renewed_at_half_of_its_life() {
        let (now, names) = (SystemClock.now(), vec!["localhost".to_owned()]);
        let authority = authority();
        let pin = format_pin(&authority.fingerprint());
        let certificate = Certificate::own(authority, names, now).unwrap();
        let next = || match &*certificate.source {
            Source::Own { renew_at, .. } => *renew_at.lock().unwrap(),
            Source::Files { .. } => unreachable!("it is our own"),
        };
        let first = next();
        certificate.renew(now + LIFE / 3);
        assert_eq!(next(), first);
        certificate.renew(now + LIFE / 2);
        assert!(next() > first + LIFE / 3);
        assert_eq!(certificate.pin(), pin, "what is pinned stays");
    }

    #[test]
    fn the_operators_is_read_again_when_its_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        assert!(matches!(Certificate::files(chain.clone(), key.clone()), Err(CertificateError::Read { .. })));
        let (now, one, two) = (SystemClock.now(), authority(), authority());
        let put = |authority: &ServerAuthority, at: SystemTime| {
            let validity = Validity { not_before: now - SKEW, not_after: now + LIFE };
            let (text, secret) = authority.issue(&["localhost".to_owned()], validity).unwrap();
            write(&key, secret.as_str(), at);
            write(&chain, &text, at);
        };
        put(&one, now);
        let certificate = Certificate::files(chain.clone(), key.clone()).unwrap();
        assert_eq!(certificate.pin(), format_pin(&one.fingerprint()));
        // what cannot be used leaves the one before in use, and is tried again
        write(&chain, "no certificate", now + SKEW);
        certificate.renew(now);
        assert_eq!(certificate.pin(), format_pin(&one.fingerprint()));
        put(&two, now + SKEW);
        certificate.renew(now);
        assert_eq!(certificate.pin(), format_pin(&two.fingerprint()));
        // a key of another certificate
        write(&key, one.key_pem().as_str(), now);
        assert!(matches!(Certificate::files(chain, key), Err(CertificateError::Certificate { .. })));
    }
}
