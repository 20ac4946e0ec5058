//! What the agent keeps on disk: who it is (`state.json`), the cluster's intermediate (`intermediate.pem`, key and
//! certificate in one file so that they can't disagree), and the caches. Private to its user; every file is written
//! beside the old one and renamed over it.

use crate::private;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use thiserror::Error;
use tombolo_model::{ClusterName, OrgName, SpiffeId, TrustDomain};
use tombolo_mtls::{Intermediate, PrivateKey};

/// Where this agent belongs: the outcome of joining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The controller's URL, `https://host[:port]`.
    pub controller: String,
    /// The fingerprint that the controller's CA must have, `sha256:<hex>`.
    pub ca_fingerprint: String,
    /// The organization.
    pub organization: OrgName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// This cluster.
    pub cluster: ClusterName,
}

impl Membership {
    /// The identity in the cluster's intermediate.
    #[must_use]
    pub fn cluster_id(&self) -> SpiffeId {
        SpiffeId::cluster(&self.trust_domain, &self.cluster)
    }
    /// The agent's identity.
    #[must_use]
    pub fn agent_id(&self) -> SpiffeId {
        SpiffeId::agent(&self.trust_domain, &self.cluster)
    }
}

/// Why the kept state can't be read or written.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file system says no.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Nothing there.
    #[error("{} holds no membership; run `tombolo-agent join` with this --data first", path.display())]
    NotJoined {
        /// The data directory.
        path: PathBuf,
    },
    /// A file that is not as this program writes it.
    #[error("{} is damaged; run `tombolo-agent join` again with a new token", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Key or certificate can't be used.
    #[error("{} can't be used; run `tombolo-agent join` again with a new token", path.display())]
    Intermediate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: tombolo_mtls::Error,
    },
    /// The intermediate is not this cluster's.
    #[error(
        "{} is the intermediate of {found}, not of {expected}; run `tombolo-agent join` again with a new token",
        path.display()
    )]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// Another agent runs on it.
    #[error("{} is in use by another agent; give each agent a --data of its own", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
}

/// The agent's directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// Held while an agent runs on its directory.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lives as long as its file is open")] File);

impl DataDir {
    /// The directory at `path`, made where there is none (readable by its owner only).
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn create(path: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Io { action: "make", path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        Ok(Self(path.to_owned()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The file of this name in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes it for one running agent; the system lets go of it when the process ends, however it ends.
    ///
    /// # Errors
    /// [`StateError::InUse`], [`StateError::Io`].
    pub fn lock(&self) -> Result<Lock, StateError> {
        let path = self.file("lock");
        let io = |source| StateError::Io { action: "lock", path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::InUse { path: self.0.clone() }),
            Err(fs::TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// Who this agent is; none before it joined.
    ///
    /// # Errors
    /// [`StateError::Json`], [`StateError::Io`].
    pub fn membership(&self) -> Result<Option<Membership>, StateError> {
        self.read_json("state.json")
    }

    /// Who this agent is, and its intermediate.
    ///
    /// # Errors
    /// [`StateError`]; each says what to do.
    pub fn joined(&self) -> Result<(Membership, Intermediate), StateError> {
        let membership = self.membership()?.ok_or_else(|| StateError::NotJoined { path: self.0.clone() })?;
        let intermediate = self
            .intermediate("intermediate.pem", &membership)?
            .ok_or_else(|| StateError::NotJoined { path: self.0.clone() })?;
        Ok((membership, intermediate))
    }

    /// The intermediate in this file, which must be the cluster's; none where there is no file.
    ///
    /// # Errors
    /// As [`Self::joined`].
    pub fn intermediate(&self, name: &str, of: &Membership) -> Result<Option<Intermediate>, StateError> {
        let path = self.file(name);
        let io = |source| StateError::Io { action: "read", path: path.clone(), source };
        let Some(pem) = private::read_secret(&path).map_err(io)? else { return Ok(None) };
        let pem = String::from_utf8_lossy(&pem).into_owned();
        let wrong = |source| StateError::Intermediate { path: path.clone(), source };
        let key = PrivateKey::from_pem(&pem).map_err(wrong)?;
        let certificate = pem.find("-----BEGIN CERTIFICATE").map_or("", |at| &pem[at..]);
        let intermediate = Intermediate::new(key, certificate).map_err(wrong)?;
        let expected = of.cluster_id();
        if *intermediate.id() != expected {
            let (found, expected) = (intermediate.id().to_string(), expected.to_string());
            return Err(StateError::OtherCluster { path, found, expected });
        }
        Ok(Some(intermediate))
    }

    /// Keeps an intermediate in this file.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn store_intermediate(&self, name: &str, intermediate: &Intermediate) -> Result<(), StateError> {
        let pem = format!("{}{}", *intermediate.key_pem(), intermediate.cert_pem());
        self.write(name, pem.as_bytes())
    }

    /// Keeps the outcome of joining. The intermediate comes first: without `state.json` nothing is joined.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn store_joined(
        &self,
        membership: &Membership,
        intermediate: &Intermediate,
    ) -> Result<(), StateError> {
        self.store_intermediate("intermediate.pem", intermediate)?;
        self.remove("intermediate-next.pem")?;
        self.write_json("state.json", membership)
    }

    /// Reads a file of JSON; none where there is none.
    ///
    /// # Errors
    /// [`StateError::Json`], [`StateError::Io`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.file(name);
        let Some(text) = read(&path)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|source| StateError::Json { path, source })
    }

    /// Writes a file of JSON.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        self.write_with(name, |out| Ok(serde_json::to_writer_pretty(out, value)?))
    }

    /// Writes a file of JSON, where another value is in it: with a full disk an agent starts on what it wrote before.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn keep_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(value)
            .map_err(|source| StateError::Json { path: self.file(name), source })?;
        let same = fs::read(self.file(name)).is_ok_and(|kept| kept == text);
        if same { Ok(()) } else { self.write(name, &text) }
    }

    /// Takes a file away; it may be gone already.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Writes a file, for this user alone.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        self.write_with(name, |out| out.write_all(content))
    }

    fn write_with(
        &self,
        name: &str,
        content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), StateError> {
        let path = self.file(name);
        let beside = self.file(&format!("{name}.{}.new", std::process::id()));
        let write = || -> io::Result<()> {
            private::replace_with(&path, &beside, true, content)?;
            // The new name must reach the disk too.
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|source| StateError::Io { action: "write", path: path.clone(), source })
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { action: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn membership() -> Membership {
        Membership {
            controller: "https://127.0.0.1:7443".to_owned(),
            ca_fingerprint: format!("sha256:{}", "ab".repeat(32)),
            organization: "acme".parse().unwrap(),
            trust_domain: "acme.internal".parse().unwrap(),
            cluster: "c1".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_there_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        data.keep_json("a.json", &1).unwrap();
        // nothing can be written any more: not even root puts a file where a folder stands
        fs::create_dir(data.file(&format!("a.json.{}.new", std::process::id()))).unwrap();
        data.keep_json("a.json", &1).unwrap();
        assert!(data.keep_json("a.json", &2).is_err());
        assert_eq!(data.read_json::<u8>("a.json").unwrap(), Some(1));
    }

    #[test]
    fn before_joining() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(&dir.path().join("agent")).unwrap();
        let error = data.joined().unwrap_err().to_string();
        assert!(error.contains("run `tombolo-agent join`"), "{error}");
        data.write_json("state.json", &membership()).unwrap();
        assert!(matches!(data.joined(), Err(StateError::NotJoined { .. })), "no intermediate yet");
        data.write("intermediate.pem", b"what").unwrap();
        assert!(matches!(data.joined(), Err(StateError::Intermediate { .. })));
        fs::write(data.file("state.json"), "{").unwrap();
        assert!(matches!(data.joined(), Err(StateError::Json { .. })));
    }

    #[test]
    fn private_and_one_agent_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let data = DataDir::create(&path).unwrap();
        data.write_json("state.json", &membership()).unwrap();
        assert_eq!(data.membership().unwrap(), Some(membership()));
        // as an older agent wrote it
        let mut older = serde_json::to_value(membership()).unwrap();
        older["locality"] = serde_json::json!({ "region": "eu-1" });
        data.write_json("state.json", &older).unwrap();
        assert_eq!(data.membership().unwrap(), Some(membership()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&data.file("state.json"))), (0o700, 0o600));
        let lock = data.lock().unwrap();
        assert!(matches!(DataDir::create(&path).unwrap().lock(), Err(StateError::InUse { .. })));
        drop(lock);
        data.lock().unwrap();
        data.write("intermediate.pem", b"what").unwrap();
        fs::set_permissions(data.file("intermediate.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        let Err(StateError::Io { source, .. }) = data.intermediate("intermediate.pem", &membership()) else {
            panic!("a key that others may read is used")
        };
        assert!(source.to_string().contains("chmod 600"), "{source}");
    }
}
