//! Hashes, base64 and JSON text.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::{Function, Gives, Group, Origin, Param, Takes, any, function, param, text};
use crate::eval::Scope;
use crate::plan::{Expr, Op};
use crate::value::Value;

/// Reads both alphabets' padding, present or not.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const READ_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const READ_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

pub(super) const GROUP: Group = Group {
    title: "Encoding and hashes",
    intro: "`*` as an argument means the bytes of the payload, whatever they are; other values are taken as text.",
    functions: FUNCTIONS,
};

const SCHEME: Param = param("scheme", Takes::Word(&["base64"]));
const OPTION: Param = param("option", Takes::Word(&["no_padding", "urlsafe"])).optional();
const HASHED: &[Param] = &[text("value").or_star()];

const FUNCTIONS: &[Function] = &[
    function(
        "base64_decode",
        &[text("text").or_star(), OPTION, OPTION],
        Gives::StringOrBytes,
        &[("base64_decode('YQ')", "\"a\""), ("base64_decode('!')", "undefined")],
        base64_decode,
    )
    .from(Origin::Emqx)
    .note("With or without padding. The result is not read as JSON; `decode` does that."),
    function(
        "base64_encode",
        &[text("value").or_star(), OPTION, OPTION],
        Gives::String,
        &[("base64_encode('a?>', 'urlsafe')", "\"YT8-\""), ("base64_encode('a', 'no_padding')", "\"YQ\"")],
        base64_encode,
    )
    .from(Origin::Emqx),
    function(
        "decode",
        &[text("text").or_star(), SCHEME],
        Gives::Any,
        &[
            ("decode('eyJ0IjoxfQ==', 'base64').t", "1"),
            ("decode('aGVsbG8=', 'base64')", "\"hello\""),
            ("decode('!', 'base64')", "null"),
        ],
        decode,
    )
    .note("A JSON value if it is JSON, else text; what is not base64 gives Null."),
    function(
        "encode",
        &[text("value").or_star(), SCHEME],
        Gives::String,
        &[("encode('hello', 'base64')", "\"aGVsbG8=\"")],
        encode,
    ),
    function(
        "json_decode",
        &[param("text", Takes::String)],
        Gives::Any,
        &[("json_decode('{\"a\": 1}')", r#"{"a":1}"#), ("json_decode('{')", "undefined")],
        json_decode,
    )
    .from(Origin::Emqx),
    function(
        "json_encode",
        &[any("value").or_star()],
        Gives::String,
        &[("json_encode([1, 'a'])", r#""[1,\"a\"]""#)],
        json_encode,
    )
    .from(Origin::Emqx),
    function(
        "md5",
        HASHED,
        Gives::String,
        &[("md5('hello')", "\"5d41402abc4b2a76b9719d911017c592\"")],
        hash::<Md5>,
    )
    .note("Broken; for what is neither secret nor signed."),
    function(
        "sha1",
        HASHED,
        Gives::String,
        &[("sha1('hello')", "\"aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d\"")],
        hash::<Sha1>,
    )
    .note("Broken; for what is neither secret nor signed."),
    function(
        "sha224",
        HASHED,
        Gives::String,
        &[("sha224('hello')", "\"ea09ae9cc6768c50fcee903ed054556e5bfc8347907f12598aa24193\"")],
        hash::<Sha224>,
    ),
    function(
        "sha256",
        HASHED,
        Gives::String,
        &[("sha256('hello')", "\"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\"")],
        hash::<Sha256>,
    ),
    function("sha384", HASHED, Gives::String, &[("length(sha384('hello'))", "96")], hash::<Sha384>),
    function("sha512", HASHED, Gives::String, &[("length(sha512('hello'))", "128")], hash::<Sha512>),
];

/// The bytes of an argument: of the payload for `*`, else of the String it converts to.
fn bytes<'v>(scope: &Scope<'_, 'v>, arg: Option<&'v Expr>) -> Option<Cow<'v, [u8]>> {
    let arg = arg?;
    let bytes = if matches!(arg.op, Op::Star) && scope.element.is_none() {
        Cow::Borrowed(scope.event.payload)
    } else {
        match scope.eval(arg) {
            Value::Bytes(bytes) => bytes,
            value => match value.to_text(scope.meter)? {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
        }
    };
    // Hashing and encoding cost more per byte than copying.
    (scope.meter.bytes(bytes.len()) && scope.meter.build(bytes.len())).then_some(bytes)
}

fn hash<'v, D: Digest>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some(bytes) = bytes(scope, args.first()) else { return Value::Undefined };
    let mut text = String::with_capacity(128);
    for byte in D::digest(&bytes).iter() {
        let _infallible = write!(text, "{byte:02x}");
    }
    Value::string(text)
}

fn is_base64(value: &Value<'_>) -> bool {
    matches!(value, Value::String(scheme) if scheme == "base64")
}

fn encode<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some(scheme) = args.get(1).map(|e| scope.eval(e)) else { return Value::Undefined };
    match bytes(scope, args.first()) {
        Some(bytes) if is_base64(&scheme) => Value::string(STANDARD.encode(bytes)),
        _ => Value::Undefined,
    }
}

/// JSON when the bytes are JSON, else text, else bytes; what is not base64 gives Null.
fn decode<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some(scheme) = args.get(1).map(|e| scope.eval(e)) else { return Value::Undefined };
    match bytes(scope, args.first()) {
        Some(text) if is_base64(&scheme) => match READ_STANDARD.decode(&text) {
            Ok(bytes) => Value::from_decoded(bytes, scope.meter.limits().json_depth),
            Err(_) => Value::Null,
        },
        _ => Value::Undefined,
    }
}

/// Padding and alphabet by their words; `None`: another word.
fn options<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Option<(bool, bool)> {
    let (mut padding, mut url_safe) = (true, false);
    for arg in args.iter().skip(1) {
        match scope.eval(arg) {
            Value::String(word) if word == "no_padding" => padding = false,
            Value::String(word) if word == "urlsafe" => url_safe = true,
            _ => return None,
        }
    }
    Some((padding, url_safe))
}

fn base64_encode<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let (Some(bytes), Some(options)) = (bytes(scope, args.first()), options(scope, args)) else {
        return Value::Undefined;
    };
    Value::string(match options {
        (true, false) => STANDARD.encode(bytes),
        (false, false) => STANDARD_NO_PAD.encode(bytes),
        (true, true) => URL_SAFE.encode(bytes),
        (false, true) => URL_SAFE_NO_PAD.encode(bytes),
    })
}

/// Text, or bytes when they are no text; never parsed.
fn base64_decode<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let (Some(text), Some((_, url_safe))) = (bytes(scope, args.first()), options(scope, args)) else {
        return Value::Undefined;
    };
    let decoded = if url_safe { READ_URL_SAFE.decode(&text) } else { READ_STANDARD.decode(&text) };
    match decoded.map(String::from_utf8) {
        Ok(Ok(text)) => Value::string(text),
        Ok(Err(error)) => Value::Bytes(Cow::Owned(error.into_bytes())),
        Err(_) => Value::Undefined,
    }
}

fn json_decode<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some(value) = args.first().map(|e| scope.eval(e)) else { return Value::Undefined };
    let text = match &value {
        Value::String(text) if scope.meter.build(text.len()) => text,
        _ => return Value::Undefined,
    };
    Value::from_json(text, scope.meter.limits().json_depth).unwrap_or(Value::Undefined)
}

fn json_encode<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some(value) = args.first().map(|e| scope.eval(e)) else { return Value::Undefined };
    let mut out = Vec::new();
    if value.is_undefined() || !value.write_json(&mut out, scope.meter) {
        return Value::Undefined;
    }
    String::from_utf8(out).map_or(Value::Undefined, Value::string)
}
