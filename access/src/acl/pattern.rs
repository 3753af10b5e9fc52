//! Topic Filters of rules: matching names, covering filters, meeting filters.

use mqtt_protocol::topic::{TopicError, levels, validate_topic_filter};

use super::rules::{Effect, Subject};

/// Levels of a rule's filter at most.
const LEVELS_MAX: usize = 128;

/// What stands for the Client Identifier in a filter.
const CLIENT_ID: &str = "${clientid}";
/// What stands for the user name.
const USERNAME: &str = "${username}";

/// Why a text is no filter of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It breaks the rules of MQTT 5.0 §4.7.
    #[error("the filter {0}")]
    Topic(#[from] TopicError),
    /// It names something that has no value here.
    #[error("the filter has `${{{name}}}`, and only `${{clientid}}` and `${{username}}` have values")]
    Placeholder {
        /// The name.
        name: String,
    },
    /// `${` without `}`.
    #[error("the filter has `${{` without `}}`")]
    Unclosed,
    /// It has more levels than a rule may have.
    #[error("the filter has {levels} levels, more than the limit of {limit}", limit = LEVELS_MAX)]
    Levels {
        /// Levels that it has.
        levels: usize,
    },
    /// It is a Shared Subscription's.
    #[error("the filter begins with `$share/`: write the filter inside, which is what is asked about")]
    Shared,
}

/// A filter whose placeholders have no values yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    levels: Box<[Level]>,
    has_placeholders: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(Box<str>),
    Filled(Box<[Part]>),
    /// `+`
    One,
    /// `#`
    Rest,
    /// Any level, the first one of a topic that begins with `$` too: what a denying rule makes of a missing value.
    Anything,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    ClientId,
    Username,
}

/// A level that stands for itself whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// This text.
    Text(&'a str),
    /// `+`
    One,
}

impl Part {
    fn value<'a>(&'a self, subject: &Subject<'a>) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::ClientId => subject.client_id,
            Self::Username => subject.username,
        }
    }
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        if text.starts_with("$share/") {
            return Err(PatternError::Shared);
        }
        let count = levels(text).count();
        if count > LEVELS_MAX {
            return Err(PatternError::Levels { levels: count });
        }
        // As a name would stand there.
        validate_topic_filter(&text.replace(CLIENT_ID, "x").replace(USERNAME, "x"))?;
        let levels = levels(text).map(Level::parse).collect::<Result<Box<[_]>, _>>()?;
        let has_placeholders = levels.iter().any(|level| matches!(level, Level::Filled(_)));
        Ok(Self { levels, has_placeholders })
    }

    /// The levels before the first placeholder or `#`.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.levels.iter().map_while(|level| match level {
            Level::Literal(text) => Some(Step::Text(text)),
            Level::One => Some(Step::One),
            Level::Filled(_) | Level::Rest | Level::Anything => None,
        })
    }

    /// Whether the filter, with the subject's values, matches a Topic Name.
    pub(super) fn matches(&self, subject: &Subject<'_>, effect: Effect, topic: &str) -> bool {
        self.with(subject, effect, |levels| matches(levels, subject, topic))
    }

    /// Whether it matches everything that `filter` matches.
    pub(super) fn covers(&self, subject: &Subject<'_>, effect: Effect, filter: &str) -> bool {
        self.with(subject, effect, |levels| covers(levels, subject, filter))
    }

    /// Whether there is a topic that both match.
    pub(super) fn meets(&self, subject: &Subject<'_>, effect: Effect, filter: &str) -> bool {
        self.with(subject, effect, |levels| meets(levels, subject, filter))
    }

    /// Asks about the filter as it is for this subject; no where it can't be filled.
    fn with(&self, subject: &Subject<'_>, effect: Effect, ask: impl FnOnce(&[Level]) -> bool) -> bool {
        if !self.has_placeholders || self.is_fillable(subject) {
            return ask(&self.levels);
        }
        match effect {
            Effect::Allow => false,
            Effect::Deny => ask(&self.filled_widely(subject)),
        }
    }

    /// Whether every value is text of one level, and begins no `$` topic.
    fn is_fillable(&self, subject: &Subject<'_>) -> bool {
        self.levels.iter().enumerate().all(|(at, level)| {
            let Level::Filled(parts) = level else { return true };
            parts.iter().enumerate().all(|(place, part)| match part {
                Part::Text(_) => true,
                Part::ClientId | Part::Username => part.value(subject).is_some_and(|value| {
                    let begins_dollar_topic = at == 0 && place == 0 && value.starts_with('$');
                    !(value.is_empty() || value.contains(['/', '+', '#']) || begins_dollar_topic)
                }),
            })
        })
    }

    /// The filter with values that aren't text of one level, for a rule that denies.
    fn filled_widely(&self, subject: &Subject<'_>) -> Vec<Level> {
        let mut filled = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            let Level::Filled(parts) = level else {
                filled.push(level.clone());
                continue;
            };
            let values: Option<String> =
                parts.iter().map(|part| part.value(subject).filter(|value| !value.is_empty())).collect();
            match values {
                None => filled.push(Level::Anything),
                Some(text) => filled.extend(levels(&text).map(|level| {
                    if level.contains(['+', '#']) { Level::Anything } else { Level::Literal(level.into()) }
                })),
            }
        }
        filled
    }
}

impl Level {
    fn parse(text: &str) -> Result<Self, PatternError> {
        match text {
            "+" => return Ok(Self::One),
            "#" => return Ok(Self::Rest),
            _ if !text.contains("${") => return Ok(Self::Literal(text.into())),
            _ => {}
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let (name, after) = after.split_once('}').ok_or(PatternError::Unclosed)?;
            parts.push(match name {
                "clientid" => Part::ClientId,
                "username" => Part::Username,
                other => return Err(PatternError::Placeholder { name: other.to_owned() }),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self::Filled(parts.into()))
    }

    /// Whether a level without wildcards is this text.
    fn is(&self, subject: &Subject<'_>, text: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::Filled(parts) => {
                let rest = parts
                    .iter()
                    .try_fold(text, |rest, part| rest.strip_prefix(part.value(subject).unwrap_or_default()));
                rest.is_some_and(str::is_empty)
            }
            Self::One | Self::Rest | Self::Anything => true,
        }
    }

    fn is_wildcard(&self) -> bool {
        matches!(self, Self::One | Self::Rest)
    }
}

fn matches(pattern: &[Level], subject: &Subject<'_>, topic: &str) -> bool {
    if topic.starts_with('$') && pattern.first().is_some_and(Level::is_wildcard) {
        return false;
    }
    let mut rest = levels(topic);
    for level in pattern {
        match (level, rest.next()) {
            (Level::Rest, _) => return true,
            (level, Some(text)) if level.is(subject, text) => {}
            _ => return false,
        }
    }
    rest.next().is_none()
}

fn covers(pattern: &[Level], subject: &Subject<'_>, filter: &str) -> bool {
    if filter.starts_with('$') && pattern.first().is_some_and(Level::is_wildcard) {
        return false;
    }
    let mut rest = levels(filter);
    for (at, level) in pattern.iter().enumerate() {
        match (level, rest.next()) {
            (Level::Rest, _) => return true,
            // Every topic has a first level, so `+/#` is `#` over again.
            (Level::One | Level::Anything, Some("#")) => {
                return at == 0 && pattern.get(1) == Some(&Level::Rest);
            }
            (Level::One | Level::Anything, Some(_)) => {}
            (_, Some("+" | "#")) => return false,
            (level, Some(text)) if level.is(subject, text) => {}
            _ => return false,
        }
    }
    rest.next().is_none()
}

fn meets(pattern: &[Level], subject: &Subject<'_>, filter: &str) -> bool {
    let begins_with_dollar = |level: &Level| match level {
        Level::Literal(text) => text.starts_with('$'),
        Level::Filled(parts) => {
            parts.first().and_then(|part| part.value(subject)).is_some_and(|text| text.starts_with('$'))
        }
        Level::One | Level::Rest | Level::Anything => false,
    };
    let crosses = pattern.first().is_some_and(|first| {
        (first.is_wildcard() && filter.starts_with('$'))
            || (begins_with_dollar(first) && filter.starts_with(['+', '#']))
    });
    if crosses {
        return false;
    }
    let mut wanted = levels(filter);
    let mut pattern = pattern.iter();
    loop {
        match (pattern.next(), wanted.next()) {
            (Some(Level::Rest), _) | (_, Some("#")) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(_), Some("+")) => {}
            (Some(level), Some(text)) if level.is(subject, text) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt_protocol::topic;
    use proptest::prelude::*;

    use super::*;

    const NOBODY: Subject<'_> =
        Subject { client_id: None, username: None, groups: &[], address: None, listener: None };

    fn client(client_id: &str) -> Subject<'_> {
        Subject { client_id: Some(client_id), ..NOBODY }
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let refused = |text: &str| Pattern::parse(text).unwrap_err().to_string();
        assert_eq!(refused("a/#/b"), "the filter has \"#\" before its last level");
        assert_eq!(refused("a/x+"), "the filter has a wildcard that does not fill its level");
        assert_eq!(refused("a/${clientid}+"), "the filter has a wildcard that does not fill its level");
        assert_eq!(refused(""), "the filter is empty");
        assert_eq!(refused("$share/g/a"), PatternError::Shared.to_string());
        assert_eq!(refused("a/${clientid"), "the filter has `${` without `}`");
        assert!(refused("a/${client}").contains("`${client}`"));
        assert!(Pattern::parse(&vec!["a"; LEVELS_MAX].join("/")).is_ok());
        assert!(refused(&vec!["a"; LEVELS_MAX + 1].join("/")).contains("129 levels"));
    }

    #[test]
    fn covering_is_set_inclusion() {
        for (rule, wanted, expected) in [
            ("#", "#", true),
            ("#", "a/+", true),
            ("+/#", "#", true),
            ("#", "+/#", true),
            ("a/+/#", "a/#", false),
            ("a/#", "a/#", true),
            ("a/#", "a", true),
            ("a/#", "a/+/b", true),
            ("a/#", "#", false),
            ("a/#", "+/b", false),
            ("a/+", "a/#", false),
            ("a/+", "a/+", true),
            ("a/+", "a", false),
            ("a", "+", false),
            ("+", "a", true),
            ("+/b", "a/b", true),
            ("+/b", "a/+", false),
            ("#", "$SYS/#", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/#", true),
            ("a/", "a/", true),
            ("a/", "a", false),
        ] {
            assert_eq!(pattern(rule).covers(&NOBODY, Effect::Allow, wanted), expected, "{rule} {wanted}");
        }
    }

    #[test]
    fn meeting_is_having_a_topic_in_common() {
        for (rule, wanted, expected) in [
            ("a/b", "#", true),
            ("a/b", "+/b", true),
            ("a/b", "+/c", false),
            ("a/#", "a", true),
            ("a", "a/#", true),
            ("a/b", "a/#", true),
            ("+/b", "a/+", true),
            ("a/+", "a", false),
            ("$SYS/x", "#", false),
            ("#", "$SYS/x", false),
            ("$SYS/#", "$SYS/+", true),
        ] {
            assert_eq!(pattern(rule).meets(&NOBODY, Effect::Deny, wanted), expected, "{rule} {wanted}");
        }
    }

    #[test]
    fn a_value_is_text_and_never_a_pattern() {
        let rule = pattern("s/${clientid}/#");
        let allows = |id, topic| rule.matches(&client(id), Effect::Allow, topic);
        assert!(allows("d1", "s/d1/x"));
        assert!(!allows("d1", "s/d2/x"));
        assert!(!allows("d", "s/d1/x"));
        for id in ["+", "#", "d1/#", "a/b", "/", "", "d+"] {
            for topic in ["s/d1/x", "s/a/b/x", "s/+/x", "s/#/x", "s//x", "s/d+/x", "s/d1/#/x"] {
                assert!(!allows(id, topic), "{id:?} {topic}");
            }
            for filter in ["s/#", "s/+/#", "s/+/x", "s/a/b/#", "s/d1/#", "s//#"] {
                assert!(!rule.covers(&client(id), Effect::Allow, filter), "{id:?} {filter}");
            }
        }
        assert!(!rule.matches(&NOBODY, Effect::Allow, "s//x"));
        let in_part = pattern("s/dev-${clientid}-x");
        assert!(in_part.matches(&client("1"), Effect::Allow, "s/dev-1-x"));
        assert!(!in_part.matches(&client("1"), Effect::Allow, "s/dev-1-y"));
        assert!(!in_part.matches(&client("+"), Effect::Allow, "s/dev-1-x"));
    }

    #[test]
    fn a_name_with_a_dollar_opens_nothing_of_the_brokers() {
        let rule = pattern("${clientid}/#");
        assert!(!rule.matches(&client("$SYS"), Effect::Allow, "$SYS/broker"));
        assert!(!rule.covers(&client("$SYS"), Effect::Allow, "$SYS/#"));
        assert!(pattern("s/${clientid}").matches(&client("$x"), Effect::Allow, "s/$x"));
        assert!(rule.matches(&client("$SYS"), Effect::Deny, "$SYS/broker"));
    }

    #[test]
    fn a_denying_rule_is_not_escaped_by_a_name() {
        let rule = pattern("s/${clientid}/private");
        let denies = |subject: &Subject<'_>, topic| rule.matches(subject, Effect::Deny, topic);
        assert!(denies(&client("a"), "s/a/private"));
        assert!(!denies(&client("a"), "s/b/private"));
        assert!(denies(&client("a/b"), "s/a/b/private"));
        assert!(!denies(&client("a/b"), "s/a/private"));
        for id in ["+", "#", ""] {
            assert!(denies(&client(id), "s/b/private"), "{id:?}");
            assert!(!denies(&client(id), "s/b/public"), "{id:?}");
        }
        assert!(denies(&NOBODY, "s/b/private"));
        assert!(pattern("${username}/x").matches(&NOBODY, Effect::Deny, "$SYS/x"));
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x"])
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("valid", |name| topic::validate_topic_name(name).is_ok())
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 2 => Just("+")];
        (prop::collection::vec(level, 0..4), any::<bool>())
            .prop_map(|(mut levels, rest)| {
                if rest || levels.is_empty() {
                    levels.push("#");
                }
                levels.join("/")
            })
            .prop_filter("valid", |filter| topic::validate_topic_filter(filter).is_ok())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn names_match_as_the_broker_matches_them(filter in filter(), name in name()) {
            prop_assert_eq!(
                pattern(&filter).matches(&NOBODY, Effect::Allow, &name),
                topic::matches(&filter, &name)
            );
        }

        #[test]
        fn covering_and_meeting_hold_for_every_topic(rule in filter(), wanted in filter(), name in name()) {
            let in_both = topic::matches(&rule, &name) && topic::matches(&wanted, &name);
            let only_wanted = !topic::matches(&rule, &name) && topic::matches(&wanted, &name);
            let pattern = pattern(&rule);
            prop_assert!(!(pattern.covers(&NOBODY, Effect::Allow, &wanted) && only_wanted));
            prop_assert!(!in_both || pattern.meets(&NOBODY, Effect::Deny, &wanted));
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// The other direction: what isn't said to be covered has a topic outside, and what meets has one inside. Names of up
        /// to five levels, over the letters that can make a difference, are enough to find it. The name without any character
        /// counts, though nobody can publish to it: `/#` and `+` have it in common.
        #[test]
        fn covering_and_meeting_are_no_narrower_than_they_have_to_be(rule in filter(), wanted in filter()) {
            let pattern = pattern(&rule);
            let letters = ["a", "b", "", "$x", "z"];
            let mut names: Vec<String> = letters.iter().map(|letter| (*letter).to_owned()).collect();
            let mut longer = names.clone();
            for _ in 0..4 {
                longer = longer
                    .iter()
                    .flat_map(|name| letters.iter().map(move |letter| format!("{name}/{letter}")))
                    .collect();
                names.extend(longer.iter().cloned());
            }
            let covered = names.iter().filter(|name| topic::matches(&wanted, name)).all(|name| topic::matches(&rule, name));
            let met = names.iter().any(|name| topic::matches(&wanted, name) && topic::matches(&rule, name));
            prop_assert_eq!(pattern.covers(&NOBODY, Effect::Allow, &wanted), covered);
            prop_assert_eq!(pattern.meets(&NOBODY, Effect::Deny, &wanted), met);
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn no_name_widens_what_is_allowed(id in "[a+#/$]{0,4}", wanted in filter(), name in name()) {
            // With any name, a rule allows at most what it allows with its own text in place of the name.
            let rule = pattern("a/${clientid}/b");
            if rule.matches(&client(&id), Effect::Allow, &name) {
                prop_assert_eq!(name, format!("a/{id}/b"));
            }
            if rule.covers(&client(&id), Effect::Allow, &wanted) {
                prop_assert_eq!(wanted, format!("a/{id}/b"));
            }
        }
    }
}
