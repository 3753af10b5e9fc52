//! Functions of Strings against models over characters, LIKE against a matcher that tries everything, codes there and back.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::model::Json;
use super::{config, output, value};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[ab]{0,8}", 2 => "[ab \t%_é😀]{0,8}", 1 => ".{0,6}"]
}

fn payload(texts: &[&str], numbers: &[i64]) -> Vec<u8> {
    let mut members = Vec::new();
    for (name, text) in ["s", "t", "u"].iter().zip(texts) {
        members.push(((*name).to_owned(), Json::String((*text).to_owned())));
    }
    for (name, number) in ["i", "j"].iter().zip(numbers) {
        members.push(((*name).to_owned(), Json::Number(number.to_string())));
    }
    Json::Object(members).text().into_bytes()
}

/// A String that the rule gave, read by another reader of JSON.
fn text_of(expr: &str, payload: &[u8]) -> Option<String> {
    value(expr, payload).map(|text| serde_json::from_str(&text).unwrap())
}

/// LIKE by the book: every way to take each `%`.
fn like(text: &[char], pattern: &[char], escape: Option<char>) -> Option<bool> {
    let Some((&first, rest)) = pattern.split_first() else { return Some(text.is_empty()) };
    if Some(first) == escape {
        let (&wanted, rest) = rest.split_first()?;
        let tail = like(text.get(1..).unwrap_or_default(), rest, escape)?;
        return Some(text.first() == Some(&wanted) && tail);
    }
    match first {
        '%' => {
            let mut found = false;
            for taken in 0..=text.len() {
                found |= like(&text[taken..], rest, escape)?;
            }
            Some(found)
        }
        wanted => {
            let tail = like(text.get(1..).unwrap_or_default(), rest, escape)?;
            Some(text.first().is_some_and(|char| wanted == '_' || *char == wanted) && tail)
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn like_is_that_of_a_naive_matcher(s in "[ab%_!é]{0,7}", pattern in "[ab%_!é]{0,6}", with_escape in any::<bool>()) {
        let chars = |text: &str| text.chars().collect::<Vec<char>>();
        let escape = with_escape.then_some('!');
        // A pattern that ends in its escape character matches nothing when it comes with the message.
        let expected = like(&chars(&s), &chars(&pattern), escape).unwrap_or(false);
        let clause = if with_escape { " ESCAPE '!'" } else { "" };
        let payload = payload(&[&s, &pattern], &[]);
        prop_assert_eq!(value(&format!("s LIKE t{clause}"), &payload), Some(expected.to_string()), "{} LIKE {}{}", s, pattern, clause);
        prop_assert_eq!(value(&format!("s NOT LIKE t{clause}"), &payload), Some((!expected).to_string()));
        if like(&chars(&s), &chars(&pattern), escape).is_some() {
            prop_assert_eq!(value(&format!("s LIKE '{pattern}'{clause}"), &payload), Some(expected.to_string()), "literal {}", pattern);
        }
    }

    #[test]
    fn slices_are_those_of_characters(s in text(), i in -3_i64..12, j in -3_i64..12) {
        let payload = payload(&[&s], &[i, j]);
        let chars: Vec<char> = s.chars().collect();
        let clamp = |place: i64| usize::try_from(place).unwrap_or(0).min(chars.len());
        let slice = |from: usize, to: usize| chars.get(from..to).unwrap_or_default().iter().collect::<String>();
        let counted = clamp(i).saturating_add(usize::try_from(j).unwrap_or(0)).min(chars.len());
        for (expr, expected) in [
            ("substring(s, i)", slice(clamp(i), chars.len())),
            ("substring(s, i, j)", slice(clamp(i), clamp(j))),
            ("substring(s, i + 0.5, j + 0.9)", slice(clamp(i), clamp(j))),
            ("substr(s, i)", slice(clamp(i), chars.len())),
            ("substr(s, i, j)", slice(clamp(i), counted)),
            ("reverse(s)", chars.iter().rev().collect()),
        ] {
            prop_assert_eq!(text_of(expr, &payload), Some(expected), "{} of {:?}, {}, {}", expr, s, i, j);
        }
        prop_assert_eq!(value("length(s)", &payload), Some(chars.len().to_string()));
        prop_assert_eq!(value("numbytes(s)", &payload), Some(s.len().to_string()));
        let at = usize::try_from(i).ok().and_then(|i| chars.get(i)).map(char::to_string);
        prop_assert_eq!(text_of("get(s, i)", &payload), at);
    }

    #[test]
    fn searches_are_those_of_characters(s in text(), t in "[abé]{0,3}", u in text()) {
        let payload = payload(&[&s, &t, &u], &[]);
        let (chars, part): (Vec<char>, Vec<char>) = (s.chars().collect(), t.chars().collect());
        let at = (0..=chars.len()).find(|from| chars[*from..].starts_with(&part));
        let expected = at.map_or(-1, |at| i64::try_from(at).unwrap());
        prop_assert_eq!(value("indexof(s, t)", &payload), Some(expected.to_string()));
        prop_assert_eq!(value("startswith(s, t)", &payload), Some(chars.starts_with(&part).to_string()));
        prop_assert_eq!(value("endswith(s, t)", &payload), Some(chars.ends_with(&part).to_string()));
        let mut replaced = String::new();
        let (mut from, mut parts, mut piece) = (0, Vec::new(), String::new());
        while from < chars.len() {
            if !part.is_empty() && chars[from..].starts_with(&part) {
                replaced.push_str(&u);
                parts.push(std::mem::take(&mut piece));
                from += part.len();
            } else {
                replaced.push(chars[from]);
                piece.push(chars[from]);
                from += 1;
            }
        }
        parts.push(piece);
        prop_assert_eq!(text_of("replace(s, t, u)", &payload), Some(replaced));
        prop_assert_eq!(text_of("concat(s, t, u)", &payload), Some(format!("{s}{t}{u}")));
        prop_assert_eq!(text_of("s || t", &payload), Some(format!("{s}{t}")));
        let list = |expr: &str| value(expr, &payload).map(|text| serde_json::from_str::<Vec<String>>(&text).unwrap());
        prop_assert_eq!(list("split(s, t, 'notrim')"), Some(parts.clone()));
        prop_assert_eq!(text_of("join_to_string(t, split(s, t, 'notrim'))", &payload), Some(s.clone()));
        parts.retain(|part| !part.is_empty());
        prop_assert_eq!(list("split(s, t)"), Some(parts));
    }

    #[test]
    fn padding_and_trimming_are_those_of_characters(s in text(), fill in "[xé]{0,2}", i in -3_i64..12) {
        let payload = payload(&[&s, &fill], &[i]);
        let spaces = " ".repeat(usize::try_from(i).unwrap_or(0));
        let filling = |n: usize| fill.chars().cycle().take(if fill.is_empty() { 0 } else { n }).collect::<String>();
        let missing = usize::try_from(i).unwrap_or(0).saturating_sub(s.chars().count());
        let blank = |c: char| c == ' ' || c == '\t';
        for (expr, expected) in [
            ("lpad(s, i)", format!("{spaces}{s}")),
            ("rpad(s, i)", format!("{s}{spaces}")),
            ("pad(s, i)", format!("{s}{}", " ".repeat(missing))),
            ("pad(s, i, 'leading', t)", format!("{}{s}", filling(missing))),
            ("pad(s, i, 'trailing', t)", format!("{s}{}", filling(missing))),
            ("pad(s, i, 'both', t)", format!("{}{s}{}", filling(missing / 2), filling(missing - missing / 2))),
            ("ltrim(s)", s.chars().skip_while(|c| blank(*c)).collect()),
            ("rtrim(s)", s.trim_end_matches(blank).to_owned()),
            ("trim(s)", s.trim().to_owned()),
            ("lower(s)", s.to_lowercase()),
            ("upper(s)", s.to_uppercase()),
        ] {
            prop_assert_eq!(text_of(expr, &payload), Some(expected), "{} of {:?}, {:?}, {}", expr, s, fill, i);
        }
    }

    #[test]
    fn codes_lead_there_and_back(s in text(), bytes in prop::collection::vec(any::<u8>(), 1..24)) {
        let payload = payload(&[&s], &[]);
        prop_assert_eq!(text_of("encode(s, 'base64')", &payload), Some(STANDARD.encode(&s)));
        prop_assert_eq!(text_of("base64_decode(base64_encode(s))", &payload), Some(s.clone()));
        prop_assert_eq!(text_of("base64_encode(s, 'no_padding', 'urlsafe')", &payload), Some(URL_SAFE_NO_PAD.encode(&s)));
        prop_assert_eq!(text_of("base64_decode(base64_encode(s, 'no_padding', 'urlsafe'), 'urlsafe')", &payload), Some(s.clone()));
        prop_assert_eq!(text_of("json_decode(json_encode(s))", &payload), Some(s.clone()));
        // What decodes to JSON is that value, else it is the text.
        let decoded = value("decode(encode(s, 'base64'), 'base64')", &payload).unwrap();
        let expected = serde_json::from_str(&s).unwrap_or(serde_json::Value::String(s.clone()));
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&decoded).unwrap(), expected);
        // Any payload's bytes.
        let encoded = output("SELECT VALUE encode(*, 'base64') FROM '#'", &bytes).unwrap();
        prop_assert_eq!(encoded, format!("\"{}\"", STANDARD.encode(&bytes)));
        let whole = super::outcome("SELECT VALUE base64_decode(base64_encode(*)) FROM '#'", &bytes);
        let rules_sql::Outcome::Output(whole) = whole else { panic!("{whole:?}") };
        if whole.is_json() {
            prop_assert_eq!(serde_json::from_slice::<String>(whole.bytes()).unwrap().into_bytes(), bytes);
        } else {
            prop_assert_eq!(whole.bytes(), bytes);
        }
    }
}
