//! Topic Filters and Topic Names: what parses is valid by a second reading of the rules, and matching agrees with a
//! matcher too simple to be wrong.
//!
//! The input is text; its first line is the filter, the rest the name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_protocol::topic::{ParsedFilter, matches, parse_filter, validate_topic_filter, validate_topic_name};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (filter, topic) = text.split_once('\n').unwrap_or((text, ""));
    assert_eq!(validate_topic_name(topic).is_ok(), is_name(topic));
    assert_eq!(validate_topic_filter(filter).is_ok(), is_filter(filter));
    let plain = match parse_filter(filter) {
        Err(_) => {
            assert!(!is_filter(filter) || filter == "$share" || filter.starts_with("$share/"));
            return;
        }
        Ok(ParsedFilter::Plain(plain)) => {
            assert!(plain == filter && is_filter(filter) && !filter.starts_with("$share/"));
            plain
        }
        Ok(ParsedFilter::Shared(shared)) => {
            assert_eq!(format!("$share/{}/{}", shared.share_name, shared.filter), filter);
            assert!(!shared.share_name.is_empty() && !shared.share_name.contains(['/', '+', '#']));
            assert!(is_filter(shared.filter));
            shared.filter
        }
    };
    if is_name(topic) {
        assert_eq!(matches(plain, topic), naive(plain, topic), "{plain:?} {topic:?}");
    }
});

fn is_name(text: &str) -> bool {
    (1..=65_535).contains(&text.len()) && !text.contains(['+', '#', '\0'])
}

fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let last = levels.len() - 1;
    (1..=65_535).contains(&text.len())
        && !text.contains('\0')
        && levels.iter().enumerate().all(|(index, level)| match *level {
            "#" => index == last,
            "+" => true,
            other => !other.contains(['+', '#']),
        })
}

fn naive(filter: &str, topic: &str) -> bool {
    let is_wild = filter.starts_with(['+', '#']);
    let filter: Vec<&str> = filter.split('/').collect();
    let levels: Vec<&str> = topic.split('/').collect();
    !(topic.starts_with('$') && is_wild) && levels_match(&filter, &levels)
}

fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => levels_match(filter, topic),
        ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && levels_match(filter, topic),
        _ => false,
    }
}
