//! Functions of any value: access, nulls, type tests, collections.

use super::{Function, function, starred};
use crate::eval::{Scope, is_array};
use crate::plan::Expr;
use crate::value::number::Num;
use crate::value::{Type, Value};

/// Bytes that `transform` gives at most.
const TRANSFORM_BYTES: usize = 128 << 10;

pub(super) const FUNCTIONS: &[Function] = &[
    function("array_length", 1, 1, "array_length(array)", array_length),
    function("coalesce", 1, usize::MAX, "coalesce(value, …)", coalesce),
    starred("get", 2, 2, "get(value, key or index)", get),
    function("get_or_default", 1, 2, "get_or_default(value[, default])", get_or_default),
    function("is_array", 1, 1, "is_array(value)", |s, a| kind(s, a, |k| k == Type::Array)),
    function("is_bool", 1, 1, "is_bool(value)", |s, a| kind(s, a, |k| k == Type::Bool)),
    function("is_empty", 1, 1, "is_empty(object or array)", is_empty),
    function("is_float", 1, 1, "is_float(value)", |s, a| number(s, a, |n| !n.is_whole())),
    function("is_int", 1, 1, "is_int(value)", |s, a| number(s, a, Num::is_whole)),
    function("is_map", 1, 1, "is_map(value)", |s, a| kind(s, a, |k| k == Type::Object)),
    function("is_not_null", 1, 1, "is_not_null(value)", |s, a| kind(s, a, |k| k != Type::Undefined)),
    function("is_not_null_var", 1, 1, "is_not_null_var(value)", |s, a| {
        kind(s, a, |k| !matches!(k, Type::Undefined | Type::Null))
    }),
    function("is_null", 1, 1, "is_null(value), true when it is missing", |s, a| {
        kind(s, a, |k| k == Type::Undefined)
    }),
    function("is_null_var", 1, 1, "is_null_var(value)", |s, a| {
        kind(s, a, |k| matches!(k, Type::Undefined | Type::Null))
    }),
    function("is_num", 1, 1, "is_num(value)", |s, a| kind(s, a, |k| k == Type::Number)),
    function("is_str", 1, 1, "is_str(value)", |s, a| kind(s, a, |k| k == Type::String)),
    function("isnull", 1, 1, "isNull(value)", |s, a| kind(s, a, |k| k == Type::Null)),
    function("isundefined", 1, 1, "isUndefined(value)", |s, a| kind(s, a, |k| k == Type::Undefined)),
    function("transform", 3, 3, "transform('enrichArray', object, array)", transform),
];

fn kind<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(Type) -> bool) -> Value<'v> {
    args.first().map_or(Value::Undefined, |e| Value::Bool(f(scope.eval(e).kind())))
}

fn number<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(Num) -> bool) -> Value<'v> {
    args.first().map_or(Value::Undefined, |e| Value::Bool(scope.eval(e).number().is_some_and(f)))
}

/// Array by Int, Object by String, String by position; nothing is converted.
fn get<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let [value, key] = args else { return Value::Undefined };
    let (value, key) = (scope.eval(value), scope.eval(key));
    let index = || match key.number() {
        Some(Num::Int(index)) => usize::try_from(index).ok(),
        _ => None,
    };
    match (value.kind(), &key) {
        (Type::Object, Value::String(key)) => value.member(key, scope.meter),
        (Type::Array, _) => {
            let index = index().and_then(|index| i64::try_from(index).ok());
            index.map_or(Value::Undefined, |index| value.element(index, scope.meter))
        }
        (Type::String, _) => {
            let (Some(text), Some(index)) = (value.to_text(scope.meter), index()) else {
                return Value::Undefined;
            };
            if !scope.meter.bytes(text.len()) {
                return Value::Undefined;
            }
            text.chars().nth(index).map_or(Value::Undefined, |c| Value::string(c.to_string()))
        }
        _ => Value::Undefined,
    }
}

fn get_or_default<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    first_there(scope, args)
}

fn first_there<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    for arg in args {
        let value = scope.eval(arg);
        if !matches!(value.kind(), Type::Undefined | Type::Null) {
            return value;
        }
    }
    Value::Undefined
}

/// The first argument that is there and not Null; a single Array is searched itself.
fn coalesce<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    if let [list] = args {
        let value = scope.eval(list);
        if is_array(&value) {
            let elements = value.elements(scope.meter).unwrap_or_default();
            return elements.into_iter().find(|v| v.kind() != Type::Null).unwrap_or(Value::Undefined);
        }
        return if value.kind() == Type::Null { Value::Undefined } else { value };
    }
    first_there(scope, args)
}

fn array_length<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let elements = args.first().and_then(|e| scope.eval(e).elements(scope.meter));
    elements.map_or(Value::Undefined, |e| Value::Int(i64::try_from(e.len()).unwrap_or(i64::MAX)))
}

fn is_empty<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some(value) = args.first().map(|e| scope.eval(e)) else { return Value::Undefined };
    Value::from_bool(match value.kind() {
        Type::Array => value.elements(scope.meter).map(|e| e.is_empty()),
        Type::Object => value.object(scope.meter).map(|o| o.members().is_empty()),
        _ => None,
    })
}

/// Every Object of the Array with the attributes of the first Object added; the element's own win.
fn transform<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let [mode, attributes, array] = args else { return Value::Undefined };
    if !matches!(scope.eval(mode), Value::String(mode) if mode == "enrichArray") {
        return Value::Undefined;
    }
    let Some(attributes) = scope.eval(attributes).object(scope.meter) else { return Value::Undefined };
    let Some(elements) = scope.eval(array).elements(scope.meter) else { return Value::Undefined };
    let mut weight = Vec::new();
    if !attributes.clone().into_value().write_json(&mut weight, scope.meter)
        || weight.len().saturating_mul(elements.len()) > TRANSFORM_BYTES
    {
        return Value::Undefined;
    }
    let mut rows = Vec::with_capacity(elements.len());
    for element in elements {
        let Some(mut object) = element.object(scope.meter) else {
            rows.push(element);
            continue;
        };
        for (key, value) in attributes.members() {
            if !scope.meter.element() || !scope.meter.passed(object.members().len()) {
                return Value::Undefined;
            }
            if object.get(key).is_none() {
                object.push(key.clone(), value.copy(scope.meter));
            }
        }
        rows.push(object.into_value());
    }
    Value::array(rows)
}
