//! Bodies of requests, read whole into memory that has a bound over all of them: whoever sends one waits until there is room for it.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// What room is counted in, in bytes.
const UNIT: usize = 1024;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is longer than may be.
    #[error("the body has more than {0} bytes")]
    TooLong(usize),
    /// The other side went away, or sent something else than it said.
    #[error("the body broke off")]
    Broken,
    /// It did not come in time.
    #[error("the body did not come in time")]
    Late,
    /// There was no room for it in time.
    #[error("too many bodies are being read; send it again")]
    NoRoom,
}

/// Room for bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Bodies {
    room: Arc<Semaphore>,
    all: usize,
}

/// A body; dropped, its room is free.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl std::ops::Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(all: usize) -> Self {
        let all = all.div_ceil(UNIT);
        Self { room: Arc::new(Semaphore::new(all)), all }
    }

    /// Reads a body of at most `most` bytes, once there is room for it: for as many as its head says, else for `most`. Both together may
    /// take `patience`.
    ///
    /// # Errors
    /// [`Unread`].
    pub async fn read<B>(
        &self,
        head: &HeaderMap,
        body: B,
        most: usize,
        patience: Duration,
    ) -> Result<Held, Unread>
    where
        B: Body<Data = Bytes>,
    {
        let said =
            head.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let most = match said {
            Some(length) if length > most => return Err(Unread::TooLong(most)),
            Some(length) => length,
            None => most,
        };
        let units = most.div_ceil(UNIT).min(self.all);
        let ask = Arc::clone(&self.room).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX));
        let started = tokio::time::Instant::now();
        let room = timeout(patience, ask).await.map_err(|_| Unread::NoRoom)?.map_err(|_| Unread::NoRoom)?;
        let collect = collect(body, most);
        let bytes = timeout(patience.saturating_sub(started.elapsed()), collect)
            .await
            .map_err(|_| Unread::Late)??;
        Ok(Held { bytes, _room: room })
    }
}

async fn collect<B: Body<Data = Bytes>>(body: B, most: usize) -> Result<Bytes, Unread> {
    let mut body = std::pin::pin!(body);
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if all.len() + data.len() > most {
            return Err(Unread::TooLong(most));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http_body_util::Full;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn says(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from(length))])
    }

    fn body(length: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![b'x'; length]))
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_them_together_have_a_bound() {
        let bodies = Bodies::new(8 * UNIT);
        let big = bodies.read(&says(6 * UNIT), body(6 * UNIT), 6 * UNIT, PATIENCE).await.unwrap();
        assert_eq!(big.len(), 6 * UNIT);
        let small = bodies.read(&says(2 * UNIT), body(2 * UNIT), 6 * UNIT, PATIENCE).await.unwrap();
        let none = bodies.read(&says(1), body(1), 6 * UNIT, PATIENCE).await;
        assert_eq!(none.unwrap_err(), Unread::NoRoom);
        drop(small);
        // who does not say how long his is needs room for the longest
        let none = bodies.read(&HeaderMap::new(), body(1), 6 * UNIT, PATIENCE).await;
        assert_eq!(none.unwrap_err(), Unread::NoRoom);
        drop(big);
        assert!(bodies.read(&HeaderMap::new(), body(1), 6 * UNIT, PATIENCE).await.is_ok());
        assert_eq!(bodies.room.available_permits(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_them_has_a_bound() {
        let bodies = Bodies::new(8 * UNIT);
        let long = bodies.read(&says(10), body(10), 9, PATIENCE).await;
        assert_eq!(long.unwrap_err(), Unread::TooLong(9));
        let long = bodies.read(&HeaderMap::new(), body(10), 9, PATIENCE).await;
        assert_eq!(long.unwrap_err(), Unread::TooLong(9));
        assert_eq!(bodies.room.available_permits(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_come_gives_its_room_back() {
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
        let bodies = Bodies::new(8 * UNIT);
        assert_eq!(bodies.read(&says(9), Never, 9, PATIENCE).await.unwrap_err(), Unread::Late);
        assert_eq!(bodies.room.available_permits(), 8);
    }
}
