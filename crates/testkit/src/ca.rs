//! An organization's certificates: its roots, its clusters' intermediates, leaves of anybody; and forgeries that no issuer of ours would sign.

use crate::clock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tombolo_model::{
    AccountName, ClusterName, GatewayRole, NamespaceName, SpiffeId, TrustDomain,
    snapshot::{CaFingerprint, TrustBundleSpec},
};
use tombolo_mtls::{BundleStore, Credentials, Intermediate, PrivateKey, Root, TrustBundle, Validity};

const HOUR: Duration = Duration::from_secs(3_600);

/// From an hour ago to a day from now, by the machine's clock.
#[must_use]
pub fn valid() -> Validity {
    let now = clock::now();
    Validity { not_before: now - HOUR, not_after: now + 24 * HOUR }
}

/// Over since a minute.
#[must_use]
pub fn over() -> Validity {
    let now = clock::now();
    Validity { not_before: now - HOUR, not_after: now - HOUR / 60 }
}

/// An organization: roots, and the clusters that joined.
pub struct Organization {
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    roots: Vec<Root>,
    listed: BTreeMap<ClusterName, BTreeSet<CaFingerprint>>,
}

impl Organization {
    /// An organization with one root.
    ///
    /// # Panics
    /// When `trust_domain` is none.
    #[must_use]
    pub fn new(trust_domain: &str) -> Self {
        let trust_domain = TrustDomain::parse(trust_domain).expect("a trust domain");
        let mut organization = Self { trust_domain, roots: Vec::new(), listed: BTreeMap::new() };
        organization.add_root(valid());
        organization
    }

    /// Adds a root; it signs from now on.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn add_root(&mut self, validity: Validity) {
        self.roots.push(Root::create(&self.trust_domain, validity).expect("a root"));
    }

    /// Takes the oldest root out of the bundle.
    pub fn drop_oldest_root(&mut self) {
        self.roots.remove(0);
    }

    /// The root that signs.
    ///
    /// # Panics
    /// When all were dropped.
    #[must_use]
    pub fn root(&self) -> &Root {
        self.roots.last().expect("a root")
    }

    /// A cluster joins, or gets one more intermediate; the bundle lists it from now on.
    ///
    /// # Panics
    /// When `name` is no cluster's name.
    pub fn join(&mut self, name: &str) -> Cluster {
        let cluster = self.intermediate(name, valid());
        let listed = self.listed.entry(cluster.name.clone()).or_default();
        listed.insert(cluster.intermediate.fingerprint());
        cluster
    }

    /// An intermediate that the bundle does not list.
    ///
    /// # Panics
    /// When `name` is no cluster's name.
    #[must_use]
    pub fn intermediate(&self, name: &str, validity: Validity) -> Cluster {
        let name = ClusterName::parse(name).expect("a cluster's name");
        let id = SpiffeId::cluster(&self.trust_domain, &name);
        let key = PrivateKey::generate().expect("a key");
        let request = key.csr(&id).expect("a request");
        let signed = self.root().sign_intermediate(&request, &id, validity).expect("an intermediate");
        Cluster { name, intermediate: Intermediate::new(key, &signed).expect("an intermediate") }
    }

    /// Lists an intermediate that was made elsewhere, as of an agent that joined.
    pub fn list(&mut self, name: &ClusterName, fingerprint: CaFingerprint) {
        self.listed.entry(name.clone()).or_default().insert(fingerprint);
    }

    /// Takes a cluster out of the bundle.
    pub fn revoke(&mut self, name: &ClusterName) {
        self.listed.remove(name);
    }

    /// The bundle, as a snapshot carries it.
    #[must_use]
    pub fn bundle_spec(&self) -> TrustBundleSpec {
        TrustBundleSpec {
            trust_domain: self.trust_domain.clone(),
            roots: self.roots.iter().map(|root| root.cert_pem().to_owned()).collect(),
            clusters: self.listed.clone(),
        }
    }

    /// The bundle.
    ///
    /// # Panics
    /// When all roots were dropped.
    #[must_use]
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle::from_spec(&self.bundle_spec()).expect("a bundle")
    }

    /// A store with the bundle of this moment in it.
    #[must_use]
    pub fn store(&self) -> BundleStore {
        let store = BundleStore::new();
        store.set(self.bundle());
        store
    }
}

/// A cluster that joined, with its intermediate.
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// Its CA.
    pub intermediate: Intermediate,
}

impl Cluster {
    /// The identity of one of its workloads.
    ///
    /// # Panics
    /// When these are no names.
    #[must_use]
    pub fn workload(&self, namespace: &str, account: &str) -> SpiffeId {
        let namespace = NamespaceName::parse(namespace).expect("a namespace");
        let account = AccountName::parse(account).expect("a service account");
        SpiffeId::workload(&self.intermediate.id().trust_domain, &self.name, &namespace, &account)
    }

    /// The identity of one of its gateways.
    #[must_use]
    pub fn gateway(&self, role: GatewayRole) -> SpiffeId {
        SpiffeId::gateway(&self.intermediate.id().trust_domain, &self.name, role)
    }

    /// The identity of its agent.
    #[must_use]
    pub fn agent(&self) -> SpiffeId {
        SpiffeId::agent(&self.intermediate.id().trust_domain, &self.name)
    }

    /// A leaf: chain (PEM) and key.
    ///
    /// # Panics
    /// When the identity is not of this cluster.
    #[must_use]
    pub fn leaf(&self, id: &SpiffeId, validity: Validity) -> (String, PrivateKey) {
        let key = PrivateKey::generate().expect("a key");
        let request = key.csr(id).expect("a request");
        (self.intermediate.sign_leaf(&request, id, validity).expect("a leaf"), key)
    }

    /// Credentials, ready to use.
    ///
    /// # Panics
    /// When the identity is not of this cluster.
    #[must_use]
    pub fn credentials(&self, id: &SpiffeId) -> Credentials {
        let credentials = Credentials::new(id.clone());
        let (chain, key) = self.leaf(id, valid());
        credentials.set(&chain, key).expect("credentials");
        credentials
    }

    /// Its certificate and key as an issuer of forgeries.
    #[must_use]
    pub fn forger(&self) -> Forger {
        Forger {
            cert_pem: self.intermediate.cert_pem().to_owned(),
            key_pem: self.intermediate.key_pem().to_string(),
        }
    }
}

/// A certificate to be forged. It starts as a good leaf without a name.
#[derive(Clone, Debug)]
pub struct Forgery {
    /// Its URI names.
    pub uris: Vec<String>,
    /// Its DNS names.
    pub dns: Vec<String>,
    /// Whether it is a CA.
    pub ca: bool,
    /// What it may be used for.
    pub uses: Vec<ExtendedKeyUsagePurpose>,
    /// When it is valid.
    pub validity: Validity,
}

impl Forgery {
    /// A leaf that would be good if the right one signed it.
    #[must_use]
    pub fn leaf(id: &SpiffeId) -> Self {
        Self {
            uris: vec![id.to_string()],
            dns: Vec::new(),
            ca: false,
            uses: vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
            validity: valid(),
        }
    }
}

/// Someone who holds a CA's key and signs anything.
pub struct Forger {
    cert_pem: String,
    key_pem: String,
}

impl Forger {
    /// From a CA certificate and its key, PEM.
    #[must_use]
    pub fn new(cert_pem: &str, key_pem: &str) -> Self {
        Self { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() }
    }

    /// A root as a forger.
    #[must_use]
    pub fn root(root: &Root) -> Self {
        Self::new(root.cert_pem(), &root.key_pem())
    }

    /// The issuer's certificate, PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Signs whatever is asked for: the certificate alone, and its key, PEM.
    ///
    /// # Panics
    /// When rcgen refuses.
    #[must_use]
    pub fn sign(&self, forgery: &Forgery) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let issuer_key = KeyPair::from_pem(&self.key_pem).expect("the issuer's key");
        let issuer = Issuer::from_ca_cert_pem(&self.cert_pem, issuer_key).expect("the issuer");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "forged");
        let uri = |uri: &String| SanType::URI(uri.as_str().try_into().expect("ASCII"));
        let dns = |name: &String| SanType::DnsName(name.as_str().try_into().expect("ASCII"));
        params.subject_alt_names = forgery.uris.iter().map(uri).chain(forgery.dns.iter().map(dns)).collect();
        params.not_before = forgery.validity.not_before.into();
        params.not_after = forgery.validity.not_after.into();
        if forgery.ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        } else {
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages.clone_from(&forgery.uses);
        }
        let signed = params.signed_by(&key, &issuer).expect("a certificate");
        (signed.pem(), key.serialize_pem())
    }
}
