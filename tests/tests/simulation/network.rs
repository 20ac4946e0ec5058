//! A connection: bytes in their order, that come late, in pieces, or not at all.

use crate::{dice::Dice, wall};
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

    /// A digit of a resource, or of its key, in a line that is under way is another one. Whether there was one.
    pub(crate) fn spoil(&mut self, dice: &mut Dice) -> bool {
        let bytes = self.bytes.make_contiguous();
        let (mut digits, mut content) = (Vec::new(), false);
        for at in 0..bytes.len() {
            let begins = |field: &[u8]| bytes[at..].starts_with(field);
            if bytes[at] == b'\n' {
                content = false;
            } else if begins(b"\"upserts\":") || begins(b"\"resources\":") {
                content = true;
            } else if content && bytes[at].is_ascii_digit() {
                digits.push(at);
            }
        }
        if digits.is_empty() {
            return false;
        }
        let digit = &mut bytes[dice.pick(&digits)];
        *digit = if *digit == b'9' { b'1' } else { *digit + 1 };
        true
    }

    /// Takes so many bytes out of it; the lines that are whole by that. None is one that can't be read, and ends the connection.
    pub(crate) fn deliver<M: DeserializeOwned>(&mut self, most: usize) -> Vec<Option<M>> {
        let most = most.min(self.bytes.len());
        let some: Vec<u8> = self.bytes.drain(..most).collect();
        self.decoder.push(&some);
        let mut lines = Vec::new();
        while let Some(line) = self.decoder.next_message().transpose() {
            let readable = line.is_ok();
            lines.push(line.ok());
            if !readable {
                break;
            }
        }
        lines
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

/// A file that lies: as it was, damaged, under another generation, an older one, or gone.
pub(crate) fn damaged(dice: &mut Dice, file: &mut Option<Vec<u8>>, older: &Option<Vec<u8>>) -> &'static str {
    let kind = dice.below(9);
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
        4 => {
            // the last digit of the number
            let field = b"\"generation\":";
            let Some(at) = bytes.windows(field.len()).position(|some| some == field) else { return "whole" };
            let digits = bytes[at + field.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let last = &mut bytes[at + field.len() + digits.max(1) - 1];
            *last = if *last == b'9' { b'1' } else { *last + 1 };
            "of another generation than it says"
        }
        _ => "whole",
    }
}
