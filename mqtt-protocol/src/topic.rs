//! Topic Names, Topic Filters, Shared Subscriptions, and the matching of one filter to one name.
//!
//! All of it works on `/`-separated levels of UTF-8 text; nothing is normalised, letter case counts
//! (MQTT 5.0 §4.7.3). Matching expects a filter and a name that were validated before.

use crate::{STRING_BYTES_MAX, wire::has_wildcard};

/// Why a text is no Topic Name or no Topic Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Shorter than one character [MQTT-4.7.3-1, v3.1.1 and v5].
    #[error("is empty")]
    Empty,
    /// Longer than 65,535 bytes [MQTT-4.7.3-3, v3.1.1 and v5].
    #[error("has {len} bytes, more than the limit of {limit}", limit = STRING_BYTES_MAX)]
    TooLong {
        /// Length in bytes.
        len: usize,
    },
    /// Holds U+0000 [MQTT-4.7.3-2, v3.1.1 and v5].
    #[error("holds the character U+0000")]
    NulCharacter,
    /// A Topic Name holds `+` or `#` [MQTT-3.3.2-2, v3.1.1 and v5].
    #[error("holds a wildcard character")]
    Wildcard,
    /// `#` is not the last character [MQTT-4.7.1-1, v5] [MQTT-4.7.1-2, v3.1.1].
    #[error("has \"#\" before its last level")]
    MultiLevelNotLast,
    /// `+` or `#` shares its level with other characters [MQTT-4.7.1-1, -2, v5] [MQTT-4.7.1-2, -3, v3.1.1].
    #[error("has a wildcard that does not fill its level")]
    WildcardNotAlone,
    /// The ShareName of a Shared Subscription is empty [MQTT-4.8.2-1, v5].
    #[error("has an empty share name")]
    ShareNameEmpty,
    /// The ShareName of a Shared Subscription holds `+` or `#` [MQTT-4.8.2-1, v5].
    #[error("has a wildcard in its share name")]
    ShareNameWildcard,
    /// No Topic Filter follows the ShareName [MQTT-4.8.2-2, v5].
    #[error("has no topic filter after its share name")]
    ShareFilterMissing,
}

/// A Shared Subscription `$share/{share_name}/{filter}`. Source: MQTT 5.0 §4.8.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedFilter<'a> {
    /// The ShareName, without `/`, `+` and `#`, not empty.
    pub share_name: &'a str,
    /// The Topic Filter proper.
    pub filter: &'a str,
}

/// A valid Topic Filter as a SUBSCRIBE gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParsedFilter<'a> {
    /// An ordinary Topic Filter.
    Plain(&'a str),
    /// A Shared Subscription.
    Shared(SharedFilter<'a>),
}

/// Checks a Topic Name: 1 to 65,535 bytes, without wildcards and U+0000.
///
/// Source: MQTT 5.0 and 3.1.1 §4.7.3, [MQTT-3.3.2-2, v3.1.1 and v5].
///
/// # Errors
/// The first rule that is broken.
pub fn validate_topic_name(name: &str) -> Result<(), TopicError> {
    validate_text(name)?;
    if has_wildcard(name.as_bytes()) { Err(TopicError::Wildcard) } else { Ok(()) }
}

/// Checks a Topic Filter: 1 to 65,535 bytes, without U+0000, each wildcard alone in its level, `#` only as the last.
///
/// A `$share/…` prefix has no meaning here; see [`parse_filter`]. Source: MQTT 5.0 and 3.1.1 §4.7.1, §4.7.3.
///
/// # Errors
/// The first rule that is broken.
pub fn validate_topic_filter(filter: &str) -> Result<(), TopicError> {
    validate_text(filter)?;
    if !has_wildcard(filter.as_bytes()) {
        return Ok(());
    }
    let mut rest = levels(filter);
    while let Some(level) = rest.next() {
        match level {
            "+" => {}
            "#" => return if rest.next().is_none() { Ok(()) } else { Err(TopicError::MultiLevelNotLast) },
            text if has_wildcard(text.as_bytes()) => return Err(TopicError::WildcardNotAlone),
            _ => {}
        }
    }
    Ok(())
}

/// Says whether a Topic Filter (without `$share`) matches a Topic Name; both must be valid.
///
/// `a/#` matches `a` too; a filter that starts with a wildcard does not match a name that starts with `$`
/// [MQTT-4.7.2-1, v3.1.1 and v5].
///
/// ```
/// use mqtt_protocol::topic::matches;
/// assert!(matches("sport/+/player", "sport/tennis/player"));
/// assert!(matches("sport/#", "sport"));
/// assert!(!matches("#", "$SYS/uptime"));
/// ```
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut filter_levels = levels(filter);
    let mut topic_levels = levels(topic);
    loop {
        match (filter_levels.next(), topic_levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// Iterates over the Topic Levels of a name or filter; `a//b` has three, `/` has two.
pub fn levels(topic: &str) -> impl Iterator<Item = &str> {
    topic.split('/')
}

/// Says whether a Topic Filter holds a wildcard.
pub fn has_wildcards(filter: &str) -> bool {
    has_wildcard(filter.as_bytes())
}

/// Takes apart and checks a Topic Filter of a SUBSCRIBE or UNSUBSCRIBE, Shared Subscriptions included.
///
/// ```
/// use mqtt_protocol::topic::{ParsedFilter, SharedFilter, parse_filter};
/// let parsed = parse_filter("$share/workers/jobs/+")?;
/// assert_eq!(parsed, ParsedFilter::Shared(SharedFilter { share_name: "workers", filter: "jobs/+" }));
/// # Ok::<(), mqtt_protocol::topic::TopicError>(())
/// ```
///
/// # Errors
/// The rule of §4.7 or of MQTT 5.0 §4.8.2 that is broken.
pub fn parse_filter(text: &str) -> Result<ParsedFilter<'_>, TopicError> {
    validate_text(text)?;
    let Some(shared) = text.strip_prefix("$share") else {
        validate_topic_filter(text)?;
        return Ok(ParsedFilter::Plain(text));
    };
    let Some(shared) = shared.strip_prefix('/') else {
        if shared.is_empty() {
            return Err(TopicError::ShareNameEmpty);
        }
        validate_topic_filter(text)?;
        return Ok(ParsedFilter::Plain(text));
    };
    let (share_name, filter) = match shared.split_once('/') {
        Some((share_name, filter)) => (share_name, Some(filter)),
        None => (shared, None),
    };
    if share_name.is_empty() {
        return Err(TopicError::ShareNameEmpty);
    }
    if has_wildcard(share_name.as_bytes()) {
        return Err(TopicError::ShareNameWildcard);
    }
    match filter {
        None | Some("") => Err(TopicError::ShareFilterMissing),
        Some(filter) => {
            validate_topic_filter(filter)?;
            Ok(ParsedFilter::Shared(SharedFilter { share_name, filter }))
        }
    }
}

fn validate_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > STRING_BYTES_MAX {
        return Err(TopicError::TooLong { len: text.len() });
    }
    if crate::wire::has_nul(text.as_bytes()) {
        return Err(TopicError::NulCharacter);
    }
    Ok(())
}
