//! When a peer was heard last. Whatever comes from it is a sign of life, also where an answer to a ping waits behind much else; and so is
//! that it takes what waits to be sent, for behind a bulk upload over a slow link a ping is long on its way. What goes out at once
//! is none: the kernel of a process that hangs takes it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// The last sign of life.
#[derive(Debug)]
pub(crate) struct LastHeard {
    begin: Instant,
    /// Milliseconds since.
    at: AtomicU64,
    /// Whether the kernel takes no more to send.
    blocked: AtomicBool,
}

impl LastHeard {
    /// Heard now.
    pub(crate) fn now() -> Arc<Self> {
        Arc::new(Self { begin: Instant::now(), at: AtomicU64::new(0), blocked: AtomicBool::new(false) })
    }

    /// There was a sign of life.
    pub(crate) fn note(&self) {
        let since = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(since, Ordering::Relaxed);
    }

    /// Whether the kernel takes no more to send.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Something was to be sent. That it goes again after it did not is a sign of life.
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Pending => self.blocked.store(true, Ordering::Relaxed),
            Poll::Ready(Ok(1..)) if self.blocked.swap(false, Ordering::Relaxed) => self.note(),
            Poll::Ready(_) => {}
        }
        polled
    }

    /// How long ago it was.
    pub(crate) fn ago(&self) -> Duration {
        self.begin.elapsed().saturating_sub(Duration::from_millis(self.at.load(Ordering::Relaxed)))
    }

    /// How long this was before it was first heard.
    pub(crate) fn age(&self) -> Duration {
        self.begin.elapsed()
    }
}

/// A connection that notes when something came, or goes again.
#[derive(Debug)]
pub(crate) struct Listening<T> {
    inner: T,
    heard: Arc<LastHeard>,
}

impl<T> Listening<T> {
    pub(crate) fn new(inner: T, heard: Arc<LastHeard>) -> Self {
        Self { inner, heard }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.heard.note();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.heard.wrote(polled)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.heard.wrote(polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_a_sign_of_life_and_what_goes_is_none() {
        let (near, mut far) = duplex(64);
        let heard = LastHeard::now();
        let mut near = Listening::new(near, Arc::clone(&heard));
        tokio::time::advance(Duration::from_secs(3)).await;
        near.write_all(b"are you there").await.unwrap();
        assert_eq!(heard.ago(), Duration::from_secs(3));
        far.write_all(b"yes").await.unwrap();
        let mut answer = [0; 3];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(heard.ago(), Duration::ZERO);
        tokio::time::advance(Duration::from_millis(700)).await;
        assert_eq!((heard.ago(), heard.age()), (Duration::from_millis(700), Duration::from_millis(3700)));
        drop(far);
        assert_eq!(near.read(&mut answer).await.unwrap(), 0);
        assert_eq!(heard.ago(), Duration::from_millis(700), "an end is no sign of life");
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_blocked_write_goes_on_is_a_sign_of_life() {
        let (near, mut far) = duplex(64);
        let heard = LastHeard::now();
        let mut near = Listening::new(near, Arc::clone(&heard));
        near.write_all(&[0; 64]).await.unwrap();
        tokio::time::advance(Duration::from_secs(3)).await;
        let mut more = std::pin::pin!(near.write_all(&[0; 100]));
        assert!(futures::poll!(&mut more).is_pending());
        assert!(heard.is_blocked());
        assert_eq!(heard.ago(), Duration::from_secs(3), "nobody takes it");
        far.read_exact(&mut [0; 20]).await.unwrap();
        assert!(futures::poll!(&mut more).is_pending(), "there is more");
        assert_eq!(heard.ago(), Duration::ZERO, "some was taken");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(heard.is_blocked() && futures::poll!(&mut more).is_pending());
        assert_eq!(heard.ago(), Duration::from_secs(1));
        let mut rest = [0; 144];
        let (written, read) = tokio::join!(more, far.read_exact(&mut rest));
        assert!(written.is_ok() && read.is_ok());
        assert!(!heard.is_blocked() && heard.ago() == Duration::ZERO);
    }
}
