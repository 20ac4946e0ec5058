//! Validated names. A label is RFC 1123 (letters, digits, hyphens; 63 bytes), a domain RFC 1035 (253 bytes);
//! both are kept in lower case. An agent knows some of them ten times over, so a copy shares the text.

use crate::{recent, shared::shared};
use arcstr::ArcStr;
use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt, str::FromStr};
use thiserror::Error;

/// Why a text is not a name of the asked kind.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Nothing there.
    #[error("is empty; give a name")]
    Empty,
    /// Longer than the kind of name may be.
    #[error("has {length} characters; at most {limit} are allowed")]
    TooLong {
        /// The length found, in bytes.
        length: usize,
        /// The longest allowed, in bytes.
        limit: usize,
    },
    /// A character that no DNS label has.
    #[error("has {found:?}; use only lower-case letters, digits and hyphens")]
    Character {
        /// The character.
        found: char,
    },
    /// A label begins or ends with a hyphen.
    #[error("has a label that begins or ends with a hyphen")]
    Hyphen,
    /// Two dots in a row, or a dot at the start.
    #[error("has an empty label (two dots in a row, or one at the start)")]
    EmptyLabel,
    /// A domain of one label.
    #[error("has one label; a domain needs two or more, as in acme.example.com")]
    OneLabel,
    /// A domain that belongs to Kubernetes itself.
    #[error("ends in {suffix}, which every Kubernetes cluster answers itself; choose a domain of your own")]
    Reserved {
        /// The reserved ending.
        suffix: &'static str,
    },
    /// A domain under which others have names.
    #[error(
        "is, or ends in, {suffix}, under which everybody has names; choose a domain of your own, as acme.example.com"
    )]
    Shared {
        /// What is shared.
        suffix: &'static str,
    },
    /// A last label of digits only would read as an address.
    #[error("ends in a label of digits only, which reads as an address")]
    NumericTop,
}

fn check_label(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > 63 {
        return Err(NameError::TooLong { length: text.len(), limit: 63 });
    }
    if let Some(found) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameError::Character { found });
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Hyphen);
    }
    Ok(())
}

fn check_labels(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > 253 {
        return Err(NameError::TooLong { length: text.len(), limit: 253 });
    }
    for label in text.split('.') {
        if label.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        check_label(label)?;
    }
    Ok(())
}

/// Endings that the clusters answer themselves.
const RESERVED: [&str; 2] = ["cluster.local", "localhost"];

/// The domain of the cluster set (KEP-1645). Nobody chooses it, and no chosen one overlaps it.
const CLUSTER_SET: &str = "clusterset.local";

fn ends_in(text: &str, suffix: &str) -> bool {
    text.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A domain that people may choose.
fn check_domain(text: &str) -> Result<(), NameError> {
    check_global(text)?;
    if ends_in(text, CLUSTER_SET) {
        return Err(NameError::Reserved { suffix: CLUSTER_SET });
    }
    Ok(())
}

/// A domain that the programs tell each other: the cluster set's too.
fn check_told_domain(text: &str) -> Result<(), NameError> {
    if text == CLUSTER_SET { Ok(()) } else { check_domain(text) }
}

fn check_global(text: &str) -> Result<(), NameError> {
    check_labels(text)?;
    let Some((_, _)) = text.split_once('.') else { return Err(NameError::OneLabel) };
    if let Some(suffix) = RESERVED.into_iter().find(|suffix| ends_in(text, suffix)) {
        return Err(NameError::Reserved { suffix });
    }
    if text.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit())) {
        return Err(NameError::NumericTop);
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $check:ident, $told:ident);+ $(;)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(ArcStr);

        impl $name {
            /// Reads a name; upper case and one dot at the end are taken, and dropped.
            ///
            /// # Errors
            /// A [`NameError`] that says what is wrong with the text and what to use instead.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
                $check(&text)?;
                Ok(Self(recent::text(&text)))
            }
            /// The name as text, without a dot at the end.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> { Self::parse(text) }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                let text = text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase();
                $told(&text)?;
                Ok(Self(recent::text(&text)))
            }
        }
        impl From<$name> for String { fn from(name: $name) -> String { name.0.as_str().to_owned() } }
        impl AsRef<str> for $name { fn as_ref(&self) -> &str { &self.0 } }
        impl Borrow<str> for $name { fn borrow(&self) -> &str { &self.0 } }
    )+};
}

names! {
    /// One DNS label: a service, a port, a global namespace.
    DnsLabel = check_label, check_label;
    /// The name of an organization.
    OrgName = check_label, check_label;
    /// The name of a cluster inside its organization.
    ClusterName = check_label, check_label;
    /// The name of a Kubernetes namespace.
    NamespaceName = check_label, check_label;
    /// The name of a Kubernetes service account (a DNS subdomain).
    AccountName = check_labels, check_labels;
    /// The domain of a global namespace, as `acme.example.com`.
    Domain = check_domain, check_told_domain;
    /// A full name under a domain, as `catalog.acme.example.com`.
    GlobalName = check_global, check_global;
}

impl GlobalName {
    /// The text, to share.
    pub(crate) const fn text(&self) -> &ArcStr {
        &self.0
    }

    /// Whether it is one of the cluster set.
    #[must_use]
    pub fn is_in_cluster_set(&self) -> bool {
        ends_in(&self.0, CLUSTER_SET)
    }
}

impl Domain {
    /// The domain of the cluster set, `clusterset.local`.
    #[must_use]
    pub fn cluster_set() -> Self {
        Self(CLUSTER_SET.into())
    }

    /// Whether it is that.
    #[must_use]
    pub fn is_cluster_set(&self) -> bool {
        self.0 == CLUSTER_SET
    }

    /// A domain that somebody chooses for a global namespace: one of his own, as far as that can be told from its name. What was chosen
    /// before is read with [`Self::parse`].
    ///
    /// # Errors
    /// A [`NameError`].
    pub fn choose(text: &str) -> Result<Self, NameError> {
        let domain = Self::parse(text)?;
        match shared(domain.as_str()) {
            Some(suffix) => Err(NameError::Shared { suffix }),
            None => Ok(domain),
        }
    }

    /// Whether one of the two lies in the other (or they are the same): two such domains may not both be used.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other.as_str()) || other.covers(self.as_str())
    }

    /// Whether `name` is this domain or lies under it.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        name.strip_suffix(self.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// `<label>.<domain>`, or `<label>.<label>.<domain>`.
    ///
    /// # Errors
    /// [`NameError::TooLong`] where the whole would pass 253 bytes.
    pub fn child(&self, labels: &[&DnsLabel]) -> Result<GlobalName, NameError> {
        let mut text = String::new();
        for label in labels {
            text.push_str(label.as_str());
            text.push('.');
        }
        text.push_str(self.as_str());
        GlobalName::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn domains() {
        for good in ["acme.example.com", "ACME.Example.com.", "a.b", "x-1.internal"] {
            assert!(Domain::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", NameError::Empty),
            ("acme", NameError::OneLabel),
            ("a..b", NameError::EmptyLabel),
            (".a.b", NameError::EmptyLabel),
            ("a_b.c", NameError::Character { found: '_' }),
            ("-a.b", NameError::Hyphen),
            ("foo.cluster.local", NameError::Reserved { suffix: "cluster.local" }),
            ("cluster.local", NameError::Reserved { suffix: "cluster.local" }),
            ("10.0.0.1", NameError::NumericTop),
        ] {
            assert_eq!(Domain::parse(bad), Err(why), "{bad}");
        }
        assert!(Domain::parse("notcluster.local").is_ok());
    }

    #[test]
    fn nobody_chooses_the_cluster_set() {
        for text in ["clusterset.local", "svc.clusterset.local"] {
            assert_eq!(
                Domain::parse(text),
                Err(NameError::Reserved { suffix: "clusterset.local" }),
                "{text}"
            );
        }
        let told: Domain = serde_json::from_str("\"clusterset.local\"").unwrap();
        assert!(told.is_cluster_set() && told == Domain::cluster_set());
        assert!(serde_json::from_str::<Domain>("\"svc.clusterset.local\"").is_err());
        let name = told.child(&[&DnsLabel::parse("a").unwrap(), &DnsLabel::parse("b").unwrap()]).unwrap();
        assert_eq!(name.as_str(), "a.b.clusterset.local");
        assert_eq!(serde_json::from_str::<GlobalName>("\"a.b.clusterset.local\"").unwrap(), name);
    }

    #[test]
    fn overlap() {
        let d = |t| Domain::parse(t).unwrap();
        assert!(d("acme.example.com").overlaps(&d("example.com")));
        assert!(d("example.com").overlaps(&d("acme.example.com")));
        assert!(!d("acme.example.com").overlaps(&d("cme.example.com")));
    }

    proptest! {
        #[test]
        fn parse_is_idempotent(text in "\\PC{0,80}") {
            if let Ok(name) = GlobalName::parse(&text) {
                prop_assert_eq!(GlobalName::parse(name.as_str()), Ok(name.clone()));
                let json = serde_json::to_string(&name).unwrap();
                prop_assert_eq!(serde_json::from_str::<GlobalName>(&json).unwrap(), name);
            }
        }
    }
}
