//! What was read a moment ago. The same few values stand in many places: the namespace of a pod, the cluster of a target, the ports of a
//! service. Whoever reads one that was read just before gets that one.

use crate::{held::Held, inventory::PortSpec};
use arcstr::ArcStr;
use serde::{Deserialize, Deserializer};
use std::{
    cell::RefCell,
    hash::{DefaultHasher, Hash, Hasher},
    thread::LocalKey,
};

/// How many texts and how many lists a thread remembers; each at the place that its hash gives it, where the one before goes.
const TEXTS: usize = 1024;
const LISTS: usize = 64;
/// The most ports of a list, and bytes of a text, that are remembered.
const FEW: usize = 16;
const SHORT: usize = 256;

type Recent<T> = RefCell<Vec<Option<T>>>;

thread_local! {
    static TEXT: Recent<ArcStr> = const { RefCell::new(Vec::new()) };
    static PORTS: Recent<Held<Vec<PortSpec>>> = const { RefCell::new(Vec::new()) };
}

/// The value that is the same as this one; a new one where none was read lately.
fn recall<T: Clone + 'static, U: Hash + Eq + ?Sized>(
    recent: &'static LocalKey<Recent<T>>,
    places: usize,
    value: &U,
    is: impl FnOnce(&T) -> &U,
) -> Result<T, usize> {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    let place = usize::try_from(hasher.finish() % places as u64).unwrap_or_default();
    // A thread that ends remembers nothing.
    let known = recent.try_with(|recent| recent.try_borrow().ok()?.get(place)?.clone());
    known.ok().flatten().filter(|known| is(known) == value).ok_or(place)
}

/// Remembers a value.
fn remember<T: Clone + 'static>(
    recent: &'static LocalKey<Recent<T>>,
    places: usize,
    place: usize,
    value: T,
) -> T {
    let _ = recent.try_with(|recent| {
        let mut recent = recent.try_borrow_mut().ok()?;
        recent.resize(places, None);
        *recent.get_mut(place)? = Some(value.clone());
        Some(())
    });
    value
}

/// The text, to share.
pub(crate) fn text(text: &str) -> ArcStr {
    if text.len() > SHORT {
        return text.into();
    }
    recall(&TEXT, TEXTS, text, |known| known)
        .unwrap_or_else(|place| remember(&TEXT, TEXTS, place, text.into()))
}

/// A list of ports that is read, to share.
pub(crate) fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Held<Vec<PortSpec>>, D::Error> {
    let ports: Vec<PortSpec> = Vec::deserialize(deserializer)?;
    let long = |port: &PortSpec| port.app_protocol.as_ref().is_some_and(|text| text.len() > SHORT);
    // Nothing was checked yet: what is large is not kept for whoever sent it.
    if ports.len() > FEW || ports.iter().any(long) {
        return Ok(ports.into());
    }
    let known = recall(&PORTS, LISTS, &ports, |known| known);
    Ok(known.unwrap_or_else(|place| remember(&PORTS, LISTS, place, ports.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::RouteSpec;

    #[test]
    fn what_was_read_a_moment_ago_is_the_same_text() {
        let (one, other) = (text("shop"), text("bank"));
        assert_eq!((&*one, &*other), ("shop", "bank"));
        assert!(ArcStr::ptr_eq(&one, &text("shop")) && ArcStr::ptr_eq(&other, &text("bank")));
    }

    #[test]
    fn what_was_read_long_ago_is_forgotten() {
        let first = text("first");
        let texts: Vec<_> = (0..20 * TEXTS).map(|number| text(&number.to_string())).collect();
        assert!(texts.iter().enumerate().all(|(number, text)| **text == *number.to_string()));
        assert_eq!(ArcStr::strong_count(&first), Some(1), "nobody but us has it any more");
        let held = texts.iter().filter(|text| ArcStr::strong_count(text) > Some(1)).count();
        assert!(held <= TEXTS, "{held}");
    }

    #[test]
    fn what_is_large_is_not_remembered() {
        let long = "x".repeat(SHORT + 1);
        assert_eq!(ArcStr::strong_count(&text(&long)), Some(1));
        for port in [format!(r#"{{"port":1,"protocol":"TCP","app_protocol":"{long}"}}"#), String::new()] {
            let one = r#"{"port":1,"protocol":"TCP"}"#;
            let ports = if port.is_empty() { vec![one; FEW + 1].join(",") } else { port };
            let read = || ports_of(&format!("[{ports}]"));
            let (first, second) = (read(), read());
            assert_ne!(first.as_ptr(), second.as_ptr(), "each has his own");
        }
    }

    fn ports_of(text: &str) -> Held<Vec<PortSpec>> {
        ports(&mut serde_json::Deserializer::from_str(text)).unwrap()
    }

    #[test]
    fn ports_that_are_the_same_are_one_list() {
        let read = |name: &str, port: u16| -> RouteSpec {
            let ports = format!(r#"[{{"port":{port},"protocol":"TCP","app_protocol":"http"}}]"#);
            let text = format!(r#"{{"name":"{name}","addresses":[],"ports":{ports},"targets":[]}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let (one, same, other) =
            (read("a.example.com", 80), read("b.example.com", 80), read("a.example.com", 81));
        assert_eq!((one.ports.as_ptr(), one.ports[0].port), (same.ports.as_ptr(), 80));
        assert_eq!(other.ports[0].port, 81);
        let mut changed = same.clone();
        changed.ports[0].port = 82;
        assert_eq!(
            (one.ports[0].port, read("c.example.com", 80).ports[0].port),
            (80, 80),
            "who writes has his own"
        );
    }
}
