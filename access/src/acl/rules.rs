//! Rules ready to be asked: found by whom they name, in their order.
//!
//! Each rule stands in one list: that of its client, else of its user, else of its group, else with those for everybody. A
//! decision looks for the first rule that applies in each list that concerns the subject, and the earliest of these
//! counts. A list that is long is looked up by the levels of its filters ([`super::index`]). So ten thousand rules, of which few
//! can concern a client and a topic, cost about what those few cost, and nothing is allocated.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use mqtt_protocol::QoS;

use super::index::{List, READ_THROUGH_MAX, Search};
use super::pattern::Pattern;

/// Whom a decision is about. What is `None` matches no rule that names it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Client Identifier.
    pub client_id: Option<&'a str>,
    /// User name.
    pub username: Option<&'a str>,
    /// Groups.
    pub groups: &'a [Arc<str>],
    /// Address that it comes from.
    pub address: Option<IpAddr>,
    /// Listener that it came by.
    pub listener: Option<&'a str>,
}

/// What the subject wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Publish.
    Publish {
        /// Topic Name.
        topic: &'a str,
        /// Quality of service.
        qos: QoS,
        /// Whether it is to be retained.
        retain: bool,
    },
    /// Subscribe.
    Subscribe {
        /// Topic Filter, without `$share`.
        filter: &'a str,
        /// Quality of service asked for.
        qos: QoS,
    },
    /// Receive one message of a Subscription.
    Receive {
        /// Topic Name.
        topic: &'a str,
    },
}

/// What rules say to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Yes.
    Allow {
        /// The rule that says so.
        by: &'a Rule,
        /// Of a Subscription: an earlier rule denies a part of it, so that its messages are to be asked about.
        in_part: bool,
    },
    /// No.
    Deny {
        /// The rule that says so.
        by: &'a Rule,
    },
    /// No rule applies.
    Unmatched {
        /// As in [`Verdict::Allow`], should somebody else allow it.
        in_part: bool,
    },
}

/// What a rule says where it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(super) effect: Effect,
    pub(super) publish: bool,
    pub(super) subscribe: bool,
    /// Bit 0 for QoS 0, and so on.
    pub(super) qos: u8,
    pub(super) retain: Option<bool>,
    pub(super) who: Who,
    pub(super) pattern: Pattern,
    pub(super) text: Box<str>,
    pub(super) source: Arc<str>,
    /// 1 for the first.
    pub(super) line: u32,
}

/// Every quality of service.
pub(super) const ANY_QOS: u8 = 0b111;

/// Whom a rule is for: everything that is said has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) client_id: Option<Box<str>>,
    pub(super) username: Option<Box<str>>,
    /// No user name.
    pub(super) anonymous: bool,
    pub(super) group: Option<Box<str>>,
    pub(super) address: Option<Network>,
    pub(super) listener: Option<Box<str>>,
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) address: IpAddr,
    pub(super) bits: u8,
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let share = |a: u128, b: u128, bits: u32| {
            let kept = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            (a ^ b) & kept == 0
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => share(
                u128::from(own.to_bits()) << 96,
                u128::from(other.to_bits()) << 96,
                u32::from(self.bits),
            ),
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                share(own.to_bits(), other.to_bits(), u32::from(self.bits))
            }
            _ => false,
        }
    }
}

impl Who {
    fn includes(&self, subject: &Subject<'_>) -> bool {
        fn is(wanted: Option<&str>, given: Option<&str>) -> bool {
            wanted.is_none() || wanted == given
        }
        is(self.client_id.as_deref(), subject.client_id)
            && is(self.username.as_deref(), subject.username)
            && !(self.anonymous && subject.username.is_some())
            && is(self.listener.as_deref(), subject.listener)
            && self.group.as_ref().is_none_or(|group| subject.groups.iter().any(|own| **own == **group))
            && self.address.is_none_or(|network| subject.address.is_some_and(|own| network.contains(own)))
    }
}

impl Rule {
    /// What it says.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The rule as it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it stands in: a file, or another name of its source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its line there, from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// What it says to a request, if it applies. The flag: it denies a part of a Subscription that it doesn't decide about.
    pub(super) fn answer(&self, subject: &Subject<'_>, request: Request<'_>) -> (bool, bool) {
        let takes = |qos: QoS| self.qos >> (qos as u8) & 1 == 1;
        match request {
            Request::Publish { topic, qos, retain } => {
                let applies = self.publish
                    && takes(qos)
                    && self.retain.is_none_or(|wanted| wanted == retain)
                    && self.who.includes(subject)
                    && self.pattern.matches(subject, self.effect, topic);
                (applies, false)
            }
            Request::Subscribe { filter, qos } => {
                if !self.subscribe || !self.who.includes(subject) {
                    return (false, false);
                }
                if takes(qos) && self.pattern.covers(subject, self.effect, filter) {
                    return (true, false);
                }
                (false, self.can_deny_a_part() && self.pattern.meets(subject, self.effect, filter))
            }
            Request::Receive { topic } => {
                let concerns = self.subscribe && (self.effect == Effect::Allow || self.denies_receiving());
                let applies = concerns
                    && self.who.includes(subject)
                    && self.pattern.matches(subject, self.effect, topic);
                (applies, false)
            }
        }
    }

    /// Whether it may deny a part of a Subscription that it doesn't decide about.
    pub(super) fn can_deny_a_part(&self) -> bool {
        self.subscribe && self.denies_receiving()
    }

    /// A rule that denies a quality of service says how nobody may subscribe, not what nobody may have.
    fn denies_receiving(&self) -> bool {
        self.effect == Effect::Deny && self.qos == ANY_QOS
    }
}

impl fmt::Display for Rule {
    /// Where it stands, and what it says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.source, self.line, self.text)
    }
}

/// Rules in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    rules: Box<[Rule]>,
    by_client: HashMap<Box<str>, List>,
    by_user: HashMap<Box<str>, List>,
    by_group: HashMap<Box<str>, List>,
    others: List,
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Rules {
    /// Makes rules ready; the first that applies will decide.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self::indexed(rules, READ_THROUGH_MAX)
    }

    /// The same, with lists of more than `read_through_max` rules looked up.
    pub(super) fn indexed(rules: Vec<Rule>, read_through_max: usize) -> Self {
        type Places<'a> = HashMap<&'a str, Vec<u32>>;
        let (mut by_client, mut by_user, mut by_group) = (Places::new(), Places::new(), Places::new());
        let mut others = Vec::new();
        for (rule, place) in rules.iter().zip(0u32..) {
            let list = match &rule.who {
                Who { client_id: Some(name), .. } => by_client.entry(name).or_default(),
                Who { username: Some(name), .. } => by_user.entry(name).or_default(),
                Who { group: Some(name), .. } => by_group.entry(name).or_default(),
                _ => &mut others,
            };
            list.push(place);
        }
        let list = |places| List::new(&rules, places, read_through_max);
        let lists = |places: Places<'_>| {
            places.into_iter().map(|(name, places)| (Box::from(name), list(places))).collect()
        };
        let (by_client, by_user, by_group) = (lists(by_client), lists(by_user), lists(by_group));
        let others = list(others);
        Self { rules: rules.into(), by_client, by_user, by_group, others }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// What the first rule that applies says.
    #[must_use]
    pub fn decide(&self, subject: &Subject<'_>, request: Request<'_>) -> Verdict<'_> {
        let named = [(&self.by_client, subject.client_id), (&self.by_user, subject.username)];
        let named = named.iter().filter_map(|(lists, name)| lists.get(name.as_ref().copied()?));
        let groups = subject.groups.iter().filter_map(|group| self.by_group.get(&**group));
        let mut search = Search::new(&self.rules, subject, request);
        for list in named.chain(groups).chain([&self.others]) {
            search.search(list);
        }
        let (found, in_part) = search.found();
        match found {
            Some(by) if by.effect == Effect::Allow => Verdict::Allow { by, in_part },
            Some(by) => Verdict::Deny { by },
            None => Verdict::Unmatched { in_part },
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt_protocol::topic;
    use proptest::prelude::*;

    use super::super::parse_text;
    use super::*;

    fn rules(text: &str) -> Rules {
        Rules::new(parse_text(text, "acl").unwrap())
    }

    const ANYBODY: Subject<'_> =
        Subject { client_id: Some("c"), username: None, groups: &[], address: None, listener: None };

    fn publish(topic: &str) -> Request<'_> {
        Request::Publish { topic, qos: QoS::AtMostOnce, retain: false }
    }

    fn subscribe(filter: &str) -> Request<'_> {
        Request::Subscribe { filter, qos: QoS::AtMostOnce }
    }

    /// `+`: allowed, `-`: denied, `/`: allowed in part, `?`: unmatched. With the line that says so.
    fn told(rules: &Rules, subject: &Subject<'_>, request: Request<'_>) -> String {
        match rules.decide(subject, request) {
            Verdict::Allow { by, in_part: false } => format!("+{}", by.line),
            Verdict::Allow { by, in_part: true } => format!("/{}", by.line),
            Verdict::Deny { by } => format!("-{}", by.line),
            Verdict::Unmatched { in_part: false } => "?".to_owned(),
            Verdict::Unmatched { in_part: true } => "?/".to_owned(),
        }
    }

    #[test]
    fn the_first_rule_that_applies_decides_whatever_list_it_is_in() {
        let rules = rules(
            "deny publish all \"a\"\n\
             allow publish user u \"a\"\n\
             allow publish user u \"b\"\n\
             deny publish all \"b\"\n\
             deny publish group g \"c\"\n\
             allow publish client c user u \"c\"\n",
        );
        let groups = [Arc::from("g")];
        let user = Subject { username: Some("u"), groups: &groups, ..ANYBODY };
        assert_eq!(told(&rules, &user, publish("a")), "-1");
        assert_eq!(told(&rules, &user, publish("b")), "+3");
        assert_eq!(told(&rules, &ANYBODY, publish("b")), "-4");
        assert_eq!(told(&rules, &user, publish("c")), "-5");
        assert_eq!(told(&rules, &Subject { groups: &[], ..user }, publish("c")), "+6");
        assert_eq!(told(&rules, &ANYBODY, publish("c")), "?");
        assert_eq!(told(&rules, &ANYBODY, subscribe("a")), "?");
    }

    #[test]
    fn a_subscription_needs_a_rule_that_covers_it() {
        let rules = rules("allow subscribe all \"a/+\"\nallow subscribe all \"b/#\"\n");
        assert_eq!(told(&rules, &ANYBODY, subscribe("a/+")), "+1");
        assert_eq!(told(&rules, &ANYBODY, subscribe("a/x")), "+1");
        assert_eq!(told(&rules, &ANYBODY, subscribe("b/x/#")), "+2");
        for wider in ["#", "+/x", "a/#", "+/#", "$SYS/#"] {
            assert_eq!(told(&rules, &ANYBODY, subscribe(wider)), "?", "{wider}");
        }
    }

    #[test]
    fn a_part_that_is_denied_makes_the_rest_a_part() {
        let rules = rules(
            "deny subscribe all \"a/secret\"\nallow subscribe all \"a/#\"\ndeny subscribe all \"b/x\"\n\
             deny subscribe all qos 2 \"c\"\n",
        );
        assert_eq!(told(&rules, &ANYBODY, subscribe("a/#")), "/2");
        assert_eq!(told(&rules, &ANYBODY, subscribe("a/+/b")), "+2");
        assert_eq!(told(&rules, &ANYBODY, subscribe("a/secret")), "-1");
        assert_eq!(told(&rules, &ANYBODY, subscribe("b/#")), "?/");
        assert_eq!(told(&rules, &ANYBODY, Request::Receive { topic: "a/secret" }), "-1");
        assert_eq!(told(&rules, &ANYBODY, Request::Receive { topic: "a/open" }), "+2");
    }

    #[test]
    fn limits_of_quality_of_service_and_retaining_are_part_of_the_rule() {
        let rules = rules(
            "allow publish all qos 0-1 retain no \"p\"\nallow all all retain yes \"r\"\n\
             allow subscribe all qos 1 \"s\"\ndeny subscribe all qos 2 \"t\"\nallow subscribe all \"t\"\n",
        );
        let publish = |topic, qos, retain| told(&rules, &ANYBODY, Request::Publish { topic, qos, retain });
        assert_eq!(publish("p", QoS::AtLeastOnce, false), "+1");
        assert_eq!(publish("p", QoS::ExactlyOnce, false), "?");
        assert_eq!(publish("p", QoS::AtMostOnce, true), "?");
        assert_eq!(publish("r", QoS::ExactlyOnce, true), "+2");
        assert_eq!(publish("r", QoS::ExactlyOnce, false), "?");
        assert_eq!(told(&rules, &ANYBODY, subscribe("r")), "+2");
        let subscribe = |filter, qos| told(&rules, &ANYBODY, Request::Subscribe { filter, qos });
        assert_eq!(subscribe("s", QoS::AtLeastOnce), "+3");
        assert_eq!(subscribe("s", QoS::ExactlyOnce), "?");
        assert_eq!(subscribe("t", QoS::ExactlyOnce), "-4");
        assert_eq!(subscribe("t", QoS::AtLeastOnce), "+5");
        // Whoever subscribed with less may have it.
        assert_eq!(told(&rules, &ANYBODY, Request::Receive { topic: "t" }), "+5");
        assert_eq!(told(&rules, &ANYBODY, Request::Receive { topic: "s" }), "+3");
    }

    #[test]
    fn everything_that_a_rule_says_of_whom_has_to_hold() {
        let rules = rules(
            "allow publish user u listener tls address 10.1.0.0/16 \"a\"\nallow publish address ::1 \"b\"\n",
        );
        let from = |address: &str| Some(address.parse().unwrap());
        let full =
            Subject { username: Some("u"), listener: Some("tls"), address: from("10.1.2.3"), ..ANYBODY };
        assert_eq!(told(&rules, &full, publish("a")), "+1");
        assert_eq!(told(&rules, &Subject { address: from("::ffff:10.1.2.3"), ..full }, publish("a")), "+1");
        for other in [
            Subject { username: Some("v"), ..full },
            Subject { username: None, ..full },
            Subject { listener: Some("tcp"), ..full },
            Subject { listener: None, ..full },
            Subject { address: from("10.2.0.1"), ..full },
            Subject { address: from("::1"), ..full },
            Subject { address: None, ..full },
        ] {
            assert_eq!(told(&rules, &other, publish("a")), "?", "{other:?}");
        }
        assert_eq!(told(&rules, &Subject { address: from("::1"), ..ANYBODY }, publish("b")), "+2");
        assert_eq!(told(&rules, &Subject { address: from("::2"), ..ANYBODY }, publish("b")), "?");
    }

    #[test]
    fn networks_hold_the_addresses_that_begin_alike() {
        let holds = |network: &str, bits, address: &str| {
            Network { address: network.parse().unwrap(), bits }.contains(address.parse().unwrap())
        };
        assert!(holds("0.0.0.0", 0, "255.1.2.3"));
        assert!(holds("192.168.0.0", 23, "192.168.1.255"));
        assert!(!holds("192.168.0.0", 24, "192.168.1.0"));
        assert!(holds("192.168.1.1", 32, "192.168.1.1"));
        assert!(!holds("192.168.1.1", 32, "192.168.1.2"));
        assert!(holds("fd00::", 8, "fd12::1"));
        assert!(!holds("::", 0, "10.0.0.1"));
        assert!(!holds("::1", 128, "::2"));
    }

    #[derive(Debug, Clone)]
    struct Model {
        allow: bool,
        publish: bool,
        subscribe: bool,
        qos_max: u8,
        user: Option<&'static str>,
        group: Option<&'static str>,
        filter: &'static str,
    }

    fn model() -> impl Strategy<Value = Model> {
        let filters = vec!["a", "a/b", "a/+", "a/#", "+/b", "#", "${username}/b", "a/${username}", "$SYS/#"];
        (
            any::<bool>(),
            0u8..3,
            prop_oneof![3 => Just(2u8), 1 => 0u8..2],
            prop::option::of(prop::sample::select(vec!["u", "v"])),
            prop::option::weighted(0.3, prop::sample::select(vec!["g", "h"])),
            prop::sample::select(filters),
        )
            .prop_map(|(allow, action, qos_max, user, group, filter)| Model {
                allow,
                publish: action != 1,
                subscribe: action != 0,
                qos_max,
                user,
                group,
                filter,
            })
    }

    impl Model {
        fn text(&self) -> String {
            let action = match (self.publish, self.subscribe) {
                (true, true) => "all",
                (true, false) => "publish",
                _ => "subscribe",
            };
            let mut text = format!("{} {action}", if self.allow { "allow" } else { "deny" });
            for (word, name) in [("user", self.user), ("group", self.group)] {
                if let Some(name) = name {
                    text += &format!(" {word} {name}");
                }
            }
            if self.user.is_none() && self.group.is_none() {
                text += " all";
            }
            if self.qos_max < 2 {
                text += &format!(" qos 0-{}", self.qos_max);
            }
            text + &format!(" \"{}\"\n", self.filter)
        }

        fn concerns(&self, user: &str, group: &str) -> bool {
            self.user.is_none_or(|own| own == user) && self.group.is_none_or(|own| own == group)
        }

        /// With names that are plain text a filled filter is the filter.
        fn filter(&self, user: &str) -> String {
            self.filter.replace("${username}", user)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn decisions_are_those_of_reading_line_by_line(
            models in prop::collection::vec(model(), 0..12),
            user in prop::sample::select(vec!["u", "v", "w"]),
            group in prop::sample::select(vec!["g", "h", "i"]),
            name in prop::sample::select(vec!["a", "a/b", "u/b", "a/u", "x/b", "$SYS/x", "b"]),
            qos in 0u8..3,
        ) {
            let text: String = models.iter().map(Model::text).collect();
            let rules = rules(&text);
            let groups = [Arc::from(group)];
            let subject = Subject { username: Some(user), groups: &groups, ..ANYBODY };
            let qos = QoS::try_from(qos).unwrap();
            let applies = |model: &&Model| {
                model.concerns(user, group) && topic::matches(&model.filter(user), name)
            };
            let published = models
                .iter()
                .filter(|model| model.publish && model.qos_max >= qos as u8)
                .find(applies);
            let verdict = rules.decide(&subject, Request::Publish { topic: name, qos, retain: false });
            prop_assert_eq!(verdict_of(&verdict), published.map(|model| model.allow));
            let received = models
                .iter()
                .filter(|model| model.subscribe && (model.allow || model.qos_max == 2))
                .find(applies);
            let verdict = rules.decide(&subject, Request::Receive { topic: name });
            prop_assert_eq!(verdict_of(&verdict), received.map(|model| model.allow));
        }

        /// What makes it safe not to ask about each message of a Subscription that is allowed whole.
        #[test]
        fn a_subscription_that_is_allowed_whole_receives_everything(
            models in prop::collection::vec(model(), 0..12),
            user in prop::sample::select(vec!["u", "v", "w"]),
            wanted in prop::sample::select(vec!["a", "a/+", "a/#", "#", "+/b", "+/+", "u/#", "$SYS/#", "$SYS/x"]),
            name in prop::sample::select(vec!["a", "a/b", "a/b/c", "u/b", "a/u", "x/b", "$SYS/x", "b"]),
        ) {
            let text: String = models.iter().map(Model::text).collect();
            let rules = rules(&text);
            let groups = [Arc::from("g")];
            let subject = Subject { username: Some(user), groups: &groups, ..ANYBODY };
            let verdict = rules.decide(&subject, Request::Subscribe { filter: wanted, qos: QoS::AtMostOnce });
            if matches!(verdict, Verdict::Allow { in_part: false, .. }) && topic::matches(wanted, name) {
                let received = rules.decide(&subject, Request::Receive { topic: name });
                prop_assert_eq!(verdict_of(&received), Some(true), "{}", text);
            }
        }
    }

    fn verdict_of(verdict: &Verdict<'_>) -> Option<bool> {
        match verdict {
            Verdict::Allow { .. } => Some(true),
            Verdict::Deny { .. } => Some(false),
            Verdict::Unmatched { .. } => None,
        }
    }
}
