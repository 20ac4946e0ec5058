//! The parts of a run: each has so much time, and what one of them does not come to is not waited for by the others.

use std::time::{Duration, Instant};

/// Does a part; none where it takes longer than it may. Either way is said at once.
pub(crate) async fn within<T>(what: &str, limit: Duration, part: impl Future<Output = T>) -> Option<T> {
    let began = Instant::now();
    let done = tokio::time::timeout(limit, part).await.ok();
    match done {
        Some(_) => println!("{what}: done in {:.1} s", began.elapsed().as_secs_f64()),
        None => println!("{what}: not done in {} s; given up", limit.as_secs()),
    }
    done
}
