//! What every command needs that asks the HTTP interface of a gateway.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::admin::{AdminClientError, ApiClient};
use crate::cli::without_control_characters;

/// Entries that are asked for at a time.
const PAGE: u64 = 1_000;
/// What stands for itself in a part of a path and in a query (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path of the interface: each part is one name, whatever is in it.
pub(in crate::cli) fn path(parts: &[&str]) -> String {
    let mut path = "/api/v1".to_owned();
    for part in parts {
        path.push('/');
        // `.` and `..` would be taken for steps on the way.
        if matches!(*part, "." | "..") {
            path.push_str(&part.replace('.', "%2E"));
        } else {
            path.extend(utf8_percent_encode(part, RESERVED));
        }
    }
    path
}

/// A query of those that have a value.
pub(in crate::cli) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        query.extend(utf8_percent_encode(value, RESERVED));
    }
    query
}

/// Asks for a list page by page, and hands over each entry of `member` until `limit` of them are there. Returns whether there
/// are more.
pub(in crate::cli) fn pages(
    client: &mut ApiClient,
    path: &str,
    filters: &[(&str, Option<&str>)],
    member: &str,
    limit: u64,
) -> Result<(Vec<Value>, bool), AdminClientError> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let wanted = PAGE.min(limit.saturating_sub(found.len() as u64));
        if wanted == 0 {
            return Ok((found, true));
        }
        let wanted = wanted.to_string();
        let mut pairs = filters.to_vec();
        pairs.extend([("limit", Some(wanted.as_str())), ("after", after.as_deref())]);
        let mut page = client.get(&format!("{path}{}", query(&pairs)))?;
        if let Some(Value::Array(entries)) = page.get_mut(member).map(Value::take) {
            found.extend(entries);
        }
        match page.get_mut("next").map(Value::take) {
            Some(Value::String(next)) => after = Some(next),
            _ => return Ok((found, false)),
        }
    }
}

/// A member as one line for people; `-` where there is none.
pub(in crate::cli) fn text_of(value: &Value, member: &str) -> String {
    match value.get(member) {
        Some(Value::String(text)) => {
            let line = text.replace(['\n', '\t'], " ");
            String::from_utf8_lossy(&without_control_characters(line.as_bytes())).into_owned()
        }
        Some(Value::Null) | None => "-".to_owned(),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::Array(entries)) => {
            let texts: Vec<&str> = entries.iter().filter_map(Value::as_str).collect();
            if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_stay_one_part_of_the_path_whatever_is_in_them() {
        assert_eq!(path(&["clients", "a/b ü?#%"]), "/api/v1/clients/a%2Fb%20%C3%BC%3F%23%25");
        assert_eq!(path(&["retained", ".."]), "/api/v1/retained/%2E%2E");
        assert_eq!(path(&["retained", "a.b"]), "/api/v1/retained/a.b");
        assert_eq!(query(&[("a", None)]), "");
        assert_eq!(query(&[("a", None), ("b", Some("x&y")), ("c", Some(""))]), "?b=x%26y&c=");
    }

    #[test]
    fn a_member_is_one_line_and_obeys_nothing() {
        let value = json!({ "t": "a\u{1b}[2J\nb", "n": 7, "x": null, "y": true, "l": ["a", "b"] });
        assert_eq!(text_of(&value, "t"), "a\\u{1b}[2J b");
        assert_eq!(
            ["n", "x", "y", "l", "z"].map(|name| text_of(&value, name)),
            ["7", "-", "yes", "a, b", "-"]
        );
    }
}
