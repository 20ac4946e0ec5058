//! What stands behind the question mark.

use super::problem::{Problem, problem};
use http::StatusCode;
use tombolo_model::Generation;
use tombolo_wire::message::Digest;

/// The query of a request. Unknown parts are passed over: a newer gateway may send more.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) instance: Option<String>,
    generation: Option<String>,
    digest: Option<String>,
}

impl Query {
    pub(super) fn of(query: Option<&str>) -> Self {
        let mut all = Self::default();
        for (key, value) in query.unwrap_or_default().split('&').filter_map(|part| part.split_once('=')) {
            let place = match key {
                "instance" => &mut all.instance,
                "generation" => &mut all.generation,
                "digest" => &mut all.digest,
                _ => continue,
            };
            *place = Some(value.to_owned());
        }
        all
    }

    pub(super) fn instance(&self) -> Result<&str, Problem> {
        self.instance
            .as_deref()
            .ok_or_else(|| problem(StatusCode::BAD_REQUEST, "instance is missing in the query"))
    }

    /// What the gateway has; both or none.
    pub(super) fn resume(&self) -> Result<Option<(Generation, Digest)>, Problem> {
        match (&self.generation, &self.digest) {
            (None, None) => Ok(None),
            (Some(generation), Some(digest)) => {
                let number = generation.parse().map_err(|_| {
                    problem(
                        StatusCode::BAD_REQUEST,
                        format_args!("generation: {generation:?} is not a number"),
                    )
                })?;
                Ok(Some((Generation::new(number), Digest(digest.clone()))))
            }
            _ => Err(problem(StatusCode::BAD_REQUEST, "generation and digest go together")),
        }
    }
}
