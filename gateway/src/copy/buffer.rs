//! One read buffer for each thread: a connection that waits holds none.

use bytes::{Bytes, BytesMut};
use std::{cell::RefCell, io, task::Poll};

/// The size of a fresh buffer, and so of the largest read.
const SIZE: usize = 64 * 1024;
/// With less room than this, the next read gets a fresh buffer.
const LEAST: usize = 16 * 1024;
/// Reads up to this size are copied out, so that a few bytes that wait in a queue do not hold a whole buffer.
const SMALL: usize = 4 * 1024;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads into this thread's buffer. `read` says how many bytes it appended; zero is the end.
///
/// # Errors
/// Those of `read`.
pub(crate) fn read(
    read: impl FnOnce(&mut BytesMut) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<Option<Bytes>>> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.capacity() < LEAST {
            // A fresh one, not `reserve`: that would copy nothing today, and wait for nothing either.
            *buffer = BytesMut::with_capacity(SIZE);
        }
        let result = read(buffer);
        Poll::Ready(match result {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => {
                buffer.clear();
                Err(error)
            }
            Poll::Ready(Ok(0)) => Ok(None),
            Poll::Ready(Ok(length)) if length <= SMALL => {
                let copied = Bytes::copy_from_slice(buffer);
                buffer.clear();
                Ok(Some(copied))
            }
            Poll::Ready(Ok(_)) => Ok(Some(buffer.split().freeze())),
        })
    })
}
