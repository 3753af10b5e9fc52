//! Mosquitto's `acl_file`, as rules of ours.
//!
//! Its order is another one: of a user's lines those that deny come first, wherever they stand, then those that allow, and only then
//! the patterns for everybody, in the same way. The rules are written in that order. What comes before the first `user` is for clients without a
//! user name.

use std::fmt::Write as _;

use super::parse::{AclError, parse_text};

/// What an import made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Rules, one a line.
    pub text: String,
    /// What is different from Mosquitto.
    pub warnings: Vec<String>,
}

/// Where a line of the file goes.
#[derive(Default)]
struct Section {
    denied: String,
    allowed: String,
}

/// Reads an `acl_file`; `source` names it.
///
/// # Errors
/// Every line that can't be taken over: a rule that was left out might have denied.
pub fn from_mosquitto(text: &str, source: &str) -> Result<Imported, Vec<AclError>> {
    let mut faults = Vec::new();
    let mut warnings = Vec::new();
    let mut subject = "anonymous".to_owned();
    let (mut topics, mut patterns) = (Section::default(), Section::default());
    for (line, number) in text.lines().zip(1u32..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let done = match word {
            _ if rest.is_empty() => Err(format!("`{word}` says nothing more")),
            "user" => {
                subject = format!("user {}", quoted(rest));
                Ok(())
            }
            "topic" => add(&mut topics, &subject, rest, str::to_owned, number, &mut warnings),
            "pattern" => add(&mut patterns, "all", rest, placeholders, number, &mut warnings),
            _ => Err(format!("`{word}` is nothing that an acl_file has")),
        };
        if let Err(message) = done {
            faults.push(AclError { source: source.into(), line: number, column: 1, message });
        }
    }
    let text = [topics.denied, topics.allowed, patterns.denied, patterns.allowed].concat();
    // What was written has to be what is read.
    if let (true, Err(found)) = (faults.is_empty(), parse_text(&text, source)) {
        faults = found;
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    if text.contains(" subscribe ") || text.contains(" all ") {
        warnings.push(
            "Mosquitto lets everybody subscribe to everything and hands out what may be read; here a subscription \
             needs a rule that covers its filter, or it is refused"
                .to_owned(),
        );
    }
    Ok(Imported { text, warnings })
}

fn add(
    section: &mut Section,
    subject: &str,
    rest: &str,
    filter: impl Fn(&str) -> String,
    number: u32,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    let (access, topic) = match rest.split_once(char::is_whitespace) {
        Some((access @ ("read" | "write" | "readwrite" | "deny"), topic)) => (access, topic.trim()),
        // Without an access it is both, and the topic may have spaces.
        _ => ("readwrite", rest),
    };
    let (effect, action) = match access {
        "read" => ("allow", "subscribe"),
        "write" => ("allow", "publish"),
        "deny" => ("deny", "all"),
        _ => ("allow", "all"),
    };
    if topic.contains("${") {
        return Err("the topic has `${`, which stands for something else here".to_owned());
    }
    if topic.starts_with('$') && access != "read" && access != "deny" {
        warnings.push(format!("line {number}: topics that begin with $ are never written by clients here"));
    }
    let list = if effect == "deny" { &mut section.denied } else { &mut section.allowed };
    writeln!(list, "{effect} {action} {subject} {}", quoted(&filter(topic)))
        .map_err(|error| error.to_string())
}

fn placeholders(topic: &str) -> String {
    topic.replace("%c", "${clientid}").replace("%u", "${username}")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_file_becomes_rules_in_its_own_order() {
        let imported = from_mosquitto(
            "# general\n\
             topic read $SYS/#\n\
             topic deny secret/#\n\
             \n\
             user alice smith\n\
             topic readwrite sensors/a b\n\
             topic deny sensors/x\n\
             topic write only\n\
             topic plain/topic\n\
             pattern write dev/%c/up\n\
             pattern deny dev/%u/no\n\
             pattern read\tdev/%c-%u/#\n",
            "aclfile",
        )
        .unwrap();
        assert_eq!(
            imported.text,
            "deny all anonymous \"secret/#\"\n\
             deny all user \"alice smith\" \"sensors/x\"\n\
             allow subscribe anonymous \"$SYS/#\"\n\
             allow all user \"alice smith\" \"sensors/a b\"\n\
             allow publish user \"alice smith\" \"only\"\n\
             allow all user \"alice smith\" \"plain/topic\"\n\
             deny all all \"dev/${username}/no\"\n\
             allow publish all \"dev/${clientid}/up\"\n\
             allow subscribe all \"dev/${clientid}-${username}/#\"\n"
        );
        assert_eq!(imported.warnings.len(), 1);
        assert_eq!(parse_text(&imported.text, "x").unwrap().len(), 9);
    }

    #[test]
    fn what_has_no_equal_is_refused_or_said() {
        for (text, expected) in [
            ("topic", "aclfile:1:1: `topic` says nothing more"),
            ("\ngroup x", "aclfile:2:1: `group` is nothing that an acl_file has"),
            ("topic read a/#/b", "before its last level"),
            ("topic deny ${clientid}", "`${`"),
            ("user", "says nothing more"),
        ] {
            let faults = from_mosquitto(text, "aclfile").unwrap_err();
            assert!(faults[0].to_string().contains(expected), "{text}: {}", faults[0]);
        }
        let imported = from_mosquitto("user u\ntopic write $CONTROL/x\n", "aclfile").unwrap();
        assert!(imported.warnings[0].starts_with("line 2: topics that begin with $"));
        assert_eq!(from_mosquitto("", "aclfile").unwrap().text, "");
        // Names stay names, whatever is in them.
        let imported = from_mosquitto("user a\" \\b\ntopic write t\n", "aclfile").unwrap();
        assert_eq!(imported.text, "allow publish user \"a\\\" \\\\b\" \"t\"\n");
    }
}
