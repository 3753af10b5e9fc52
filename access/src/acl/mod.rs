//! Access rules: what a client may publish, subscribe to and receive.
//!
//! A rule says who, what and where, and the first rule that applies decides ([`Rules::decide`]). Where there are rules and
//! none applies, the answer is no; that is the caller's to say, because it may have further rules to ask ([`Verdict::Unmatched`]).
//!
//! A Topic Name is matched by a rule's filter as a Subscription would match it. A Subscription asks for many topics at
//! once, so its filter is compared as a set:
//!
//! - a rule whose filter *covers* the wanted one (matches everything that it matches) decides;
//! - an allowing rule that covers only a part of it doesn't: what is allowed in part isn't allowed;
//! - a denying rule that covers only a part of it doesn't either, but from there on the Subscription is allowed in part at
//!   most, and each of its messages has to be asked about ([`Request::Receive`]).
//!
//! So nobody sees a topic through a wildcard that a rule keeps from them, and nobody loses a wildcard over one topic.
//!
//! `${clientid}` and `${username}` in a filter stand for text and never for more than one level. In a rule that allows, a value that
//! is missing, is empty or holds `/`, `+` or `#` matches nothing, nor does one that would begin the topic with `$`. In a rule that
//! denies, nobody escapes by such a name: its levels count as levels, and where a value is missing, or holds a wildcard, any
//! level will do.

mod claims;
mod http;
mod index;
mod mosquitto;
mod parse;
mod pattern;
mod rules;

pub use claims::{ClaimsError, from_claims};
pub use http::{Asking, HttpRules, HttpRulesCounters, HttpRulesSettings, Served};
pub use mosquitto::{Imported, from_mosquitto};
pub use parse::{AclError, LINE_BYTES_MAX, RULES_MAX, parse_line, parse_text};
pub use pattern::PatternError;
pub use rules::{Effect, Request, Rule, Rules, Subject, Verdict};
