//! A table of what the golden cases show: each clause, operator and function of the dialect with a case, none without.
//!
//! `RULES_SQL_REWRITE=1 cargo test -p rules-sql --test coverage` writes it; read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

mod pages;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use pages::{GENERATED, check};
use regex::Regex;
use rules_sql::reference::{Function, Origin, functions};

/// What the dialect has beside functions, and a pattern of the cases that show it.
const LANGUAGE: [(&str, &[(&str, &str)]); 7] = [
    (
        "Statement",
        &[
            ("`SELECT` of items", r"^SELECT \w+, \w+ FROM"),
            ("`SELECT *`", r"^SELECT \* FROM"),
            ("`SELECT *` beside items", r"^SELECT \*, "),
            ("`SELECT VALUE`", r"^SELECT VALUE "),
            ("a field named `value`", r"^SELECT value FROM"),
            ("`AS name`", r"AS x, "),
            ("`AS name.name`", r"AS x\.y"),
            ("an item named by its path", r"^SELECT a\.b FROM"),
            ("the same key twice", r"AS x, dup AS x FROM"),
            ("`FROM` in double quotes, several filters", r#"FROM "a/b", 'c/#'"#),
            ("a filter that MQTT does not allow", r"FROM 'a/#/b'"),
            ("a filter without quotes", r"FROM sensors/"),
            ("`WHERE` with a Boolean", r"WHERE n = 1"),
            ("`WHERE` with a String", r"WHERE 'true'"),
            ("`WHERE` with another type", r"WHERE 1$"),
            ("`WHERE` with Undefined", r"WHERE missing$"),
            ("`WHERE` with Null", r"WHERE nul$"),
            ("`SET`", r"^SET @a = .*, @b = @a"),
            ("a path into a variable", r"@o\.b\.c"),
            ("a variable in a nested SELECT", r"WHERE v > @min\)"),
            ("a variable assigned twice", r"^SET @a = 1, @a = 2"),
            ("an unknown variable", r"^SELECT @a AS"),
            ("keywords in any case", r"^select value"),
            ("comments", r"-- a comment"),
            ("block comments", r"/\* block \*/"),
            ("`GROUP BY` refused", r"GROUP BY a$"),
            ("`LIMIT` refused", r"LIMIT 1$"),
            ("`UNION` refused", r"UNION SELECT"),
            ("`FOREACH` refused", r"^FOREACH"),
        ],
    ),
    (
        "Payloads",
        &[
            ("no JSON", r"^SELECT VALUE payload\(\) FROM"),
            ("an array or a scalar", r"^SELECT \*, 1 AS one FROM"),
            ("empty", r"^SELECT VALUE \{'message': \*\}"),
        ],
    ),
    (
        "Literals",
        &[
            ("Int, Decimal", r"^1 \+ 1\.5$"),
            ("exponent", r"^'?5e3'?"),
            ("Boolean", r"^true AND false$"),
            ("String in single quotes", r"'it''s'"),
            ("String in double quotes", r#""say ""hi""""#),
            ("Array", r"^\[1, missing\] = \[1\]$"),
            ("Object, keys in either quotes, a comma at its end", r#"\{'k': n, "m": \{'o': dup,\}"#),
            ("`NULL`", r"^nul = NULL$"),
        ],
    ),
    (
        "Paths",
        &[
            ("`a.b.c`", r"a\.b\.c, "),
            ("a step after a call", r"^decode\(.*\)\.t$"),
            ("a step after a nested SELECT", r"\(SELECT .*\)\.y "),
            ("`a[0]`, `a[-1]`", r"list\[0\] AS f, list\[-1\]"),
            ("`a['key']`", r"a\['d'\]"),
            ("names in backticks", r"`my-key`"),
            ("names that are keywords", r"timestamp, end, case, value"),
        ],
    ),
    (
        "Operators",
        &[
            ("`AND`", r"^true AND false$"),
            ("`OR`", r"^true OR missing$"),
            ("`NOT`", r"^NOT "),
            ("`=`", r"^1 = 1\.0$"),
            ("`<>`", r"^1 <> '1'$"),
            ("`!=`", r"^1 != 2$"),
            ("`<`", r"^'5' < '10'$"),
            ("`<=`", r"^SELECT i <= "),
            ("`>`", r"^2 > 1$"),
            ("`>=`", r"^SELECT i >= "),
            ("`=~`", r"=~ 'a/\+'$"),
            ("`+` of numbers", r"^0\.1 \+ 0\.2$"),
            ("`+` with a String", r"^'1' \+ 2$"),
            ("`-`", r"^'5' - 1$"),
            ("`*`", r"^'12' \* 2$"),
            ("`/`", r"^7 / 2$"),
            ("`%`", r"^-7 % 3$"),
            ("`div`", r"^7 div 2$"),
            ("`mod` between operands", r"^7 mod 2$"),
            ("`||`", r"^'a' \|\| 1 \|\| true$"),
            ("sign", r"^- '5'$"),
            ("`IN` a list", r"^1 IN \(1, 2\)$"),
            ("`IN` an array", r"^'red' IN words$"),
            ("`NOT IN`", r"^3 NOT IN \(1, 2\)$"),
            ("`BETWEEN`", r"^v BETWEEN 1 AND 5$"),
            ("`LIKE`", r"^'abc' LIKE 'a%'$"),
            ("`LIKE … ESCAPE`", r"ESCAPE '!'$"),
            ("`EXISTS`", r"EXISTS \(SELECT"),
            ("precedence", r"^1 \+ 2 \* 3$"),
            ("division by zero", r"^1 / 0$"),
            ("Int by Int with a remainder", r"^\(75-32\)\*5/9$"),
            ("comparisons in a chain refused", r"a < b < c"),
        ],
    ),
    (
        "CASE and nested SELECT",
        &[
            ("`CASE v WHEN … ELSE`", r"^CASE v WHEN 5 THEN 'five' ELSE"),
            ("`CASE` of Undefined", r"^CASE missing WHEN"),
            ("`CASE` without a match", r"^CASE v WHEN '5' THEN 'text' END$"),
            ("`CASE WHEN condition`", r"^CASE WHEN v > 3"),
            ("over an array", r"\(SELECT v FROM e\)"),
            ("over an object", r"\(SELECT x AS z FROM o\)"),
            ("over another value", r"\(SELECT v FROM v\)"),
            ("`SELECT VALUE`", r"\(SELECT VALUE n FROM e\)"),
            ("`AS` names the element", r"FROM arr AS a WHERE a = 3\)"),
            ("within another", r"\(SELECT VALUE \(SELECT VALUE i"),
            ("no hit", r"WHERE n = 'none'\)"),
        ],
    ),
    (
        "Conversion and templates",
        &[
            ("`cast` to Int", r"^cast\(1\.7 AS Int\)$"),
            ("`cast` to Decimal", r"^cast\('1\.5' AS Double\)$"),
            ("`cast` to String", r"^cast\(arr AS Nvarchar\)$"),
            ("`cast` to Boolean", r"^cast\('TRUE' AS Boolean\)$"),
            ("text that is no number text", r"^'\.5' - 1$"),
            ("JSON template", r"^text \{"),
            ("text template", r"^text [^{]"),
            ("topic template", r"^topic "),
            ("URL template", r"^url "),
            ("whole number template", r"^int "),
            ("Boolean template", r"^bool "),
        ],
    ),
];

/// What a function of the dialect must be able to be called as, beside its name alone.
const FORMS: [(&str, &str); 29] = [
    ("topic(n)", r"topic\(1\)"),
    ("concat()", r"concat\(\)"),
    ("concat of one", r"concat\(1\)"),
    ("concat of arrays", r"concat\(arr, "),
    ("coalesce of a list", r"coalesce\(\["),
    ("get of an Array", r"get\(\[1, 2\], 1\)"),
    ("get of an Object", r"get\(\{"),
    ("get of a String", r"get\('abc'"),
    ("get of `*`", r"get\(\*"),
    ("get_or_default without a default", r"get_or_default\(missing\)"),
    ("substring with an end", r"substring\([^,]+, \d, \d\)"),
    ("substr with a count", r"substr\([^,]+, \d, \d\)"),
    ("split 'notrim'", r"split\(.*'notrim'\)"),
    ("split 'leading'", r"split\(.*'leading'\)"),
    ("split 'leading_notrim'", r"split\(.*'leading_notrim'\)"),
    ("split 'trailing'", r"split\(.*'trailing'\)"),
    ("split 'trailing_notrim'", r"split\(.*'trailing_notrim'\)"),
    ("pad 'leading'", r"pad\(.*'leading', "),
    ("pad 'both'", r"pad\(.*'both'"),
    ("pad 'trailing'", r"pad\(.*'trailing'"),
    ("join_to_string without a separator", r"join_to_string\(arr\)"),
    ("base64_encode 'no_padding'", r"base64_encode\(.*'no_padding'\)"),
    ("base64_encode 'urlsafe'", r"base64_encode\(.*'urlsafe'\)"),
    ("base64_decode 'urlsafe'", r"base64_decode\(.*'urlsafe'\)"),
    ("encode of `*`", r"encode\(\*"),
    ("get_user_properties(name)", r"get_user_properties\('"),
    ("parse_time with a zone", r"parse_time\(.*'\+08:00'\)"),
    ("now_timestamp(unit)", r"now_timestamp\('millisecond'\)"),
    ("rfc3339_to_unix_ts(text, unit)", r"rfc3339_to_unix_ts\(.*'millisecond'\)"),
];

/// The functions of AWS IoT SQL that mean something without AWS.
const AWS: &str = "abs acos asin atan atan2 bitand bitnot bitor bitxor ceil chr clientid concat cos cosh decode encode \
    endswith exp floor get get_mqtt_property get_or_default get_user_properties accountid indexof isNull isUndefined \
    length ln log lower lpad ltrim md5 mod nanvl newuuid numbytes parse_time power principal rand regexp_matches \
    regexp_replace regexp_substr remainder replace round rpad rtrim sha1 sha224 sha256 sha384 sha512 sign sin sinh \
    sourceip sql_version sqrt startswith substring tan tanh time_to_epoch timestamp topic traceid transform trim trunc \
    upper";

/// Those of EMQX that are taken over.
const EMQX: &str = "base64_decode base64_encode coalesce div is_array is_bool is_empty is_float is_int is_map is_not_null \
    is_not_null_var is_null is_null_var is_num is_str join_to_string json_decode json_encode now_rfc3339 now_timestamp \
    pad payload qos random regex_match reverse rfc3339_to_unix_ts split strlen substr unix_ts_to_rfc3339 username \
    uuid_v4 uuid_v4_no_hyphen";

struct Case {
    file: String,
    text: String,
}

/// Every case of the golden files, in order; a line of an `eval` file is one.
fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata");
    let mut cases = Vec::new();
    for folder in ["eval", "error", "parse", "warn"] {
        let mut files: Vec<_> = fs::read_dir(root.join(folder)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        for path in files {
            let file = format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
            let text = fs::read_to_string(&path).unwrap();
            for block in text.split("\n\n").map(str::trim).filter(|block| !block.starts_with('#')) {
                let input = block.split("----").next().unwrap().trim();
                let inputs: Vec<&str> = if folder == "eval" { input.lines().collect() } else { vec![input] };
                let inputs = inputs.into_iter().filter(|line| !line.starts_with('@') && !line.is_empty());
                cases.extend(inputs.map(|text| Case { file: file.clone(), text: text.to_owned() }));
            }
        }
    }
    cases
}

/// A row of the table: what is shown, and the first case that shows it.
fn shown(page: &mut String, missing: &mut Vec<String>, what: &str, found: Option<&Case>) {
    let Some(case) = found else {
        writeln!(page, "| {what} | missing | |").unwrap();
        missing.push(what.to_owned());
        return;
    };
    let text = case.text.replace('\n', " ").replace('|', "\\|");
    let short: String = text.chars().take(80).collect();
    let cut = if short == text { "" } else { " …" };
    let what = what.replace('|', "\\|");
    // Two backticks around a text that may hold one.
    writeln!(page, "| {what} | {} | `` {short} ``{cut} |", case.file).unwrap();
}

#[test]
fn page_of_coverage() {
    let cases = cases();
    let find = |pattern: &str, evaluated: bool| {
        let pattern = Regex::new(pattern).unwrap();
        cases
            .iter()
            .find(|case| (!evaluated || case.file.starts_with("eval/")) && pattern.is_match(&case.text))
    };
    let mut missing = Vec::new();
    let mut page = format!(
        "# What the cases of rules SQL show\n\n{GENERATED}\n\n\
         For maintainers: each part of the dialect, and the first case under `rules-sql/tests/testdata` that shows it. \
         A part\nwithout a case fails the build.\n"
    );
    for (title, parts) in LANGUAGE {
        write!(page, "\n## {title}\n\n| Part | File | Case |\n| --- | --- | --- |\n").unwrap();
        for (what, pattern) in parts {
            shown(&mut page, &mut missing, what, find(pattern, false));
        }
    }
    for group in functions() {
        write!(page, "\n## Functions: {}\n\n| Function | File | Case |\n| --- | --- | --- |\n", group.title)
            .unwrap();
        for function in &group.functions {
            for name in std::iter::once(&function.name).chain(function.aliases) {
                let call = format!(r"(?i)\b{name}\(");
                shown(&mut page, &mut missing, &format!("`{name}`"), find(&call, true));
            }
        }
    }
    page.push_str("\n## Forms of calls\n\n| Form | File | Case |\n| --- | --- | --- |\n");
    for (what, pattern) in FORMS {
        shown(&mut page, &mut missing, what, find(&format!(r"\b{pattern}"), true));
    }
    check("rules-coverage.md", &page);
    assert!(missing.is_empty(), "no case shows {missing:?}");
}

#[test]
fn every_function_that_is_taken_over_is_there() {
    let all: Vec<Function> = functions().into_iter().flat_map(|group| group.functions).collect();
    for (names, origin) in [(AWS, Origin::Aws), (EMQX, Origin::Emqx)] {
        for name in names.split_whitespace() {
            let found = all.iter().find(|f| f.name == name || f.aliases.contains(&name));
            let function = found.unwrap_or_else(|| panic!("{name} is not there"));
            assert!(function.origin == origin || function.name != name, "{name} is of {:?}", function.origin);
        }
    }
    for function in &all {
        let taken = |names: &str| names.split_whitespace().any(|name| name == function.name);
        let listed = taken(AWS)
            || taken(EMQX)
            || ["array_length", "listener", "retain", "log2"].contains(&function.name);
        assert!(listed, "{} is of no list", function.name);
    }
}
