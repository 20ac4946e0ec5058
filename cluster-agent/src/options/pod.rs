//! What makes an agent one of several.

use clap::Args;
use std::path::PathBuf;
use tombolo_agent::pod;
use tombolo_model::{AccountName, ClusterName, Locality};

/// In a pod: one of several replicas, which join by themselves.
#[derive(Args)]
pub(crate) struct Pod {
    /// The Secret tombolo-state as it is mounted: what joining gave. It is read at the start and followed; the replica that
    /// holds the Lease writes it.
    #[arg(long, requires_all = ["kubernetes", "replica"])]
    pub(crate) state_dir: Option<PathBuf>,
    /// The name of this replica's pod.
    #[arg(long, env = "POD_NAME")]
    pub(crate) replica: Option<AccountName>,
    /// The token of this pod's service account, with the audience tombolo-agent: with it, it asks the other replicas.
    #[arg(long, requires = "state_dir", value_name = "FILE")]
    pub(crate) replica_token_file: Option<PathBuf>,
    /// Where the one-time token is, or will be: the cluster joins with it where there is no state, and again where there is a
    /// new one.
    #[arg(long, requires_all = ["state_dir", "controller", "ca_fingerprint", "cluster"], value_name = "FILE")]
    pub(crate) join_token_file: Option<PathBuf>,
    /// The controller, as https://host:port.
    #[arg(long, requires = "join_token_file")]
    pub(crate) controller: Option<String>,
    /// The fingerprint of the controller's CA, as sha256:HEX.
    #[arg(long, requires = "join_token_file")]
    pub(crate) ca_fingerprint: Option<String>,
    /// The name of this cluster, as the controller knows it.
    #[arg(long, requires = "join_token_file")]
    pub(crate) cluster: Option<ClusterName>,
    /// The region that this cluster runs in.
    #[arg(long, requires = "join_token_file")]
    pub(crate) region: Option<String>,
    /// The zone in the region.
    #[arg(long, requires = "region")]
    pub(crate) zone: Option<String>,
}

impl Pod {
    /// Nothing outside of a pod.
    pub(crate) fn config(self) -> Option<(pod::Config, AccountName, Option<PathBuf>)> {
        let (state_dir, name) = self.state_dir.zip(self.replica)?;
        let locality = Locality { region: self.region, zone: self.zone };
        let to = self.join_token_file.zip(self.controller).zip(self.ca_fingerprint).zip(self.cluster);
        let join = to.map(|(((token_file, controller), ca_fingerprint), cluster)| pod::Join {
            token_file,
            controller,
            ca_fingerprint,
            cluster,
            locality,
        });
        Some((pod::Config { state_dir, join }, name, self.replica_token_file))
    }
}
