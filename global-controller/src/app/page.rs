//! Lists in pages, by a cursor that says after which entry to go on.

use super::error::{Kind, Refusal, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use std::str::FromStr;
use utoipa::ToSchema;

/// A page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The entries.
    pub(crate) items: Vec<T>,
    /// Give it as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// Which page is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    limit: u16,
    after: Option<String>,
    list: &'static str,
}

impl Page {
    /// Entries of a page where the request does not say.
    pub(crate) const DEFAULT: u16 = 50;
    /// The most entries of a page.
    pub(crate) const MAX: u16 = 200;

    /// Reads what the request asks for. A cursor names its list, so that one of another list is refused; which
    /// rows a tenant sees never depends on it.
    ///
    /// # Errors
    /// [`Kind::InvalidField`] for a limit out of bounds, [`Kind::InvalidCursor`] for a cursor that we did not make.
    pub(crate) fn new(list: &'static str, limit: Option<u16>, cursor: Option<&str>) -> Result<Self> {
        let limit = limit.unwrap_or(Self::DEFAULT);
        if limit == 0 || limit > Self::MAX {
            return Err(Refusal::new(Kind::InvalidField, "The page size cannot be taken.").field(
                "limit",
                "is out of bounds",
                format!("use 1 to {}", Self::MAX),
            ));
        }
        let after = cursor.map(|text| Self::read(list, text)).transpose()?;
        Ok(Self { limit, after, list })
    }

    fn read(list: &str, text: &str) -> Result<String> {
        let plain = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let after = plain.as_deref().and_then(|plain| plain.strip_prefix(list)?.strip_prefix('\n'));
        // Postgres has no NUL in text; whoever sends one did not get it from us
        after
            .filter(|key| key.len() <= 1024 && !key.contains('\0'))
            .map(str::to_owned)
            .ok_or_else(Self::foreign)
    }

    fn foreign() -> Refusal {
        Refusal::new(Kind::InvalidCursor, "The cursor is not one of this list.").field(
            "cursor",
            "is not a cursor of this list",
            "give next_cursor of the page before as it is, or leave it out to begin anew",
        )
    }

    /// The key after which the page begins.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The same, where keys are ids.
    ///
    /// # Errors
    /// [`Kind::InvalidCursor`] for a cursor that does not hold an id.
    pub(crate) fn after_id<T: FromStr>(&self) -> Result<Option<T>> {
        self.after().map(|text| text.parse().map_err(|_| Self::foreign())).transpose()
    }

    /// How many rows to read: one more than the page has, to know whether there is another page.
    pub(crate) fn fetch(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Makes the page of the rows read with [`Page::fetch`].
    pub(crate) fn list<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> String) -> List<T> {
        let limit = usize::from(self.limit);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|last| URL_SAFE_NO_PAD.encode(format!("{}\n{}", self.list, key(last))));
        List { items, next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pages_join_without_gap_or_repeat() {
        let all: Vec<String> = (0..25).map(|n| format!("n{n:03}")).collect();
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = Page::new("things", Some(10), cursor.as_deref()).unwrap();
            let rows = all.iter().filter(|n| page.after().is_none_or(|after| n.as_str() > after));
            let rows = rows.take(usize::try_from(page.fetch()).unwrap()).cloned().collect();
            let list = page.list(rows, Clone::clone);
            seen.extend(list.items);
            let Some(next) = list.next_cursor else { break };
            cursor = Some(next);
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn refuses_a_cursor_of_another_list() {
        let page = Page::new("things", Some(1), None).unwrap();
        let cursor = page.list(vec!["a", "b"], |s| (*s).to_owned()).next_cursor.unwrap();
        assert_eq!(Page::new("others", None, Some(&cursor)).unwrap_err().kind, Kind::InvalidCursor);
        assert!(Page::new("things", None, Some(&cursor)).is_ok());
    }

    #[test]
    fn refuses_sizes_out_of_bounds() {
        for limit in [0, Page::MAX + 1] {
            assert_eq!(Page::new("things", Some(limit), None).unwrap_err().kind, Kind::InvalidField);
        }
    }

    proptest! {
        #[test]
        fn any_cursor_is_answered(text in "\\PC{0,60}") {
            let _ = Page::new("things", None, Some(&text));
        }
    }
}
