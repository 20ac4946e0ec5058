//! Creations that may be repeated: the same idempotency key with the same request gets the same answer.

use super::{
    caller::Caller,
    error::{Kind, Refusal, Result},
};
use crate::store::{Tx, idempotency::Kept};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How long an answer is kept.
pub(crate) const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

/// The key that the caller chose, and the hash of what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnceKey {
    key: String,
    request_hash: [u8; 32],
}

impl OnceKey {
    /// The longest key.
    pub(crate) const MAX: usize = 255;

    /// Reads a key, for the request to this path with this body.
    ///
    /// # Errors
    /// [`Kind::InvalidHeader`] for one that is empty, too long, or not printable ASCII.
    pub(crate) fn new(key: &str, path: &str, body: &[u8]) -> Result<Self> {
        if key.is_empty() || key.len() > Self::MAX || !key.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Err(Refusal::new(Kind::InvalidHeader, "The idempotency key cannot be taken.").field(
                "Idempotency-Key",
                "is empty, too long, or has characters other than printable ASCII",
                format!("use 1 to {} printable ASCII characters, such as a UUID", Self::MAX),
            ));
        }
        let hash = Sha256::new().chain_update(path).chain_update([0]).chain_update(body);
        Ok(Self { key: key.to_owned(), request_hash: hash.finalize().into() })
    }
}

/// The answer to a creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Where the new thing is, below `/api/v1`.
    pub(crate) location: String,
    /// Its version, where it has one.
    pub(crate) version: Option<i64>,
    /// The new thing, as JSON.
    pub(crate) body: String,
    /// Whether this is the answer of an earlier request.
    #[serde(skip)]
    pub(crate) repeated: bool,
}

impl Answer {
    /// The answer that shows this.
    ///
    /// # Errors
    /// [`Kind::Internal`] for something that is not JSON.
    pub(crate) fn new(location: String, version: Option<i64>, shown: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_string(shown).map_err(Refusal::internal)?;
        Ok(Self { location, version, body, repeated: false })
    }
}

/// Claims the key in this transaction. The answer of the earlier request, where there was one; a request with the same
/// key that still runs is waited for.
///
/// # Errors
/// [`Kind::IdempotencyMismatch`] where the earlier request was another one.
pub(crate) async fn claim(
    tx: &mut Tx,
    caller: &Caller,
    once: &OnceKey,
    now: DateTime<Utc>,
) -> Result<Option<Answer>> {
    tx.prune_answers(now - KEPT_FOR).await?;
    let kept = tx.claim_idempotency_key(caller.token, caller.org, &once.key, &once.request_hash, now).await?;
    let Kept::Answer { request_hash, answer } = kept else { return Ok(None) };
    if request_hash != once.request_hash {
        return Err(Refusal::new(
            Kind::IdempotencyMismatch,
            "This idempotency key was used for another request within the last day.",
        )
        .field(
            "Idempotency-Key",
            "was used for another request",
            "use a new key for each new request",
        ));
    }
    let plain = open(&caller.seal, &once.key, answer)
        .ok_or_else(|| Refusal::internal("a kept answer cannot be opened with its token"))?;
    let mut answer: Answer = serde_json::from_slice(&plain).map_err(Refusal::internal)?;
    answer.repeated = true;
    Ok(Some(answer))
}

/// Keeps the answer under the key that this transaction claimed.
///
/// # Errors
/// As any query.
pub(crate) async fn keep(tx: &mut Tx, caller: &Caller, once: &OnceKey, answer: &Answer) -> Result<()> {
    let plain = serde_json::to_vec(answer).map_err(Refusal::internal)?;
    let sealed = seal(&caller.seal, &once.key, plain)
        .ok_or_else(|| Refusal::internal("an answer could not be sealed"))?;
    tx.keep_answer(caller.token, &once.key, &sealed).await?;
    Ok(())
}

/// Nonce, ciphertext, tag. An answer may hold a secret (a new token), which the database must not know: only whoever
/// presents the caller's token again can open it.
fn seal(key: &[u8; 32], name: &str, mut plain: Vec<u8>) -> Option<Vec<u8>> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
    let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut plain).ok()?;
    let mut sealed = nonce.as_ref().to_vec();
    sealed.append(&mut plain);
    Some(sealed)
}

fn open(key: &[u8; 32], name: &str, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
    let nonce: [u8; NONCE_LEN] = sealed.get(..NONCE_LEN)?.try_into().ok()?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let plain = key.open_in_place(nonce, Aad::from(name), &mut sealed[NONCE_LEN..]).ok()?;
    Some(plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_opens_with_its_token_and_key_only() {
        let sealed = seal(&[1; 32], "k", b"answer".to_vec()).unwrap();
        assert_eq!(open(&[1; 32], "k", sealed.clone()).as_deref(), Some(&b"answer"[..]));
        assert_eq!(open(&[2; 32], "k", sealed.clone()), None);
        assert_eq!(open(&[1; 32], "l", sealed.clone()), None);
        assert_eq!(open(&[1; 32], "k", sealed[..5].to_vec()), None);
        assert!(!sealed.windows(6).any(|w| w == b"answer"));
    }

    #[test]
    fn a_key_is_for_one_path_and_body() {
        let key = |path, body| OnceKey::new("k", path, body).unwrap();
        assert_ne!(key("/a", b"x"), key("/a", b"y"));
        assert_ne!(key("/a", b"x"), key("/b", b"x"));
        assert_eq!(key("/a", b"x"), key("/a", b"x"));
        for bad in ["", "ä", "a\nb", &"x".repeat(256)] {
            assert_eq!(OnceKey::new(bad, "/", b"").unwrap_err().kind, Kind::InvalidHeader);
        }
    }
}
