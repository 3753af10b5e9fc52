//! What differs between two definitions of a rule, member by member.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::rules::explain::{HIDDEN, is_secret_name};

/// One member whose value differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberChange {
    /// Its name, as in `sql` or `actions.alarm.topic`; actions go by their names.
    pub member: String,
    /// The value before; `None`: there was none.
    pub before: Option<Value>,
    /// The value after; `None`: there is none.
    pub after: Option<Value>,
}

/// What differs between two definitions, in the order of the members' names. Of a member that usually holds a secret it is
/// told that it differs, and not what it holds.
#[must_use]
pub fn member_changes(before: Option<&Value>, after: Option<&Value>) -> Vec<MemberChange> {
    let mut members: BTreeMap<String, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
    if let Some(before) = before {
        leaves(before, String::new(), &mut |name, value| members.entry(name).or_default().0 = Some(value));
    }
    if let Some(after) = after {
        leaves(after, String::new(), &mut |name, value| members.entry(name).or_default().1 = Some(value));
    }
    let changed = members.into_iter().filter(|(_, (before, after))| before != after);
    changed
        .map(|(member, (before, after))| {
            let is_secret = member.rsplit('.').next().is_some_and(is_secret_name);
            let shown = |value: &Value| match value {
                Value::String(_) if is_secret => HIDDEN.into(),
                value => value.clone(),
            };
            MemberChange { before: before.map(shown), after: after.map(shown), member }
        })
        .collect()
}

/// Shows every value that has no members of its own. A list of named objects has the names for members.
fn leaves<'v>(value: &'v Value, name: String, visit: &mut dyn FnMut(String, &'v Value)) {
    let within = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    let name_of = |item: &'v Value| item.get("name").and_then(Value::as_str);
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(key, value)| leaves(value, within(key), visit));
        }
        Value::Array(items) if !items.is_empty() && items.iter().all(|item| name_of(item).is_some()) => {
            items.iter().for_each(|item| leaves(item, within(name_of(item).unwrap_or_default()), visit));
        }
        _ => visit(name, value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_named_and_only_those_that_differ() {
        let before = json!({ "sql": "a", "tags": ["x"], "actions": [{ "name": "n", "type": "log", "level": "info" }] });
        let after = json!({ "sql": "a", "actions": [{ "name": "n", "type": "log", "level": "warn" }, { "name": "m" }] });
        let changes: Vec<_> = member_changes(Some(&before), Some(&after))
            .into_iter()
            .map(|change| (change.member, change.before, change.after))
            .collect();
        let expected = [
            ("actions.m.name".to_owned(), None, Some(json!("m"))),
            ("actions.n.level".to_owned(), Some(json!("info")), Some(json!("warn"))),
            ("tags".to_owned(), Some(json!(["x"])), None),
        ];
        assert_eq!(changes, expected);
        assert!(member_changes(Some(&before), Some(&before)).is_empty());
        assert_eq!(member_changes(None, Some(&json!({ "sql": "a" }))).len(), 1);
    }
}
