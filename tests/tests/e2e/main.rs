//! Three clusters, the demo's two among them, with the true programs, and the traffic that a mesh must not harm: psql, half-close, big transfers, many idle connections,
//! resets; then the same with parts of it stopped. One world, the steps one after the other, each with its time.
#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

mod failover;
mod faults;
mod join;
mod traffic;

use std::time::Instant;
use tombolo_tests::loopback::{Shape, World};

macro_rules! steps {
    ($world:expr; $($step:path),* $(,)?) => {
        $(
            let start = Instant::now();
            $step($world).await;
            eprintln!("{}: {:.1} s", stringify!($step), start.elapsed().as_secs_f64());
        )*
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn across_clusters() {
    let start = Instant::now();
    let mut world = World::start(Shape::Single).await;
    eprintln!("world: {:.1} s", start.elapsed().as_secs_f64());
    steps! { &mut world;
        join::refuses_bad_tokens,
        traffic::server_first,
        traffic::psql_by_name,
        traffic::nc_half_close,
        traffic::reset_after_data,
        traffic::unknown_workload,
        traffic::a_gibibyte_down,
        traffic::sixty_four_mebibytes_up,
        traffic::a_thousand_idle,
        failover::the_nearer_cluster_dies_and_returns,
        faults::egress_restarted,
        faults::egress_drained,
        faults::agent_killed,
        faults::controller_stopped,
    }
}
