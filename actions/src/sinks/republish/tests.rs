use mqtt_protocol::QoS;
use proptest::prelude::*;

use super::RepublishRequest;
use crate::error::RenderError;
use crate::plan::{ActionPlan, Request, Slot};
use crate::testing::{FakeRenderer, plan, refusal, render};

const MINIMAL: &str = "type = 'republish'\nname = 'a'\ntopic = 'alarms/${topic(2)}'\n";

fn republish(plan: &ActionPlan, values: &[(&str, &[u8])]) -> Result<RepublishRequest, RenderError> {
    match render(plan, values)? {
        Request::Republish(request) => Ok(request),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sends_the_output_at_qos_0_by_default() {
    let request = republish(&plan(MINIMAL), &[("topic", b"alarms/north")]).unwrap();
    assert_eq!(
        request,
        RepublishRequest {
            topic: "alarms/north".to_owned(),
            payload: br#"{"t":61}"#.to_vec(),
            qos: QoS::AtMostOnce,
            retain: false,
            user_properties: vec![],
            content_type: None,
            response_topic: None,
            correlation_data: None,
            payload_format_indicator: None,
            message_expiry_interval_s: None,
        }
    );
}

#[test]
fn renders_every_key() {
    let plan = plan(
        r#"
        type = "republish"
        name = "a"
        topic = "out/${x}"
        payload = "t=${t}"
        qos = "${q}"
        retain = "${r}"
        user_properties = { site = "${topic(2)}", fixed = "1" }
        content_type = "text/plain"
        response_topic = "back/${x}"
        correlation_data = "${c}"
        payload_format_indicator = true
        message_expiry_interval = "${e}"
        "#,
    );
    let slots: Vec<(&str, Slot)> =
        plan.templates().iter().map(|spec| (spec.field.as_str(), spec.slot)).collect();
    assert_eq!(
        slots,
        [
            ("topic", Slot::Topic),
            ("payload", Slot::Text),
            ("qos", Slot::Integer { min: 0, max: 2 }),
            ("retain", Slot::Boolean),
            ("user_properties.fixed", Slot::PlainText),
            ("user_properties.site", Slot::PlainText),
            ("content_type", Slot::PlainText),
            ("response_topic", Slot::Topic),
            ("correlation_data", Slot::PlainText),
            ("message_expiry_interval", Slot::Integer { min: 0, max: 4_294_967_295 }),
        ]
    );
    let request = republish(
        &plan,
        &[
            ("topic", b"out/1"),
            ("payload", b"t=61"),
            ("qos", b"2"),
            ("retain", b"true"),
            ("user_properties.site", b"north"),
            ("response_topic", b"back/1"),
            ("correlation_data", b"AAEC"),
            ("message_expiry_interval", b"4294967295"),
        ],
    )
    .unwrap();
    assert_eq!((request.qos, request.retain), (QoS::ExactlyOnce, true));
    assert_eq!(request.user_properties, [("fixed".into(), "1".into()), ("site".into(), "north".into())]);
    assert_eq!(request.correlation_data.as_deref(), Some(&[0, 1, 2][..]));
    assert_eq!(request.response_topic.as_deref(), Some("back/1"));
    assert_eq!(request.message_expiry_interval_s, Some(u32::MAX));
    assert_eq!(request.payload_format_indicator, Some(true));
}

#[test]
fn refuses_rendered_values_that_do_not_fit() {
    let base = plan(
        "type = 'republish'\nname = 'a'\ntopic = 'x/${x}'\nqos = '${q}'\nretain = '${r}'\n\
         correlation_data = '${c}'\nmessage_expiry_interval = '${e}'\npayload_format_indicator = true\n\
         content_type = '${ct}'\nresponse_topic = 'b/${x}'\nuser_properties = { k = '${v}' }",
    );
    let good: [(&str, &[u8]); 9] = [
        ("topic", b"x/1"),
        ("qos", b"1"),
        ("retain", b"false"),
        ("correlation_data", b""),
        ("message_expiry_interval", b"0"),
        ("content_type", b"a"),
        ("response_topic", b"b/1"),
        ("user_properties.k", b"v"),
        ("payload", b""),
    ];
    republish(&base, &good).unwrap();
    let long = vec![b'a'; 65_536];
    for (field, value) in [
        ("topic", &b""[..]),
        ("topic", b"x/+"),
        ("topic", b"x/#"),
        ("topic", b"x/\0"),
        ("topic", b"x/\xff"),
        ("topic", &long),
        ("topic", b"$SYS/broker"),
        ("response_topic", b"b/+"),
        ("response_topic", b"$SYS/x"),
        ("qos", b"3"),
        ("qos", b""),
        ("qos", b"one"),
        ("retain", b"1"),
        ("retain", b""),
        ("correlation_data", b"not base64!"),
        ("message_expiry_interval", b"-1"),
        ("message_expiry_interval", b"4294967296"),
        ("content_type", &long),
        ("content_type", b"a\0b"),
        ("user_properties.k", b"\xff"),
        ("user_properties.k", &long),
    ] {
        let mut values = good.to_vec();
        values.push((field, value));
        let error = republish(&base, &values).expect_err(field);
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn a_promised_utf8_payload_must_be_utf8() {
    let plan = plan(&format!("{MINIMAL}payload_format_indicator = true"));
    let mut renderer = FakeRenderer::new(&plan, &[("topic", b"a")]).with_output(b"\xff");
    assert_eq!(plan.render(&mut renderer), Err(RenderError::NotUtf8 { field: "payload".to_owned() }));
}

#[test]
fn only_the_templates_own_text_may_begin_with_a_dollar() {
    let own = plan("type = 'republish'\nname = 'a'\ntopic = '$$internal/${x}'");
    assert_eq!(own.templates()[0].text, "$internal/${x}");
    assert_eq!(republish(&own, &[("topic", b"$internal/1")]).unwrap().topic, "$internal/1");

    let value = plan("type = 'republish'\nname = 'a'\ntopic = '${x}/state'");
    assert_eq!(
        republish(&value, &[("topic", b"$SYS/state")]),
        Err(RenderError::ReservedTopic { field: "topic".to_owned(), topic: "$SYS/state".to_owned() })
    );

    // `$${` is the template language's escape, not a dollar sign of ours.
    let escape = plan("type = 'republish'\nname = 'a'\ntopic = '$${x}'");
    assert_eq!(escape.templates()[0].text, "$${x}");
}

proptest! {
    /// Whatever a template gives, what is published to is a topic name that devices may name.
    #[test]
    fn a_rendered_topic_is_one_that_may_be_published_to(topic in "\\PC{0,20}|[$+#/a\0]{0,6}") {
        if let Ok(request) = republish(&plan(MINIMAL), &[("topic", topic.as_bytes())]) {
            prop_assert!(mqtt_protocol::validate_topic_name(&request.topic).is_ok());
            prop_assert!(!request.topic.starts_with('$'));
            prop_assert_eq!(request.topic, topic);
        }
    }
}

#[test]
fn an_error_shows_a_topic_shortened_and_on_one_line() {
    let plan = plan(MINIMAL);
    let topic = format!("a\r\n{}+", "x".repeat(1_000));
    let error = republish(&plan, &[("topic", topic.as_bytes())]).unwrap_err().to_string();
    assert!(error.len() < 200 && !error.contains('\n') && error.contains("a\\r\\n"), "{error}");
}

#[test]
fn refuses_settings_that_cannot_work() {
    for (text, expected) in [
        ("", "action name \"\""),
        ("name = 'a b'\n", "action name \"a b\""),
        ("name = 'a'\ntopic = 'a/+'", "topic: \"a/+\" holds a wildcard"),
        ("name = 'a'\ntopic = ''", "topic: \"\" is empty"),
        ("name = 'a'\nqos = 3", "qos: expected 0, 1, 2"),
        ("name = 'a'\nqos = -1", "qos: expected 0, 1, 2"),
        ("name = 'a'\nqos = true", "qos: expected 0, 1, 2"),
        ("name = 'a'\nqos = 'high'", "qos: expected 0, 1, 2"),
        ("name = 'a'\nretain = 1", "retain: expected true, false"),
        ("name = 'a'\nretain = 'yes'", "retain: expected true, false"),
        ("name = 'a'\nmessage_expiry_interval = -1", "message_expiry_interval: expected whole seconds"),
        ("name = 'a'\ncorrelation_data = '%'", "correlation_data: expected base64"),
        ("name = 'a'\nuser_properties = { '${x}' = '1' }", "a name is literal"),
        ("name = 'a'\nuser_properties = { '' = '1' }", "expected a name of 1 to 65535 bytes"),
        ("name = 'a'\nqoss = 1", "unknown field `qoss`"),
        ("name = 'a'\nqos = []", "expected a number, true, false, or a template"),
    ] {
        let text = if text.contains("topic") { text.to_owned() } else { format!("topic = 't'\n{text}") };
        let refusal = refusal(&format!("type = 'republish'\n{text}"));
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    let refusal = refusal("type = 'republish'\nname = 'a'");
    assert!(refusal.contains("missing field `topic`"), "{refusal}");
}
