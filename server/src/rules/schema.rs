//! A rule file as JSON Schema (draft 2020-12), made from the types that its parts are read into.
//!
//! The parts are put together here as the loader takes them apart: a rule's head, its actions, and what every action may say beside
//! the keys of its type. What a statement or a template means the schema can't know; `tidegate check` does.

use actions::config::{ActionConfig, OnRemove};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::file::{ACTIONS_MAX, Head, NAME_CHARS_MAX};
use crate::config::schema_of;

/// What every action may say, whatever its type.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only their description is of interest")]
struct OfEveryAction {
    /// Whether an undefined value in a template is a failure. Default: false.
    strict: Option<bool>,
    /// What an undefined value in a JSON template becomes. Default `null`.
    undefined: Option<UndefinedName>,
    /// What becomes of the action's outbox when it is removed or renamed. Default: what the rule says.
    on_remove: Option<OnRemove>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(dead_code, reason = "only their description is of interest")]
enum UndefinedName {
    /// JSON's null; nothing in a text.
    Null,
    /// Its member is left out.
    Omit,
}

/// Everything that is described.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only their description is of interest")]
struct Parts {
    head: Head,
    action: ActionConfig,
    of_every_action: OfEveryAction,
}

/// The schema of a rule file.
#[must_use]
pub fn rule_schema() -> Value {
    let mut parts = schema_of::<Parts>("Rules of Tidegate");
    let mut definitions = definitions_of(&mut parts);
    let mut rule = definitions.remove("Head").unwrap_or_default();
    let of_every_action = definitions.remove("OfEveryAction").unwrap_or_default();
    let mut action = definitions.remove("ActionConfig").unwrap_or_default();
    let mut error_action = action.clone();
    for_each_type(&mut action, |of_type| {
        add_properties(of_type, &of_every_action);
        describe_type(of_type);
        if let Some(Value::Object(name)) = of_type.get_mut("properties").and_then(|all| all.get_mut("name")) {
            name.remove("default");
            name.insert("pattern".to_owned(), name_pattern().into());
        }
        if let Some(Value::Array(required)) = of_type.get_mut("required") {
            required.insert(0, "name".into());
        }
    });
    for_each_type(&mut error_action, |of_type| {
        add_properties(of_type, &of_every_action);
        describe_type(of_type);
        // It has a name already.
        if let Some(Value::Object(properties)) = of_type.get_mut("properties") {
            properties.remove("name");
        }
    });
    let parts_of_rule = json!({ "properties": {
        "actions": {
            "description": "What is done with each output.",
            "type": "array",
            "items": { "$ref": "#/$defs/Action" },
            "minItems": 1,
            "maxItems": ACTIONS_MAX,
        },
        "error_action": {
            "description": "What is done when an action or the evaluation fails.",
            "$ref": "#/$defs/ErrorAction",
        },
    } });
    if let Some(rule) = rule.as_object_mut() {
        add_properties(rule, &parts_of_rule);
        if let Some(Value::Array(required)) = rule.get_mut("required") {
            required.push("actions".into());
        }
    }
    definitions.insert("Rule".to_owned(), rule);
    definitions.insert("Action".to_owned(), action);
    definitions.insert("ErrorAction".to_owned(), error_action);
    json!({
        "$schema": parts.get("$schema"),
        "title": parts.get("title"),
        "type": "object",
        "properties": {
            "rules": {
                "description": "Rules by name.",
                "type": "object",
                "propertyNames": { "pattern": name_pattern() },
                "additionalProperties": { "$ref": "#/$defs/Rule" },
            },
        },
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// Of rules and actions.
fn name_pattern() -> String {
    format!("^[A-Za-z0-9_-]{{1,{NAME_CHARS_MAX}}}$")
}

fn definitions_of(schema: &mut Schema) -> Map<String, Value> {
    match schema.remove("$defs") {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    }
}

fn for_each_type(action: &mut Value, mut change: impl FnMut(&mut Map<String, Value>)) {
    let types = action.get_mut("oneOf").and_then(Value::as_array_mut);
    types.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut change);
}

fn describe_type(of_type: &mut Map<String, Value>) {
    let key = of_type.get_mut("properties").and_then(|all| all.get_mut("type"));
    if let Some(Value::Object(key)) = key {
        key.insert("description".to_owned(), "What is done.".into());
    }
}

fn add_properties(to: &mut Map<String, Value>, from: &Value) {
    let Some(Value::Object(properties)) = to.get_mut("properties") else { return };
    let more = from.get("properties").and_then(Value::as_object);
    properties.extend(more.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
}
