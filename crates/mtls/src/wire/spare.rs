//! Buffers that whichever connection of this thread needs one next may have: those that rest hold none.

use std::{cell::Cell, mem};

thread_local! {
    static ARRIVED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static GATHERED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a buffer is for.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// What comes: sealed.
    Arrived,
    /// What is gathered: not sealed yet.
    Gathered,
}

impl Use {
    fn with<R>(self, act: impl FnOnce(&Cell<Vec<u8>>) -> R) -> R {
        match self {
            Self::Arrived => ARRIVED.with(act),
            Self::Gathered => GATHERED.with(act),
        }
    }

    /// An empty buffer of at least this size.
    pub(super) fn take(self, size: usize) -> Vec<u8> {
        let mut buffer = self.with(Cell::take);
        buffer.reserve_exact(size);
        buffer
    }

    /// Gives a buffer back; what is in it is gone.
    pub(super) fn give_back(self, buffer: &mut Vec<u8>) {
        let mut buffer = mem::take(buffer);
        buffer.clear();
        self.with(|spare| spare.set(buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_from_one_to_the_next_and_is_empty() {
        let mut buffer = Use::Gathered.take(1000);
        buffer.extend_from_slice(b"of somebody else");
        let place = buffer.as_ptr();
        Use::Gathered.give_back(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        let (again, other) = (Use::Gathered.take(1000), Use::Gathered.take(1000));
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(other.as_ptr() != place && other.capacity() >= 1000);
    }
}
