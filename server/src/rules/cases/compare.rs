//! What came against what was expected, down to the first place where they differ.

use super::json::{Json, near_number, same_number};

/// Characters of a value that a difference shows.
const EXCERPT_CHARS: usize = 400;

/// How two values are compared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Comparison {
    /// Whether the outermost object may have more keys than were expected.
    pub(super) subset: bool,
    /// Most that two numbers may differ by; without it they must have the same value.
    pub(super) tolerance: Option<f64>,
}

impl Comparison {
    /// Says where `came` first differs from `expected`; `None`: nowhere.
    pub(super) fn difference(self, expected: &Json, came: &Json) -> Option<String> {
        self.at("", expected, came, self.subset)
    }

    fn at(self, path: &str, expected: &Json, came: &Json, subset: bool) -> Option<String> {
        match (expected, came) {
            (Json::Number(a), Json::Number(b)) if self.same(a, b) => None,
            (Json::Array(wanted), Json::Array(found)) => {
                let mut pairs = wanted.iter().zip(found).enumerate();
                let inner =
                    pairs.find_map(|(place, (a, b))| self.at(&format!("{path}[{place}]"), a, b, false));
                inner.or_else(|| {
                    let (wanted, found) = (wanted.len(), found.len());
                    (wanted != found)
                        .then(|| format!("{}expected {wanted} elements, {found} came", named(path)))
                })
            }
            (Json::Object(wanted), Json::Object(found)) => {
                for (key, value) in wanted {
                    let inner = step(path, key);
                    let Some(other) = came.member(key) else {
                        return Some(format!("{}expected {}, it is missing", named(&inner), excerpt(value)));
                    };
                    // Of a key that is there twice, the last counts, as in an output.
                    let value = expected.member(key).unwrap_or(value);
                    if let Some(difference) = self.at(&inner, value, other, false) {
                        return Some(difference);
                    }
                }
                let extra = found.iter().find(|(key, _)| !subset && expected.member(key).is_none());
                extra.map(|(key, value)| {
                    format!("{}expected nothing, {} came", named(&step(path, key)), excerpt(value))
                })
            }
            (a, b) if a == b => None,
            (a, b) => Some(format!("{}expected {}, {} came", named(path), excerpt(a), excerpt(b))),
        }
    }

    fn same(self, a: &str, b: &str) -> bool {
        same_number(a, b) || self.tolerance.is_some_and(|tolerance| near_number(a, b, tolerance))
    }
}

fn step(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn named(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("`{path}`: ") }
}

fn excerpt(value: &Json) -> String {
    shortened(&value.text())
}

/// A text that is not too long to be shown.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn difference(how: Comparison, expected: &str, came: &str) -> Option<String> {
        how.difference(&Json::parse(expected).unwrap(), &Json::parse(came).unwrap())
    }

    #[test]
    fn order_of_keys_and_writing_of_numbers_make_no_difference() {
        let strict = Comparison::default();
        assert_eq!(difference(strict, r#"{"a":1,"b":[2.0,null]}"#, r#"{"b":[2,null],"a":1.0}"#), None);
        assert_eq!(difference(strict, r#"{"a":2}"#, r#"{"a":1,"a":2}"#), None);
    }

    #[test]
    fn a_difference_has_its_place() {
        let strict = Comparison::default();
        for (expected, came, words) in [
            (r#"{"a":{"b":[1,2]}}"#, r#"{"a":{"b":[1,3]}}"#, "`a.b[1]`: expected 2, 3 came"),
            ("[1,2]", "[1]", "expected 2 elements, 1 came"),
            ("[1]", "[1,2]", "expected 1 elements, 2 came"),
            (r#"{"a":1}"#, "{}", "`a`: expected 1, it is missing"),
            (r#"{"a":null}"#, "{}", "`a`: expected null, it is missing"),
            ("{}", r#"{"a":1}"#, "`a`: expected nothing, 1 came"),
            ("[{}]", r#"[{"a":null}]"#, "`[0].a`: expected nothing, null came"),
            (r#""1""#, "1", "expected \"1\", 1 came"),
            ("9007199254740993", "9007199254740992", "expected 9007199254740993, 9007199254740992 came"),
            ("true", "\"true\"", "expected true, \"true\" came"),
        ] {
            assert_eq!(difference(strict, expected, came).as_deref(), Some(words));
        }
    }

    #[test]
    fn a_subset_is_one_of_the_outermost_keys() {
        let subset = Comparison { subset: true, tolerance: None };
        assert_eq!(difference(subset, r#"{"a":1}"#, r#"{"a":1,"b":2}"#), None);
        assert!(difference(subset, r#"{"a":1}"#, r#"{"b":2}"#).is_some());
        assert!(difference(subset, r#"{"a":{}}"#, r#"{"a":{"b":2}}"#).is_some());
    }

    #[test]
    fn a_tolerance_holds_for_every_number() {
        let near = Comparison { subset: false, tolerance: Some(0.01) };
        assert_eq!(difference(near, r#"{"a":[1.5]}"#, r#"{"a":[1.509]}"#), None);
        assert!(difference(near, r#"{"a":[1.5]}"#, r#"{"a":[1.52]}"#).is_some());
        assert!(difference(near, r#"{"a":"1.5"}"#, r#"{"a":"1.509"}"#).is_some());
    }

    #[test]
    fn long_values_are_cut() {
        let long = format!("\"{}\"", "é".repeat(10_000));
        assert!(difference(Comparison::default(), &long, "1").unwrap().chars().count() < 500);
    }
}
