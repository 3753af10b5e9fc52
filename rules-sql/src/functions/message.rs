//! Functions of the message: its topic, its publisher, its properties, its identity.

use std::borrow::Cow;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Function, Gives, Group, Origin, Takes, function, param, whole};
use crate::eval::Scope;
use crate::plan::Expr;
use crate::value::{Object, Value};

/// The version that this dialect follows.
const SQL_VERSION: &str = "2016-03-23";
/// What `clientid()` answers for a message that did not come over MQTT.
pub(crate) const NO_CLIENT_ID: &str = "n/a";

pub(super) const GROUP: Group = Group {
    title: "The message",
    intro: "What is not known of a message is Undefined.",
    functions: FUNCTIONS,
};

const PROPERTIES: &[&str] = &["content_type", "response_topic", "correlation_data", "format_indicator"];

const FUNCTIONS: &[Function] = &[
    function("accountid", &[], Gives::String, &[("accountid()", "\"main\"")], |s, _| {
        text(s.event.account_id)
    })
    .note("A fixed text."),
    function("clientid", &[], Gives::String, &[("clientid()", "\"dev-1\"")], |s, _| {
        text(Some(s.event.client_id.unwrap_or(NO_CLIENT_ID)))
    })
    .note("The Client Identifier of the publisher; `n/a` when the message did not come over MQTT."),
    function(
        "get_mqtt_property",
        &[param("name", Takes::Name(PROPERTIES))],
        Gives::String,
        &[
            ("get_mqtt_property('content_type')", "\"application/json\""),
            ("get_mqtt_property('correlation_data')", "\"AQI=\""),
            ("get_mqtt_property('format_indicator')", "\"UTF8_DATA\""),
            ("get_mqtt_property('response_topic')", "undefined"),
        ],
        mqtt_property,
    )
    .note(
        "A property of MQTT 5. `correlation_data` in base64; `format_indicator` is `UTF8_DATA` or \
         `UNSPECIFIED_BYTES`, the latter also when it was not sent.",
    ),
    function(
        "get_user_properties",
        &[param("name", Takes::String).optional()],
        Gives::Array,
        &[
            ("get_user_properties('site')", r#"["north","east"]"#),
            ("get_user_properties()", r#"[{"site":"north"},{"unit":"C"},{"site":"east"}]"#),
            ("get_user_properties('none')", "undefined"),
        ],
        user_properties,
    )
    .note("All values of a name in order; without a name, an Array of one-key Objects."),
    function("listener", &[], Gives::String, &[("listener()", "\"tcp\"")], |s, _| text(s.event.listener))
        .from(Origin::Tidegate)
        .note("The name of the listener that the publisher came through."),
    function("newuuid", &[], Gives::String, &[("length(newuuid())", "36")], |s, _| {
        Value::string(uuid(random_uuid(s)))
    })
    .aliases(&["uuid_v4"])
    .note("Random, another one at each call."),
    function("payload", &[], Gives::StringOrBytes, &[("payload()", r#""{\"t\": 21.5}""#)], payload)
        .from(Origin::Emqx),
    function("principal", &[], Gives::String, &[("principal()", "\"anna\"")], |s, _| text(s.event.principal))
        .note("How the publisher proved who it is: the fingerprint of its certificate, else its user name."),
    function("qos", &[], Gives::Int, &[("qos()", "1")], |s, _| Value::Int(i64::from(s.event.qos)))
        .from(Origin::Emqx),
    function("retain", &[], Gives::Boolean, &[("retain()", "false")], |s, _| Value::Bool(s.event.retain))
        .from(Origin::Tidegate),
    function("sourceip", &[], Gives::String, &[("sourceip()", "\"192.0.2.7\"")], |s, _| {
        s.event.source_ip.map_or(Value::Undefined, |ip| Value::string(ip.to_string()))
    })
    .note("The remote address without its port."),
    function("sql_version", &[], Gives::String, &[("sql_version()", "\"2016-03-23\"")], |_, _| {
        text(Some(SQL_VERSION))
    }),
    function(
        "topic",
        &[whole("level").optional()],
        Gives::String,
        &[("topic()", "\"sensors/room-1/temp\""), ("topic(2)", "\"room-1\""), ("topic(4)", "undefined")],
        topic,
    )
    .note("The Topic Name, or its n-th level from 1."),
    function(
        "traceid",
        &[],
        Gives::String,
        &[("traceid()", "\"00000000-0000-4000-8000-0000000000ff\"")],
        |s, _| s.event.trace_id.map_or(Value::Undefined, |id| Value::string(uuid(id))),
    )
    .note("The same for every rule of the message."),
    function("username", &[], Gives::String, &[("username()", "\"anna\"")], |s, _| text(s.event.username))
        .from(Origin::Emqx),
    function("uuid_v4_no_hyphen", &[], Gives::String, &[("length(uuid_v4_no_hyphen())", "32")], |s, _| {
        Value::string(format!("{:032x}", random_uuid(s)))
    })
    .from(Origin::Emqx),
];

fn text(value: Option<&str>) -> Value<'_> {
    value.map_or(Value::Undefined, |text| Value::String(Cow::Borrowed(text)))
}

/// Random bits with the version and variant of a random UUID [RFC 9562 §5.4].
fn random_uuid(scope: &Scope<'_, '_>) -> u128 {
    let bits = (u128::from(scope.random.next()) << 64) | u128::from(scope.random.next());
    (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62)
}

fn uuid(bits: u128) -> String {
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        (bits >> 80) & 0xffff,
        (bits >> 64) & 0xffff,
        (bits >> 48) & 0xffff,
        bits & 0xffff_ffff_ffff
    )
}

/// The payload as text, or as bytes when it is none.
fn payload<'v>(scope: &Scope<'_, 'v>, _: &'v [Expr]) -> Value<'v> {
    if !scope.meter.bytes(scope.event.payload.len()) {
        return Value::Undefined;
    }
    match std::str::from_utf8(scope.event.payload) {
        Ok(text) => Value::String(Cow::Borrowed(text)),
        Err(_) => Value::Bytes(Cow::Borrowed(scope.event.payload)),
    }
}

/// The whole Topic Name, or its n-th level from 1.
fn topic<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some(level) = args.first() else { return text(Some(scope.event.topic)) };
    let level = scope.num(level).map(|level| level.floor_i64()).and_then(|level| level.checked_sub(1));
    let level = level.and_then(|level| usize::try_from(level).ok());
    text(level.and_then(|level| scope.event.topic.split('/').nth(level)))
}

fn mqtt_property<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some(Value::String(name)) = args.first().map(|e| scope.eval(e)) else { return Value::Undefined };
    let properties = scope.event.properties;
    match &*name {
        "content_type" => text(properties.content_type()),
        "response_topic" => text(properties.response_topic()),
        "correlation_data" => properties
            .correlation_data()
            .map_or(Value::Undefined, |data| Value::string(STANDARD.encode(data))),
        "format_indicator" => text(Some(match properties.payload_is_utf8() {
            Some(true) => "UTF8_DATA",
            Some(false) | None => "UNSPECIFIED_BYTES",
        })),
        _ => Value::Undefined,
    }
}

/// All values of one name in order; without a name an Array of one-key Objects.
fn user_properties<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let mut found = Vec::new();
    match args.first() {
        Some(key) => {
            let Value::String(key) = scope.eval(key) else { return Value::Undefined };
            scope.event.properties.for_each_user_property(&mut |name, value| {
                if name == key {
                    found.push(Value::string(value.to_owned()));
                }
            });
            if found.is_empty() {
                return Value::Undefined;
            }
        }
        None => scope.event.properties.for_each_user_property(&mut |name, value| {
            let mut object = Object::default();
            object.push(Cow::Owned(name.to_owned()), Value::string(value.to_owned()));
            found.push(Value::Object(Rc::new(object)));
        }),
    }
    Value::array(found)
}
