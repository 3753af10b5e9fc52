//! The configuration as JSON Schema (draft 2020-12), for editors and for whoever generates configurations.
//!
//! It is made from the types that read a configuration, from their defaults, and from the ranges that the check of values knows, so that
//! it says what the program does. What several keys must agree on, and what a text must mean beyond its form, the program alone knows:
//! whatever it takes the schema takes, and `tidegate check` has the last word.
//!
//! - TOML has no null, so that an optional key isn't nullable.
//! - Where the form of a text is restricted, a reference such as `"${env:NAME}"` may stand instead.
//! - A duration and a size with a unit are texts: their ranges stand in the descriptions.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::units::{ByteSize, Period};
use super::validate::{self, Bound, Range};
use super::{Config, HiddenText};

/// Names of listeners, connectors and authentication methods.
pub(super) const NAME: &str = "^[A-Za-z](?!.*__)[A-Za-z0-9_-]{0,63}$";
/// Names of users and tokens of the administration.
pub(super) const USER_NAME: &str = "^[A-Za-z0-9._@-]{1,64}$";
/// Permissions of a file, in octal digits.
pub(super) const MODE: &str = "^0*[0-7]{1,3}$";
/// What may stand in place of a text.
const REFERENCE: &str = r"^\$\{(env|file|credential):[^}]+\}$";

/// What the names in a table have to be.
pub(super) fn name() -> Value {
    json!({ "pattern": NAME })
}

/// An IP address and a port.
pub(super) struct Address;

impl JsonSchema for Address {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]{1,5}$";
        json_schema!({ "type": "string", "pattern": pattern })
    }
}

impl JsonSchema for HiddenText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HiddenText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": with_unit(Self::units()), "minimum": 0 })
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": with_unit(Self::units()) })
    }
}

/// A whole number and one of these units.
fn with_unit(units: impl Iterator<Item = &'static str>) -> String {
    format!(r"^\s*[0-9]+\s*({})\s*$", units.collect::<Vec<_>>().join("|"))
}

/// The schema of the configuration's file.
#[must_use]
pub fn schema() -> Value {
    let mut schema = root::<Config>("Configuration of Tidegate");
    for range in validate::ranges() {
        apply_range(&mut schema, &range);
    }
    allow_reference(&mut schema);
    if let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        let reference = json!({
            "type": "string",
            "pattern": REFERENCE,
            "description": "A value from outside: an environment variable, the contents of a file, or a credential of systemd.",
        });
        definitions.insert(REFERENCE_NAME.to_owned(), reference);
    }
    schema.to_value()
}

const REFERENCE_NAME: &str = "Reference";

/// The schema of a type as a TOML file has it.
pub(crate) fn root<T: JsonSchema>(title: &str) -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    plain(&mut schema);
    schema
}

/// Takes out what means nothing in TOML, or to people.
fn plain(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut() {
        without_null(object);
        // Names of Rust's types of numbers.
        object.remove("format");
        // What a whole section is by default its keys say.
        let says_more =
            |value: &Value| value.is_object() || value.as_array().is_some_and(|items| !items.is_empty());
        if object.get("default").is_some_and(|default| default.is_null() || says_more(default)) {
            object.remove("default");
        }
        if let Some(Value::String(description)) = object.get_mut("description") {
            *description = description.replace('\n', " ");
        }
    }
    transform_subschemas(&mut plain, schema);
}

fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    for word in ["anyOf", "oneOf"] {
        let Some(Value::Array(choices)) = object.get_mut(word) else { continue };
        choices.retain(|choice| choice.get("type") != Some(&Value::from("null")));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove(word);
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

/// Has a reference stand where the form of a text is restricted.
fn allow_reference(schema: &mut Schema) {
    let reference = || json!({ "$ref": format!("#/$defs/{REFERENCE_NAME}") });
    if let Some(Value::Array(choices)) = schema.get_mut("oneOf")
        && choices.iter().all(|choice| choice.get("const").is_some_and(Value::is_string))
    {
        choices.push(reference());
        return;
    }
    // The names of tables are taken for what they are.
    let names = schema.remove("propertyNames");
    transform_subschemas(&mut allow_reference, schema);
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(names) = names {
        object.insert("propertyNames".to_owned(), names);
    }
    let is_text = object.get("type").is_some_and(|types| types.to_string().contains("string"));
    if !is_text || !["pattern", "enum"].iter().any(|word| object.contains_key(*word)) {
        return;
    }
    let mut own = Map::new();
    for word in ["type", "pattern", "enum", "minimum", "maximum"] {
        if let Some(value) = object.remove(word) {
            own.insert(word.to_owned(), value);
        }
    }
    object.insert("anyOf".to_owned(), json!([own, reference()]));
}

/// Writes a range to its key.
fn apply_range(schema: &mut Schema, range: &Range) {
    let bounds = match (&range.min, &range.max) {
        (Bound::Number(min), Bound::Number(max)) => (*min, *max),
        // Of those that are written as a bare number.
        (Bound::Size(min), Bound::Size(max)) => (min.as_u64(), max.as_u64()),
        _ => return,
    };
    let place = keys_to_pointer(schema.as_value(), &range.keys);
    if let Some(Value::Object(key)) = place.and_then(|place| pointed(schema, &place)) {
        key.insert("minimum".to_owned(), bounds.0.into());
        key.insert("maximum".to_owned(), bounds.1.into());
    }
}

fn pointed<'s>(schema: &'s mut Schema, pointer: &str) -> Option<&'s mut Value> {
    let mut steps = pointer.split('/').skip(1);
    let first = schema.get_mut(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get_mut(step))
}

/// Where the schema describes a key.
fn keys_to_pointer(schema: &Value, keys: &[String]) -> Option<String> {
    let mut pointer = String::new();
    for key in keys {
        let here = schema.pointer(&pointer)?;
        if let Some(reference) = here.get("$ref").and_then(Value::as_str) {
            pointer = reference.strip_prefix('#')?.to_owned();
        }
        pointer.push_str(&format!("/properties/{key}"));
    }
    schema.pointer(&pointer).is_some().then_some(pointer)
}
