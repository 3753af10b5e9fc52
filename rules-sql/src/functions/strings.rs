//! Functions of Strings. Positions and lengths count characters, from 0.

use std::borrow::Cow;

use super::{Function, Gives, Group, Origin, Param, Takes, any, function, param, text, whole};
use crate::eval::Scope;
use crate::plan::{Expr, RegexAction};
use crate::value::{Type, Value};

/// Most spaces `lpad` and `rpad` add.
const PAD_MAX: i64 = 1000;

pub(super) const GROUP: Group = Group {
    title: "Strings",
    intro: "Positions and lengths count characters, positions from 0. Regular expressions run in linear time: \
            look-around and back-references are refused. A pattern in the text of the rule is compiled once.",
    functions: FUNCTIONS,
};

/// What the functions of regular expressions take first.
const TEXT: Param = text("text");
const PATTERN: Param = param("pattern", Takes::Pattern);

const SIDES: &[&str] = &["leading", "both", "trailing"];
const SPLIT_MODES: &[&str] = &["notrim", "leading", "leading_notrim", "trailing", "trailing_notrim"];

const FUNCTIONS: &[Function] = &[
    function("chr", &[whole("code")], Gives::String, &[("chr(65)", "\"A\""), ("chr(200)", "undefined")], chr)
        .note("One ASCII character; another code is Undefined."),
    function(
        "concat",
        &[any("value").repeated()],
        Gives::Any,
        &[("concat('a', 1, true)", "\"a1true\""), ("concat([1], 2, [3, 4])", "[1,2,3,4]"), ("concat()", "undefined")],
        concat,
    )
    .note(
        "One argument is handed on as it is. With an Array among several: one Array, arrays spliced, Undefined left \
         out. Else a String; Null and Undefined give Undefined.",
    ),
    function("endswith", &[TEXT, text("end")], Gives::Boolean, &[("endswith('cat', 'at')", "true")], |s, a| {
        test(s, a, |x, y| x.ends_with(y))
    }),
    function(
        "indexof",
        &[TEXT, text("part")],
        Gives::Int,
        &[("indexof('abcd', 'bc')", "1"), ("indexof('abcd', 'x')", "-1")],
        indexof,
    ),
    function(
        "join_to_string",
        &[text("separator").optional(), param("array", Takes::Array)],
        Gives::String,
        &[("join_to_string('-', [1, 2])", "\"1-2\""), ("join_to_string([1, 2])", "\"1, 2\"")],
        join,
    )
    .from(Origin::Emqx)
    .note("An element that is Null gives Undefined."),
    function("length", &[TEXT], Gives::Int, &[("length('héllo')", "5"), ("length(false)", "5")], |s, a| {
        measure(s, a, |t| t.chars().count())
    })
    .aliases(&["strlen"])
    .note("Of an Array, the length of its JSON text; `array_length` counts elements."),
    function("lower", &[TEXT], Gives::String, &[("lower('ABC')", "\"abc\"")], |s, a| {
        change(s, a, str::to_lowercase)
    }),
    function("lpad", &[TEXT, whole("spaces")], Gives::String, &[("lpad('x', 2)", "\"  x\"")], |s, a| {
        spaces(s, a, Side::Left)
    })
    .note("Adds so many spaces, 0 to 1,000; `pad` fills up to a width."),
    function("ltrim", &[TEXT], Gives::String, &[("ltrim(' h i ')", "\"h i \"")], |s, a| {
        cut(s, a, |t| t.trim_start_matches([' ', '\t']))
    })
    .note("Spaces and tabs."),
    function("numbytes", &[TEXT], Gives::Int, &[("numbytes('€')", "3")], |s, a| measure(s, a, str::len))
        .note("Bytes in UTF-8."),
    function(
        "pad",
        &[TEXT, whole("width"), param("side", Takes::Word(SIDES)).optional(), text("fill").optional()],
        Gives::String,
        &[("pad('ab', 4)", "\"ab  \""), ("pad('ab', 4, 'leading', '0')", "\"00ab\"")],
        pad,
    )
    .from(Origin::Emqx)
    .note("Fills up to a width, with spaces after the text unless told otherwise."),
    function(
        "regexp_matches",
        &[TEXT, PATTERN],
        Gives::Boolean,
        &[("regexp_matches('dev-12', '[0-9]+$')", "true")],
        |s, a| s.dynamic_regex(RegexAction::Matches, a),
    )
    .aliases(&["regex_match"])
    .note("Whether the pattern matches anywhere."),
    function(
        "regexp_replace",
        &[TEXT, PATTERN, text("replacement")],
        Gives::String,
        &[("regexp_replace('dev-12', 'dev-([0-9]+)', 'd$1')", "\"d12\"")],
        |s, a| s.dynamic_regex(RegexAction::Replace, a),
    )
    .note("All matches; `$1` is the first group, `${name}` a named one, `$$` a dollar."),
    function(
        "regexp_substr",
        &[TEXT, PATTERN],
        Gives::String,
        &[("regexp_substr('dev-12', '[0-9]+')", "\"12\""), ("regexp_substr('dev', '[0-9]+')", "undefined")],
        |s, a| s.dynamic_regex(RegexAction::Substring, a),
    )
    .note("The first match; none is Undefined."),
    function(
        "replace",
        &[TEXT, text("from"), text("to")],
        Gives::String,
        &[("replace('aXbX', 'X', '-')", "\"a-b-\"")],
        replace,
    )
    .note("All occurrences."),
    function("reverse", &[TEXT], Gives::String, &[("reverse('abc')", "\"cba\"")], |s, a| {
        change(s, a, |t| t.chars().rev().collect())
    })
    .from(Origin::Emqx),
    function("rpad", &[TEXT, whole("spaces")], Gives::String, &[("rpad('x', 2)", "\"x  \"")], |s, a| {
        spaces(s, a, Side::Right)
    })
    .note("Adds so many spaces, 0 to 1,000; `pad` fills up to a width."),
    function("rtrim", &[TEXT], Gives::String, &[("rtrim(' h i ')", "\" h i\"")], |s, a| {
        cut(s, a, |t| t.trim_end_matches([' ', '\t']))
    })
    .note("Spaces and tabs."),
    function(
        "split",
        &[TEXT, text("separator"), param("mode", Takes::Word(SPLIT_MODES)).optional()],
        Gives::Array,
        &[
            ("split('a,b,,c', ',')", r#"["a","b","c"]"#),
            ("split('a,b,,c', ',', 'notrim')", r#"["a","b","","c"]"#),
            ("split('a,b,c', ',', 'leading')", r#"["a","b,c"]"#),
        ],
        split,
    )
    .from(Origin::Emqx)
    .note(
        "Empty parts are dropped unless the mode says `notrim`. `leading` splits at the first separator alone, \
         `trailing` at the last.",
    ),
    function("startswith", &[TEXT, text("start")], Gives::Boolean, &[("startswith('ranger', 'ran')", "true")], |s, a| {
        test(s, a, |x, y| x.starts_with(y))
    }),
    function(
        "substr",
        &[TEXT, whole("start"), whole("count").optional()],
        Gives::String,
        &[("substr('012345', 1, 3)", "\"123\"")],
        substr,
    )
    .from(Origin::Emqx)
    .note("So many characters; `substring` takes the end instead."),
    function(
        "substring",
        &[TEXT, whole("start"), whole("end").optional()],
        Gives::String,
        &[("substring('012345', 1, 3)", "\"12\""), ("substring('012345', 2)", "\"2345\"")],
        substring,
    )
    .note("To before `end`; both are clamped to the text."),
    function("trim", &[TEXT], Gives::String, &[("trim('  x ')", "\"x\"")], |s, a| cut(s, a, str::trim))
        .note("All white space."),
    function("upper", &[TEXT], Gives::String, &[("upper('straße')", "\"STRASSE\"")], |s, a| {
        change(s, a, str::to_uppercase)
    }),
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

/// At every separator, or at the first or last alone. Empty parts are dropped unless the mode keeps them.
fn split<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let Some((text, separator)) = pair(scope, args) else { return Value::Undefined };
    let mode = match args.get(2).map(|e| scope.eval(e)) {
        None => Cow::Borrowed(""),
        Some(Value::String(mode)) if SPLIT_MODES.contains(&&*mode) => mode,
        Some(_) => return Value::Undefined,
    };
    let keep = mode.ends_with("notrim");
    let most = match &*mode {
        _ if separator.is_empty() => 1,
        "" | "notrim" => usize::MAX,
        _ => 2,
    };
    let mut parts = Vec::new();
    let mut push = |part: &str| {
        if !part.is_empty() || keep {
            parts.push(Value::string(part.to_owned()));
        }
        scope.meter.element()
    };
    let all = if mode.starts_with("trailing") {
        let all = text.rsplitn(most, &*separator).all(&mut push);
        parts.reverse();
        all
    } else {
        text.splitn(most, &*separator).all(&mut push)
    };
    if all { Value::array(parts) } else { Value::Undefined }
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
