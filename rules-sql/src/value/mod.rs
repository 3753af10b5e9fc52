//! Values and the tables of the dialect: conversion, equality, comparison, JSON text.
//!
//! A value borrows from the message and the rule wherever it can (`'v`); what is only copied is never decoded. Every
//! operator and function goes through the conversions here, so that each decides about Null and Undefined alike.

pub(crate) mod decimal;
pub(crate) mod number;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::json::{Document, Kind, Node, write_string};
use crate::meter::Meter;
use decimal::Decimal;
use number::Num;

/// What an expression yields.
#[derive(Clone, Debug)]
pub(crate) enum Value<'v> {
    /// No value: a missing field, a failed conversion, a bad argument.
    Undefined,
    Null,
    Bool(bool),
    Int(i64),
    Decimal(Decimal),
    Double(f64),
    /// Number text that was not computed with yet: it is copied as it is.
    Text(Cow<'v, str>),
    String(Cow<'v, str>),
    /// Bytes that are not text.
    Bytes(Cow<'v, [u8]>),
    /// An Array or Object of a JSON document; never a scalar.
    Node(Node<'v>),
    /// A built Array; no element is Undefined.
    Array(Rc<Vec<Value<'v>>>),
    /// A built Object; keys are unique, no value is Undefined.
    Object(Rc<Object<'v>>),
}

/// The type of a value, for `is_*` and equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Undefined,
    Null,
    Bool,
    Number,
    String,
    Bytes,
    Array,
    Object,
}

/// Members of a built Object in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object<'v> {
    members: Vec<(Cow<'v, str>, Value<'v>)>,
}

impl<'v> Object<'v> {
    pub(crate) fn members(&self) -> &[(Cow<'v, str>, Value<'v>)] {
        &self.members
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value<'v>> {
        self.members.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Sets a member in its old place, or appends it. Undefined is not stored.
    pub(crate) fn set(&mut self, key: Cow<'v, str>, value: Value<'v>) {
        if matches!(value, Value::Undefined) {
            return;
        }
        match self.members.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.members.push((key, value)),
        }
    }

    /// Appends a member whose key is known to be new.
    pub(crate) fn push(&mut self, key: Cow<'v, str>, value: Value<'v>) {
        if !matches!(value, Value::Undefined) {
            self.members.push((key, value));
        }
    }

    /// Sets a member below others: what stands in the way and is no Object gives way to one.
    pub(crate) fn set_path(&mut self, path: &'v [Box<str>], value: Value<'v>) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.set(Cow::Borrowed(first), value);
            return;
        }
        let old = self.members.iter_mut().find(|(key, _)| **key == **first);
        let mut child = match old.map(|(_, value)| std::mem::replace(value, Value::Null)) {
            Some(Value::Object(object)) => Rc::unwrap_or_clone(object),
            Some(Value::Node(node)) if node.kind() == Kind::Object => Object::from_node(node),
            _ => Object::default(),
        };
        child.set_path(rest, value);
        self.set(Cow::Borrowed(first), child.into_value());
    }

    pub(crate) fn from_node(node: Node<'v>) -> Object<'v> {
        Object { members: node.members().into_iter().map(|m| (m.key(), Value::from_node(m))).collect() }
    }

    pub(crate) fn into_value(self) -> Value<'v> {
        Value::Object(Rc::new(self))
    }
}

impl<'v> Value<'v> {
    pub(crate) fn from_num(num: Option<Num>) -> Value<'v> {
        match num {
            Some(Num::Int(value)) => Value::Int(value),
            Some(Num::Decimal(value)) => Value::Decimal(value),
            Some(Num::Double(value)) => Value::Double(value),
            None => Value::Undefined,
        }
    }

    pub(crate) fn from_node(node: Node<'v>) -> Value<'v> {
        match node.kind() {
            Kind::Null => Value::Null,
            Kind::True => Value::Bool(true),
            Kind::False => Value::Bool(false),
            Kind::Number => Value::Text(Cow::Borrowed(node.raw_text())),
            Kind::String => Value::String(node.string()),
            Kind::Array | Kind::Object => Value::Node(node),
        }
    }

    pub(crate) fn string(text: String) -> Value<'v> {
        Value::String(Cow::Owned(text))
    }

    pub(crate) fn array(elements: Vec<Value<'v>>) -> Value<'v> {
        Value::Array(Rc::new(elements))
    }

    pub(crate) fn from_bool(value: Option<bool>) -> Value<'v> {
        value.map_or(Value::Undefined, Value::Bool)
    }

    /// Reads JSON text into a value that owns all it holds. `None`: not JSON.
    pub(crate) fn from_json(text: &str, depth: usize) -> Option<Value<'static>> {
        let document = Document::scan_text(text, depth)?;
        document.root().map(owned)
    }

    /// What the bytes of a payload or of decoded text are: JSON, else text, else bytes.
    pub(crate) fn from_decoded(bytes: Vec<u8>, depth: usize) -> Value<'static> {
        match String::from_utf8(bytes) {
            Ok(text) => Self::from_json(&text, depth).unwrap_or(Value::String(Cow::Owned(text))),
            Err(error) => Value::Bytes(Cow::Owned(error.into_bytes())),
        }
    }

    pub(crate) fn kind(&self) -> Type {
        match self {
            Value::Undefined => Type::Undefined,
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) | Value::Decimal(_) | Value::Double(_) | Value::Text(_) => Type::Number,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Node(node) if node.kind() == Kind::Array => Type::Array,
            Value::Array(_) => Type::Array,
            Value::Node(_) | Value::Object(_) => Type::Object,
        }
    }

    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined)
    }

    /// The number, for Int, Decimal and Double alone.
    pub(crate) fn number(&self) -> Option<Num> {
        match self {
            Value::Int(value) => Some(Num::Int(*value)),
            Value::Decimal(value) => Some(Num::Decimal(*value)),
            Value::Double(value) => Some(Num::Double(*value)),
            Value::Text(text) => Num::parse(text),
            _ => None,
        }
    }

    /// The number, for number text in a String too: what operators and numeric functions take.
    pub(crate) fn to_num(&self) -> Option<Num> {
        match self {
            Value::String(text) => Num::parse_text(text),
            other => other.number(),
        }
    }

    /// Boolean, or `true` and `false` in any case as a String.
    pub(crate) fn to_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    /// The String a function or `||` takes; Null and Undefined have none. Bytes are read as UTF-8 with replacements.
    pub(crate) fn to_text(&self, meter: &Meter<'_>) -> Option<Cow<'v, str>> {
        Some(match self {
            Value::Undefined | Value::Null => return None,
            Value::Bool(true) => Cow::Borrowed("true"),
            Value::Bool(false) => Cow::Borrowed("false"),
            Value::Int(value) => Cow::Owned(value.to_string()),
            Value::Decimal(value) => Cow::Owned(value.text()),
            Value::Double(value) => Cow::Owned(Num::Double(*value).text()),
            Value::Text(text) | Value::String(text) => {
                if matches!(text, Cow::Owned(_)) && !meter.bytes(text.len()) {
                    return None;
                }
                text.clone()
            }
            Value::Bytes(bytes) => {
                if !meter.build(bytes.len()) {
                    return None;
                }
                Cow::Owned(String::from_utf8_lossy(bytes).into_owned())
            }
            Value::Node(_) | Value::Array(_) | Value::Object(_) => {
                let mut out = Vec::new();
                if !self.write_json(&mut out, meter) {
                    return None;
                }
                Cow::Owned(String::from_utf8(out).unwrap_or_default())
            }
        })
    }

    /// A copy whose cost is accounted for: text that is owned is copied byte by byte.
    pub(crate) fn copy(&self, meter: &Meter<'_>) -> Value<'v> {
        let bytes = match self {
            Value::Text(Cow::Owned(text)) | Value::String(Cow::Owned(text)) => text.len(),
            Value::Bytes(Cow::Owned(bytes)) => bytes.len(),
            _ => 0,
        };
        if bytes < 64 || meter.bytes(bytes) { self.clone() } else { Value::Undefined }
    }

    /// A step to a member by name. Undefined for what is not an Object.
    pub(crate) fn member(&self, key: &str, meter: &Meter<'_>) -> Value<'v> {
        match self {
            Value::Node(node) => {
                let mut visited = 0;
                let found = node.member(key, &mut visited);
                found.filter(|_| meter.passed(visited)).map_or(Value::Undefined, Value::from_node)
            }
            Value::Object(object) if meter.passed(object.members.len()) => {
                object.get(key).map_or(Value::Undefined, |value| value.copy(meter))
            }
            _ => Value::Undefined,
        }
    }

    /// The n-th element of an Array, from 0; negative from the end.
    pub(crate) fn element(&self, index: i64, meter: &Meter<'_>) -> Value<'v> {
        let place = |len: usize| match usize::try_from(index) {
            Ok(place) => Some(place),
            Err(_) => len.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
        };
        match self {
            Value::Node(node) if node.kind() == Kind::Array => {
                let len = if index < 0 { node.len() } else { 0 };
                match place(len) {
                    Some(place) if meter.passed(len.max(place.min(node.text_len()))) => {
                        node.children().nth(place).map_or(Value::Undefined, Value::from_node)
                    }
                    _ => Value::Undefined,
                }
            }
            Value::Array(elements) => {
                let found = place(elements.len()).and_then(|p| elements.get(p));
                found.map_or(Value::Undefined, |value| value.copy(meter))
            }
            _ => Value::Undefined,
        }
    }

    /// The elements of an Array; `None` for other types, and when the budget ran out.
    pub(crate) fn elements(&self, meter: &Meter<'_>) -> Option<Vec<Value<'v>>> {
        let mut result = Vec::new();
        match self {
            Value::Node(node) if node.kind() == Kind::Array => {
                for child in node.children() {
                    if !meter.element() {
                        return None;
                    }
                    result.push(Value::from_node(child));
                }
            }
            Value::Array(elements) => {
                for element in elements.iter() {
                    if !meter.element() {
                        return None;
                    }
                    result.push(element.copy(meter));
                }
            }
            _ => return None,
        }
        Some(result)
    }

    /// The members of an Object, keys unique; `None` for other types, and when the budget ran out.
    pub(crate) fn object(&self, meter: &Meter<'_>) -> Option<Object<'v>> {
        match self {
            Value::Node(node) if node.kind() == Kind::Object => {
                meter.bytes(node.text_len()).then(|| Object::from_node(*node))
            }
            Value::Object(object) => meter.bytes(object.members.len() * 16).then(|| Object::clone(object)),
            _ => None,
        }
    }

    /// Appends compact JSON. False: a budget ran out. Undefined inside a value cannot be; on its own it is `null`.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>, meter: &Meter<'_>) -> bool {
        match self {
            Value::Undefined | Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Int(value) => write_int(*value, out),
            Value::Decimal(value) => out.extend_from_slice(value.text().as_bytes()),
            Value::Double(value) => out.extend_from_slice(Num::Double(*value).text().as_bytes()),
            Value::Text(text) => out.extend_from_slice(text.as_bytes()),
            Value::String(text) => {
                if !meter.build(out.len() + text.len()) {
                    return false;
                }
                write_string(text, out);
            }
            Value::Bytes(bytes) => {
                if !meter.build(out.len() + bytes.len()) {
                    return false;
                }
                write_string(&STANDARD.encode(bytes), out);
            }
            Value::Node(node) => {
                if !meter.build(out.len() + node.text_len()) {
                    return false;
                }
                node.write(out);
            }
            Value::Array(elements) => {
                out.push(b'[');
                for (position, element) in elements.iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    if !meter.step() || !element.write_json(out, meter) {
                        return false;
                    }
                }
                out.push(b']');
            }
            Value::Object(object) => {
                out.push(b'{');
                for (position, (key, value)) in object.members.iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    write_string(key, out);
                    out.push(b':');
                    if !meter.step() || !value.write_json(out, meter) {
                        return false;
                    }
                }
                out.push(b'}');
            }
        }
        out.len() <= meter.limits().output_bytes || meter.build(out.len())
    }

    /// `=`: no conversion; different types are unequal; one side Undefined gives `None`, which is Undefined.
    pub(crate) fn equals(&self, other: &Value<'v>, meter: &Meter<'_>) -> Option<bool> {
        if self.is_undefined() || other.is_undefined() || !meter.step() {
            return None;
        }
        let (left, right) = (self.kind(), other.kind());
        if left != right {
            return Some(false);
        }
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a == b),
            (Value::String(a), Value::String(b)) => {
                meter.bytes(a.len().min(b.len()));
                Some(a == b)
            }
            (Value::Bytes(a), Value::Bytes(b)) => Some(a == b),
            _ => match left {
                Type::Number => self.same_number(other),
                Type::Array => self.same_elements(other, meter),
                Type::Object => self.same_members(other, meter),
                _ => Some(true),
            },
        }
    }

    fn same_number(&self, other: &Value<'v>) -> Option<bool> {
        match (self.number(), other.number()) {
            (Some(a), Some(b)) => Some(a.compare(b) == Ordering::Equal),
            // A number out of the range of a Decimal is only itself by its text.
            (None, None) => match (self, other) {
                (Value::Text(a), Value::Text(b)) if a == b => Some(true),
                _ => None,
            },
            _ => Some(false),
        }
    }

    fn same_elements(&self, other: &Value<'v>, meter: &Meter<'_>) -> Option<bool> {
        let (ours, theirs) = (self.elements(meter)?, other.elements(meter)?);
        if ours.len() != theirs.len() {
            return Some(false);
        }
        for (a, b) in ours.iter().zip(&theirs) {
            if !a.equals(b, meter)? {
                return Some(false);
            }
        }
        Some(true)
    }

    fn same_members(&self, other: &Value<'v>, meter: &Meter<'_>) -> Option<bool> {
        let (mut ours, mut theirs) = (self.object(meter)?.members, other.object(meter)?.members);
        if ours.len() != theirs.len() {
            return Some(false);
        }
        ours.sort_by(|a, b| a.0.cmp(&b.0));
        theirs.sort_by(|a, b| a.0.cmp(&b.0));
        for ((key, a), (other_key, b)) in ours.iter().zip(&theirs) {
            if key != other_key || !a.equals(b, meter)? {
                return Some(false);
            }
        }
        Some(true)
    }

    /// `<` and its kin: numbers, or Strings that are number text. `None`: Undefined.
    pub(crate) fn compare(&self, other: &Value<'v>) -> Option<Ordering> {
        Some(self.to_num()?.compare(other.to_num()?))
    }
}

fn write_int(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut rest = value.unsigned_abs();
    let mut first = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        first -= 1;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

/// A copy that borrows nothing from the document.
fn owned(node: Node<'_>) -> Value<'static> {
    match node.kind() {
        Kind::Null => Value::Null,
        Kind::True => Value::Bool(true),
        Kind::False => Value::Bool(false),
        Kind::Number => Value::Text(Cow::Owned(node.raw_text().to_owned())),
        Kind::String => Value::String(Cow::Owned(node.string().into_owned())),
        Kind::Array => Value::array(node.children().map(owned).collect()),
        Kind::Object => Object {
            members: node
                .members()
                .into_iter()
                .map(|m| (Cow::Owned(m.key().into_owned()), owned(m)))
                .collect(),
        }
        .into_value(),
    }
}
