//! What is only copied is the same JSON, read by serde_json.

use proptest::prelude::*;
use serde_json::Value;

use super::{config, json, output, value};

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn what_is_copied_is_the_same_json(a in json()) {
        let payload = serde_json::json!({"a": a});
        let pretty = serde_json::to_string_pretty(&payload).unwrap();
        // Read back once, so that both sides went through the same reading of floats.
        let payload = read(&pretty);
        for expr in ["a", "{'x': a}.x", "json_decode(json_encode(a))", "[a][0]", "get(*, 'a')", "(SELECT VALUE b FROM [{'b': a}])[0]"] {
            let copied = value(expr, pretty.as_bytes()).unwrap();
            prop_assert_eq!(&read(&copied), &payload["a"], "{}", expr);
        }
    }

    #[test]
    fn the_whole_payload_is_copied(a in json(), b in json(), twice in any::<bool>()) {
        // The same key twice: the last one counts, for serde_json too.
        let payload = if twice { format!("{{\"a\": {b}, \"b\": {b}, \"a\": {a}}}") } else { format!("{{\"b\": {b}, \"a\": {a}}}") };
        let whole = read(&payload);
        let with = |key: &str, value: Value| {
            let mut object = whole.clone();
            object[key] = value;
            object
        };
        for (sql, expected) in [
            ("SELECT * FROM '#'", whole.clone()),
            ("SELECT VALUE * FROM '#'", whole.clone()),
            ("SELECT *, 1 AS c FROM '#'", with("c", 1.into())),
            ("SELECT 1 AS c, * FROM '#'", with("c", 1.into())),
            ("SELECT *, b AS a FROM '#'", with("a", whole["b"].clone())),
            ("SELECT *, missing AS a FROM '#'", whole.clone()),
            ("SELECT *, a AS c.d FROM '#'", with("c", serde_json::json!({"d": whole["a"]}))),
            ("SELECT VALUE {'all': *}.all FROM '#'", whole.clone()),
            ("SELECT {'all': *} AS a FROM '#'", serde_json::json!({"a": {"all": whole}})),
            ("SELECT VALUE (SELECT * FROM [b, a] AS e) FROM '#'", serde_json::json!([whole["b"], whole["a"]])),
            ("SELECT a, b FROM '#'", whole.clone()),
            ("SELECT a AS x.y.z, b AS x.b FROM '#'", serde_json::json!({"x": {"y": {"z": whole["a"]}, "b": whole["b"]}})),
            ("SET @p = {'all': *} SELECT VALUE @p.all FROM '#'", whole.clone()),
        ] {
            let actual = output(sql, payload.as_bytes()).unwrap();
            prop_assert_eq!(read(&actual), expected, "{} of {}", sql, payload);
        }
    }
}
