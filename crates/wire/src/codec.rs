//! JSON lines: one message on each line, in UTF-8, ended by `\n`. Readable with `curl`.
//!
//! The decoder takes chunks cut anywhere. It looks at each byte once, holds at most one line, and refuses a
//! line longer than its limit, so that what it costs is bounded by what was sent.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The longest line, in bytes: a snapshot of some 100,000 names.
pub const MAX_LINE: usize = 64 * 1024 * 1024;

/// What a decoder keeps room for between long lines, in bytes.
const KEPT: usize = 64 * 1024;

/// Why a line could not be written or read.
#[derive(Debug, Error)]
pub enum CodecError {
    /// A line longer than the limit.
    #[error("a line is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A line that is not the message expected here.
    #[error("a line is not a message of this protocol")]
    NotAMessage {
        /// What the parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// The stream ended inside a line.
    #[error("the stream ended inside a line, after {bytes} bytes of it")]
    Cut {
        /// The bytes of the unfinished line.
        bytes: usize,
    },
}

/// Writes a message and its line end.
///
/// # Errors
/// [`CodecError::TooLong`] where no receiver would take it; [`CodecError::NotAMessage`] where it has no JSON.
pub fn encode_line<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let mut line = serde_json::to_vec(message).map_err(|source| CodecError::NotAMessage { source })?;
    if line.len() > MAX_LINE {
        return Err(CodecError::TooLong { limit: MAX_LINE });
    }
    line.push(b'\n');
    Ok(line)
}

/// Cuts a stream of bytes into lines, and reads each.
#[derive(Debug)]
pub struct LineDecoder {
    buffer: Vec<u8>,
    /// Where the first unread line begins.
    start: usize,
    /// Up to where there is no line end.
    seen: usize,
    limit: usize,
}

impl Default for LineDecoder {
    fn default() -> Self {
        Self::with_limit(MAX_LINE)
    }
}

impl LineDecoder {
    /// A decoder with the protocol's limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder that refuses lines longer than `limit` bytes.
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, seen: 0, limit }
    }

    /// Takes the next chunk. Read all lines with [`Self::next_line`] before the next one.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.seen -= self.start;
            self.start = 0;
            // After a snapshot there are short lines only, for days.
            if self.buffer.len() < KEPT {
                self.buffer.shrink_to(KEPT);
            }
        }
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole line, without its end; empty ones are passed over.
    ///
    /// # Errors
    /// [`CodecError::TooLong`]; the stream is of no use then.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, CodecError> {
        let limit = self.limit;
        loop {
            let Some(at) = self.buffer[self.seen..].iter().position(|b| *b == b'\n') else {
                self.seen = self.buffer.len();
                if self.seen - self.start > limit {
                    return Err(CodecError::TooLong { limit });
                }
                return Ok(None);
            };
            let (from, end) = (self.start, self.seen + at);
            self.start = end + 1;
            self.seen = self.start;
            if end - from > limit {
                return Err(CodecError::TooLong { limit });
            }
            if end > from {
                return Ok(Some(&self.buffer[from..end]));
            }
        }
    }

    /// The next message, where a whole line is there.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] and [`CodecError::NotAMessage`]; the stream is of no use then.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CodecError> {
        match self.next_line()? {
            Some(line) => decode_line(line).map(Some),
            None => Ok(None),
        }
    }

    /// Call at the end of the stream.
    ///
    /// # Errors
    /// [`CodecError::Cut`] where a line has no end.
    pub fn finish(&self) -> Result<(), CodecError> {
        match self.buffer.len() - self.start {
            0 => Ok(()),
            bytes => Err(CodecError::Cut { bytes }),
        }
    }

    /// Bytes held at this time.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buffer.len() - self.start
    }
}

/// Reads one line, with or without its end.
///
/// # Errors
/// [`CodecError::NotAMessage`].
pub fn decode_line<T: DeserializeOwned>(line: &[u8]) -> Result<T, CodecError> {
    serde_json::from_slice(line).map_err(|source| CodecError::NotAMessage { source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::Stated, message::FeedLine};
    use proptest::prelude::*;
    use tombolo_model::snapshot::{ClusterResource, GatewayResource};

    fn lines(chunks: &[Vec<u8>], limit: usize) -> Result<Vec<Vec<u8>>, CodecError> {
        let mut decoder = LineDecoder::with_limit(limit);
        let mut found = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(line) = decoder.next_line()? {
                assert!(line.len() <= limit);
                found.push(line.to_vec());
            }
            assert!(decoder.held() <= limit, "holds more than a line");
        }
        decoder.finish()?;
        Ok(found)
    }

    #[test]
    fn refuses_a_long_line() {
        assert!(matches!(lines(&[b"123456".to_vec()], 5), Err(CodecError::TooLong { limit: 5 })));
        assert!(matches!(lines(&[b"123456\n".to_vec()], 5), Err(CodecError::TooLong { .. })));
        assert_eq!(lines(&[b"12345\n".to_vec()], 5).unwrap(), vec![b"12345".to_vec()]);
    }

    #[test]
    fn a_long_line_leaves_no_room_behind() {
        let mut decoder = LineDecoder::new();
        let mut long = vec![b'1'; 20 * KEPT];
        long.push(b'\n');
        decoder.push(&long);
        assert_eq!(decoder.next_line().unwrap().unwrap().len(), 20 * KEPT);
        decoder.push(b"2\n");
        assert!(decoder.buffer.capacity() <= KEPT, "{}", decoder.buffer.capacity());
        assert_eq!(decoder.next_line().unwrap(), Some(&b"2"[..]));
    }

    #[test]
    fn says_where_the_stream_was_cut() {
        assert!(matches!(lines(&[b"{}\n{\"a".to_vec()], 50), Err(CodecError::Cut { bytes: 3 })));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(
            wanted in prop::collection::vec("[a-z{}\" ]{1,20}", 0..20),
            cuts in prop::collection::vec(1usize..9, 1..50),
        ) {
            let bytes = wanted.iter().map(|l| format!("{l}\n\n")).collect::<String>().into_bytes();
            let (mut rest, mut chunks) = (bytes.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (chunk, more) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk.to_vec());
                rest = more;
            }
            let found = lines(&chunks, 64).unwrap();
            prop_assert_eq!(found, wanted.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            if let Ok(found) = lines(&chunks, 100) {
                for line in found {
                    let _ = decode_line::<FeedLine<Stated<ClusterResource>>>(&line);
                }
            }
        }

        #[test]
        fn damaged_lines_never_panic(at in 0usize..400, byte in any::<u8>()) {
            let mut line = crate::session::tests::snapshot_line();
            let at = at % line.len();
            line[at] = byte;
            let _ = decode_line::<FeedLine<Stated<ClusterResource>>>(&line);
            let _ = decode_line::<FeedLine<Stated<GatewayResource>>>(&line);
        }
    }
}
