//! Bodies of requests, read whole into memory that has a bound over all of them. Room is taken as bytes come, so that who announces much
//! and sends nothing holds nothing; and nobody gets more than his share of it. The last part of all is for those who have little: some who
//! have as much as they may keep nobody else away.

use crate::places::Shares;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::timeout};

/// What room is taken in, in bytes.
const STEP: usize = 64 << 10;

/// One part of so many is for those who have little.
const PARTS: usize = 4;
/// Little is one body, and this part of what one sender may have.
const LITTLE: usize = 16;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For all bodies, in bytes.
    pub all: usize,
    /// For those of one sender.
    pub each: usize,
    /// Bodies at a time.
    pub bodies: Shares,
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is longer than may be.
    #[error("the body has more than {0} bytes")]
    TooLong(usize),
    /// The other side went away, or sent something else than it said.
    #[error("the body broke off")]
    Broken,
    /// It did not come in time, or there was no room for it.
    #[error("the body did not come in time, or there was no room for it; send it again")]
    Late,
}

#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    bodies: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Room<K> {
    bounds: Bounds,
    taken: Mutex<(Taken, HashMap<K, Taken>)>,
    freed: Notify,
}

/// Room for bodies, by who sends them. Clones share it.
#[derive(Debug)]
pub struct Bodies<K: Clone + Eq + Hash>(Arc<Room<K>>);

impl<K: Clone + Eq + Hash> Clone for Bodies<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A body; dropped, its room is free.
#[derive(Debug)]
pub struct Held<K: Clone + Eq + Hash> {
    bytes: Bytes,
    portion: Portion<K>,
}

impl<K: Clone + Eq + Hash> Held<K> {
    /// Forgets the bytes, and keeps their room: for as long as there is what was read out of them.
    #[must_use]
    pub fn into_portion(self) -> Portion<K> {
        self.portion
    }
}

impl<K: Clone + Eq + Hash> std::ops::Deref for Held<K> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Room that is taken; dropped, it is free.
#[derive(Debug)]
pub struct Portion<K: Clone + Eq + Hash> {
    room: Arc<Room<K>>,
    who: K,
    bytes: usize,
}

impl<K: Clone + Eq + Hash> Bodies<K> {
    /// All of it free. A sender's share is at least one body of the longest.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Room { bounds, taken: Mutex::default(), freed: Notify::new() }))
    }

    /// Reads a body of at most `most` bytes from this sender, within `patience`.
    ///
    /// # Errors
    /// [`Unread`].
    pub async fn read<B>(
        &self,
        who: &K,
        head: &HeaderMap,
        body: B,
        most: usize,
        patience: Duration,
    ) -> Result<Held<K>, Unread>
    where
        B: Body<Data = Bytes>,
    {
        let said =
            head.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if said.is_some_and(|length| length > most) {
            return Err(Unread::TooLong(most));
        }
        timeout(patience, self.collect(who, body, most)).await.map_err(|_| Unread::Late)?
    }

    /// Takes the place of a body, where one is free.
    #[must_use]
    pub fn try_place(&self, who: &K) -> Option<Portion<K>> {
        self.0.try_take(who, 1, 0).then(|| self.placed(who))
    }

    /// Takes the place of a body, once one is free. Cancel safe.
    pub async fn place(&self, who: &K) -> Portion<K> {
        self.0.take(who, 1, 0).await;
        self.placed(who)
    }

    fn placed(&self, who: &K) -> Portion<K> {
        Portion { room: Arc::clone(&self.0), who: who.clone(), bytes: 0 }
    }

    async fn collect<B: Body<Data = Bytes>>(&self, who: &K, body: B, most: usize) -> Result<Held<K>, Unread> {
        let mut body = std::pin::pin!(body);
        let mut portion = self.place(who).await;
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            let length = all.len() + data.len();
            if length > most {
                return Err(Unread::TooLong(most));
            }
            let more = length.div_ceil(STEP) * STEP - portion.bytes;
            if more > 0 {
                self.0.take(who, 0, more).await;
                portion.bytes += more;
            }
            all.extend_from_slice(&data);
        }
        Ok(Held { bytes: all.freeze(), portion })
    }
}

impl<K: Clone + Eq + Hash> Room<K> {
    /// Takes, once there is room. Cancel-safe: nothing is taken before it returns.
    async fn take(&self, who: &K, bodies: usize, bytes: usize) {
        loop {
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if self.try_take(who, bodies, bytes) {
                return;
            }
            freed.await;
        }
    }

    fn try_take(&self, who: &K, bodies: usize, bytes: usize) -> bool {
        let Bounds { all, each, bodies: most } = self.bounds;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of = taken.1.get(who).copied().unwrap_or_default();
        let of = Taken { bodies: of.bodies + bodies, bytes: of.bytes + bytes };
        let sum = Taken { bodies: taken.0.bodies + bodies, bytes: taken.0.bytes + bytes };
        let has_little = of.bodies <= 1 && of.bytes <= (each / LITTLE).max(STEP);
        let open = |all: usize| if has_little { all } else { all - all / PARTS };
        // Who has a place already asks for none: others that came after it keep it from nothing.
        let no_place = bodies > 0 && (of.bodies > most.each || sum.bodies > open(most.all));
        let no_room = bytes > 0 && (of.bytes > each || sum.bytes > open(all));
        if no_place || no_room {
            return false;
        }
        taken.0 = sum;
        taken.1.insert(who.clone(), of);
        true
    }
}

impl<K: Clone + Eq + Hash> Drop for Portion<K> {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.0.bodies -= 1;
        taken.0.bytes -= self.bytes;
        if let Some(of) = taken.1.get_mut(&self.who) {
            of.bodies -= 1;
            of.bytes -= self.bytes;
            // what counts nothing takes no memory
            if of.bodies == 0 {
                taken.1.remove(&self.who);
            }
        }
        drop(taken);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http_body_util::Full;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn bodies() -> Bodies<&'static str> {
        Bodies::new(Bounds { all: 12 * STEP, each: 4 * STEP, bodies: Shares { all: 4, each: 3 } })
    }

    fn says(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from(length))])
    }

    fn body(length: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![b'x'; length]))
    }

    async fn read(
        bodies: &Bodies<&'static str>,
        who: &'static str,
        length: usize,
    ) -> Result<Held<&'static str>, Unread> {
        bodies.read(&who, &HeaderMap::new(), body(length), 8 * STEP, PATIENCE).await
    }

    /// A body that never comes.
    struct Never;

    impl Body for Never {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_and_each_have_a_bound() {
        let bodies = bodies();
        let first = read(&bodies, "a", 3 * STEP + 1).await.unwrap();
        assert_eq!(first.len(), 3 * STEP + 1);
        assert_eq!(read(&bodies, "a", 1).await.unwrap_err(), Unread::Late, "it has its share");
        let second = read(&bodies, "b", 4 * STEP).await.unwrap();
        assert_eq!(
            read(&bodies, "c", 4 * STEP).await.unwrap_err(),
            Unread::Late,
            "what is left is not for much"
        );
        let third = read(&bodies, "c", 1).await.unwrap();
        assert_eq!(read(&bodies, "c", 1).await.unwrap_err(), Unread::Late, "nor for who has a body already");
        let fourth = bodies.try_place(&"d").unwrap();
        assert!(bodies.try_place(&"e").is_none(), "all is taken");
        drop((third, fourth));
        assert_eq!(bodies.0.taken.lock().unwrap().0.bytes, 8 * STEP);
        let portion = second.into_portion();
        assert_eq!(bodies.0.taken.lock().unwrap().0.bytes, 8 * STEP, "what was read out of it is there");
        drop((first, portion));
        let taken = bodies.0.taken.lock().unwrap();
        assert!(taken.1.is_empty() && taken.0.bodies == 0 && taken.0.bytes == 0, "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_announces_much_and_sends_nothing_holds_nothing() {
        let bodies = bodies();
        let hogs = (0..3).map(|_| {
            let bodies = bodies.clone();
            crate::task::spawn("hog", async move {
                bodies.read(&"hog", &says(8 * STEP), Never, 8 * STEP, PATIENCE).await.map(drop)
            })
        });
        let hogs: Vec<_> = hogs.collect();
        tokio::task::yield_now().await;
        assert!(read(&bodies, "one", 4 * STEP).await.is_ok());
        for hog in hogs {
            assert_eq!(hog.await.unwrap(), Err(Unread::Late));
        }
        assert!(bodies.0.taken.lock().unwrap().1.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_has_a_bound() {
        let bodies = bodies();
        let long = bodies.read(&"a", &says(10), body(10), 9, PATIENCE).await;
        assert_eq!(long.unwrap_err(), Unread::TooLong(9));
        let long = bodies.read(&"a", &HeaderMap::new(), body(10), 9, PATIENCE).await;
        assert_eq!(long.unwrap_err(), Unread::TooLong(9));
        assert!(bodies.0.taken.lock().unwrap().1.is_empty());
    }
}
