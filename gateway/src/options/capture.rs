//! How connections come in.

use clap::ValueEnum;
use tombolo_gateway::config::{Bring, Capture};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CaptureMode {
    /// The proxy binds the names' addresses itself; the kernel says who calls.
    Explicit,
    /// nftables redirects to it (see the command `redirect`).
    Sidecar,
    /// For all pods of a node.
    Node,
    /// They do not.
    None,
}

/// How connections of a node's pods come to its proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum NodeCapture {
    /// By an nftables redirect before kube-proxy's; needs CAP_NET_ADMIN and the program nft.
    Redirect,
    /// By a local route and a BPF program, where kube-proxy does not hold the virtual addresses; needs CAP_NET_ADMIN and CAP_BPF.
    Lookup,
    /// By a local route and a BPF program where the node allows it, beside kube-proxy; else by the redirect. Needs what both need.
    Auto,
}

impl CaptureMode {
    /// As the configuration has it.
    pub(super) fn with(self, node: NodeCapture) -> Capture {
        match self {
            Self::Explicit => Capture::Explicit,
            Self::Sidecar => Capture::Sidecar,
            Self::Node => Capture::Node(match node {
                NodeCapture::Redirect => Bring::Redirect,
                NodeCapture::Lookup => Bring::Lookup,
                NodeCapture::Auto => Bring::Auto,
            }),
            Self::None => Capture::None,
        }
    }
}

/// As it stands on the command line.
pub(super) fn name(mode: CaptureMode) -> String {
    mode.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
