//! Answers of creations, kept for a day under the key that the caller chose.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use tombolo_model::id::{OrgId, TokenId};

/// What stands under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing: it is this transaction's now.
    Claimed,
    /// The answer of a request with this hash.
    Answer { request_hash: Vec<u8>, answer: Vec<u8> },
}

impl Tx {
    /// Claims a key. Where another transaction holds it, waits for that one's end: the index sees to it.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn claim_idempotency_key(
        &mut self,
        token: TokenId,
        org: Option<OrgId>,
        key: &str,
        request_hash: &[u8; 32],
        now: DateTime<Utc>,
    ) -> Result<Kept, Error> {
        let claimed = sqlx::query!(
            "INSERT INTO idempotency_keys (token_id, key, org_id, request_hash, answer, created_at)
             VALUES ($1, $2, $3, $4, '', $5) ON CONFLICT DO NOTHING",
            token.as_uuid(),
            key,
            org.map(|id| id.as_uuid()),
            request_hash.as_slice(),
            now
        )
        .execute(self.conn())
        .await?;
        if claimed.rows_affected() == 1 {
            return Ok(Kept::Claimed);
        }
        let row = sqlx::query!(
            "SELECT request_hash, answer FROM idempotency_keys WHERE token_id = $1 AND key = $2",
            token.as_uuid(),
            key
        )
        .fetch_one(self.conn())
        .await?;
        Ok(Kept::Answer { request_hash: row.request_hash, answer: row.answer })
    }

    /// Keeps the answer under a key that this transaction claimed.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn keep_answer(
        &mut self,
        token: TokenId,
        key: &str,
        answer: &[u8],
    ) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE idempotency_keys SET answer = $3 WHERE token_id = $1 AND key = $2",
            token.as_uuid(),
            key,
            answer
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Drops answers older than this.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn prune_answers(&mut self, before: DateTime<Utc>) -> Result<u64, Error> {
        let done = sqlx::query!("DELETE FROM idempotency_keys WHERE created_at < $1", before)
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected())
    }
}
