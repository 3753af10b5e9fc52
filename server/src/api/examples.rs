//! Examples in the OpenAPI document: names in paths, and bodies of requests.
//!
//! They speak of one gateway that could be: a rule `overheat` of a file whose action `ops` owes something, a rule `comfort` of the
//! store, the clients of a hall. What is for good has a name of its own, so that all of them can be tried on such a gateway one
//! after the other, as a tester does that somebody else wrote.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};

/// The name that a parameter of a path has, in an operation.
fn name_in_path(operation: &str, parameter: &str) -> Option<Value> {
    let name = match (operation, parameter) {
        ("getRule" | "suspendRule" | "resumeRule", "name") => "overheat",
        ("putRule" | "enableRule" | "disableRule" | "listRuleVersions" | "rollBackRule", "name") => "comfort",
        ("getRuleCases" | "putRuleCases" | "deleteRuleCases", "name") => "comfort",
        ("removeRule", "name") => "draft",
        ("getClient", "client_id") => "press-1",
        ("disconnectClient", "client_id") => "press-2",
        ("endSession", "client_id") => "press-3",
        ("getRetained", "topic") => "hall/temp",
        ("clearRetained", "topic") => "hall/door",
        ("changeUser", "name") => "ada",
        ("deleteUser", "name") => "eve",
        ("deleteToken", "name") => "dashboard",
        ("removeTopicMetrics", "filter") => "hall/#",
        ("getConnector" | "testConnector", "name") => "ops",
        ("consoleFile", "file") => "app.js",
        ("getTrace", "trace_id") => "4bf92f3577b34da6a3ce929d0e0e4736",
        ("endTraceCapture", "id") => return Some(json!(1)),
        ("getDeadLetter", "position") => return Some(json!(1)),
        ("redriveDeadLetter", "position") => return Some(json!(2)),
        ("dropDeadLetter", "position") => return Some(json!(3)),
        (_, "rule") => "overheat",
        (_, "action") => "ops",
        _ => return None,
    };
    Some(name.into())
}

/// Bodies by operation.
static BODIES: LazyLock<BTreeMap<&'static str, Value>> = LazyLock::new(|| {
    let rule = json!({
        "sql": "SELECT temperature AS t FROM 'hall/+' WHERE temperature > 24",
        "actions": [{ "name": "warm", "type": "republish", "topic": "warm/${topic(2)}" }],
    });
    let file = "[rules.warm]\nsql = \"SELECT * FROM 'hall/+'\"\n[[rules.warm.actions]]\nname = 'log'\ntype = 'log'\n";
    let password = "correct horse battery";
    BTreeMap::from([
        ("setUp", json!({ "setup_token": "tds_…", "name": "ada", "password": password })),
        ("signIn", json!({ "name": "ada", "password": password })),
        ("createUser", json!({ "name": "grace", "role": "viewer", "password": password })),
        ("changeUser", json!({ "role": "operator" })),
        (
            "createToken",
            json!({ "name": "deploy", "role": "operator", "scopes": ["rules:write"], "expires_in_s": 86_400 }),
        ),
        ("startTraceCapture", json!({ "topics": ["hall/#"], "rules": ["overheat"], "for_s": 60 })),
        ("publish", json!({ "topic": "hall/temp", "payload": "21.5", "qos": 1, "retain": true })),
        ("addTopicMetrics", json!({ "filter": "hall/+" })),
        ("explainAccess", json!({ "client_id": "press-1", "publish": "hall/temp" })),
        ("validateRules", json!({ "text": file })),
        (
            "explainRules",
            json!({ "rule": "overheat", "message": { "topic": "hall/temp", "payload": "{\"temperature\":61}" } }),
        ),
        (
            "testRules",
            json!({ "cases": r#"[{"id":"warm","rule":"overheat","topic":"hall/temp","payload":{"temperature":61}}]"# }),
        ),
        (
            "putRuleCases",
            json!({ "cases": [{ "id": "warm", "rule": "comfort", "topic": "hall/temp", "payload": { "temperature": 25 }, "expect": { "t": 25 } }] }),
        ),
        ("rollBackRule", json!({ "version": 1 })),
        ("applyRules", json!({ "rules": { "comfort": rule }, "prune": false })),
        ("putRule", rule),
        ("redriveDeadLetter", json!({ "message": { "payload": "{\"temperature\":61}" } })),
        ("redriveDeadLetters", json!({ "filter": { "rule": "overheat", "cause": "retries_exhausted" } })),
        ("dropDeadLetters", json!({ "filter": { "cause": "expired", "until_ms": 1_750_000_000_000_i64 } })),
        ("purgeAction", json!({ "confirm": "overheat/ops" })),
    ])
});

/// Puts the examples of an operation into its description.
pub(super) fn add(operation: &mut Operation) {
    let id = operation.operation_id.clone().unwrap_or_default();
    for parameter in operation.parameters.iter_mut().flatten() {
        let is_in_path = matches!(parameter.parameter_in, ParameterIn::Path);
        if let Some(example) = is_in_path.then(|| name_in_path(&id, &parameter.name)).flatten() {
            let plain = std::mem::replace(parameter, Parameter::new(""));
            *parameter = ParameterBuilder::from(plain).example(Some(example)).build();
        }
    }
    if let Some(example) = BODIES.get(id.as_str()) {
        let contents = operation.request_body.iter_mut().flat_map(|body| body.content.values_mut());
        contents.for_each(|content| content.example = Some(example.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::document;
    use super::*;

    #[test]
    fn every_name_in_a_path_and_every_body_of_json_has_an_example() {
        let document: Value = serde_json::from_str(document()).unwrap();
        let mut with_body = Vec::new();
        let items = document["paths"].as_object().unwrap().values();
        for operation in items.flat_map(|item| item.as_object().unwrap().values()) {
            let id = operation["operationId"].as_str().unwrap();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let has_example = !parameter["example"].is_null();
                assert_eq!(has_example, parameter["in"] == "path", "{id}: {parameter}");
            }
            let body = &operation["requestBody"]["content"]["application/json"];
            if body.is_object() {
                assert!(body["example"].is_object(), "{id}: {body}");
                with_body.push(id);
            }
        }
        with_body.sort_unstable();
        assert_eq!(with_body, BODIES.keys().copied().collect::<Vec<_>>(), "no example stands for nothing");
    }
}
