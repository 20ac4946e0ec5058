//! What agents may take of this process: each cluster so many requests a second and at a time, each organization so much memory. Any of
//! them may be in the wrong hands, and must not keep the others waiting.

use super::size::Sizes;
use crate::{
    app::error::{Kind, Refusal},
    http::limit::{Limiter, Quota},
};
use axum::{body::Body, http::HeaderMap};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, timeout_at};
use tombolo_model::id::{ClusterId, OrgId};
use tombolo_runtime::{
    bodies::{Bodies, Bounds, Held, Portion, Unread},
    places::{Shares, Source},
};

/// Of each cluster. Its agents report each change, and acknowledge what follows from it.
const ASKS: Quota = Quota { burst: 500, per_second: 250.0 };
/// A certificate is signed, is told to all peers and stands in the audit log; an agent needs one in weeks.
const CERTIFICATES: Quota = Quota { burst: 20, per_second: 0.1 };
/// Clusters that are counted at a time.
const CLUSTERS: usize = 100_000;

/// Bodies of one cluster at a time: what was not read yet takes memory, too.
const UNDER_WAY: Bounds = of_each(16);
/// Inventories of one cluster at a time: each follows the one before.
const TURNS: Bounds = of_each(1);

/// What there is for bodies of a kind, and for one organization; to join, for one address. What was read takes its room until its request
/// is answered, for it is in memory then as what it means. Inventories and statuses are stored meanwhile: organizations share the
/// connections to the database like this, too.
const JOINS: Bounds = Bounds { all: 4 << 20, each: 1 << 20, bodies: Shares { all: 128, each: 16 } };
const SHORT: Bounds = Bounds { all: 4 << 20, each: 1 << 20, bodies: Shares { all: 128, each: 16 } };
const STATUSES: Bounds = Bounds { all: 32 << 20, each: 8 << 20, bodies: Shares { all: 32, each: 8 } };
const INVENTORIES: Bounds = Bounds { all: 96 << 20, each: 48 << 20, bodies: Shares { all: 12, each: 3 } };

/// How long a body may take, with the wait for room: agents ask again after 10 s.
const READING: Duration = Duration::from_secs(8);

const fn of_each(each: usize) -> Bounds {
    Bounds { all: usize::MAX, each: usize::MAX, bodies: Shares { all: usize::MAX, each } }
}

/// What a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brings {
    Join,
    Ack,
    Certificate,
    Status,
    Inventory,
}

impl Brings {
    /// The longest body, in bytes. A status has of each gateway what it counts.
    pub(super) const fn most(self) -> usize {
        match self {
            Self::Join | Self::Ack | Self::Certificate => 64 << 10,
            Self::Status => 4 << 20,
            Self::Inventory => 32 << 20,
        }
    }
}

/// Who sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// Somebody with what looks like a token.
    Stranger(Source),
    /// A cluster in good standing.
    Agent(OrgId, ClusterId),
}

/// Who has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Address(Source),
    Organization(OrgId),
}

/// What a request takes until it is answered.
#[derive(Debug)]
pub(super) struct Room {
    _body: Portion<Who>,
    _of_cluster: Option<(Portion<ClusterId>, Option<Portion<ClusterId>>)>,
}

/// The limits of this process.
#[derive(Debug)]
pub(crate) struct Door {
    asks: Limiter<ClusterId>,
    certificates: Limiter<ClusterId>,
    under_way: Bodies<ClusterId>,
    turns: Bodies<ClusterId>,
    joins: Bodies<Who>,
    short: Bodies<Who>,
    statuses: Bodies<Who>,
    inventories: Bodies<Who>,
    /// How much each cluster has told in all.
    pub(super) sizes: Sizes,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            asks: Limiter::new(ASKS, CLUSTERS),
            certificates: Limiter::new(CERTIFICATES, CLUSTERS),
            under_way: Bodies::new(UNDER_WAY),
            turns: Bodies::new(TURNS),
            joins: Bodies::new(JOINS),
            short: Bodies::new(SHORT),
            statuses: Bodies::new(STATUSES),
            inventories: Bodies::new(INVENTORIES),
            sizes: Sizes::default(),
        }
    }
}

impl Door {
    /// A cluster asks; what it brings, where it brings something.
    pub(super) fn ask(
        &self,
        cluster: ClusterId,
        brings: Option<Brings>,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let certificates = (brings == Some(Brings::Certificate)).then_some(&self.certificates);
        for limiter in [Some(&self.asks), certificates].into_iter().flatten() {
            let verdict = limiter.take(&cluster, now);
            if !verdict.allowed {
                let seconds = verdict.retry_after_s;
                let detail = format!("The cluster's agents ask too often; try again in {seconds} s.");
                return Err(Refusal::new(Kind::RateLimited, detail).retry_after(seconds));
            }
        }
        Ok(())
    }

    /// Reads a body.
    pub(super) async fn read(
        &self,
        (brings, sender): (Brings, Sender),
        head: &HeaderMap,
        body: Body,
    ) -> Result<(Held<Who>, impl FnOnce(Held<Who>) -> Room + use<>), Refusal> {
        let until = Instant::now() + READING;
        let (who, of_cluster) = match sender {
            Sender::Stranger(source) => (Who::Address(source), None),
            Sender::Agent(org, cluster) => {
                (Who::Organization(org), Some(self.of_cluster(cluster, brings, until).await?))
            }
        };
        let bodies = match brings {
            Brings::Join => &self.joins,
            Brings::Ack | Brings::Certificate => &self.short,
            Brings::Status => &self.statuses,
            Brings::Inventory => &self.inventories,
        };
        let left = until.saturating_duration_since(Instant::now());
        let held =
            bodies.read(&who, head, body, brings.most(), left).await.map_err(|unread| match unread {
                Unread::TooLong(most) => {
                    let detail = format!(
                        "The body is larger than the {most} bytes of this request; send less at a time."
                    );
                    Refusal::new(Kind::BodyTooLarge, detail)
                }
                Unread::Broken => Refusal::new(Kind::MalformedJson, "The body could not be read to its end."),
                Unread::Late => {
                    let detail = "The body did not come in time, or there was no room for it; try again.";
                    Refusal::new(Kind::Unavailable, detail).retry_after(1)
                }
            })?;
        let room = |held: Held<Who>| Room { _body: held.into_portion(), _of_cluster: of_cluster };
        Ok((held, room))
    }

    /// A body of a cluster is under way; where it is an inventory, it is that one's turn.
    async fn of_cluster(
        &self,
        cluster: ClusterId,
        brings: Brings,
        until: Instant,
    ) -> Result<(Portion<ClusterId>, Option<Portion<ClusterId>>), Refusal> {
        let under_way = self.under_way.try_place(&cluster).ok_or_else(|| {
            let detail = "Too many requests of this cluster's agents are under way; try again.";
            Refusal::new(Kind::Unavailable, detail).retry_after(1)
        })?;
        if brings != Brings::Inventory {
            return Ok((under_way, None));
        }
        let turn = timeout_at(until, self.turns.place(&cluster)).await.map_err(|_| {
            let detail = "Another inventory of this cluster is under way; try again.";
            Refusal::new(Kind::Unavailable, detail).retry_after(1)
        })?;
        Ok((under_way, Some(turn)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use futures::{StreamExt as _, future::join_all, stream};
    use std::convert::Infallible;
    use tombolo_runtime::clock::Clock as _;
    use uuid::Uuid;

    fn cluster(n: u128) -> ClusterId {
        ClusterId::new(Uuid::from_u128(n))
    }

    fn of(org: u128, n: u128) -> Sender {
        Sender::Agent(OrgId::new(Uuid::from_u128(org)), cluster(n))
    }

    fn body(length: usize) -> Body {
        Body::from(vec![b' '; length])
    }

    /// A body that comes up to here, and then never goes on.
    fn stuck(length: usize) -> Body {
        const FRAME: &[u8] = &[b' '; 16 << 10];
        let frames =
            std::iter::repeat_n(Bytes::from_static(FRAME), length / FRAME.len()).map(Ok::<_, Infallible>);
        Body::from_stream(stream::iter(frames).chain(stream::pending()))
    }

    async fn read(door: &Door, brings: Brings, sender: Sender, body: Body) -> Result<Room, Refusal> {
        let (held, room) = door.read((brings, sender), &HeaderMap::new(), body).await?;
        Ok(room(held))
    }

    fn told(refused: Result<Room, Refusal>) -> (Kind, Option<u64>) {
        let refusal = refused.unwrap_err();
        (refusal.kind, refusal.retry_after_s)
    }

    #[tokio::test(start_paused = true)]
    async fn one_inventory_of_a_cluster_at_a_time() {
        let door = Door::default();
        let first = read(&door, Brings::Inventory, of(1, 1), body(10)).await.unwrap();
        let second = read(&door, Brings::Inventory, of(1, 1), body(10)).await;
        assert_eq!(told(second), (Kind::Unavailable, Some(1)));
        // others of its organization, and what else it says, do not wait
        let begun = Instant::now();
        let other = read(&door, Brings::Inventory, of(1, 2), body(10)).await.unwrap();
        let status = read(&door, Brings::Status, of(1, 1), body(10)).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // one that waits gets the turn
        let (third, ()) = tokio::join!(read(&door, Brings::Inventory, of(1, 1), body(10)), async {
            tokio::time::sleep(READING / 2).await;
            drop(first);
        });
        drop((third.unwrap(), other, status));
    }

    /// A stolen certificate could hold as many inventories as its connections have streams.
    #[tokio::test(start_paused = true)]
    async fn one_cluster_holds_no_more_than_one_inventory() {
        let door = Door::default();
        let all = join_all((0..17).map(|_| read(&door, Brings::Inventory, of(1, 1), stuck(1 << 20))));
        let neighbours = async {
            tokio::time::sleep(READING / 2).await;
            let begun = Instant::now();
            let both =
                [(1, 2), (1, 3)].map(|(org, n)| read(&door, Brings::Inventory, of(org, n), body(1 << 20)));
            assert!(join_all(both).await.iter().all(Result::is_ok) && begun.elapsed().is_zero());
        };
        let (all, ()) = tokio::join!(all, neighbours);
        assert!(all.into_iter().map(told).all(|told| told == (Kind::Unavailable, Some(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn organizations_that_take_all_they_get_keep_nobody_away() {
        for brings in [Brings::Ack, Brings::Status, Brings::Inventory] {
            let door = Door::default();
            let hogs = (0..1000).map(|n| read(&door, brings, of(1 + n % 3, n), stuck(brings.most())));
            let hogs = join_all(hogs);
            let honest = async {
                for _ in 0..4 {
                    tokio::time::sleep(READING / 8).await;
                    let begun = Instant::now();
                    drop(read(&door, brings, of(7, 7000), body(60 << 10)).await.unwrap());
                    assert_eq!(begun.elapsed(), Duration::ZERO, "{brings:?}");
                }
            };
            let (hogs, ()) = tokio::join!(hogs, honest);
            assert!(hogs.into_iter().map(told).all(|told| told == (Kind::Unavailable, Some(1))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_nobody_reads_are_few() {
        let door = Door::default();
        let all = (0..40).map(|_| async {
            let begun = Instant::now();
            (read(&door, Brings::Ack, of(1, 1), stuck(0)).await.unwrap_err(), begun.elapsed())
        });
        let all = join_all(all).await;
        let at_once = all.iter().filter(|(refusal, took)| {
            assert_eq!((refusal.kind, refusal.retry_after_s), (Kind::Unavailable, Some(1)));
            took.is_zero()
        });
        assert_eq!(at_once.count(), 40 - UNDER_WAY.bodies.each);
    }

    #[test]
    fn each_cluster_asks_so_often() {
        let (door, now) = (Door::default(), tombolo_runtime::clock::SystemClock.now());
        for _ in 0..ASKS.burst {
            door.ask(cluster(1), Some(Brings::Ack), now).unwrap();
        }
        let refused = door.ask(cluster(1), None, now).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after_s), (Kind::RateLimited, Some(1)));
        for _ in 0..CERTIFICATES.burst {
            door.ask(cluster(2), Some(Brings::Certificate), now).unwrap();
        }
        let refused = door.ask(cluster(2), Some(Brings::Certificate), now).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after_s), (Kind::RateLimited, Some(10)));
        door.ask(cluster(2), Some(Brings::Inventory), now).unwrap();
        door.ask(cluster(2), Some(Brings::Certificate), now + Duration::from_secs(10)).unwrap();
    }
}
