//! The language of rules: one rule a line.
//!
//! ```text
//! allow | deny   publish | subscribe | all   SUBJECT…   [qos N | qos N-M] [retain yes | retain no]   "FILTER"
//! SUBJECT: all | anonymous | user NAME | client ID | group NAME | address ADDRESS[/BITS] | listener NAME
//! ```
//!
//! The filter stands last, and its quotation mark closes the line: a line that was cut is no rule. Since what no rule allows is
//! denied, a file that was cut between two lines allows less than the whole, never more.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::pattern::Pattern;
use super::rules::{ANY_QOS, Effect, Network, Rule, Who};

/// Rules of one text at most.
pub const RULES_MAX: usize = 10_000;

/// Bytes of one line at most.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

/// Faults that are told of one text at most.
const FAULTS_MAX: usize = 20;

/// A fault in a text of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclError {
    /// Where the text comes from.
    pub source: Arc<str>,
    /// 1 for the first line.
    pub line: u32,
    /// 1 for the first character.
    pub column: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, line, column, message } = self;
        write!(f, "{source}:{line}:{column}: {message}")
    }
}

impl std::error::Error for AclError {}

/// Reads a text of rules; empty lines and what follows a `#` outside quotation marks mean nothing. `source` names the text.
///
/// # Errors
/// Every fault, as many as are told.
pub fn parse_text(text: &str, source: &str) -> Result<Vec<Rule>, Vec<AclError>> {
    let source: Arc<str> = source.into();
    let mut rules = Vec::new();
    let mut faults = Vec::new();
    for (line, number) in text.lines().zip(1u32..) {
        if faults.len() == FAULTS_MAX {
            break;
        }
        match parse_one(line, &source, number) {
            Ok(Some(_)) if rules.len() == RULES_MAX => {
                let message = format!("there are more rules than the limit of {RULES_MAX}");
                faults.push(AclError { source: Arc::clone(&source), line: number, column: 1, message });
                break;
            }
            Ok(rule) => rules.extend(rule),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// Reads one rule, which stands at this line of `source`.
///
/// # Errors
/// Its first fault; a line without a rule is one.
pub fn parse_line(line: &str, source: &Arc<str>, number: u32) -> Result<Rule, AclError> {
    let nothing = || AclError {
        source: Arc::clone(source),
        line: number,
        column: 1,
        message: "there is no rule".to_owned(),
    };
    if line.contains(['\n', '\r']) {
        return Err(AclError { message: "a rule is one line".to_owned(), ..nothing() });
    }
    parse_one(line, source, number)?.ok_or_else(nothing)
}

fn parse_one(line: &str, source: &Arc<str>, number: u32) -> Result<Option<Rule>, AclError> {
    let fault = |fault: Fault| AclError {
        source: Arc::clone(source),
        line: number,
        column: line.get(..fault.at).map_or(1, |before| before.chars().count() + 1),
        message: fault.message,
    };
    if line.len() > LINE_BYTES_MAX {
        let message = format!("the line has {} bytes, more than the limit of {LINE_BYTES_MAX}", line.len());
        return Err(fault(Fault { at: 0, message }));
    }
    let words = words(line).map_err(fault)?;
    if words.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader { words: words.into_iter(), end: line.trim_end().len() };
    let mut rule = reader.rule().map_err(fault)?;
    rule.source = Arc::clone(source);
    rule.line = number;
    rule.text = line.trim().into();
    Ok(Some(rule))
}

struct Fault {
    /// Byte of the line.
    at: usize,
    message: String,
}

struct Word {
    at: usize,
    text: String,
    is_quoted: bool,
}

/// Takes a line apart.
fn words(line: &str) -> Result<Vec<Word>, Fault> {
    let mut words = Vec::new();
    let mut characters = line.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '#' => break,
            '"' => {
                let mut text = String::new();
                loop {
                    match characters.next() {
                        None => {
                            return Err(Fault { at, message: "the quotation mark isn't closed".to_owned() });
                        }
                        Some((_, '"')) => break,
                        Some((at, '\\')) => match characters.next() {
                            Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                            _ => {
                                let message = "a backslash stands before `\"` or `\\` only".to_owned();
                                return Err(Fault { at, message });
                            }
                        },
                        Some((_, other)) => text.push(other),
                    }
                }
                if characters.peek().is_some_and(|(_, next)| !next.is_whitespace() && *next != '#') {
                    let at = characters.peek().map_or(at, |(at, _)| *at);
                    return Err(Fault {
                        at,
                        message: "expected a space after the quotation mark".to_owned(),
                    });
                }
                words.push(Word { at, text, is_quoted: true });
            }
            character if character.is_whitespace() => {}
            first => {
                let mut text = String::from(first);
                while let Some((at, next)) =
                    characters.next_if(|(_, next)| !next.is_whitespace() && *next != '#')
                {
                    if next == '"' {
                        return Err(Fault { at, message: "a quotation mark inside a word".to_owned() });
                    }
                    text.push(next);
                }
                words.push(Word { at, text, is_quoted: false });
            }
        }
    }
    Ok(words)
}

struct Reader {
    words: std::vec::IntoIter<Word>,
    /// Where the line ends.
    end: usize,
}

const EFFECTS: &str = "`allow` or `deny`";
const ACTIONS: &str = "`publish`, `subscribe` or `all`";
const SUBJECTS: &str = "`all`, `anonymous`, `user`, `client`, `group`, `address` or `listener`";
const REST: &str = "another subject, `qos`, `retain` or the filter in quotation marks";

impl Reader {
    fn rule(&mut self) -> Result<Rule, Fault> {
        let word = self.next(EFFECTS)?;
        let effect = match word.text.as_str() {
            "allow" if !word.is_quoted => Effect::Allow,
            "deny" if !word.is_quoted => Effect::Deny,
            _ => return Err(unexpected(&word, EFFECTS)),
        };
        let word = self.next(ACTIONS)?;
        let (publish, subscribe) = match word.text.as_str() {
            "publish" if !word.is_quoted => (true, false),
            "subscribe" if !word.is_quoted => (false, true),
            "all" if !word.is_quoted => (true, true),
            _ => return Err(unexpected(&word, ACTIONS)),
        };
        let mut who = Who::default();
        let mut said = HashSet::new();
        let mut qos = ANY_QOS;
        let mut retain = None;
        let mut expected = SUBJECTS;
        let filter = loop {
            let word = self.next(expected)?;
            if word.is_quoted && !said.is_empty() {
                break word;
            }
            if word.is_quoted {
                return Err(unexpected(&word, expected));
            }
            let is_subject =
                ["all", "anonymous", "user", "client", "group", "address", "listener"].contains(&&*word.text);
            let is_option = ["qos", "retain"].contains(&&*word.text);
            if !is_subject && (!is_option || said.is_empty()) {
                return Err(unexpected(&word, expected));
            }
            if !said.insert(word.text.clone()) {
                return Err(Fault { at: word.at, message: format!("`{}` is said twice", word.text) });
            }
            if is_subject
                && said.contains("all")
                && said.iter().any(|other| other != "all" && !is_limit(other))
            {
                let message = "`all` stands alone: it is everybody".to_owned();
                return Err(Fault { at: word.at, message });
            }
            if said.contains("anonymous") && said.contains("user") {
                let message = "`anonymous` is who has no user name".to_owned();
                return Err(Fault { at: word.at, message });
            }
            match &*word.text {
                "anonymous" => who.anonymous = true,
                "user" => who.username = Some(self.name("a user name")?),
                "client" => who.client_id = Some(self.name("a Client Identifier")?),
                "group" => who.group = Some(self.name("the name of a group")?),
                "listener" => who.listener = Some(self.name("the name of a listener")?),
                "address" => who.address = Some(self.network()?),
                "qos" => qos = self.qos()?,
                "retain" if !publish => {
                    let message = "`retain` has no meaning for `subscribe`".to_owned();
                    return Err(Fault { at: word.at, message });
                }
                "retain" => retain = Some(self.yes_or_no()?),
                _ => {}
            }
            expected = REST;
        };
        let pattern = Pattern::parse(&filter.text)
            .map_err(|error| Fault { at: filter.at, message: error.to_string() })?;
        if let Some(word) = self.words.next() {
            let message = format!("expected the end of the line after the filter, found `{}`", word.text);
            return Err(Fault { at: word.at, message });
        }
        let (text, source) = (Box::default(), Arc::default());
        Ok(Rule { effect, publish, subscribe, qos, retain, who, pattern, text, source, line: 0 })
    }

    fn next(&mut self, expected: &str) -> Result<Word, Fault> {
        self.words.next().ok_or_else(|| Fault {
            at: self.end,
            message: format!("expected {expected}, and the line ends here"),
        })
    }

    fn name(&mut self, expected: &str) -> Result<Box<str>, Fault> {
        let word = self.next(expected)?;
        if word.text.is_empty() {
            return Err(Fault {
                at: word.at,
                message: format!("expected {expected}, found nothing in the marks"),
            });
        }
        Ok(word.text.into())
    }

    fn network(&mut self) -> Result<Network, Fault> {
        let expected = "an IP address, or a range such as 10.0.0.0/8";
        let word = self.next(expected)?;
        Network::parse(&word.text).map_err(|problem| Fault {
            at: word.at,
            message: problem.map_or_else(|| unexpected(&word, expected).message, str::to_owned),
        })
    }

    fn qos(&mut self) -> Result<u8, Fault> {
        let expected = "0, 1 or 2, or a range such as 0-1";
        let word = self.next(expected)?;
        let (from, to) = word.text.split_once('-').unwrap_or((&word.text, &word.text));
        let number = |text: &str| match text {
            "0" => Some(0u8),
            "1" => Some(1),
            "2" => Some(2),
            _ => None,
        };
        match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => Ok((from..=to).fold(0, |bits, qos| bits | 1 << qos)),
            _ => Err(unexpected(&word, expected)),
        }
    }

    fn yes_or_no(&mut self) -> Result<bool, Fault> {
        let expected = "`yes` or `no`";
        let word = self.next(expected)?;
        match word.text.as_str() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(unexpected(&word, expected)),
        }
    }
}

fn is_limit(word: &str) -> bool {
    word == "qos" || word == "retain"
}

fn unexpected(word: &Word, expected: &str) -> Fault {
    let mark = if word.is_quoted { "\"" } else { "`" };
    Fault { at: word.at, message: format!("expected {expected}, found {mark}{}{mark}", word.text) }
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`; without text it isn't even that.
    fn parse(text: &str) -> Result<Self, Option<&'static str>> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| None)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |bits: &str| bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => width,
            Some(bits) if is_number(bits) => bits.parse().map_err(|_| None)?,
            Some(_) => return Err(None),
        };
        if bits > width {
            return Err(Some("the range has more bits than the address"));
        }
        let kept = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        let text_bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        if text_bits & !kept != 0 {
            // Most likely a bit or a digit was left out, and the range isn't the one that was meant.
            return Err(Some("the address has bits beyond its range"));
        }
        if address.to_canonical() != address {
            return Err(Some("write an IPv4 address as one"));
        }
        Ok(Self { address, bits })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(line: &str) -> String {
        let faults = parse_text(line, "acl").unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].to_string()
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        let text = "\n# who reads\nallow subscribe all \"a/#\" # everybody\n\t deny all user \"al \\\"ice\\\\\" client c \
                    qos 1-2 \"$SYS/#\"  \nallow publish group g listener tls address 10.0.0.0/8 retain no \"s/${username}\"";
        let rules = parse_text(text, "acl").unwrap();
        assert_eq!(rules.len(), 3);
        assert_eq!(rules[0].to_string(), "acl:3: allow subscribe all \"a/#\" # everybody");
        assert!(rules[0].subscribe && !rules[0].publish && rules[0].effect == Effect::Allow);
        assert_eq!(rules[1].who.username.as_deref(), Some("al \"ice\\"));
        assert_eq!(rules[1].who.client_id.as_deref(), Some("c"));
        assert_eq!((rules[1].qos, rules[1].effect), (0b110, Effect::Deny));
        assert_eq!(rules[2].who.group.as_deref(), Some("g"));
        assert_eq!(rules[2].who.listener.as_deref(), Some("tls"));
        assert_eq!(rules[2].retain, Some(false));
        assert_eq!(rules[2].line, 5);
        assert_eq!(parse_text("", "acl").unwrap(), []);
    }

    #[test]
    fn faults_say_where_they_are_and_what_was_expected() {
        assert_eq!(fault("alow publish all \"a\""), "acl:1:1: expected `allow` or `deny`, found `alow`");
        assert_eq!(
            fault("\nallow write all \"a\""),
            "acl:2:7: expected `publish`, `subscribe` or `all`, found `write`"
        );
        assert_eq!(
            fault("allow publish \"a\""),
            "acl:1:15: expected `all`, `anonymous`, `user`, `client`, `group`, `address` or `listener`, found \"a\""
        );
        assert_eq!(fault("allow publish qos 0 \"a\"").split(", found").last(), Some(" `qos`"));
        assert_eq!(
            fault("allow publish user alice"),
            "acl:1:25: expected another subject, `qos`, `retain` or the filter in quotation marks, and the line ends here"
        );
        assert_eq!(fault("allow publish user"), "acl:1:19: expected a user name, and the line ends here");
        assert_eq!(fault("allow publish all \"a"), "acl:1:19: the quotation mark isn't closed");
        assert_eq!(fault("ällow"), "acl:1:1: expected `allow` or `deny`, found `ällow`");
        assert_eq!(fault("allow publish user ü user v \"a\""), "acl:1:22: `user` is said twice");
        for (line, message) in [
            ("allow publish all user u \"a\"", "`all` stands alone"),
            ("allow publish user u all \"a\"", "`all` stands alone"),
            ("allow publish user u anonymous \"a\"", "no user name"),
            ("allow publish anonymous user u \"a\"", "no user name"),
            ("allow publish all qos 3 \"a\"", "expected 0, 1 or 2"),
            ("allow publish all qos 2-1 \"a\"", "expected 0, 1 or 2"),
            ("allow publish all qos 0- \"a\"", "expected 0, 1 or 2"),
            ("allow publish all retain maybe \"a\"", "expected `yes` or `no`"),
            ("allow subscribe all retain yes \"a\"", "no meaning for `subscribe`"),
            ("allow publish all \"a\" \"b\"", "end of the line"),
            ("allow publish all \"a\" qos 1", "end of the line"),
            ("allow publish all a", "found `a`"),
            ("allow publish all \"a/#/b\"", "before its last level"),
            ("allow publish all \"${user}\"", "`${user}`"),
            ("allow publish all \"\"", "is empty"),
            ("allow publish all \"a\\n\"", "backslash"),
            ("allow publish all \"a\"b", "expected a space"),
            ("allow publish al\"l \"a\"", "inside a word"),
            ("allow publish user \"\" \"a\"", "expected a user name"),
            ("allow publish address 10.0.0.0/33 \"a\"", "more bits"),
            ("allow publish address 10.0.0.1/8 \"a\"", "beyond its range"),
            ("allow publish address 10.0.0.0/+8 \"a\"", "expected an IP address"),
            ("allow publish address ::ffff:10.0.0.1 \"a\"", "as one"),
            ("allow publish address host \"a\"", "expected an IP address"),
            ("\"allow\" publish all \"a\"", "found \"allow\""),
        ] {
            let fault = fault(line);
            assert!(fault.contains(message), "{line}: {fault}");
        }
    }

    #[test]
    fn all_faults_are_told_up_to_a_limit() {
        let text = "x\n".repeat(FAULTS_MAX + 5);
        assert_eq!(parse_text(&text, "acl").unwrap_err().len(), FAULTS_MAX);
        assert_eq!(parse_text("x\nallow all all \"#\"\ny", "acl").unwrap_err().len(), 2);
    }

    #[test]
    fn limits_hold_at_their_value_and_one_past_it() {
        let rule = "allow all all \"#\"\n";
        assert_eq!(parse_text(&rule.repeat(RULES_MAX), "acl").unwrap().len(), RULES_MAX);
        assert!(fault(&rule.repeat(RULES_MAX + 1)).contains("limit of 10000"));
        let line = |bytes: usize| format!("allow all all \"{}\"", "a".repeat(bytes - 16));
        assert_eq!(line(LINE_BYTES_MAX).len(), LINE_BYTES_MAX);
        assert!(parse_text(&line(LINE_BYTES_MAX), "acl").is_ok());
        assert!(fault(&line(LINE_BYTES_MAX + 1)).contains("8193 bytes"));
    }

    #[test]
    fn one_rule_is_one_line() {
        let source = Arc::from("acl");
        assert!(parse_line("allow all all \"#\"", &source, 1).is_ok());
        for text in ["", "# nothing", "allow all all \"a\"\nallow all all \"#\""] {
            assert!(parse_line(text, &source, 1).is_err(), "{text}");
        }
    }

    /// A file that is being written, or was cut by a full disk, must never allow more than the whole.
    #[test]
    fn a_line_that_was_cut_is_no_rule() {
        let line = "allow publish user alice address 10.0.0.0/8 qos 0-1 retain no \"sensors/#\"";
        for cut in 1..line.len() {
            let begun = line.get(..cut).unwrap();
            assert!(parse_text(begun, "acl").is_err(), "{begun}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(allow|deny|publish|all|user|qos|\"|#|\\\\|\\$\\{|\\}|[ \\n/+a-z0-9é]){0,40}") {
            drop(parse_text(&text, "acl"));
        }
    }
}
