//! What `regexp_replace` puts in a match's place.
//!
//! As in Java, whose engine AWS IoT SQL has: after `$` come digits, as many as name a group that is there, so that
//! `$1st` is the first group and `st`. (The expansion of the `regex` crate reads a group named `1st`.) `${name}` is a
//! named group, `$$` a dollar; a dollar before anything else is itself.

use regex::Captures;

/// Bytes of a group's name, and digits of its number: what is longer names none, and is not searched.
const NAME_MAX: usize = 64;
const DIGITS_MAX: usize = 5;

/// Appends the replacement of one match.
pub(crate) fn expand(captures: &Captures<'_>, replacement: &str, out: &mut String) {
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some((name, after)) = after.strip_prefix('{').and_then(braced) {
            let named = captures.name(name).or_else(|| captures.get(name.parse().ok()?));
            out.push_str(named.map_or("", |group| group.as_str()));
            after
        } else if let Some((group, after)) = numbered(captures, after) {
            out.push_str(captures.get(group).map_or("", |group| group.as_str()));
            after
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
}

/// A name up to its closing brace, and what follows it.
fn braced(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().take(NAME_MAX + 1).position(|byte| byte == b'}')?;
    let (name, after) = text.split_at_checked(end)?;
    Some((name, after.strip_prefix('}')?))
}

/// The group at the beginning of a text, and what follows it. One digit alone may name a group that is not there.
fn numbered<'t>(captures: &Captures<'_>, text: &'t str) -> Option<(usize, &'t str)> {
    let digits = text.bytes().take(DIGITS_MAX).take_while(u8::is_ascii_digit).count();
    (1..=digits).rev().find_map(|length| {
        let (number, after) = text.split_at_checked(length)?;
        let group = number.parse().ok()?;
        (group < captures.len() || length == 1).then_some((group, after))
    })
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    #[track_caller]
    fn check(pattern: &str, replacement: &str, expected: &str) {
        let regex = Regex::new(pattern).unwrap();
        let mut out = String::new();
        super::expand(&regex.captures("abc").unwrap(), replacement, &mut out);
        assert_eq!(out, expected);
    }

    #[test]
    fn groups_are_put_in() {
        check("a(b)(c)", "$1", "b");
        check("a(b)(c)", "$2$1", "cb");
        check("a(b)(c)", "<$0>", "<abc>");
        check("a(b)(c)", "$1st", "bst");
        check("a(b)(c)", "$1_$2x", "b_cx");
        check("a(b)(c)", "$12", "b2");
        check("a(b)(c)", "$9", "");
        check("a(b)(c)|(d)", "[$3]", "[]");
        check("a(?<mid>b)c", "${mid}-${1}-${none}", "b-b-");
    }

    #[test]
    fn a_dollar_that_names_no_group_is_itself() {
        check("b", "$", "$");
        check("b", "5 $ or €$", "5 $ or €$");
        check("b", "$$1", "$1");
        check("b", "$x", "$x");
        check("b", "${b", "${b");
        check("b", "$99999999999999999999999", "9999999999999999999999");
    }
}
