//! Functions of Strings. Positions and lengths count characters, from 0.

use std::borrow::Cow;

use super::{Function, function};
use crate::eval::Scope;
use crate::plan::{Expr, RegexAction};
use crate::value::{Type, Value};

/// Most spaces `lpad` and `rpad` add.
const PAD_MAX: i64 = 1000;

pub(super) const FUNCTIONS: &[Function] = &[
    function("chr", 1, 1, "chr(code)", chr),
    function("concat", 0, usize::MAX, "concat(value, …)", concat),
    function("endswith", 2, 2, "endswith(text, end)", |s, a| test(s, a, |x, y| x.ends_with(y))),
    function("indexof", 2, 2, "indexof(text, part)", indexof),
    function("join_to_string", 1, 2, "join_to_string([separator,] array)", join),
    function("length", 1, 1, "length(text)", |s, a| measure(s, a, |t| t.chars().count())),
    function("lower", 1, 1, "lower(text)", |s, a| change(s, a, str::to_lowercase)),
    function("lpad", 2, 2, "lpad(text, spaces)", |s, a| spaces(s, a, Side::Left)),
    function("ltrim", 1, 1, "ltrim(text)", |s, a| cut(s, a, |t| t.trim_start_matches([' ', '\t']))),
    function("numbytes", 1, 1, "numbytes(text)", |s, a| measure(s, a, str::len)),
    function("pad", 2, 4, "pad(text, width[, 'leading' | 'both' | 'trailing'[, fill]])", pad),
    function("regex_match", 2, 2, "regex_match(text, pattern)", |s, a| {
        s.dynamic_regex(RegexAction::Matches, a)
    }),
    function("regexp_matches", 2, 2, "regexp_matches(text, pattern)", |s, a| {
        s.dynamic_regex(RegexAction::Matches, a)
    }),
    function("regexp_replace", 3, 3, "regexp_replace(text, pattern, replacement)", |s, a| {
        s.dynamic_regex(RegexAction::Replace, a)
    }),
    function("regexp_substr", 2, 2, "regexp_substr(text, pattern)", |s, a| {
        s.dynamic_regex(RegexAction::Substring, a)
    }),
    function("replace", 3, 3, "replace(text, from, to)", replace),
    function("reverse", 1, 1, "reverse(text)", |s, a| change(s, a, |t| t.chars().rev().collect())),
    function("rpad", 2, 2, "rpad(text, spaces)", |s, a| spaces(s, a, Side::Right)),
    function("rtrim", 1, 1, "rtrim(text)", |s, a| cut(s, a, |t| t.trim_end_matches([' ', '\t']))),
    function("split", 2, 3, "split(text, separator[, 'notrim'])", split),
    function("startswith", 2, 2, "startswith(text, start)", |s, a| test(s, a, |x, y| x.starts_with(y))),
    function("strlen", 1, 1, "strlen(text)", |s, a| measure(s, a, |t| t.chars().count())),
    function("substr", 2, 3, "substr(text, start[, count])", substr),
    function("substring", 2, 3, "substring(text, start[, end])", substring),
    function("trim", 1, 1, "trim(text)", |s, a| cut(s, a, str::trim)),
    function("upper", 1, 1, "upper(text)", |s, a| change(s, a, str::to_uppercase)),
];

enum Side {
    Left,
    Right,
}

fn first<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Option<Cow<'v, str>> {
    let text = scope.text(args.first()?)?;
    // Every function here reads its text once or twice.
    scope.meter.bytes(text.len()).then_some(text)
}

fn pair<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Option<(Cow<'v, str>, Cow<'v, str>)> {
    Some((first(scope, args)?, scope.text(args.get(1)?)?))
}

fn int<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], place: usize) -> Option<i64> {
    Some(scope.num(args.get(place)?)?.floor_i64())
}

fn built(text: String) -> Value<'static> {
    Value::string(text)
}

fn count(value: usize) -> Value<'static> {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

fn change<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(&str) -> String) -> Value<'v> {
    let Some(text) = first(scope, args) else { return Value::Undefined };
    // A case mapping makes three bytes of one at most.
    if scope.meter.build(text.len()) { built(f(&text)) } else { Value::Undefined }
}

fn cut<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(&str) -> &str) -> Value<'v> {
    match first(scope, args) {
        Some(Cow::Borrowed(text)) => Value::String(Cow::Borrowed(f(text))),
        Some(Cow::Owned(text)) => built(f(&text).to_owned()),
        None => Value::Undefined,
    }
}

fn measure<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(&str) -> usize) -> Value<'v> {
    first(scope, args).map_or(Value::Undefined, |text| count(f(&text)))
}

fn test<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], f: impl Fn(&str, &str) -> bool) -> Value<'v> {
    Value::from_bool(pair(scope, args).map(|(a, b)| f(&a, &b)))
}

fn chr<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let char = int(scope, args, 0).and_then(|code| u8::try_from(code).ok()).filter(u8::is_ascii);
    char.map_or(Value::Undefined, |code| built(char::from(code).to_string()))
}

/// Nothing: Undefined. One: itself. With an Array: one Array, arrays spliced. Else a String.
fn concat<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let mut values: Vec<Value<'v>> = args.iter().map(|e| scope.eval(e)).collect();
    if values.len() < 2 {
        return values.pop().unwrap_or(Value::Undefined);
    }
    if values.iter().any(|v| v.kind() == Type::Array) {
        let mut elements = Vec::new();
        for value in values {
            match value.elements(scope.meter) {
                Some(mut more) => elements.append(&mut more),
                None if !value.is_undefined() && scope.meter.element() => elements.push(value),
                None => {}
            }
        }
        return Value::array(elements);
    }
    let mut text = String::new();
    for value in values {
        let Some(part) = value.to_text(scope.meter) else { return Value::Undefined };
        if !scope.meter.build(text.len() + part.len()) {
            return Value::Undefined;
        }
        text.push_str(&part);
    }
    built(text)
}

fn indexof<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some((text, part)) = pair(scope, args) else { return Value::Undefined };
    match text.split_once(&*part) {
        Some((before, _)) => count(before.chars().count()),
        None => Value::Int(-1),
    }
}

fn spaces<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], side: Side) -> Value<'v> {
    let (Some(text), Some(number)) = (first(scope, args), int(scope, args, 1)) else {
        return Value::Undefined;
    };
    let spaces = " ".repeat(usize::try_from(number.clamp(0, PAD_MAX)).unwrap_or(0));
    if !scope.meter.build(text.len() + spaces.len()) {
        return Value::Undefined;
    }
    built(match side {
        Side::Left => spaces + &text,
        Side::Right => text.into_owned() + &spaces,
    })
}

/// Fills up to a width.
fn pad<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let (Some(text), Some(width)) = (first(scope, args), int(scope, args, 1)) else {
        return Value::Undefined;
    };
    let side = match args.get(2).map(|e| scope.eval(e)) {
        None => Cow::Borrowed("trailing"),
        Some(Value::String(side)) => side,
        Some(_) => return Value::Undefined,
    };
    let fill = match args.get(3).map(|e| scope.text(e)) {
        None => Cow::Borrowed(" "),
        Some(Some(fill)) => fill,
        Some(None) => return Value::Undefined,
    };
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    let (before, after) = match &*side {
        "leading" => (missing, 0),
        "trailing" => (0, missing),
        "both" => (missing / 2, missing - missing / 2),
        _ => return Value::Undefined,
    };
    if !scope.meter.build(text.len().saturating_add(missing.saturating_mul(fill.len().max(1)))) {
        return Value::Undefined;
    }
    let filling =
        |n: usize| fill.chars().cycle().take(if fill.is_empty() { 0 } else { n }).collect::<String>();
    built(filling(before) + &text + &filling(after))
}

fn replace<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some((text, from)) = pair(scope, args) else { return Value::Undefined };
    let Some(to) = args.get(2).and_then(|e| scope.text(e)) else { return Value::Undefined };
    if from.is_empty() {
        return Value::String(text);
    }
    let hits = text.matches(&*from).count();
    let grown = text.len().saturating_add(hits.saturating_mul(to.len()));
    if scope.meter.build(grown) { built(text.replace(&*from, &to)) } else { Value::Undefined }
}

fn slice(text: &str, start: i64, end: i64) -> Value<'static> {
    let (start, end) = (start.max(0), end.max(0));
    let skip = usize::try_from(start).unwrap_or(usize::MAX);
    let take = usize::try_from(end.saturating_sub(start).max(0)).unwrap_or(usize::MAX);
    built(text.chars().skip(skip).take(take).collect())
}

/// From `start` to before `end`, both clamped.
fn substring<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let (Some(text), Some(start)) = (first(scope, args), int(scope, args, 1)) else {
        return Value::Undefined;
    };
    let end = if args.len() < 3 { Some(i64::MAX) } else { int(scope, args, 2) };
    end.map_or(Value::Undefined, |end| slice(&text, start, end))
}

/// From `start`, so many characters.
fn substr<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let (Some(text), Some(start)) = (first(scope, args), int(scope, args, 1)) else {
        return Value::Undefined;
    };
    let count = if args.len() < 3 { Some(i64::MAX) } else { int(scope, args, 2) };
    let start = start.max(0);
    count.map_or(Value::Undefined, |count| slice(&text, start, start.saturating_add(count.max(0))))
}

/// Empty parts are dropped unless the third argument is `'notrim'`.
fn split<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some((text, separator)) = pair(scope, args) else { return Value::Undefined };
    let keep = match args.get(2).map(|e| scope.eval(e)) {
        None => false,
        Some(Value::String(mode)) if mode == "notrim" => true,
        Some(_) => return Value::Undefined,
    };
    let mut parts = Vec::new();
    let mut push = |part: &str| {
        if !part.is_empty() || keep {
            parts.push(Value::string(part.to_owned()));
        }
        scope.meter.element()
    };
    if separator.is_empty() {
        push(&text);
    } else {
        for part in text.split(&*separator) {
            if !push(part) {
                return Value::Undefined;
            }
        }
    }
    Value::array(parts)
}

fn join<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let (separator, array) = match args {
        [array] => (Some(Cow::Borrowed(", ")), array),
        [separator, array] => (scope.text(separator), array),
        _ => return Value::Undefined,
    };
    let Some(separator) = separator else { return Value::Undefined };
    let Some(elements) = scope.eval(array).elements(scope.meter) else { return Value::Undefined };
    let mut text = String::new();
    for (position, element) in elements.iter().enumerate() {
        let Some(part) = element.to_text(scope.meter) else { return Value::Undefined };
        if position > 0 {
            text.push_str(&separator);
        }
        text.push_str(&part);
        if !scope.meter.build(text.len()) {
            return Value::Undefined;
        }
    }
    built(text)
}
