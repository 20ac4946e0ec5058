//! Whom to believe.

use crate::{Error, VerifyError, certificate, provider};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;
use tombolo_model::{
    ClusterName, SpiffeId, SpiffePath, TrustDomain,
    snapshot::{CaFingerprint, TrustBundleSpec},
};
use webpki::{EndEntityCert, KeyUsage};

/// What a peer's certificate is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The peer dialled us.
    Client,
    /// We dialled the peer.
    Server,
}

/// A peer that was believed: who it is, and through which intermediate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its identity.
    pub id: SpiffeId,
    /// The intermediate that vouched for it: asked again when the bundle changes.
    pub intermediate: CaFingerprint,
}

struct RootAnchor {
    anchor: TrustAnchor<'static>,
    validity: crate::Validity,
}

/// The roots of an organization: where every path ends.
pub(crate) struct Roots(Vec<RootAnchor>);

impl Roots {
    /// Reads certificates, PEM.
    pub(crate) fn read(pem: &[String], of: &TrustDomain) -> Result<Self, Error> {
        let mut roots = Vec::new();
        for pem in pem {
            for der in certificate::all(pem)? {
                let anchor = webpki::anchor_from_trusted_cert(&der)
                    .map_err(|_| Error::Certificate { what: "a root of the bundle" })?
                    .to_owned();
                let validity = certificate::info(&der)?.validity;
                roots.push(RootAnchor { anchor, validity });
            }
        }
        if roots.is_empty() {
            return Err(Error::NoRoots { trust_domain: of.clone() });
        }
        Ok(Self(roots))
    }

    /// Whether leaf, intermediate and one of these are a path. Who the leaf is, is not asked.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediate: &CertificateDer<'_>,
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), VerifyError> {
        // webpki takes an anchor at its word; a root past its time must not vouch for anybody.
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let anchors: Vec<TrustAnchor<'_>> =
            self.0.iter().filter(|root| root.validity.contains(at)).map(|root| root.anchor.clone()).collect();
        if anchors.is_empty() {
            return Err(VerifyError::Expired);
        }
        let usage = match usage {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        // A path that leaves the intermediate out (a leaf signed by a root itself) would escape revocation.
        let whole = |path: &webpki::VerifiedPath<'_>| {
            let mut between = path.intermediate_certificates();
            match (between.next(), between.next()) {
                (Some(one), None) if one.der() == *intermediate => Ok(()),
                _ => Err(webpki::Error::UnknownIssuer),
            }
        };
        EndEntityCert::try_from(leaf)
            .map_err(|error| VerifyError::of_webpki(&error))?
            .verify_for_usage(
                provider().signature_verification_algorithms.all,
                &anchors,
                std::slice::from_ref(intermediate),
                now,
                usage,
                None,
                Some(&whole),
            )
            .map(|_| ())
            .map_err(|error| VerifyError::of_webpki(&error))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

/// A trust bundle, ready to judge: the roots of one organization, and the intermediates in good standing.
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Roots,
    clusters: BTreeMap<ClusterName, BTreeSet<CaFingerprint>>,
}

impl TrustBundle {
    /// Makes a bundle of what was received.
    ///
    /// # Errors
    /// [`Error::NoRoots`] where there is no root, [`Error::Certificate`] where one can't be read.
    pub fn from_spec(spec: &TrustBundleSpec) -> Result<Self, Error> {
        let roots = Roots::read(&spec.roots, &spec.trust_domain)?;
        Ok(Self { trust_domain: spec.trust_domain.clone(), roots, clusters: spec.clusters.clone() })
    }

    /// The authority of every identity it vouches for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Judges a chain as it came in a handshake: leaf first, then its intermediate, nothing else.
    ///
    /// Signatures run leaf → that intermediate → one of the roots, all within their times; each of the two carries one URI and no
    /// other name; the intermediate is `/cluster/C` of our trust domain and the leaf lies under the same `C`; and the bundle
    /// lists the intermediate's key for `C`.
    ///
    /// # Errors
    /// A [`VerifyError`]. [`VerifyError::Revoked`] comes last: only a chain that would hold otherwise is "revoked".
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<Peer, VerifyError> {
        let [leaf, intermediate] = chain else {
            return Err(VerifyError::ChainLength { certificates: chain.len() });
        };
        let peer = claimed(leaf, intermediate)?;
        if peer.id.trust_domain != self.trust_domain {
            return Err(VerifyError::TrustDomain {
                found: Box::new(peer.id),
                expected: self.trust_domain.clone(),
            });
        }
        self.roots.verify(leaf, intermediate, now, usage)?;
        if self.stands(&peer) { Ok(peer) } else { Err(VerifyError::Revoked) }
    }

    /// Its roots alone.
    pub(crate) const fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Whether a peer that was believed once is still in good standing: the bundle is of its trust domain and lists its intermediate for
    /// its cluster. To be asked for every open connection when the bundle changes.
    #[must_use]
    pub fn stands(&self, peer: &Peer) -> bool {
        peer.id.trust_domain == self.trust_domain
            && self.clusters.get(&peer.id.cluster).is_some_and(|listed| listed.contains(&peer.intermediate))
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.trust_domain)
            .field("roots", &self.roots)
            .field("clusters", &self.clusters)
            .finish()
    }
}

/// Who a chain of two says it is. Nothing is believed by this; names that don't fit each other are refused.
pub(crate) fn claimed(
    leaf: &CertificateDer<'_>,
    intermediate: &CertificateDer<'_>,
) -> Result<Peer, VerifyError> {
    let leaf = certificate::identity(&certificate::parse(leaf)?)?;
    let parsed = certificate::parse(intermediate)?;
    let issuer = certificate::identity(&parsed)?;
    if issuer.path != SpiffePath::Cluster {
        return Err(VerifyError::Role { found: Box::new(issuer) });
    }
    if leaf.path == SpiffePath::Cluster {
        return Err(VerifyError::Role { found: Box::new(leaf) });
    }
    if leaf.trust_domain != issuer.trust_domain {
        return Err(VerifyError::TrustDomain {
            found: Box::new(leaf),
            expected: issuer.trust_domain.clone(),
        });
    }
    if leaf.cluster != issuer.cluster {
        return Err(VerifyError::OtherCluster { leaf: Box::new(leaf), issuer: issuer.cluster.clone() });
    }
    Ok(Peer { id: leaf, intermediate: certificate::key_fingerprint(&parsed) })
}

/// The bundle of the moment. It starts empty, and every handshake fails until one is set.
#[derive(Clone)]
pub struct BundleStore(watch::Sender<Option<Arc<TrustBundle>>>);

impl BundleStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }
    /// From now on, handshakes are judged by this bundle.
    pub fn set(&self, bundle: TrustBundle) {
        self.0.send_replace(Some(Arc::new(bundle)));
    }
    /// The bundle of the moment.
    #[must_use]
    pub fn get(&self) -> Option<Arc<TrustBundle>> {
        self.0.borrow().clone()
    }
    /// Follows the bundle: wakes at every `set`.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<TrustBundle>>> {
        self.0.subscribe()
    }
}

impl Default for BundleStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BundleStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleStore({:?})", self.get())
    }
}
