//! Functions of any value: access, nulls, type tests, collections.

use super::{Function, Gives, Group, Origin, Takes, any, function, param};
use crate::eval::{Scope, is_array};
use crate::plan::Expr;
use crate::value::number::Num;
use crate::value::{Type, Value};

/// Bytes that `transform` gives at most.
const TRANSFORM_BYTES: usize = 128 << 10;

pub(super) const GROUP: Group = Group {
    title: "Values",
    intro: "Access, defaults, tests of the type, arrays. The tests are never Undefined themselves.",
    functions: FUNCTIONS,
};

const FUNCTIONS: &[Function] = &[
    function(
        "array_length",
        &[param("array", Takes::Array)],
        Gives::Int,
        &[("array_length([1, 2])", "2"), ("array_length('ab')", "undefined")],
        array_length,
    )
    .from(Origin::Tidegate),
    function(
        "coalesce",
        &[any("value"), any("otherwise").repeated()],
        Gives::Any,
        &[("coalesce(missing, NULL, 3)", "3"), ("coalesce([NULL, 4])", "4"), ("coalesce(NULL)", "undefined")],
        coalesce,
    )
    .from(Origin::Emqx)
    .note("The first that is neither Undefined nor Null; a single Array is searched itself."),
    function(
        "get",
        &[param("value", Takes::Indexed).or_star(), param("key", Takes::Index)],
        Gives::Any,
        &[
            ("get([10, 20], 1)", "20"),
            ("get({'my-key': 5}, 'my-key')", "5"),
            ("get('abc', 1)", "\"b\""),
            ("get([10, 20], 5)", "undefined"),
        ],
        get,
    )
    .note("An Array by position from 0, an Object by key, a String by position. Nothing is converted."),
    function(
        "get_or_default",
        &[any("value"), any("default").optional()],
        Gives::Any,
        &[("get_or_default(missing, 'none')", "\"none\""), ("get_or_default(0, 3)", "0")],
        get_or_default,
    )
    .note("`default` when `value` is Undefined or Null."),
    function("is_array", &[any("value")], Gives::Boolean, &[("is_array([])", "true")], |s, a| {
        kind(s, a, |k| k == Type::Array)
    })
    .from(Origin::Emqx),
    function("is_bool", &[any("value")], Gives::Boolean, &[("is_bool('true')", "false")], |s, a| {
        kind(s, a, |k| k == Type::Bool)
    })
    .from(Origin::Emqx),
    function(
        "is_empty",
        &[param("value", Takes::ArrayOrObject)],
        Gives::Boolean,
        &[("is_empty([])", "true"), ("is_empty('')", "undefined")],
        is_empty,
    )
    .from(Origin::Emqx),
    function(
        "is_float",
        &[any("value")],
        Gives::Boolean,
        &[("is_float(2.5)", "true"), ("is_float(2.0)", "false")],
        |s, a| number(s, a, |n| !n.is_whole()),
    )
    .from(Origin::Emqx)
    .note("A number with a fraction."),
    function(
        "is_int",
        &[any("value")],
        Gives::Boolean,
        &[("is_int(2.0)", "true"), ("is_int('2')", "false")],
        |s, a| number(s, a, Num::is_whole),
    )
    .from(Origin::Emqx)
    .note("A whole number."),
    function("is_map", &[any("value")], Gives::Boolean, &[("is_map({'a': 1})", "true")], |s, a| {
        kind(s, a, |k| k == Type::Object)
    })
    .from(Origin::Emqx),
    function("is_not_null", &[any("value")], Gives::Boolean, &[("is_not_null(NULL)", "true")], |s, a| {
        kind(s, a, |k| k != Type::Undefined)
    })
    .from(Origin::Emqx)
    .note("Not Undefined: the null of EMQX is a missing value."),
    function(
        "is_not_null_var",
        &[any("value")],
        Gives::Boolean,
        &[("is_not_null_var(NULL)", "false")],
        |s, a| kind(s, a, |k| !matches!(k, Type::Undefined | Type::Null)),
    )
    .from(Origin::Emqx)
    .note("Neither Undefined nor Null."),
    function("is_null_var", &[any("value")], Gives::Boolean, &[("is_null_var(NULL)", "true")], |s, a| {
        kind(s, a, |k| matches!(k, Type::Undefined | Type::Null))
    })
    .from(Origin::Emqx)
    .note("Undefined or Null."),
    function(
        "is_num",
        &[any("value")],
        Gives::Boolean,
        &[("is_num(1.5)", "true"), ("is_num('1')", "false")],
        |s, a| kind(s, a, |k| k == Type::Number),
    )
    .from(Origin::Emqx),
    function("is_str", &[any("value")], Gives::Boolean, &[("is_str('a')", "true")], |s, a| {
        kind(s, a, |k| k == Type::String)
    })
    .from(Origin::Emqx),
    function(
        "isNull",
        &[any("value")],
        Gives::Boolean,
        &[("isNull(NULL)", "true"), ("isNull(missing)", "false")],
        |s, a| kind(s, a, |k| k == Type::Null),
    ),
    function(
        "isUndefined",
        &[any("value")],
        Gives::Boolean,
        &[("isUndefined(missing)", "true"), ("isUndefined(NULL)", "false")],
        |s, a| kind(s, a, |k| k == Type::Undefined),
    )
    .aliases(&["is_null"])
    .note("The null of EMQX is a missing value, so its `is_null` is this one."),
    function(
        "transform",
        &[
            param("mode", Takes::Name(&["enrichArray"])),
            param("object", Takes::Object),
            param("array", Takes::Array),
        ],
        Gives::Array,
        &[(
            "transform('enrichArray', {'site': 1}, [{'a': 1}, {'a': 2}])",
            r#"[{"a":1,"site":1},{"a":2,"site":1}]"#,
        )],
        transform,
    )
    .note("Adds the attributes of `object` to every Object of `array`; its own win. At most 128 KiB."),
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

/// The default is handed on as it is, Null included.
fn get_or_default<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some(value) = args.first().map(|e| scope.eval(e)) else { return Value::Undefined };
    match value.kind() {
        Type::Undefined | Type::Null => args.get(1).map_or(Value::Undefined, |e| scope.eval(e)),
        _ => value,
    }
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
