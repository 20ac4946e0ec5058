//! Bodies of requests: JSON, read whole, with a refusal that says where it is wrong.

use crate::{
    app::error::{Kind, Refusal},
    json::check_text,
};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::StatusCode,
};
use serde::de::DeserializeOwned;

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                Refusal::new(
                    Kind::BodyTooLarge,
                    "The body is larger than this request may be; send less at a time.",
                )
            } else {
                Refusal::new(Kind::MalformedJson, "The body could not be read to its end.")
            }
        })?;
        check_text(&bytes)?;
        serde_json::from_slice(&bytes).map(Body).map_err(|error| {
            let kind = if error.is_data() { Kind::InvalidField } else { Kind::MalformedJson };
            Refusal::new(kind, format!("The body is not the message expected here: {error}."))
        })
    }
}
