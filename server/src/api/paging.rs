//! Lists come in pages: at most so many entries, and a cursor with which the next page begins.
//!
//! A cursor is the place behind the last entry, as text that nobody needs to understand. Whatever comes or goes between two pages,
//! an entry that stays is shown once.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};

/// Entries of a page where the request doesn't say how many.
pub const PAGE_DEFAULT: usize = 100;
/// Most entries of a page.
pub const PAGE_MAX: usize = 1_000;

/// How many entries are wanted.
pub(super) fn limit(wanted: Option<usize>) -> Result<usize, Problem> {
    let limit = wanted.unwrap_or(PAGE_DEFAULT);
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::new(Kind::Invalid, format!("limit: expected 1 to {PAGE_MAX}, given {limit}")))
}

/// The cursor of a place.
pub(crate) fn cursor<T: Serialize>(place: &T) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default())
}

/// The place of a cursor.
pub(crate) fn place<T: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<T>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    let place = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    place
        .map(Some)
        .ok_or_else(|| Problem::new(Kind::Invalid, "after: expected the `next` of another page of this list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_from_one_entry_to_the_limit() {
        assert_eq!(limit(None).ok(), Some(PAGE_DEFAULT));
        for (wanted, is_fine) in [(0, false), (1, true), (PAGE_MAX, true), (PAGE_MAX + 1, false)] {
            assert_eq!(limit(Some(wanted)).is_ok(), is_fine, "{wanted}");
        }
    }

    #[test]
    fn a_cursor_brings_its_place_back_and_any_other_text_is_refused() {
        let there = ("a/ü".to_owned(), "b".to_owned());
        let text = cursor(&there);
        assert_eq!(place::<(String, String)>(Some(&text)).ok(), Some(Some(there)));
        for wrong in ["", "x", "====", &cursor(&"one"), &cursor(&1)] {
            assert!(place::<(String, String)>(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
