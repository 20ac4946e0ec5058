//! Which acknowledgements are looked at again. That what is stored is mended by them, the tests beside the driver show.

use super::*;
use crate::metrics::Agents;
use tombolo_runtime::metrics::Metrics;
use tombolo_testkit::clock;

const G: fn(u64) -> Generation = Generation::new;

struct Bench {
    liveness: Arc<Liveness>,
    org: OrgId,
    cluster: ClusterId,
}

impl Bench {
    fn new() -> Self {
        let lag = Agents::new(&Metrics::new("test")).lag_seconds;
        Self {
            liveness: Liveness::new(Uuid::now_v7(), Arc::new(clock::manual()), lag),
            org: OrgId::new(Uuid::now_v7()),
            cluster: ClusterId::new(Uuid::now_v7()),
        }
    }

    fn published(&self, generation: u64) {
        self.liveness.published(self.org, self.cluster, G(generation), self.liveness.now());
    }

    /// An acknowledgement. Whether it is written, and whether it is a reason to look.
    fn applied(&self, generation: u64, refused: Option<&str>) -> (bool, bool) {
        self.liveness.applied(self.org, self.cluster, G(generation), refused.map(str::to_owned));
        let mut state = self.liveness.lock();
        let written = std::mem::take(&mut state.progress).values().any(|progress| progress.applied.is_some());
        (written, std::mem::take(&mut state.unlooked))
    }

    /// What the cluster said, where that may be more than is stored.
    fn ahead(&self) -> Option<u64> {
        let ahead = self.liveness.lock().ahead();
        assert!(ahead.len() < 2, "once for each cluster: {ahead:?}");
        ahead.first().map(|said| said.generation.get())
    }
}

#[test]
fn a_number_without_news_is_a_reason_to_look_and_not_to_write() {
    let bench = Bench::new();
    let hold = bench.liveness.open(bench.org, bench.cluster);
    let beside = bench.liveness.open(bench.org, bench.cluster);
    bench.published(5);
    assert_eq!(bench.applied(5, None), (true, false));
    assert_eq!(bench.ahead(), None, "all that it said is noted");
    assert_eq!(bench.applied(7, None), (false, true));
    assert_eq!(bench.ahead(), Some(7));
    assert_eq!(bench.applied(7, None), (false, false), "it says the same once more");
    assert_eq!(bench.ahead(), Some(7), "and another replica may write what it published later");
    // 7 is what that one published
    let said = Said { org: bench.org, cluster: bench.cluster, generation: G(7) };
    bench.liveness.noted(&[said]);
    assert_eq!(bench.ahead(), None);
    // what is news here is written as ever
    bench.published(8);
    assert_eq!(bench.applied(9, None), (true, false));
    assert_eq!(bench.ahead(), None);
    assert_eq!(bench.applied(10, None), (false, true));
    drop(hold);
    assert_eq!(bench.ahead(), Some(10), "it has another feed here");
    drop(beside);
    assert_eq!(bench.ahead(), None, "who feeds it looks");
}

#[test]
fn who_refuses_is_not_ahead() {
    let bench = Bench::new();
    let _hold = bench.liveness.open(bench.org, bench.cluster);
    bench.published(5);
    assert_eq!(bench.applied(5, None), (true, false));
    assert_eq!(bench.applied(8, None), (false, true));
    bench.published(9);
    // it started again on what it had kept, and does not take what is new
    assert_eq!(bench.applied(6, Some("no")), (true, false));
    assert_eq!(bench.ahead(), None);
    assert_eq!(bench.applied(9, None), (true, false));
    assert_eq!(bench.ahead(), None);
}

#[test]
fn what_could_not_be_written_is_looked_at_again() {
    let bench = Bench::new();
    let _hold = bench.liveness.open(bench.org, bench.cluster);
    assert!(!bench.liveness.lock().unlooked);
    bench.liveness.put_back(BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    assert!(bench.liveness.lock().unlooked);
}
