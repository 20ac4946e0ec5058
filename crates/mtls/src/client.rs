//! Configurations for whoever dials a peer by identity.

use crate::{BundleStore, Credentials, provider, verify};
use rustls::{ClientConfig, client::Resumption, version::TLS13};
use std::{collections::BTreeSet, sync::Arc};
use tombolo_model::{ClusterName, GatewayRole, SpiffeId};

/// Who may answer. The SPIFFE id decides, never a DNS name.
#[derive(Clone, Debug)]
pub enum Expect {
    /// A gateway.
    Gateway {
        /// Of this cluster; none: of any cluster in the bundle.
        cluster: Option<ClusterName>,
        /// In this role; for a sidecar, a node's proxy is as good.
        role: GatewayRole,
    },
    /// One of these identities.
    OneOf(Arc<BTreeSet<SpiffeId>>),
    /// Anybody whom the bundle vouches for.
    AnyInBundle,
}

impl Expect {
    /// Whether this peer, already believed, is expected.
    #[must_use]
    pub fn accepts(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Gateway { cluster, role } => {
                // A node's proxy stands before its pods as a sidecar does.
                let node = *role == GatewayRole::Sidecar && id.is_gateway(GatewayRole::Node);
                (id.is_gateway(*role) || node)
                    && cluster.as_ref().is_none_or(|cluster| *cluster == id.cluster)
            }
            Self::OneOf(ids) => ids.contains(id),
            Self::AnyInBundle => true,
        }
    }
}

/// A configuration to dial with: shows `credentials`, believes `bundles`, and takes only who is expected. Both are live, so one configuration
/// serves for the life of a process.
///
/// # Panics
/// Never: the provider is built in and knows TLS 1.3.
#[must_use]
pub fn client_config(
    bundles: &BundleStore,
    credentials: &Credentials,
    expect: Expect,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let verifier = verify::Server { bundles: bundles.clone(), credentials: credentials.clone(), expect };
    let mut config = builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(credentials.clone()));
    finish(&mut config, alpn);
    Arc::new(config)
}

pub(crate) fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the built-in provider has TLS 1.3 suites and key exchanges")
}

pub(crate) fn finish(config: &mut ClientConfig, alpn: &[&[u8]]) {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
}
