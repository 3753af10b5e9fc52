//! Functions of numbers. Transcendental ones compute in double precision; a result that is not real is Undefined.

use super::{Function, function};
use crate::eval::Scope;
use crate::plan::Expr;
use crate::value::decimal::{DIGITS, Rounding};
use crate::value::number::Num;
use crate::value::{Type, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function("abs", 1, 1, "abs(number)", |s, a| unary(s, a, Num::absolute)),
    function("acos", 1, 1, "acos(number)", |s, a| real(s, a, f64::acos)),
    function("asin", 1, 1, "asin(number)", |s, a| real(s, a, f64::asin)),
    function("atan", 1, 1, "atan(number)", |s, a| real(s, a, f64::atan)),
    function("atan2", 2, 2, "atan2(y, x)", |s, a| real2(s, a, f64::atan2)),
    function("bitand", 2, 2, "bitand(a, b)", |s, a| bits(s, a, |x, y| x & y)),
    function("bitnot", 1, 1, "bitnot(a)", bitnot),
    function("bitor", 2, 2, "bitor(a, b)", |s, a| bits(s, a, |x, y| x | y)),
    function("bitxor", 2, 2, "bitxor(a, b)", |s, a| bits(s, a, |x, y| x ^ y)),
    function("ceil", 1, 1, "ceil(number)", |s, a| unary(s, a, |n| n.round(0, Rounding::Ceiling))),
    function("cos", 1, 1, "cos(number)", |s, a| real(s, a, f64::cos)),
    function("cosh", 1, 1, "cosh(number)", |s, a| real(s, a, f64::cosh)),
    function("exp", 1, 1, "exp(number)", |s, a| real(s, a, f64::exp)),
    function("floor", 1, 1, "floor(number)", |s, a| unary(s, a, |n| n.round(0, Rounding::Floor))),
    function("ln", 1, 1, "ln(number)", |s, a| real(s, a, f64::ln)),
    function("log", 1, 1, "log(number), to base 10", |s, a| real(s, a, f64::log10)),
    function("log10", 1, 1, "log10(number)", |s, a| real(s, a, f64::log10)),
    function("log2", 1, 1, "log2(number)", |s, a| real(s, a, f64::log2)),
    function("mod", 2, 2, "mod(a, b)", |s, a| binary(s, a, Num::remainder)),
    function("nanvl", 2, 2, "nanvl(value, otherwise)", nanvl),
    function("power", 2, 2, "power(base, exponent)", |s, a| real2(s, a, f64::powf)),
    function("rand", 0, 0, "rand()", rand),
    function("random", 0, 0, "random()", rand),
    function("remainder", 2, 2, "remainder(a, b)", |s, a| binary(s, a, Num::remainder)),
    function("round", 1, 1, "round(number)", |s, a| unary(s, a, |n| n.round(0, Rounding::HalfAway))),
    function("sign", 1, 1, "sign(number)", |s, a| unary(s, a, |n| Some(sign(n)))),
    function("sin", 1, 1, "sin(number)", |s, a| real(s, a, f64::sin)),
    function("sinh", 1, 1, "sinh(number)", |s, a| real(s, a, f64::sinh)),
    function("sqrt", 1, 1, "sqrt(number)", |s, a| real(s, a, f64::sqrt)),
    function("tan", 1, 1, "tan(number)", |s, a| real(s, a, f64::tan)),
    function("tanh", 1, 1, "tanh(number)", |s, a| real(s, a, f64::tanh)),
    function("trunc", 2, 2, "trunc(number, places)", trunc),
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
    binary(scope, args, |a, b| Some(Num::Int(f(a.floor_i64(), b.floor_i64()))))
}

fn bitnot<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    unary(scope, args, |n| Some(Num::Int(!n.floor_i64())))
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
