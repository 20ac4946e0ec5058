//! Why a question was refused or failed, in words: extended DNS errors (RFC 8914). `dig` prints them.

use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

/// The info codes of RFC 8914 that this server gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// See the text.
    Other,
    /// This server has no state yet.
    NotReady,
    /// Not to be had from this server at all.
    Prohibited,
    /// The name is none of this server's, and it does not forward.
    NotAuthoritative,
    /// Not a kind of question that this server knows.
    NotSupported,
    /// No answer from the server that other names are forwarded to.
    NoReachableAuthority,
    /// The network, or the server that other names are forwarded to, refused.
    NetworkError,
}

impl Why {
    const fn code(self) -> u16 {
        match self {
            Self::Other => 0,
            Self::NotReady => 14,
            Self::Prohibited => 18,
            Self::NotAuthoritative => 20,
            Self::NotSupported => 21,
            Self::NoReachableAuthority => 22,
            Self::NetworkError => 23,
        }
    }
}

/// An extended DNS error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its code.
    pub why: Why,
    /// What happened and what to do, in a sentence.
    pub text: String,
}

/// The EDNS option of an extended DNS error.
pub(super) const OPTION: u16 = 15;

/// Room for the text: an error must fit beside the longest question in 512 bytes.
const TEXT_BYTES: usize = 160;

impl Explanation {
    /// The explanation with this code and text.
    #[must_use]
    pub fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }

    /// The option as it goes into a response.
    #[must_use]
    pub(super) fn option(&self) -> EdnsOption {
        let end = (0..=TEXT_BYTES.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at));
        let text = &self.text[..end.unwrap_or(0)];
        let data = self.why.code().to_be_bytes().into_iter().chain(text.bytes()).collect();
        EdnsOption::Unknown(OPTION, data)
    }
}

/// The code under which hickory keeps the option.
pub(super) const CODE: EdnsCode = EdnsCode::Unknown(OPTION);
