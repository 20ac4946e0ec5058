//! From settings to a client.

use super::{
    Access,
    patience::{Patience, SILENCE},
};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{path::PathBuf, time::Duration};
use thiserror::Error;
use tombolo_model::NamespaceName;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a cluster can't be watched.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Not in a pod.
    #[error(
        "the agent does not run in a pod; give --kubeconfig, or run it in one with its service account's token mounted"
    )]
    NotInCluster(#[source] kube::config::InClusterError),
    /// A bad kubeconfig.
    #[error("--kubeconfig {} can't be used", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// No client with these settings.
    #[error("the settings for the API server can't be used")]
    Client(#[source] kube::Error),
}

/// A client, and what its settings say.
pub(super) struct Connected {
    pub(super) client: Client,
    /// The server's URL, for people.
    pub(super) server: String,
    /// The namespace of the pod that this is.
    pub(super) namespace: Option<NamespaceName>,
}

pub(super) async fn connect(access: &Access) -> Result<Connected, ConnectError> {
    let (mut config, namespace) = match access {
        Access::InCluster => {
            let config = Config::incluster().map_err(ConnectError::NotInCluster)?;
            let namespace = NamespaceName::parse(&config.default_namespace).ok();
            (config, namespace)
        }
        Access::Kubeconfig { path, context } => {
            let wrong = |source| ConnectError::Kubeconfig { path: path.clone(), source };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            (Config::from_custom_kubeconfig(file, &options).await.map_err(wrong)?, None)
        }
    };
    bound(&mut config);
    let server = config.cluster_url.to_string();
    let builder = ClientBuilder::try_from(config).map_err(ConnectError::Client)?;
    let client = builder.with_layer(&Patience).build();
    Ok(Connected { client, server: server.trim_end_matches('/').to_owned(), namespace })
}

/// Nothing is waited for for ever.
fn bound(config: &mut Config) {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    // a connection that was kept has been silent for a while when it is asked something
    config.reset_reader_on_write = true;
}
