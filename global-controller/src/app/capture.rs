//! Capture modes, as the API has them.

use serde::{Deserialize, Serialize};
use tombolo_model::intent as model;
use utoipa::ToSchema;

/// How pods reach global names: `gateway` through Services of the egress gateways, `sidecar` by a proxy in each pod, `node` by a
/// proxy on each node, `none` not by our doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CaptureMode {
    #[default]
    Gateway,
    Sidecar,
    Node,
    None,
}

impl From<model::CaptureMode> for CaptureMode {
    fn from(mode: model::CaptureMode) -> Self {
        match mode {
            model::CaptureMode::Gateway => Self::Gateway,
            model::CaptureMode::Sidecar => Self::Sidecar,
            model::CaptureMode::Node => Self::Node,
            model::CaptureMode::None => Self::None,
        }
    }
}

impl From<CaptureMode> for model::CaptureMode {
    fn from(mode: CaptureMode) -> Self {
        match mode {
            CaptureMode::Gateway => Self::Gateway,
            CaptureMode::Sidecar => Self::Sidecar,
            CaptureMode::Node => Self::Node,
            CaptureMode::None => Self::None,
        }
    }
}
