//! A few names, in order: nearly always one, and there are many such lists.

use tombolo_model::AccountName;

/// Some names, each once. The list is never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    One(AccountName),
    Several(Vec<AccountName>),
}

impl Names {
    pub(super) fn as_slice(&self) -> &[AccountName] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }

    pub(super) fn insert(&mut self, name: AccountName) {
        let Err(at) = self.as_slice().binary_search(&name) else { return };
        let mut names = self.as_slice().to_vec();
        names.insert(at, name);
        *self = Self::Several(names);
    }

    /// The list without a name; none where no other is left.
    pub(super) fn without(&self, name: &AccountName) -> Option<Self> {
        let mut left: Vec<AccountName> = self.as_slice().iter().filter(|one| *one != name).cloned().collect();
        match left.len() {
            0 => None,
            1 => left.pop().map(Self::One),
            _ => Some(Self::Several(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_and_in_order() {
        let name = |text: &str| AccountName::parse(text).unwrap();
        let mut names = Names::One(name("b"));
        for text in ["c", "a", "b", "a"] {
            names.insert(name(text));
        }
        assert_eq!(names.as_slice(), [name("a"), name("b"), name("c")]);
        let names = names.without(&name("a")).unwrap().without(&name("x")).unwrap();
        assert_eq!(names.as_slice(), [name("b"), name("c")]);
        let names = names.without(&name("c")).unwrap();
        assert_eq!(names, Names::One(name("b")));
        assert_eq!(names.without(&name("b")), None);
    }
}
