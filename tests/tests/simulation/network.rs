//! A connection: bytes in their order, that come late, in pieces, or not at all.

use crate::wall;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use tombolo_wire::codec::{LineDecoder, encode_line};

/// Lines that the other side did not take yet hold the sender up, as in the true programs.
const ROOM: usize = 3;

#[derive(Default)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    decoder: LineDecoder,
}

impl Pipe {
    /// Whether the sender may say more.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.iter().filter(|byte| **byte == b'\n').count() < ROOM
    }

    /// Sends a line to somebody of a tenant. The line.
    pub(crate) fn send<T: Serialize>(&mut self, tenant: usize, line: &T) -> Vec<u8> {
        let bytes = encode_line(line).unwrap();
        wall::told(tenant, &bytes);
        self.bytes.extend(&bytes);
        bytes
    }

    /// A line of before comes once more.
    pub(crate) fn replay(&mut self, line: &[u8]) {
        self.bytes.extend(line);
    }

    /// How much is under way.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes so many bytes out of it; the lines that are whole by that.
    pub(crate) fn deliver<M: DeserializeOwned>(&mut self, most: usize) -> Vec<M> {
        let most = most.min(self.bytes.len());
        let some: Vec<u8> = self.bytes.drain(..most).collect();
        self.decoder.push(&some);
        std::iter::from_fn(|| self.decoder.next_message().unwrap()).collect()
    }
}

/// Lines that were sent to one receiver, to be replayed.
#[derive(Default)]
pub(crate) struct Heard(VecDeque<Vec<u8>>);

impl Heard {
    pub(crate) fn put(&mut self, line: Vec<u8>) {
        self.0.push_back(line);
        if self.0.len() > 12 {
            self.0.pop_front();
        }
    }

    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        self.0.iter().cloned().collect()
    }
}

/// A file that lies: as it was, damaged, an older one, or gone.
pub(crate) fn damaged(
    dice: &mut crate::dice::Dice,
    file: &mut Option<Vec<u8>>,
    older: &Option<Vec<u8>>,
) -> &'static str {
    let kind = dice.below(8);
    let Some(bytes) = file.as_mut().filter(|bytes| !bytes.is_empty()) else { return "none" };
    match kind {
        0 => {
            let at = dice.below(bytes.len());
            bytes.truncate(at);
            "half-written"
        }
        1 => {
            let at = dice.below(bytes.len());
            bytes[at] = b'0' + u8::try_from(dice.below(75)).unwrap();
            "with a wrong byte"
        }
        2 => {
            *file = None;
            "gone"
        }
        3 if older.is_some() => {
            file.clone_from(older);
            "an older one"
        }
        _ => "whole",
    }
}
