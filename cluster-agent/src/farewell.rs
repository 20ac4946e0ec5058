//! After everything is ordered out: no new calls come, and those that are under way end by themselves, as long as the ingress
//! gateways that carry them are there. Pure.

use std::time::Duration;
use tokio::time::Instant;

/// How long that may take at most: longer than a gateway's pod has to end, once it is told.
const MOST: Duration = Duration::from_secs(120);

/// Since when everything is ordered out.
#[derive(Debug, Default)]
pub(crate) struct Farewell(Option<Instant>);

impl Farewell {
    /// Until when calls may end at most; none where there are none any more, or nothing is ordered out. `serving` are the
    /// ingress gateways that may carry some.
    pub(crate) fn until(&mut self, is_removed: bool, serving: usize, now: Instant) -> Option<Instant> {
        if !is_removed {
            self.0 = None;
            return None;
        }
        let end = *self.0.get_or_insert(now) + MOST;
        (serving > 0 && now < end).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_end_while_gateways_are_there() {
        let (mut farewell, began) = (Farewell::default(), Instant::now());
        let after = |seconds: u64| began + Duration::from_secs(seconds);
        assert_eq!(farewell.until(false, 2, began), None);
        assert_eq!(farewell.until(true, 2, after(10)), Some(after(130)));
        assert_eq!(farewell.until(true, 1, after(60)), Some(after(130)), "it does not begin anew");
        assert_eq!(farewell.until(true, 0, after(61)), None, "the last one is gone");
        assert_eq!(farewell.until(true, 1, after(130)), None, "one that never goes holds nothing up");
        assert_eq!(farewell.until(false, 1, after(131)), None);
        assert_eq!(farewell.until(true, 1, after(500)), Some(after(620)), "another day's order");
    }
}
