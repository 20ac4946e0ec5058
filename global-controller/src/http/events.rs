//! `/organizations/{org}/events`: what changes, as it changes (server-sent events).

use super::{answer::Outcome, auth::Api, extract::Viewer};
use crate::app::follow::{Follower, Told};
use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use std::{convert::Infallible, time::Duration};

/// Follow changes
///
/// Server-sent events. `audit`: someone changed something, with the audit event as data. `generation`: the
/// organization is at a newer generation. `cluster`: a cluster connected, disconnected, or is otherwise different.
/// `install`: an installation in a cluster went a step further; the data has the cluster and all steps.
/// `reset`: too much happened since `Last-Event-ID`; read again what you show. A client that comes back with
/// `Last-Event-ID` misses no audit event.
#[utoipa::path(get, path = "/organizations/{org}/events", operation_id = "follow_events", tag = "audit",
    params(("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event received.")),
    responses((status = OK, description = "The events.", content_type = "text/event-stream", body = String)))]
pub(super) async fn follow(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    headers: HeaderMap,
) -> Outcome<Response> {
    // what is no number of ours is no place to go on from
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let follower = Follower::start(api.deps.clone(), scope, last).await?;
    let events = stream::unfold(follower, |mut follower| async move {
        let told = follower.next().await?;
        Some((Ok::<_, Infallible>(event(told)), follower))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(10));
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

fn event(told: Told) -> Event {
    let event = Event::default().event(told.kind).data(told.data);
    match told.id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}
