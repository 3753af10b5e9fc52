//! The schemas of the configuration and of rule files, held against the program that reads them. What a real validator makes of them
//! is tested with the whole program.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidegate::config::{Environment, load_text, schema};
use tidegate::rules::rule_schema;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Calls `visit` with every schema in a schema, and the keys that lead to it.
fn walk(schema: &Value, keys: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Value)) {
    visit(keys, schema);
    let Some(object) = schema.as_object() else { return };
    for (word, value) in object {
        match (word.as_str(), value) {
            ("properties" | "$defs", Value::Object(properties)) => {
                for (key, value) in properties {
                    keys.push(key.clone());
                    walk(value, keys, visit);
                    keys.pop();
                }
            }
            ("items" | "additionalProperties", Value::Object(_)) => walk(value, keys, visit),
            ("anyOf" | "oneOf", Value::Array(choices)) => {
                choices.iter().for_each(|choice| walk(choice, keys, visit));
            }
            _ => {}
        }
    }
}

/// Every key that a schema describes.
fn described(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(schema, &mut Vec::new(), &mut |_, schema| {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            found.extend(properties.keys().cloned());
        }
    });
    found
}

#[test]
fn the_files_beside_the_configuration_are_what_is_printed() {
    for (name, schema) in [("tidegate.schema.json", schema()), ("rules.schema.json", rule_schema())] {
        let path = folder("config").join(name);
        let text = format!("{schema:#}\n");
        if std::env::var_os("SCHEMA_REWRITE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let file = fs::read_to_string(&path).unwrap();
        assert!(file == text, "SCHEMA_REWRITE=1 cargo test -p tidegate --test schema writes {name}");
    }
}

#[test]
fn every_key_says_what_it_is_and_unknown_ones_are_refused() {
    for schema in [schema(), rule_schema()] {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let mut sections = 0;
        walk(&schema, &mut Vec::new(), &mut |at, schema| {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                sections += 1;
                assert_eq!(schema["additionalProperties"], false, "{at:?}");
                for (key, value) in properties {
                    // The only one of its kind: what it is the section says.
                    let description = value["description"].as_str().unwrap_or_default();
                    let is_tag = value.get("const").is_some();
                    assert!(is_tag || description.len() > 3, "{at:?}: {key} has no description");
                    assert!(!description.contains("[`"), "{at:?}: {key}: {description}");
                    let form = ["type", "$ref", "anyOf", "oneOf"];
                    assert!(form.iter().any(|word| value.get(*word).is_some()), "{at:?}: {key}");
                }
            }
            let text = schema.to_string();
            assert!(
                !text.contains("\"null\"") || at.iter().any(|key| key == "UndefinedName") || at.is_empty()
            );
        });
        assert!(sections > 5, "{sections}");
    }
}

/// `[section]`, `[[section]]`, `key = …` and `#key = …` of a TOML text.
fn keys_of_text(text: &str) -> BTreeSet<String> {
    let line = |line: &str| {
        let line = line.trim_start_matches('#');
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_matches(['[', ']']);
            return section.rsplit('.').next().map(str::to_owned);
        }
        let (key, _) = line.split_once(" = ")?;
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        is_key.then(|| key.to_owned())
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn the_commented_file_and_the_schema_have_the_same_keys() {
    let text = fs::read_to_string(folder("config/tidegate.toml")).unwrap();
    let described = described(&schema());
    let written = keys_of_text(&text);
    assert!(written.len() > 60, "{written:?}");
    let unknown: Vec<_> = written.difference(&described).collect();
    assert!(unknown.is_empty(), "the schema hasn't got {unknown:?}");

    // What the file leaves to a page of its own is there.
    let mut pages = text;
    for entry in fs::read_dir(folder("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let is_told = |key: &str| {
        [format!("`{key}`"), format!("{key} = "), format!("{key}: ")]
            .iter()
            .any(|form| pages.contains(form.as_str()))
            || pages.contains(&format!("[{key}]"))
            || pages.contains(&format!(".{key}"))
            || pages.contains(&format!("{key},"))
    };
    let untold: Vec<_> = described.iter().filter(|key| !is_told(key)).collect();
    assert!(untold.is_empty(), "nothing is told of {untold:?}");
}

/// The whole numbers of sections with a fixed name: key, smallest, largest.
fn ranges() -> Vec<(String, u64, u64)> {
    fn collect(whole: &Value, schema: &Value, key: &str, found: &mut Vec<(String, u64, u64)>) {
        let schema = match schema["$ref"].as_str() {
            Some(reference) => whole.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
            None => schema,
        };
        let number = if schema["anyOf"].is_array() { &schema["anyOf"][0] } else { schema };
        if let (Some(min), Some(max)) = (number["minimum"].as_u64(), number["maximum"].as_u64()) {
            found.push((key.to_owned(), min, max));
        }
        for (name, value) in schema["properties"].as_object().into_iter().flatten() {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            collect(whole, value, &key, found);
        }
    }
    let schema = schema();
    let mut found = Vec::new();
    collect(&schema, &schema, "", &mut found);
    found
}

#[test]
fn numbers_are_taken_up_to_their_limits_and_no_further() {
    let ranges = ranges();
    assert!(ranges.len() > 40, "{}", ranges.len());
    for (key, min, max) in ranges {
        let section = if key.starts_with("acl.http.") { "acl.http.url = 'https://a.example'\n" } else { "" };
        let faults = |value: i128| {
            let text = format!("{section}{key} = {value}\n");
            load_text(&text, None, &Environment::default()).err().map(|errors| errors.to_string())
        };
        for value in [i128::from(min), i128::from(max)] {
            let fault = faults(value).unwrap_or_default();
            assert!(!fault.contains("must be between"), "{key} = {value}: {fault}");
        }
        for value in [i128::from(min) - 1, i128::from(max) + 1] {
            assert!(faults(value).is_some(), "{key} = {value} is taken");
        }
    }
}
