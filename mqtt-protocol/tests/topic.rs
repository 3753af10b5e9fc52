//! Topic Names and Topic Filters: the specification's examples, and matching against a matcher too simple to be wrong.
#![allow(clippy::unwrap_used, reason = "test code")]

use mqtt_protocol::topic::{
    ParsedFilter, SharedFilter, TopicError, levels, matches, parse_filter, validate_topic_filter,
    validate_topic_name,
};
use proptest::{collection::vec, prelude::*, sample::select};

/// [MQTT-4.7.1-1] to [MQTT-4.7.2-1], v5, by recursion over lists of levels.
fn naive(filter: &str, topic: &str) -> bool {
    fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels_match(filter, topic),
            ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && levels_match(filter, topic),
            _ => false,
        }
    }
    let is_wild = filter.starts_with('+') || filter.starts_with('#');
    let filter: Vec<&str> = filter.split('/').collect();
    let levels: Vec<&str> = topic.split('/').collect();
    !(topic.starts_with('$') && is_wild) && levels_match(&filter, &levels)
}

#[test]
fn examples_of_the_specification_v5_4_7() {
    for (filter, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/tennis/player1/#", "sport/tennis/player2", false),
        ("sport/#", "sport", true),
        ("#", "a/b/c", true),
        ("#", "/", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("#", "$SYS/monitor/Clients", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/monitor/Clients", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("ACCOUNTS", "Accounts", false),
        ("Accounts payable", "Accounts payable", true),
        ("/a", "a", false),
        ("a", "a/", false),
        ("a/+/b", "a//b", true),
        ("+/tennis/#", "sport/tennis", true),
        ("a/$SYS/+", "a/$SYS/b", true),
        ("+/$SYS", "a/$SYS", true),
        ("é/+", "é/x", true),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        assert_eq!(naive(filter, topic), expected, "{filter} {topic}");
    }
}

#[test]
fn filters_of_the_specification_v5_4_7_1() {
    for valid in
        ["#", "+", "sport/tennis/#", "+/tennis/#", "sport/+/player1", "/", "//", "/+/#", "$SYS/#", "a b", "é"]
    {
        assert_eq!(validate_topic_filter(valid), Ok(()), "{valid}");
    }
    for (invalid, error) in [
        ("", TopicError::Empty),
        ("sport/tennis#", TopicError::WildcardNotAlone),
        ("sport/tennis/#/ranking", TopicError::MultiLevelNotLast),
        ("#/", TopicError::MultiLevelNotLast),
        ("sport+", TopicError::WildcardNotAlone),
        ("a/+b/c", TopicError::WildcardNotAlone),
        ("++", TopicError::WildcardNotAlone),
        ("a/##", TopicError::WildcardNotAlone),
        ("a\u{0}b", TopicError::NulCharacter),
    ] {
        assert_eq!(validate_topic_filter(invalid), Err(error), "{invalid}");
        assert_eq!(parse_filter(invalid), Err(error), "{invalid}");
    }
}

#[test]
fn topic_names_v5_4_7_3() {
    for valid in ["a", "/", "a//b", " ", "$SYS/x", "$share/g/t", "\u{FEFF}"] {
        assert_eq!(validate_topic_name(valid), Ok(()), "{valid}");
    }
    for (invalid, error) in [
        ("", TopicError::Empty),
        ("a/+", TopicError::Wildcard),
        ("a#", TopicError::Wildcard),
        ("\u{0}", TopicError::NulCharacter),
        ("longer than a word\u{0}", TopicError::NulCharacter),
    ] {
        assert_eq!(validate_topic_name(invalid), Err(error), "{invalid}");
    }
}

#[test]
fn topics_have_65535_bytes_at_most_v5_4_7_3_3() {
    let longest = "é".repeat(32_767) + "x";
    assert_eq!(validate_topic_name(&longest), Ok(()));
    assert_eq!(validate_topic_filter(&longest), Ok(()));
    let longer = longest + "x";
    let error = Err(TopicError::TooLong { len: 65_536 });
    assert_eq!(validate_topic_name(&longer), error);
    assert_eq!(validate_topic_filter(&longer), error);
}

#[test]
fn shared_subscriptions_v5_4_8_2() {
    let shared = |share_name, filter| Ok(ParsedFilter::Shared(SharedFilter { share_name, filter }));
    for (text, expected) in [
        ("$share/consumer1/sport/tennis/+", shared("consumer1", "sport/tennis/+")),
        ("$share/g//finance", shared("g", "/finance")),
        ("$share/g/#", shared("g", "#")),
        ("$share/g/$SYS/x", shared("g", "$SYS/x")),
        ("$share", Err(TopicError::ShareNameEmpty)),
        ("$share/", Err(TopicError::ShareNameEmpty)),
        ("$share//a", Err(TopicError::ShareNameEmpty)),
        ("$share/g", Err(TopicError::ShareFilterMissing)),
        ("$share/g/", Err(TopicError::ShareFilterMissing)),
        ("$share/g+/a", Err(TopicError::ShareNameWildcard)),
        ("$share/#/a", Err(TopicError::ShareNameWildcard)),
        ("$share/g/a/#/b", Err(TopicError::MultiLevelNotLast)),
        ("$shared/g/a", Ok(ParsedFilter::Plain("$shared/g/a"))),
        ("$Share/g/a", Ok(ParsedFilter::Plain("$Share/g/a"))),
        ("a/$share/g", Ok(ParsedFilter::Plain("a/$share/g"))),
    ] {
        assert_eq!(parse_filter(text), expected, "{text}");
    }
}

#[test]
fn levels_are_cut_at_every_slash() {
    assert!(levels("a//b").eq(["a", "", "b"]));
    assert!(levels("/").eq(["", ""]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn matching_agrees_with_the_naive_matcher(
        filter in vec(select(vec!["a", "b", "", "+", "+", "$a"]), 1..6),
        ends_with_hash in any::<bool>(),
        topic in vec(select(vec!["a", "b", "", "$a", "ab"]), 1..6),
    ) {
        let mut filter = filter.join("/");
        if ends_with_hash {
            filter.push_str(if filter.is_empty() { "#" } else { "/#" });
        }
        let topic = topic.join("/");
        prop_assume!(!filter.is_empty() && !topic.is_empty());
        prop_assert_eq!(matches(&filter, &topic), naive(&filter, &topic), "{} {}", filter, topic);
    }

    #[test]
    fn a_name_is_a_filter_that_matches_itself(topic in "[^\u{0}+#]{1,20}") {
        validate_topic_name(&topic).unwrap();
        validate_topic_filter(&topic).unwrap();
        prop_assert!(matches(&topic, &topic));
    }

    #[test]
    fn a_filter_is_valid_exactly_by_its_levels(filter in "[a/+#]{1,8}") {
        let parts: Vec<&str> = filter.split('/').collect();
        let expected = parts.iter().enumerate().all(|(index, level)| match *level {
            "#" => index + 1 == parts.len(),
            "+" => true,
            text => !text.contains(['+', '#']),
        });
        prop_assert_eq!(validate_topic_filter(&filter).is_ok(), expected);
    }
}
