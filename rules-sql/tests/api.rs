//! The interface as the server uses it: events, sharing of a parsed payload, templates of a rule, errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use rules_sql::{
    CompiledRule, Dialect, EvalError, Evaluation, Event, EventProperties, Limits, Outcome, Output, Template,
    TemplateKind, Undefined, compile,
};

fn rule(sql: &str) -> CompiledRule {
    compile(sql, Dialect::Aws, &Limits::default()).unwrap_or_else(|error| panic!("{}", error.render(sql)))
}

fn output(rule: &CompiledRule, ev: &mut Evaluation<'_>) -> Output {
    match rule.evaluate(ev) {
        Outcome::Output(output) => output,
        other => panic!("{other:?}"),
    }
}

#[derive(Debug)]
struct Properties;

impl EventProperties for Properties {
    fn content_type(&self) -> Option<&str> {
        Some("application/json")
    }

    fn correlation_data(&self) -> Option<&[u8]> {
        Some(b"\x00\x01")
    }

    fn payload_is_utf8(&self) -> Option<bool> {
        Some(true)
    }

    fn for_each_user_property(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (name, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            visit(name, value);
        }
    }
}

#[test]
fn rules_and_templates_go_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<CompiledRule>();
    shared::<Template>();
}

#[test]
fn everything_about_the_message() {
    let mut event = Event::new("a/b", b"{}");
    event.client_id = Some("c1");
    event.username = Some("u1");
    event.principal = Some("p1");
    event.source_ip = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    event.listener = Some("tcp");
    event.qos = 2;
    event.retain = true;
    event.trace_id = Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    event.account_id = Some("acc");
    event.now_ms = 5;
    event.properties = &Properties;
    let rule = rule(
        "SELECT clientid() AS c, username() AS u, principal() AS p, sourceip() AS i, listener() AS l, qos() AS q, retain() AS r, \
         traceid() AS t, accountid() AS a, timestamp() AS n, get_mqtt_property('content_type') AS ct, \
         get_mqtt_property('correlation_data') AS cd, get_mqtt_property('format_indicator') AS f, \
         get_mqtt_property('response_topic') AS rt, get_user_properties('a') AS ua, get_user_properties() AS up FROM 'a/b'",
    );
    assert!(!rule.needs_payload());
    let output = output(&rule, &mut Evaluation::new(&event, 1));
    assert_eq!(
        std::str::from_utf8(output.bytes()).unwrap(),
        r#"{"c":"c1","u":"u1","p":"p1","i":"127.0.0.1","l":"tcp","q":2,"r":true,"t":"01234567-89ab-cdef-0123-456789abcdef","a":"acc","n":5,"ct":"application/json","cd":"AAE=","f":"UTF8_DATA","ua":["1","3"],"up":[{"a":"1"},{"b":"2"},{"a":"3"}]}"#
    );
}

#[test]
fn no_client_is_said_so() {
    let event = Event::new("a/b", b"");
    let output =
        output(&rule("SELECT clientid() AS c, username() AS u FROM '#'"), &mut Evaluation::new(&event, 1));
    assert_eq!(output.bytes(), br#"{"c":"n/a"}"#);
}

#[test]
fn what_needs_the_payload() {
    for (sql, needs) in [
        ("SELECT topic() AS t FROM '#'", false),
        ("SELECT topic() AS t FROM '#' WHERE qos() = 1", false),
        ("SELECT payload() AS t FROM '#'", false),
        ("SELECT * FROM '#'", true),
        ("SELECT topic() AS t FROM '#' WHERE a = 1", true),
        ("SELECT qos() + a.b[0] AS t FROM '#'", true),
        ("SET @a = x SELECT @a AS t FROM '#'", true),
        ("SET @a = x SELECT qos() AS t FROM '#'", false),
        ("SELECT (SELECT VALUE y FROM x) AS t FROM '#'", true),
        ("SELECT {'all': *} AS t FROM '#'", true),
    ] {
        assert_eq!(rule(sql).needs_payload(), needs, "{sql}");
    }
}

#[test]
fn many_rules_share_one_message() {
    let event = Event::new("a/b", br#"{"n": 1, "s": "x"}"#);
    let mut ev = Evaluation::new(&event, 9);
    let first = output(&rule("SELECT n FROM '#'"), &mut ev);
    let second = output(&rule("SELECT s, n + 1 AS m FROM '#' WHERE s = 'x'"), &mut ev);
    assert_eq!((first.bytes(), second.bytes()), (&br#"{"n":1}"#[..], &br#"{"s":"x","m":2}"#[..]));
    let random = rule("SELECT VALUE newuuid() FROM '#'");
    assert_ne!(output(&random, &mut ev), output(&random, &mut ev));
    assert_eq!(
        output(&random, &mut Evaluation::new(&event, 4)),
        output(&random, &mut Evaluation::new(&event, 4))
    );
}

#[test]
fn templates_see_variables_and_the_output() {
    let event = Event::new("a/b", br#"{"n": 1, "s": "x\"y"}"#);
    let mut ev = Evaluation::new(&event, 9);
    let rule = rule("SET @v = n + 1 SELECT n AS t, s FROM '#'");
    let made = output(&rule, &mut ev);
    let mut render = |text: &str, kind| {
        let template = rule.template(text, kind, &Limits::default()).unwrap();
        let mut out = Vec::new();
        template.render(&mut ev, Some(&made), &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    assert_eq!(
        render("v=${@v} t=${output().t} alias=${t}", TemplateKind::PlainText).unwrap(),
        "v=2 t=1 alias="
    );
    assert_eq!(render("${output()}", TemplateKind::Text).unwrap(), r#"{"t":1,"s":"x\"y"}"#);
    assert_eq!(render(r#"{"o": ${output()}}"#, TemplateKind::Text).unwrap(), r#"{"o": {"t":1,"s":"x\"y"}}"#);
    assert_eq!(
        render("a\n${s}", TemplateKind::HeaderValue).unwrap_err().to_string(),
        "rendered header value is not valid: it holds the byte 0x0a"
    );
    assert_eq!(rule.template("${@w}", TemplateKind::Text, &Limits::default()).unwrap_err().code, "R0210");
    assert!(Template::compile("${@v}", TemplateKind::Text, Dialect::Aws, &Limits::default()).is_err());
}

#[test]
fn raw_output_goes_through_a_template_unchanged() {
    let event = Event::new("a/b", b"\x00\xff");
    let mut ev = Evaluation::new(&event, 9);
    let rule = rule("SELECT * FROM '#'");
    let made = output(&rule, &mut ev);
    assert!(!made.is_json());
    let mut out = Vec::new();
    let template = rule.template("${output()}", TemplateKind::Text, &Limits::default()).unwrap();
    template.render(&mut ev, Some(&made), &mut out).unwrap();
    assert_eq!(out, b"\x00\xff");
}

#[test]
fn doubles_compare_exactly() {
    let event = Event::new("a/b", br#"{"d": 0.1000000000000000055511151231257827021181583404541015625}"#);
    for (expr, expected) in [
        // The double nearest to a tenth is a little more; 34 digits of it are not the same number either.
        ("sqrt(0.01) > 0.1", "true"),
        ("sqrt(0.01) = 0.1", "false"),
        ("sqrt(0.01) = d", "false"),
        ("sqrt(0.25) = 0.5", "true"),
        ("power(2, 60) = 1152921504606846976", "true"),
        ("power(2, 60) < 1152921504606846977", "true"),
        ("0 - power(2, 60) > -1152921504606846977", "true"),
        ("exp(-700) > 0", "true"),
        ("power(10, 300) < 1E301", "true"),
    ] {
        let output =
            output(&rule(&format!("SELECT VALUE ({expr}) FROM '#'")), &mut Evaluation::new(&event, 1));
        assert_eq!(std::str::from_utf8(output.bytes()).unwrap(), expected, "{expr}");
    }
}

#[test]
fn errors_have_a_place() {
    let sql = "SELECT a\nFROM 't'\nWHERE é = nope(1)";
    let error = compile(sql, Dialect::Aws, &Limits::default()).unwrap_err();
    assert_eq!((error.code, error.line, error.column), ("R0202", 3, 11));
    assert_eq!(sql.get(error.span.clone()), Some("nope"));
    assert_eq!(error.to_string(), "[R0202] unknown function nope at line 3, column 11");
}

#[test]
fn wide_objects_cost_steps() {
    let mut payload = "{\"list\":[".to_owned() + &vec!["1"; 5_000].join(",") + "]";
    for n in 0..50_000 {
        write!(payload, ",\"k{n}\":1").unwrap();
    }
    payload.push('}');
    let event = Event::new("a/b", payload.as_bytes());
    // Each lookup passes fifty thousand neighbours, five thousand times.
    let rule = rule("SET @all = {'all': *} SELECT (SELECT VALUE @all.all.k7 FROM list) AS v FROM '#'");
    let outcome = rule.evaluate(&mut Evaluation::new(&event, 1));
    assert!(matches!(outcome, Outcome::Failed(EvalError::Steps { .. })), "{outcome:?}");
}

#[test]
fn a_variable_has_one_value_in_where_and_select() {
    let sql = "SET @r = rand() SELECT VALUE @r < 0.5 FROM '#' WHERE @r < 0.5 AND topic() = 'a'";
    let rule = compile(sql, Dialect::Aws, &Limits::default()).unwrap();
    assert!(!rule.needs_payload());
    let event = Event::new("a", b"{}");
    let outcomes: Vec<Outcome> =
        (0..64).map(|seed| rule.evaluate(&mut Evaluation::new(&event, seed))).collect();
    let passed = outcomes.iter().filter(|outcome| **outcome != Outcome::NoMatch).count();
    assert!((8..56).contains(&passed), "{passed}");
    for outcome in outcomes {
        match outcome {
            Outcome::NoMatch => {}
            Outcome::Output(output) => assert_eq!(output.bytes(), b"true"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn undefined_in_a_template_is_blank_or_left_out_or_a_failure() {
    let event = Event::new("a", br#"{"t": 1, "o": {"k": [1, {"x": null}]}}"#);
    let render = |text: &str, undefined| {
        let template = Template::compile(text, TemplateKind::Text, Dialect::Aws, &Limits::default()).unwrap();
        let mut out = Vec::new();
        let rendered =
            template.with_undefined(undefined).render(&mut Evaluation::new(&event, 1), None, &mut out);
        rendered.map(|()| String::from_utf8(out).unwrap()).map_err(|error| error.to_string())
    };
    let json =
        r#"{"a": ${t}, "b": ${x}, "c": [${x}, ${t}, ${o.y}], "d": {"e": ${x}}, "f": "${x}", "g": ${o}}"#;
    let blank =
        r#"{"a": 1, "b": null, "c": [null, 1, null], "d": {"e": null}, "f": "", "g": {"k":[1,{"x":null}]}}"#;
    let omitted = r#"{"a":1,"c":[1],"d":{},"f":"","g":{"k":[1,{"x":null}]}}"#;
    for (text, with_blank, with_omit, with_fail) in [
        (json, blank, omitted, Err("x is Undefined")),
        ("${x}", "null", "", Err("x is Undefined")),
        ("[${x}]", "[null]", "[]", Err("x is Undefined")),
        ("${t}${x}", "1", "1", Err("x is Undefined")),
        ("t ${t}, ${o.y.z}", "t 1, ", "t 1, ", Err("o.y.z is Undefined")),
        ("{\"a\": ${t}}", "{\"a\": 1}", "{\"a\": 1}", Ok("{\"a\": 1}")),
        // Null is a value.
        ("${get(o.k, 1).x}", "null", "null", Ok("null")),
    ] {
        assert_eq!(render(text, Undefined::Blank).as_deref(), Ok(with_blank), "{text}");
        assert_eq!(render(text, Undefined::Omit).as_deref(), Ok(with_omit), "{text}");
        assert_eq!(
            render(text, Undefined::Fail),
            with_fail.map(str::to_owned).map_err(str::to_owned),
            "{text}"
        );
    }
}

#[test]
fn a_template_is_explained_by_what_it_was_rendered_from() {
    let rule = rule("SET @site = topic(1) SELECT t * 2 AS twice FROM '#'");
    let event = Event::new("hall", br#"{"t": 4}"#);
    let mut ev = Evaluation::new(&event, 1);
    let made = output(&rule, &mut ev);
    let text = "${@site}/é/${output().twice}${missing}";
    let template = rule.template(text, TemplateKind::Topic, &Limits::default()).unwrap();
    let explanation = template.explain(&mut ev, Some(&made));
    assert_eq!(explanation.rendered.unwrap(), "hall/é/8".as_bytes());
    let steps: Vec<&str> = explanation.steps.iter().map(|step| step.sql.as_str()).collect();
    assert_eq!(steps, ["@site", "output().twice", "missing"]);
    assert_eq!(explanation.steps[2].because.as_deref(), Some("the payload has no field missing"));

    let strict = template.with_undefined(Undefined::Fail).explain(&mut ev, Some(&made));
    assert_eq!(strict.rendered.unwrap_err().to_string(), "missing is Undefined");
    let fault = rule.template("é${t} ${nope()}", TemplateKind::Text, &Limits::default()).unwrap_err();
    assert_eq!((fault.code, fault.line, fault.column), ("R0202", 1, 9));
}

#[test]
fn a_template_knows_which_filters_it_may_come_back_to() {
    let may = |text: &str, filter: &str| {
        let kind = TemplateKind::Topic;
        Template::compile(text, kind, Dialect::Aws, &Limits::default()).unwrap().may_match(filter)
    };
    for (text, filter, expected) in [
        ("alarms/${topic(2)}", "sensors/+/temp", false),
        ("sensors/${topic(2)}/temp", "sensors/+/temp", true),
        ("sensors/${topic(2)}", "sensors/+/temp", false),
        // A field may hold a slash.
        ("sensors/${site}", "sensors/+/temp", true),
        ("${topic()}/out", "sensors/#", true),
        ("out/${topic()}", "sensors/#", false),
        ("out/${topic()}", "#", true),
        ("a", "a/#", true),
        ("ab", "a/#", false),
        ("a/b", "a/#", true),
        ("${x}", "a/+/b", true),
        ("x${topic(1)}", "+", true),
        ("x${topic(1)}/y", "+", false),
        ("$$SYS/x", "#", false),
        ("$$SYS/x", "$SYS/#", true),
        ("$$x/${y}", "+/+", false),
        ("a/b", "a/b", true),
        ("a/b", "a/c", false),
        ("a//b", "a/+/b", true),
    ] {
        assert_eq!(may(text, filter), expected, "{text} and {filter}");
    }
}

#[test]
fn a_variable_has_one_value_in_the_templates_too() {
    let rule = rule("SET @id = newuuid() SELECT @id AS id, newuuid() AS other FROM '#' WHERE @id <> rand()");
    let event = Event::new("a", b"{}");
    let mut ev = Evaluation::new(&event, 3);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..3 {
        ev.begin_rule(number);
        let made = output(&rule, &mut ev);
        let made_json: serde_json::Value = serde_json::from_slice(made.bytes()).unwrap();
        for _ in 0..2 {
            let template =
                rule.template("${@id} ${newuuid()}", TemplateKind::PlainText, &Limits::default()).unwrap();
            let mut out = Vec::new();
            template.render(&mut ev, Some(&made), &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let (id, other) = text.split_once(' ').unwrap();
            assert_eq!(id, made_json["id"]);
            assert!(seen.insert(other.to_owned()), "{other} twice");
        }
        // In another evaluation of the same message, as for an error action.
        let mut again = Evaluation::new(&event, 3);
        again.begin_rule_again(number);
        let template =
            rule.template("${@id} ${newuuid()}", TemplateKind::PlainText, &Limits::default()).unwrap();
        let mut out = Vec::new();
        template.render(&mut again, None, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with(made_json["id"].as_str().unwrap()) && seen.insert(text[37..].to_owned()),
            "{text}"
        );
        assert!(seen.insert(made_json["id"].to_string()));
        assert!(seen.insert(made_json["other"].to_string()));
    }
}
