//! What tells an object from another of its name.

use std::fmt;

/// `metadata.uid`. Nearly always a UUID, of which the bits are kept: there are many pods.
#[derive(Clone, PartialEq, Eq)]
pub struct Uid(Form);

/// A text that is a UUID as Kubernetes writes one is never the other form, so what is equal has the same form.
#[derive(Clone, PartialEq, Eq)]
enum Form {
    Uuid([u8; 16]),
    Other(Box<str>),
}

fn written(bits: [u8; 16]) -> String {
    let text = format!("{:032x}", u128::from_be_bytes(bits));
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        let digits = text.replace('-', "");
        let bits = u128::from_str_radix(&digits, 16).map(u128::to_be_bytes);
        match bits {
            Ok(bits) if written(bits) == text => Self(Form::Uuid(bits)),
            _ => Self(Form::Other(text.into())),
        }
    }
}
impl From<String> for Uid {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}
impl PartialEq<String> for Uid {
    fn eq(&self, text: &String) -> bool {
        *self == Self::from(text.as_str())
    }
}
impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Uuid(bits) => f.write_str(&written(*bits)),
            Form::Other(text) => f.write_str(text),
        }
    }
}
impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    #[test]
    fn is_its_text() {
        let upper = UUID.to_uppercase();
        let bare = UUID.replace('-', "");
        let texts = [
            "",
            "u",
            "-",
            "+f8fad5b-d9cb-469f-a165-70867728950e",
            "0",
            UUID,
            &upper,
            &bare,
            "0f8fad5bd-9cb-469f-a165-70867728950e",
        ];
        for one in texts {
            let uid = Uid::from(one);
            assert_eq!((uid.to_string(), format!("{uid:?}")), (one.to_owned(), format!("{one:?}")));
            for other in texts {
                assert_eq!(uid == Uid::from(other), one == other, "{one:?} {other:?}");
                assert_eq!(uid == other.to_owned(), one == other, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_uuid_takes_no_place_of_its_own() {
        assert!(matches!(Uid::from(UUID).0, Form::Uuid(_)));
        assert_eq!(size_of::<Uid>(), 24);
    }
}
