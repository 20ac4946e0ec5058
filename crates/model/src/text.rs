//! Texts that are names. The same few stand in many places: the namespace of a pod, the cluster of a target, the name of a port. Whoever
//! reads a text that was read a moment ago gets that one.

use std::{
    cell::RefCell,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// How many a thread remembers; each at the place that its hash gives it, where the one before goes.
const PLACES: usize = 1024;

thread_local! {
    static RECENT: RefCell<Vec<Option<Arc<str>>>> = const { RefCell::new(Vec::new()) };
}

/// The text, to share.
pub(crate) fn shared(text: &str) -> Arc<str> {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let place = usize::try_from(hasher.finish() % PLACES as u64).unwrap_or_default();
    let remembered = RECENT.try_with(|recent| {
        let mut recent = recent.try_borrow_mut().ok()?;
        recent.resize(PLACES, None);
        let known = recent.get_mut(place)?;
        match known {
            Some(same) if **same == *text => Some(Arc::clone(same)),
            _ => Some(Arc::clone(known.insert(text.into()))),
        }
    });
    // A thread that ends remembers nothing.
    remembered.ok().flatten().unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_a_moment_ago_is_the_same_text() {
        let (one, other) = (shared("shop"), shared("bank"));
        assert_eq!((&*one, &*other), ("shop", "bank"));
        assert!(Arc::ptr_eq(&one, &shared("shop")) && Arc::ptr_eq(&other, &shared("bank")));
    }

    #[test]
    fn what_was_read_long_ago_is_forgotten() {
        let first = shared("first");
        let texts: Vec<_> = (0..20 * PLACES).map(|number| shared(&number.to_string())).collect();
        assert!(texts.iter().enumerate().all(|(number, text)| **text == *number.to_string()));
        assert_eq!(Arc::strong_count(&first), 1, "nobody but us has it any more");
        let held = texts.iter().filter(|text| Arc::strong_count(text) > 1).count();
        assert!(held <= PLACES, "{held}");
    }
}
