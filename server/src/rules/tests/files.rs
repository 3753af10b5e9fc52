//! Rule files as text: what is refused, where and why, and that the manual names every key.

use super::*;

#[test]
fn reads_the_rule_of_the_manual() {
    let set = rules(OVERHEAT);
    let [rule] = set.iter().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((rule.name.as_str(), rule.enabled, rule.description.as_str()), ("overheat", true, "Too hot"));
    assert_eq!(rule.filters(), ["sensors/+/temp"]);
    assert_eq!(rule.action_names().collect::<Vec<_>>(), ["alarm"]);
    assert_eq!(rule.tags, ["demo"]);
}

#[test]
fn says_where_a_file_is_wrong_and_what_was_expected() {
    let rule = "[rules.r]\nsql = \"SELECT * FROM 'a'\"\n";
    let action = "[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 't'\n";
    for (text, expected) in [
        ("x = 1".to_owned(), "test.toml:1:1: unknown key \"x\"; expected tables named [rules.<name>]"),
        ("rules = 1".to_owned(), "test.toml:1:9: expected tables named [rules.<name>]"),
        ("[rules.r\n".to_owned(), "test.toml:1:"),
        ("[rules.r]\n".to_owned(), "test.toml:1:1: rule \"r\": missing field `sql`"),
        (
            "[rules.\"a b\"]\nsql = 'x'".to_owned(),
            "test.toml:1:8: rule \"a b\": a rule's name is 1 to 64 letters",
        ),
        (rule.to_owned(), "test.toml:1:8: rule \"r\": has no action; expected [[rules.r.actions]]"),
        (format!("{rule}colour = 'red'\n{action}"), "test.toml:3:1: rule \"r\": unknown field `colour`"),
        (
            format!("{rule}enabled = 'yes'\n{action}"),
            "test.toml:3:11: rule \"r\": invalid type: string \"yes\"",
        ),
        (format!("{rule}dialect = 'sql92'\n{action}"), "test.toml:3:11: rule \"r\": unknown variant `sql92`"),
        (
            format!("{rule}[rules.r.actions]\nx = 1"),
            "rule \"r\": expected [[rules.r.actions]], a list of tables",
        ),
        (
            format!("{rule}[[rules.r.actions]]\nname = 'a'"),
            "test.toml:3:1: rule \"r\", action \"a\": has no type; expected type = \"republish\", \"http\", \"log\"",
        ),
        (
            format!("{rule}[[rules.r.actions]]\nname = 'a'\ntype = 'htttp'"),
            "test.toml:5:8: rule \"r\", action \"a\": unknown type \"htttp\"",
        ),
        (
            format!("{rule}{action}on_remove = 'x'"),
            "test.toml:7:13: rule \"r\", action \"a\": on_remove: expected \"drain\", \"dead_letter\" or \"purge\"",
        ),
        (format!("{rule}{action}qoss = 1"), "test.toml:7:1: rule \"r\", action \"a\": unknown field `qoss`"),
        (
            format!("{rule}{action}qos = 3"),
            "test.toml:7:7: rule \"r\", action \"a\": qos: expected 0, 1, 2 or a template",
        ),
        (
            format!("{rule}{action}{action}"),
            "test.toml:7:1: rule \"r\", action \"a\": the rule has an action of this name already",
        ),
        (
            format!("{rule}[[rules.r.actions]]\ntype = 'log'"),
            "rule \"r\": action name \"\": expected 1 to 64",
        ),
        (
            format!("{rule}[[rules.r.actions]]\ntype = 'log'\nname = 'error_action'"),
            "the name \"error_action\" is the error action's own",
        ),
        (
            format!("{rule}{action}[rules.r.error_action]\ntype = 'log'\nname = 'x'"),
            "an error action has no name of its own",
        ),
        (
            format!(
                "{rule}[[rules.r.actions]]\nname = 'a'\ntype = 'http'\nurl = 'http://h/'\nheaders = {{ X-A = \"a\\nb\" }}"
            ),
            "test.toml:7:19: rule \"r\", action \"a\": headers.X-A: expected a header value",
        ),
        (
            format!(
                "{rule}[[rules.r.actions]]\nname = 'a'\ntype = 'http'\nurl = 'http://h/'\n[rules.r.actions.queue]\nmax_items = 0"
            ),
            "test.toml:8:13: rule \"r\", action \"a\": queue.max_items: expected 1 to",
        ),
    ] {
        let errors =
            RuleSet::from_texts([(Path::new("rules.d/test.toml"), text.as_str())], &Limits::default())
                .expect_err(&text);
        let shown = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(shown.contains(expected), "{text}\n-- gave --\n{shown}\n-- expected --\n{expected}");
    }
}

#[test]
fn says_where_in_the_sql_or_template_the_fault_is() {
    let text = "[rules.r]\nsql = '''\nSELECT *\nFROM 'a'\nWHERE nosuch(x) > 1\n'''\n[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 't'\n";
    let errors = RuleSet::from_texts([(Path::new("f.toml"), text)], &Limits::default()).unwrap_err();
    assert_eq!((errors[0].line, errors[0].column), (Some(5), Some(7)), "{}", errors[0]);
    assert!(errors[0].message.starts_with("[R"), "{}", errors[0]);
    assert!(errors[0].detail.is_some());

    let text = "[rules.r]\nsql = \"SELECT * FROM 'a'\"\n[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 't/${nosuch(x)}'\n";
    let errors = RuleSet::from_texts([(Path::new("f.toml"), text)], &Limits::default()).unwrap_err();
    assert_eq!(errors[0].line, Some(6), "{}", errors[0]);
    assert_eq!(errors[0].action.as_deref(), Some("a"));
    assert!(errors[0].message.starts_with("topic: [R"), "{}", errors[0]);
}

/// Line and column are those of the file, where an escape takes more room than what it stands for.
#[test]
fn the_place_is_that_in_the_file_whatever_the_quotes() {
    for sql in [
        r#"'SELECT "t" > 5 AS v, @nosuch(x) AS x FROM "a"'"#,
        r#""SELECT \"t\" > 5 AS v, \u00e9 + @nosuch(x) AS x FROM 'a'""#,
        r#""SELECT '\t\\\U0001F600\x41é' AS v, @nosuch(x) AS x FROM 'a'""#,
        r#""SELECT a,\n\n @nosuch(x) AS x FROM 'a'""#,
        "\"\"\"\n\nSELECT \\\n   @nosuch(x) AS x FROM 'a'\"\"\"",
        "\"\"\"SELECT \\\"a\\\" AS b, \\\r\n\r\n \\\n  c, @nosuch(x) AS x FROM 'a'\"\"\"",
        "'''\r\nSELECT a,\r\n '\\n' AS b, @nosuch(x) AS x FROM 'a''''",
        "'''SELECT '\\u0041' AS b, @nosuch(x) AS x FROM 'a''''",
        "\"\"\"SELECT a\n  FROM@\"\"\"",
        "\"SELECT a FROM@\"",
    ] {
        let text = format!("[rules.r]\nsql = {sql}\n");
        let before = text.split('@').next().unwrap();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        let text = text.replace('@', "");
        let errors =
            RuleSet::from_texts([(Path::new("f.toml"), text.as_str())], &Limits::default()).unwrap_err();
        assert_eq!((errors[0].line, errors[0].column), (Some(line), Some(column)), "{text}\n{}", errors[0]);
    }
}

/// A rule's author could select a secret into an output, so nothing in a rule reads one.
#[test]
fn references_to_secrets_are_refused_anywhere_in_a_rule() {
    let rule = |sql: &str, action: &str| {
        format!("[rules.r]\nsql = \"{sql}\"\n[[rules.r.actions]]\nname = 'a'\n{action}\n")
    };
    let republish = "type = 'republish'\ntopic = 't'";
    let http = "type = 'http'\nurl = 'http://h/'";
    let select = "SELECT * FROM 'a'";
    for (text, place) in [
        (rule("SELECT '${env:HOME}' AS x FROM 'a'", republish), "test.toml:2:16: rule \"r\": sql"),
        (rule("SELECT ${file:/etc/passwd} FROM 'a'", republish), "test.toml:2:15: rule \"r\": sql"),
        (rule("SELECT * FROM 'a/${env:SITE}'", republish), "test.toml:2:25: rule \"r\": sql"),
        (
            rule(select, "type = 'republish'\ntopic = 't/${env:SITE}'"),
            "test.toml:6:12: rule \"r\", action \"a\": topic",
        ),
        (
            rule(select, &format!("{republish}\npayload = '${{ file : secret }}'")),
            "test.toml:7:12: rule \"r\", action \"a\": payload",
        ),
        (
            rule(select, &format!("{http}\nbody = '''\n{{\"a\": \"é\",\n \"b\": \"x${{env:HOME}}\"}}'''")),
            "test.toml:9:9: rule \"r\", action \"a\": body",
        ),
        (
            rule(select, &format!("{http}\nbody = \"${{concat('${{env:HOME}}')}}\"")),
            "test.toml:7:19: rule \"r\", action \"a\": body",
        ),
        (
            rule(select, &format!("{http}\nheaders = {{ X-Key = '${{env:KEY}}' }}")),
            "test.toml:7:22: rule \"r\", action \"a\": headers.X-Key",
        ),
        (rule(select, "type = 'http'\nurl = '${env:URL}'"), "test.toml:6:8: rule \"r\", action \"a\": url"),
        (
            rule(select, "type = 'http'\nurl = '${credential:url}'"),
            "test.toml:6:8: rule \"r\", action \"a\": url",
        ),
        (
            format!(
                "{}[rules.r.error_action]\ntype = 'log'\nmessage = '${{file:x}}'\n",
                rule(select, republish)
            ),
            "test.toml:9:12: rule \"r\", action \"error_action\": message",
        ),
    ] {
        let errors =
            RuleSet::from_texts([(Path::new("rules.d/test.toml"), text.as_str())], &Limits::default())
                .expect_err(&text);
        let [error] = errors.as_slice() else { panic!("{text}\n{errors:?}") };
        let expected = format!(
            "{place}: `${{env:…}}`, `${{file:…}}` and `${{credential:…}}` stand only in the configuration"
        );
        assert!(error.to_string().contains(&expected), "{text}\n{error}\n{expected}");
    }
}

#[tokio::test]
async fn what_only_looks_like_a_reference_is_text() {
    let pipeline = pipeline(
        r#"
        [rules.r]
        sql = "SELECT env, file FROM 'in'"
        description = "not for ${env:HOME}"
        [[rules.r.actions]]
        name = "a"
        type = "republish"
        topic = "out"
        payload = "$${env:HOME} ${env} ${file.x} $env:HOME {file:x}"
        "#,
    );
    let message = Message::new("in", br#"{"env":1,"file":{"x":2}}"#);
    let [republish] = message.run(&pipeline).try_into().unwrap();
    assert_eq!(String::from_utf8(republish.payload).unwrap(), "${env:HOME} 1 2 $env:HOME {file:x}");
}

#[test]
fn reports_every_fault_of_every_file_at_once() {
    let (one, two) = (Path::new("one.toml"), Path::new("two.toml"));
    let bad = "[rules.a]\nsql = 'SELEKT'\n[rules.b]\nsql = 1\n";
    let dup = format!("{OVERHEAT}\n[rules.c]\nsql = 'no'\n");
    let errors = RuleSet::from_texts([(one, bad), (two, dup.as_str()), (one, OVERHEAT)], &Limits::default())
        .unwrap_err();
    let rules: Vec<_> =
        errors.iter().map(|error| (error.file.as_path(), error.rule.as_deref().unwrap())).collect();
    assert_eq!(rules, [(one, "a"), (one, "b"), (two, "c"), (one, "overheat")]);
    assert!(errors[3].message.contains("two.toml has a rule of this name already"));
}

#[test]
fn reads_the_files_of_a_folder_in_order_and_leaves_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |name: &str| OVERHEAT.replace("overheat", name);
    std::fs::write(dir.path().join("b.toml"), rule("second")).unwrap();
    std::fs::write(dir.path().join("a.toml"), rule("first")).unwrap();
    for ignored in [".hidden.toml", "a.toml~", "notes.md"] {
        std::fs::write(dir.path().join(ignored), "not a rule").unwrap();
    }
    let set = load_rules(dir.path(), &Limits::default()).unwrap();
    assert_eq!(set.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["first", "second"]);

    let errors = load_rules(&dir.path().join("missing"), &Limits::default()).unwrap_err();
    assert!(errors[0].message.starts_with("can't be read"), "{}", errors[0]);
    std::fs::write(dir.path().join("c.toml"), b"\xff").unwrap();
    let errors = load_rules(dir.path(), &Limits::default()).unwrap_err();
    assert!(errors[0].message.starts_with("can't be read"), "{}", errors[0]);
}

#[test]
fn every_example_of_the_manual_loads() {
    let manual = include_str!("../../../../docs/actions.md");
    let examples: Vec<&str> = manual
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("an example ends").0)
        // The others are of the configuration, and are read with it.
        .filter(|text| text.contains("[rules."))
        .collect();
    assert!(examples.len() >= 2);
    let names: Vec<String> = examples
        .into_iter()
        .flat_map(|text| rules(text).iter().map(|rule| rule.name.clone()).collect::<Vec<_>>())
        .collect();
    assert_eq!(names, ["overheat", "readings-in-batches", "readings"]);
}

/// The page on which the keys of a kind of action stand.
fn page(kind: &str) -> &'static str {
    match kind {
        "nats" => include_str!("../../../../docs/nats.md"),
        "amqp" => include_str!("../../../../docs/amqp.md"),
        "kafka" => include_str!("../../../../docs/kafka.md"),
        "redis" => include_str!("../../../../docs/redis.md"),
        _ => include_str!("../../../../docs/actions.md"),
    }
}

/// Every key of every action stands in the manual's tables, with the default that serde fills in.
#[test]
fn the_manual_names_every_key() {
    for kind in actions::ActionConfig::KINDS {
        let manual = page(kind);
        let text = format!("type = '{kind}'\nno_such_key = 1");
        let error = toml::from_str::<actions::ActionConfig>(&text).unwrap_err().message().to_owned();
        let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(keys.len() > 5, "{error}");
        for key in keys.iter().filter(|key| **key != "name") {
            assert!(manual.contains(&format!("`{key}`")), "{kind}: {key}");
        }
    }
}

/// The examples of the pages: connectors load as a configuration, rules as rules that find them.
#[test]
fn the_examples_of_the_pages_of_connectors_load() {
    for kind in actions::config::ConnectorConfig::KINDS.iter().filter(|kind| **kind != "http") {
        let blocks = page(kind).split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
        let (of_rules, configs): (Vec<&str>, Vec<&str>) = blocks.partition(|text| text.contains("[rules."));
        assert!(!of_rules.is_empty() && !configs.is_empty(), "{kind}");
        let environment = crate::config::Environment::from_iter([("PLANT_PASSWORD", "secret")]);
        let loaded = crate::config::load_text(&configs.concat(), None, &environment).unwrap();
        let connectors = crate::server::connectors(&loaded.config, &Connectors::default()).unwrap();
        for text in of_rules {
            let set = rules(text);
            assert_eq!(set.unconnected(&connectors), [], "{kind}: {text}");
            assert!(set.iter().all(|rule| rule.actions.iter().any(|action| action.config.kind() == *kind)));
        }
    }
}

/// The same for connectors, and for the tables within actions and connectors.
#[test]
fn the_manual_names_every_key_of_connectors_and_batches() {
    use actions::config::{AuthConfig, ConnectorConfig, HttpBatchConfig, RecordBatchConfig, TlsConfig};
    let manual = include_str!("../../../../docs/connectors.md");
    let keys = |error: toml::de::Error| {
        let text = error.message().to_owned();
        let keys: Vec<String> = text.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        assert!(keys.len() >= 3, "{text}");
        keys
    };
    let connector = |kind: &str| {
        let text = format!("type = '{kind}'\nno_such_key = 1");
        keys(toml::from_str::<ConnectorConfig>(&text).unwrap_err())
    };
    let auth = keys(toml::from_str::<AuthConfig>("no_such_key = 1").unwrap_err());
    let tls = keys(toml::from_str::<TlsConfig>("no_such_key = 1").unwrap_err());
    for kind in ConnectorConfig::KINDS.iter().filter(|kind| **kind != "http") {
        for key in connector(kind) {
            assert!(page(kind).contains(&format!("`{key}`")), "{kind}: {key}");
        }
        for key in keys(toml::from_str::<RecordBatchConfig>("no_such_key = 1").unwrap_err()) {
            assert!(page(kind).contains(&format!("`batch.{key}`")), "{kind}: {key}");
        }
    }
    for key in connector("http").iter().chain(&auth).chain(&tls) {
        assert!(manual.contains(&format!("`{key}`")), "{key}");
    }
    let manual = include_str!("../../../../docs/actions.md");
    for key in keys(toml::from_str::<HttpBatchConfig>("no_such_key = 1").unwrap_err()) {
        assert!(manual.contains(&format!("`batch.{key}`")), "{key}");
    }
}
