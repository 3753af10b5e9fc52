//! Functions of the message: its topic, its publisher, its properties, its identity.

use std::borrow::Cow;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Function, function};
use crate::eval::Scope;
use crate::plan::Expr;
use crate::value::{Object, Value};

/// The version that this dialect follows.
const SQL_VERSION: &str = "2016-03-23";
/// What `clientid()` answers for a message that did not come over MQTT.
pub(crate) const NO_CLIENT_ID: &str = "n/a";

pub(super) const FUNCTIONS: &[Function] = &[
    function("accountid", 0, 0, "accountid()", |s, _| text(s.event.account_id)),
    function("clientid", 0, 0, "clientid()", |s, _| text(Some(s.event.client_id.unwrap_or(NO_CLIENT_ID)))),
    function("get_mqtt_property", 1, 1, "get_mqtt_property('content_type')", mqtt_property),
    function("get_user_properties", 0, 1, "get_user_properties([name])", user_properties),
    function("listener", 0, 0, "listener()", |s, _| text(s.event.listener)),
    function("newuuid", 0, 0, "newuuid()", |s, _| Value::string(uuid(random_uuid(s)))),
    function("payload", 0, 0, "payload()", payload),
    function("principal", 0, 0, "principal()", |s, _| text(s.event.principal)),
    function("qos", 0, 0, "qos()", |s, _| Value::Int(i64::from(s.event.qos))),
    function("retain", 0, 0, "retain()", |s, _| Value::Bool(s.event.retain)),
    function("sourceip", 0, 0, "sourceip()", |s, _| {
        s.event.source_ip.map_or(Value::Undefined, |ip| Value::string(ip.to_string()))
    }),
    function("sql_version", 0, 0, "sql_version()", |_, _| text(Some(SQL_VERSION))),
    function("topic", 0, 1, "topic([level])", topic),
    function("traceid", 0, 0, "traceid()", |s, _| {
        s.event.trace_id.map_or(Value::Undefined, |id| Value::string(uuid(id)))
    }),
    function("username", 0, 0, "username()", |s, _| text(s.event.username)),
    function("uuid_v4", 0, 0, "uuid_v4()", |s, _| Value::string(uuid(random_uuid(s)))),
    function("uuid_v4_no_hyphen", 0, 0, "uuid_v4_no_hyphen()", |s, _| {
        Value::string(format!("{:032x}", random_uuid(s)))
    }),
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
