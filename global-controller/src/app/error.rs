//! Why a request was refused, in a form that the HTTP layer turns into problem details.

use crate::store;
use std::borrow::Cow;
use tombolo_model::NameError;

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident: $($kind:ident,)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($kind,)+ }

        impl $name {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)+];
        }
    };
}

kinds! {
    /// The kinds of refusal. Each is a problem type of the API: its name is stable, programs may match on it.
    Kind:
    MalformedJson,
    UnknownField,
    InvalidField,
    InvalidCursor,
    InvalidHeader,
    UnsupportedMediaType,
    BodyTooLarge,
    Timeout,
    Unauthenticated,
    TokenExpired,
    TokenRevoked,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    AlreadyExists,
    DomainOverlap,
    Conflict,
    PreconditionFailed,
    PreconditionRequired,
    IdempotencyMismatch,
    RateLimited,
    OnboardingTokenUnknown,
    OnboardingTokenExpired,
    OnboardingTokenUsed,
    OnboardingTokenRevoked,
    OnboardingTokenOtherCluster,
    ClientCertificateRequired,
    ClusterRevoked,
    UnknownBase,
    InvalidCsr,
    IncompatibleVersion,
    Unavailable,
    Internal,
}

/// A field (or header, or query parameter) that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// Where: `rules[0].cluster.name`, or a header's or parameter's name.
    pub(crate) field: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) remedy: String,
}

/// The kind of problem in an answer, by its stable name: what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) &'static str);

/// A refused request.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Which problem it is.
    pub(crate) kind: Kind,
    /// For people: what happened, this time.
    pub(crate) detail: Cow<'static, str>,
    /// The fields to change.
    pub(crate) errors: Vec<FieldError>,
    /// What really happened, for the log and never for the caller.
    pub(crate) cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// For [`Kind::RateLimited`] and [`Kind::Unavailable`]: when to come back.
    pub(crate) retry_after_s: Option<u64>,
}

/// What `app` functions answer.
pub(crate) type Result<T> = std::result::Result<T, Refusal>;

impl Refusal {
    /// A refusal of this kind.
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), cause: None, retry_after_s: None }
    }

    /// Names a field to change.
    #[must_use]
    pub(crate) fn field(
        mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        self.errors.push(FieldError { field: field.into(), message: message.into(), remedy: remedy.into() });
        self
    }

    /// When it is worth to ask again, in seconds from now.
    #[must_use]
    pub(crate) const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Something that is not there, or is another tenant's: the two look the same.
    pub(crate) fn not_found(what: &'static str, name: &str) -> Self {
        let shown: String = name.chars().take(100).collect();
        Self::new(Kind::NotFound, format!("There is no {what} {shown:?} here."))
    }

    /// A name that is taken.
    pub(crate) fn already_exists(what: &'static str, field: &str, name: &str) -> Self {
        Self::new(Kind::AlreadyExists, format!("There is already a {what} {name:?}.")).field(
            field,
            "is taken",
            "choose another one, or change the one that exists",
        )
    }

    /// Our fault.
    pub(crate) fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let mut refusal = Self::new(
            Kind::Internal,
            "The controller failed; its log has the reason under this request's x-request-id.",
        );
        refusal.cause = Some(cause.into());
        refusal
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        let detail = match &error {
            store::Error::Unavailable { .. } => "The database does not answer; try again.",
            store::Error::Contended { .. } => "Another change was made at the same moment; try again.",
            _ => return Self::internal(error),
        };
        let mut refusal = Self::new(Kind::Unavailable, detail).retry_after(1);
        refusal.cause = Some(error.into());
        refusal
    }
}

/// Gathers what is wrong with a request, so that one answer names all of it.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<FieldError>);

impl Checks {
    /// Notes a field that is wrong.
    pub(crate) fn wrong(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(FieldError { field: field.into(), message: message.into(), remedy: remedy.into() });
    }

    /// Reads a name with one of the model's parsers.
    pub(crate) fn name<T>(
        &mut self,
        field: impl Into<String>,
        text: &str,
        parse: fn(&str) -> std::result::Result<T, NameError>,
        example: &str,
    ) -> Option<T> {
        match parse(text) {
            Ok(name) => Some(name),
            Err(error) => {
                self.wrong(field, error.to_string(), format!("use a name such as {example}"));
                None
            }
        }
    }

    /// Ok where nothing was wrong.
    ///
    /// # Errors
    /// A refusal that names every field.
    pub(crate) fn done(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let fields: Vec<&str> = self.0.iter().map(|e| e.field.as_str()).collect();
        let detail = format!("The request has a value that cannot be taken: {}.", fields.join(", "));
        let mut refusal = Refusal::new(Kind::InvalidField, detail);
        refusal.errors = self.0;
        Err(refusal)
    }
}
