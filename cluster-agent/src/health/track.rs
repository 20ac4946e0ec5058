//! What is known of one endpoint, from the results of its checks. No clock, no I/O.

/// How many results in a row turn the state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thresholds {
    pub(super) rise: u32,
    pub(super) fall: u32,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub(super) struct Track {
    /// Tells this track from an earlier one of the same endpoint.
    pub(super) serial: u64,
    /// Its state; none before the first result.
    pub(super) passing: Option<bool>,
    /// Results in a row that speak against the state.
    against: u32,
}

impl Track {
    pub(super) const fn new(serial: u64) -> Self {
        Self { serial, passing: None, against: 0 }
    }

    /// Takes a result; whether the state is another now. The first result decides alone.
    pub(super) fn observe(&mut self, good: bool, thresholds: Thresholds) -> bool {
        let needed = if good { thresholds.rise } else { thresholds.fall };
        match self.passing {
            Some(state) if state == good => {
                self.against = 0;
                false
            }
            Some(_) if self.against + 1 < needed => {
                self.against += 1;
                false
            }
            _ => {
                self.passing = Some(good);
                self.against = 0;
                true
            }
        }
    }

    /// Whether the last result spoke against the state.
    pub(super) const fn in_doubt(&self) -> bool {
        self.against > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let mut track = Track::new(1);
        let of = Thresholds { rise: 3, fall: 2 };
        let seen: Vec<(bool, bool, bool)> =
            [true, false, true, false, false, true, true, false, true, true, true]
                .into_iter()
                .map(|good| {
                    let changed = track.observe(good, of);
                    (changed, track.passing == Some(true), track.in_doubt())
                })
                .collect();
        let expected = [
            (true, true, false),  // the first decides
            (false, true, true),  // one bad
            (false, true, false), // good again
            (false, true, true),
            (true, false, false), // two bad in a row
            (false, false, true),
            (false, false, true),
            (false, false, false), // bad again: begin anew
            (false, false, true),
            (false, false, true),
            (true, true, false),
        ];
        assert_eq!(seen, expected);
    }
}
