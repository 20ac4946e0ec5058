//! The state of one address of a peer, as its probes tell. Pure: events and instants come in.

use std::time::Duration;
use tokio::time::Instant;
use tombolo_model::health::Health;
use tombolo_wire::message::PeerState;

/// What a prober learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake completed: the right peer answers there.
    Connected,
    /// A probe came back after this time.
    Answered(Duration),
    /// It does not answer, or somebody else does.
    Failed(Failure),
}

/// Why an address is not in rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For people of this cluster.
    pub cause: String,
    /// Whether it says no more than a cluster may be told that named the address: nothing of who is there who is no gateway of ours.
    pub tellable: bool,
}

/// What else is told of an address: nothing that tells a closed port from an open one, or from no machine at all. A cluster names
/// addresses, and the gateways of others dial them, from inside of their networks.
pub const NOBODY: &str =
    "no gateway of this cluster is reached there; the log and the dump of the gateway that dials say more";

impl Failure {
    /// Whoever named the address may know.
    #[must_use]
    pub fn tellable(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), tellable: true }
    }

    /// Only people of this cluster may know.
    #[must_use]
    pub fn hidden(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), tellable: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Unknown,
    Healthy,
    SlowStart { since: Instant },
    Dead,
}

/// The state of one address.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressState {
    phase: Phase,
    handshake: bool,
    rtt: Option<Duration>,
    failure: Option<Failure>,
    /// When it went out of rotation last.
    lost_at: Option<Instant>,
}

impl Default for AddressState {
    fn default() -> Self {
        Self { phase: Phase::Unknown, handshake: false, rtt: None, failure: None, lost_at: None }
    }
}

/// The part of its weight that an address takes in the first moment of its return.
const FIRST_SHARE: f64 = 0.1;

impl AddressState {
    /// Takes an event in. Says whether the address went into or out of rotation by it, or its first probe is over.
    pub fn on(&mut self, event: Event, now: Instant) -> bool {
        let before = self.phase;
        match event {
            Event::Connected | Event::Answered(_) => {
                let first = !std::mem::replace(&mut self.handshake, true);
                self.failure = None;
                if let Event::Answered(rtt) = event {
                    self.rtt = Some(rtt);
                }
                match self.phase {
                    // The first time there is nobody to be spared: everything is new.
                    Phase::Unknown => self.phase = Phase::Healthy,
                    Phase::Dead if first => self.phase = Phase::Healthy,
                    Phase::Dead => self.phase = Phase::SlowStart { since: now },
                    Phase::Healthy | Phase::SlowStart { .. } => {}
                }
            }
            Event::Failed(failure) => {
                if self.alive() {
                    self.lost_at = Some(now);
                }
                self.phase = Phase::Dead;
                self.rtt = None;
                self.failure = Some(failure);
            }
        }
        let alive = |phase| matches!(phase, Phase::Healthy | Phase::SlowStart { .. });
        before == Phase::Unknown || alive(before) != alive(self.phase)
    }

    /// Whether it is in rotation: never before the first handshake.
    #[must_use]
    pub fn alive(&self) -> bool {
        matches!(self.phase, Phase::Healthy | Phase::SlowStart { .. })
    }

    /// Whether nothing is known yet: its first probe is under way.
    #[must_use]
    pub fn unknown(&self) -> bool {
        self.phase == Phase::Unknown
    }

    /// Whether it answered once and does not now. Where all others fail it may be tried: a probe may be wrong.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.phase == Phase::Dead && self.handshake
    }

    /// Whether it went out of rotation within this time.
    #[must_use]
    pub fn lost_within(&self, time: Duration, now: Instant) -> bool {
        self.lost() && self.lost_at.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    /// The part of its weight that it takes: 0.0 when dead or never reached, growing over `slow_start` after
    /// its return.
    #[must_use]
    pub fn share(&self, now: Instant, slow_start: Duration) -> f64 {
        match self.phase {
            Phase::Unknown | Phase::Dead => 0.0,
            Phase::Healthy => 1.0,
            Phase::SlowStart { since } => {
                let gone = now.saturating_duration_since(since).as_secs_f64();
                let part = gone / slow_start.as_secs_f64().max(f64::EPSILON);
                FIRST_SHARE + (1.0 - FIRST_SHARE) * part.min(1.0)
            }
        }
    }

    /// The state for people of this cluster.
    #[must_use]
    pub fn report(&self, now: Instant, slow_start: Duration) -> PeerState {
        let health = match self.phase {
            Phase::Unknown => Health::Unknown,
            Phase::Dead => Health::Dead,
            Phase::SlowStart { .. } if self.share(now, slow_start) < 1.0 => Health::SlowStart,
            Phase::Healthy | Phase::SlowStart { .. } => Health::Healthy,
        };
        let rtt_us = self.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
        let error = self.failure.as_ref().map(|failure| failure.cause.clone());
        PeerState { health, handshake: self.handshake, rtt_us, error }
    }

    /// The state for everybody else.
    #[must_use]
    pub fn told(&self, now: Instant, slow_start: Duration) -> PeerState {
        let hidden = self.failure.as_ref().is_some_and(|failure| !failure.tellable);
        let state = self.report(now, slow_start);
        if hidden { PeerState { error: Some(NOBODY.to_owned()), ..state } } else { state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn dies_and_comes_back_slowly() {
        let mut state = AddressState::default();
        let now = Instant::now();
        assert!(!state.alive() && state.unknown() && !state.lost(), "one never reached is not used");
        assert_eq!(state.share(now, SLOW), 0.0);
        assert!(state.on(Event::Connected, now) && state.alive());
        assert_eq!(state.share(now, SLOW), 1.0, "no slow start the first time");
        state.on(Event::Answered(Duration::from_millis(3)), now);
        assert_eq!(state.report(now, SLOW).rtt_us, Some(3000));

        assert!(state.on(Event::Failed(Failure::tellable("no answer")), now));
        assert_eq!((state.alive(), state.lost(), state.share(now, SLOW)), (false, true, 0.0));
        state.on(Event::Failed(Failure::tellable("still none")), now + SLOW);
        assert!(state.lost_within(SLOW, now + SLOW / 2), "a moment ago");
        assert!(!state.lost_within(SLOW, now + SLOW), "that it is still dead is no new loss");
        state.on(Event::Failed(Failure::tellable("no answer")), now);
        let report = state.report(now, SLOW);
        assert_eq!((report.health, report.handshake), (Health::Dead, true));
        assert_eq!(report.error.as_deref(), Some("no answer"));

        assert!(state.on(Event::Connected, now));
        let at = |seconds| state.share(now + Duration::from_secs(seconds), SLOW);
        assert!(at(0) < 0.11 && at(5) > 0.5 && at(5) < 0.6 && at(10) == 1.0 && at(60) == 1.0);
        assert_eq!(state.report(now + Duration::from_secs(9), SLOW).health, Health::SlowStart);
        assert_eq!(state.report(now + SLOW, SLOW).health, Health::Healthy);
    }

    #[tokio::test(start_paused = true)]
    async fn one_never_reached_can_die() {
        let mut state = AddressState::default();
        assert!(state.on(Event::Failed(Failure::hidden("connection refused")), Instant::now()));
        assert!(!state.report(Instant::now(), SLOW).handshake);
        let error = |state: PeerState| state.error.unwrap_or_default();
        assert_eq!(error(state.report(Instant::now(), SLOW)), "connection refused");
        assert_eq!(
            error(state.told(Instant::now(), SLOW)),
            NOBODY,
            "it would tell an open port from a closed one"
        );
        assert!(!state.lost() && !state.unknown(), "not even where all others fail");
        assert!(!state.on(Event::Failed(Failure::hidden("connection refused")), Instant::now()));
        state.on(Event::Connected, Instant::now());
        assert_eq!(state.share(Instant::now(), SLOW), 1.0, "no slow start the first time");
    }
}
