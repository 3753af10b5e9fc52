//! Functions of numbers. Transcendental ones compute in double precision; a result that is not real is Undefined.

use super::{Function, Gives, Group, Origin, any, function, number, whole};
use crate::eval::Scope;
use crate::plan::Expr;
use crate::value::decimal::{DIGITS, Rounding};
use crate::value::number::Num;
use crate::value::{Type, Value};

pub(super) const GROUP: Group = Group {
    title: "Numbers",
    intro: "Whole results print as Int. What is marked *double* computes in double precision; a result that is not \
            real is Undefined.",
    functions: FUNCTIONS,
};

const DOUBLE: &str = "Double.";

const FUNCTIONS: &[Function] = &[
    function(
        "abs",
        &[number("number")],
        Gives::Number,
        &[("abs(-5)", "5"), ("abs('-5.5')", "5.5")],
        |s, a| unary(s, a, Num::absolute),
    ),
    function(
        "acos",
        &[number("number")],
        Gives::Decimal,
        &[("acos(1)", "0"), ("acos(2)", "undefined")],
        |s, a| real(s, a, f64::acos),
    )
    .note(DOUBLE),
    function("asin", &[number("number")], Gives::Decimal, &[("asin(0)", "0")], |s, a| real(s, a, f64::asin))
        .note(DOUBLE),
    function("atan", &[number("number")], Gives::Decimal, &[("atan(0)", "0")], |s, a| real(s, a, f64::atan))
        .note(DOUBLE),
    function(
        "atan2",
        &[number("y"), number("x")],
        Gives::Decimal,
        &[("atan2(1, 0)", "1.5707963267948966")],
        |s, a| real2(s, a, f64::atan2),
    )
    .note(DOUBLE),
    function("bitand", &[whole("a"), whole("b")], Gives::Int, &[("bitand(13.7, 5)", "5")], |s, a| {
        bits(s, a, |x, y| x & y)
    }),
    function("bitnot", &[whole("a")], Gives::Int, &[("bitnot(13)", "-14")], bitnot)
        .note("Two's complement; the guide of AWS prints 2 for 13."),
    function("bitor", &[whole("a"), whole("b")], Gives::Int, &[("bitor(12, 3)", "15")], |s, a| {
        bits(s, a, |x, y| x | y)
    }),
    function("bitxor", &[whole("a"), whole("b")], Gives::Int, &[("bitxor(6, 3)", "5")], |s, a| {
        bits(s, a, |x, y| x ^ y)
    }),
    function("ceil", &[number("number")], Gives::Int, &[("ceil(1.2)", "2"), ("ceil(-1.2)", "-1")], |s, a| {
        unary(s, a, |n| n.round(0, Rounding::Ceiling))
    }),
    function("cos", &[number("number")], Gives::Decimal, &[("cos(0)", "1")], |s, a| real(s, a, f64::cos))
        .note(DOUBLE),
    function("cosh", &[number("number")], Gives::Decimal, &[("cosh(0)", "1")], |s, a| real(s, a, f64::cosh))
        .note(DOUBLE),
    function(
        "div",
        &[whole("a"), whole("b")],
        Gives::Int,
        &[("div(7, 2)", "3"), ("div(-7, 2)", "-3"), ("div(7, 0)", "undefined")],
        |s, a| binary(s, a, Num::divide_whole),
    )
    .from(Origin::Emqx)
    .note("As `a div b`: the whole part of the quotient."),
    function("exp", &[number("number")], Gives::Decimal, &[("exp(0)", "1")], |s, a| real(s, a, f64::exp))
        .note(DOUBLE),
    function(
        "floor",
        &[number("number")],
        Gives::Int,
        &[("floor(1.2)", "1"), ("floor(-1.2)", "-2")],
        |s, a| unary(s, a, |n| n.round(0, Rounding::Floor)),
    ),
    function("ln", &[number("number")], Gives::Decimal, &[("ln(1)", "0"), ("ln(0)", "undefined")], |s, a| {
        real(s, a, f64::ln)
    })
    .note("Double."),
    function("log", &[number("number")], Gives::Decimal, &[("log(100)", "2")], |s, a| real(s, a, f64::log10))
        .aliases(&["log10"])
        .note("Base 10; the `log` of EMQX is `ln` here. Double."),
    function("log2", &[number("number")], Gives::Decimal, &[("log2(8)", "3")], |s, a| real(s, a, f64::log2))
        .from(Origin::Emqx)
        .note(DOUBLE),
    function(
        "mod",
        &[number("a"), number("b")],
        Gives::Number,
        &[("mod(8, 3)", "2"), ("mod(-8, 3)", "-2"), ("mod(8, 0)", "undefined")],
        |s, a| binary(s, a, Num::remainder),
    )
    .aliases(&["remainder"])
    .note("As `a % b`; the sign is that of `a`."),
    function(
        "nanvl",
        &[any("value"), any("otherwise")],
        Gives::Any,
        &[("nanvl(8, 3)", "8"), ("nanvl(missing, 3)", "3"), ("nanvl('x', 3)", "\"x\"")],
        nanvl,
    )
    .note("`otherwise` when `value` is Undefined or Null."),
    function(
        "power",
        &[number("base"), number("exponent")],
        Gives::Decimal,
        &[("power(2, 5)", "32"), ("power(-1, 0.5)", "undefined")],
        |s, a| real2(s, a, f64::powf),
    )
    .note(DOUBLE),
    function("rand", &[], Gives::Decimal, &[("rand() >= 0 AND rand() < 1", "true")], rand)
        .aliases(&["random"])
        .note("From 0 to below 1, another one at each call."),
    function(
        "round",
        &[number("number")],
        Gives::Int,
        &[("round(1.5)", "2"), ("round(-1.5)", "-2")],
        |s, a| unary(s, a, |n| n.round(0, Rounding::HalfAway)),
    )
    .note("Halves go away from zero."),
    function("sign", &[number("number")], Gives::Int, &[("sign(-7)", "-1"), ("sign(0)", "0")], |s, a| {
        unary(s, a, |n| Some(sign(n)))
    }),
    function("sin", &[number("number")], Gives::Decimal, &[("sin(0)", "0")], |s, a| real(s, a, f64::sin))
        .note(DOUBLE),
    function("sinh", &[number("number")], Gives::Decimal, &[("sinh(0)", "0")], |s, a| real(s, a, f64::sinh))
        .note(DOUBLE),
    function(
        "sqrt",
        &[number("number")],
        Gives::Decimal,
        &[("sqrt('9')", "3"), ("sqrt(-1)", "undefined")],
        |s, a| real(s, a, f64::sqrt),
    )
    .note(DOUBLE),
    function("tan", &[number("number")], Gives::Decimal, &[("tan(0)", "0")], |s, a| real(s, a, f64::tan))
        .note(DOUBLE),
    function("tanh", &[number("number")], Gives::Decimal, &[("tanh(0)", "0")], |s, a| real(s, a, f64::tanh))
        .note(DOUBLE),
    function(
        "trunc",
        &[number("number"), whole("places")],
        Gives::Number,
        &[("trunc(2.888, 2)", "2.88")],
        trunc,
    )
    .note("0 to 34 places; more or fewer count as 34 and 0."),
];

fn pair<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Option<(Num, Num)> {
    let [a, b] = args else { return None };
    Some((scope.num(a)?, scope.num(b)?))
}

fn unary<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(Num) -> Option<Num>) -> Value<'v> {
    Value::from_num(args.first().and_then(|e| scope.num(e)).and_then(f))
}

fn binary<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(Num, Num) -> Option<Num>) -> Value<'v> {
    Value::from_num(pair(scope, args).and_then(|(a, b)| f(a, b)))
}

fn real<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(f64) -> f64) -> Value<'v> {
    unary(scope, args, |n| Num::from_f64(f(n.to_f64())))
}

fn real2<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(f64, f64) -> f64) -> Value<'v> {
    binary(scope, args, |a, b| Num::from_f64(f(a.to_f64(), b.to_f64())))
}

fn bits<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(i64, i64) -> i64) -> Value<'v> {
    binary(scope, args, |a, b| Some(Num::Int(f(a.floor_to_i64()?, b.floor_to_i64()?))))
}

fn bitnot<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    unary(scope, args, |n| n.floor_to_i64().map(|bits| Num::Int(!bits)))
}

fn sign(number: Num) -> Num {
    Num::Int(match (number.is_zero(), number.is_negative()) {
        (true, _) => 0,
        (_, true) => -1,
        _ => 1,
    })
}

fn nanvl<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let [value, otherwise] = args else { return Value::Undefined };
    let value = scope.eval(value);
    match value.kind() {
        Type::Undefined | Type::Null => scope.eval(otherwise),
        _ => value,
    }
}

/// 53 random bits as a fraction.
fn rand<'v>(scope: &Scope<'_, 'v>, _: &'v [Expr]) -> Value<'v> {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in a double")]
    let bits = (scope.random.next() >> 11) as f64;
    Value::Double(bits / 9_007_199_254_740_992.0)
}

fn trunc<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some((number, places)) = pair(scope, args) else { return Value::Undefined };
    let places = i32::try_from(places.floor_i64().clamp(0, i64::from(DIGITS))).unwrap_or(0);
    Value::from_num(number.round(places, Rounding::Truncate))
}
