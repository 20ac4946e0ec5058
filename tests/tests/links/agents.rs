//! Between gateways and their agent: a unix socket, so it is the wire that holds what is sent.

use crate::{
    Load, WHOLE_AGAIN, World,
    cut::{Lost, cuts},
    look::{followed, news, told},
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tombolo_testkit::wait::until;
use tombolo_tests::loopback::{Flow, SOON};

const WIRES: [&str; 2] = ["agent-1", "agent-2"];
const GATEWAYS: [&str; 4] =
    ["cluster-1-egress", "cluster-1-egress-b", "cluster-2-ingress", "cluster-2-ingress-b"];

/// Whether an agent knows that a gateway has not taken all that it was told.
fn waits(agent: &Value) -> bool {
    let mut gateways = agent.as_array().into_iter().flatten();
    let behind = |gateway: &Value| {
        gateway["connected"] == false || gateway["acknowledged"].as_u64() < gateway["generation"].as_u64()
    };
    gateways.any(behind)
}

pub(crate) async fn gateways_are_cut_off_from_their_agents(world: &mut World, load: &Load) {
    for (turn, (lost, time)) in cuts().into_iter().enumerate() {
        load.whole().await;
        let begin = Instant::now();
        let flow = |held| if held { Flow::Held } else { Flow::Open };
        for wire in WIRES {
            world.wire(wire).set(flow(lost != Lost::Received), flow(lost != Lost::Sent));
        }
        let name = news(world, &format!("agents-{turn}")).await;
        followed(world, &[1, 2], &name, begin).await;
        let dump = || world.api.page(page(world, "cluster-1-agent"));
        until("the agent shows who is behind", SOON, dump, waits).await;
        if lost == Lost::Both && time >= Duration::from_secs(10) {
            let own = || async { world.state("cluster-1-egress").await["feed"]["connected"].clone() };
            until("the gateway shows it, too", SOON, own, |connected| connected == false).await;
        }
        sleep_until(begin + time).await;
        let healed = Instant::now();
        for wire in WIRES {
            world.wire(wire).set(Flow::Open, Flow::Open);
        }
        let took = told(world, &GATEWAYS, &name, healed).await;
        eprintln!("  {lost:?}, {time:?}: all gateways know {took:?} after");
        assert!(took < WHOLE_AGAIN, "{lost:?}, {time:?}: {took:?}");
        load.since(begin, begin).await.nothing_noticed(world);
    }
}

fn page(world: &World, agent: &str) -> String {
    format!("http://{}/dump/gateways", world.program(agent).address("admin"))
}
