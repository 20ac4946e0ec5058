//! Bodies of requests: JSON, read whole, with a refusal that says where it is wrong.

use super::{
    Agent,
    door::{Brings, Room, Sender},
};
use crate::{
    app::error::{Kind, Refusal},
    json::check_text,
};
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

/// A JSON body, and the room that it takes until the request is answered. Who sends it is found out before: so it comes last.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T, pub(super) Room);

impl<T: DeserializeOwned> FromRequest<Agent> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, agent: &Agent) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let known = parts.extensions.get::<Brings>().copied().zip(parts.extensions.get::<Sender>().copied());
        let known = known.ok_or_else(|| Refusal::internal("nobody found out who sends the body"))?;
        let (bytes, room) = agent.door.read(known, &parts.headers, body).await?;
        check_text(&bytes)?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let kind = if error.is_data() { Kind::InvalidField } else { Kind::MalformedJson };
            Refusal::new(kind, format!("The body is not the message expected here: {error}."))
        })?;
        Ok(Self(value, room(bytes)))
    }
}
