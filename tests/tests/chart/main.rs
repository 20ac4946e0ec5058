//! The Helm charts, with the real helm. `make test-chart` runs it: helm is built of Go modules.

mod agent;
mod controller;
mod helm;
mod objects;
mod values;

use agent::AGENT;
use controller::CONTROLLER;
use helm::Chart;

/// All of them.
const CHARTS: [&Chart; 2] = [&AGENT, &CONTROLLER];
