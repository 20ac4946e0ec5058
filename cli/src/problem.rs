//! Errors for people, and exit codes for programs.

use serde::Deserialize;
use std::{fmt::Write as _, process::ExitCode};
use thiserror::Error;

/// Problem details (RFC 9457) as the controller sends them.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Problem {
    /// What kind of problem.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What happened this time.
    #[serde(default)]
    pub detail: Option<String>,
    /// Each field that is wrong.
    #[serde(default)]
    pub errors: Vec<FieldError>,
    /// What to do next, where this program knows.
    #[serde(skip)]
    pub hint: Option<&'static str>,
}

/// A field that is wrong.
#[derive(Clone, Debug, Deserialize)]
pub struct FieldError {
    /// Which.
    #[serde(default)]
    pub field: String,
    /// Why.
    #[serde(default)]
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub remedy: Option<String>,
}

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// The controller said no.
    #[error("{}", describe(.0))]
    Refused(Problem),
    /// The controller did not answer.
    #[error(
        "can't reach {server}: {cause}\n  Is the controller running there, and is the CA fingerprint right? `tombolo doctor` looks closer."
    )]
    Unreachable {
        /// Where it should be.
        server: String,
        /// What happened.
        cause: String,
    },
    /// A choice that people must make.
    #[error("{0}")]
    Usage(String),
    /// The command did its work, and the answer is no.
    #[error("{0}")]
    No(String),
}

fn describe(problem: &Problem) -> String {
    let mut text = problem.title.clone();
    if let Some(detail) = &problem.detail {
        let _ = write!(text, ": {detail}");
    }
    for error in &problem.errors {
        let _ = write!(text, "\n  {}: {}", error.field, error.message);
        if let Some(remedy) = &error.remedy {
            let _ = write!(text, "\n    {remedy}");
        }
    }
    if let Some(hint) = problem.hint {
        let _ = write!(text, "\n  {hint}");
    }
    text
}

/// The error with its causes, for people.
#[must_use]
pub fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let _ = write!(text, "\n  because {cause}");
    }
    text
}

/// With which code to end.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.chain().find_map(|cause| cause.downcast_ref::<CliError>()) {
        Some(CliError::Refused(problem)) if matches!(problem.status, 401 | 403) => ExitCode::from(4),
        Some(CliError::Unreachable { .. }) => ExitCode::from(3),
        Some(CliError::Usage(_)) => ExitCode::from(2),
        _ => ExitCode::from(1),
    }
}
