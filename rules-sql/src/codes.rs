//! The registry of codes: each once, with its words and an example that provokes it.
//!
//! A fault is made with a constant of this table, so no code can be written that is not listed. Codes are stable:
//! a code keeps its meaning, and one that is given up is not used again. Warnings begin at `R0900`.

use crate::error::{CompileError, Warning};
use crate::limits::{Dialect, Limits};
use crate::rule::compile;
use crate::template::{Template, TemplateKind};

/// What a code does to the text it is found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The text is refused.
    Error,
    /// The text is accepted; its author is told.
    Warning,
}

/// One entry of the registry.
#[derive(Debug)]
pub(crate) struct Code {
    /// `R` and four digits.
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    /// A few words, to follow the code.
    pub(crate) title: &'static str,
    /// What is wrong, in a sentence or two.
    pub(crate) meaning: &'static str,
    /// What to do about it.
    pub(crate) remedy: &'static str,
    pub(crate) example: Example,
}

/// A text whose fault has the code.
#[derive(Debug)]
pub(crate) enum Example {
    Statement(&'static str),
    /// A statement under a limit that is lowered so far that a short text meets it; the words say which.
    Limited(&'static str, fn(&mut Limits), &'static str),
    /// A statement in the dialect of EMQX.
    Emqx(&'static str),
    Template(TemplateKind, &'static str),
    /// As `Limited`, for the text of a template.
    LimitedTemplate(&'static str, fn(&mut Limits), &'static str),
    /// The template of a republish's topic, under a rule; the words name the rule.
    Topic(&'static str, &'static str, &'static str),
}

impl Code {
    /// The text of the example.
    pub(crate) fn text(&self) -> &'static str {
        match self.example {
            Example::Statement(text)
            | Example::Limited(text, ..)
            | Example::Emqx(text)
            | Example::Template(_, text)
            | Example::LimitedTemplate(text, ..)
            | Example::Topic(text, ..) => text,
        }
    }

    /// What differs from the defaults in the example.
    pub(crate) fn condition(&self) -> Option<&'static str> {
        match self.example {
            Example::Statement(_) | Example::Template(..) => None,
            Example::Limited(_, _, words)
            | Example::LimitedTemplate(_, _, words)
            | Example::Topic(_, _, words) => Some(words),
            Example::Emqx(_) => Some("in dialect emqx"),
        }
    }

    /// Compiles the example: the error, or the warnings.
    pub(crate) fn provoke(&self) -> Result<Vec<Warning>, CompileError> {
        let mut limits = Limits::default();
        match self.example {
            Example::Limited(_, lower, _) | Example::LimitedTemplate(_, lower, _) => lower(&mut limits),
            Example::Statement(_) | Example::Emqx(_) | Example::Template(..) | Example::Topic(..) => {}
        }
        let template = |kind| {
            let template = Template::compile(self.text(), kind, Dialect::Aws, &limits)?;
            Ok(template.warnings().to_vec())
        };
        let dialect = match self.example {
            Example::Template(kind, _) => return template(kind),
            Example::LimitedTemplate(..) => return template(TemplateKind::PlainText),
            Example::Topic(_, sql, _) => {
                let rule = compile(sql, Dialect::Aws, &limits)?;
                let topic = rule.template(self.text(), TemplateKind::Topic, &limits)?;
                return Ok(topic.warnings().iter().cloned().chain(rule.doubt_return(&topic)).collect());
            }
            Example::Emqx(_) => Dialect::Emqx,
            Example::Statement(_) | Example::Limited(..) => Dialect::Aws,
        };
        Ok(compile(self.text(), dialect, &limits)?.warnings().to_vec())
    }
}

const fn error(
    code: &'static str,
    title: &'static str,
    meaning: &'static str,
    remedy: &'static str,
    example: Example,
) -> Code {
    Code { code, severity: Severity::Error, title, meaning, remedy, example }
}

const fn warning(
    code: &'static str,
    title: &'static str,
    meaning: &'static str,
    remedy: &'static str,
    example: Example,
) -> Code {
    Code { code, severity: Severity::Warning, title, meaning, remedy, example }
}

/// Names each code and lists it, in one.
macro_rules! codes {
    ($($name:ident = $code:expr;)*) => {
        $(pub(crate) const $name: &Code = &$code;)*
        /// Every code, in order.
        pub(crate) const ALL: &[&Code] = &[$($name),*];
    };
}

codes! {
    STATEMENT_BYTES = error(
        "R0001",
        "the statement is too long",
        "The statement has more bytes than the limit allows.",
        "Shorten it, move long texts into the payload, or raise the limit.",
        Example::Limited("SELECT * FROM 'a/b'", |limits| limits.statement_bytes = 16, "with a limit of 16 bytes"),
    );
    NESTING = error(
        "R0002",
        "nested too deeply",
        "An expression, an alias with dots, or what the variables add up to is nested deeper than the limit allows.",
        "Compute inner parts in variables with SET.",
        Example::Limited("SELECT abs(abs(abs(a))) AS x FROM 't'", |limits| limits.depth = 3, "with a limit of 3"),
    );
    OPERATORS = error(
        "R0003",
        "too many operators",
        "The statement has more operators, names and brackets than the limit allows.",
        "Use IN with a list for long chains of OR, or split the rule.",
        Example::Limited("SELECT a + b + c AS x FROM 't'", |limits| limits.operators = 6, "with a limit of 6"),
    );
    ITEMS = error(
        "R0004",
        "too many items",
        "SELECT has more items, or SET more variables, than the limit allows.",
        "Select `*`, or an object of the payload as a whole.",
        Example::Limited("SELECT a, b, c FROM 't'", |limits| limits.items = 2, "with a limit of 2"),
    );
    SUBQUERIES = error(
        "R0005",
        "nested SELECTs too deep",
        "SELECTs stand within one another deeper than the limit allows.",
        "Flatten the query, or leave inner arrays as they are.",
        Example::Limited(
            "SELECT (SELECT (SELECT a FROM b) AS x FROM c) AS y FROM 't'",
            |limits| limits.subquery_depth = 1,
            "with a limit of 1",
        ),
    );
    DIALECT = error(
        "R0010",
        "the dialect is not available",
        "The rule asks for a dialect that this version does not run.",
        "Write the rule in dialect aws.",
        Example::Emqx("SELECT payload.t AS t FROM \"t\""),
    );
    WORDS = error(
        "R0100",
        "the text cannot be cut into words",
        "A string, a quoted name or a comment has no end, or a character belongs to nothing that rules have.",
        "Close the quotes. A quote inside a string is doubled: `'it''s'`.",
        Example::Statement("SELECT 'abc AS x FROM 't'"),
    );
    UNEXPECTED = error(
        "R0101",
        "something else was expected",
        "The statement breaks off, or goes on with a word that cannot stand here.",
        "The message says what was expected; the caret shows where.",
        Example::Statement("SELECT a + FROM 't'"),
    );
    CLAUSE = error(
        "R0102",
        "a clause that rules do not have",
        "A rule sees one message at a time: there is nothing to group, sort, join or limit.",
        "Leave the clause out; select messages with FROM and WHERE, elements of an array with a nested SELECT.",
        Example::Statement("SELECT a FROM 't' GROUP BY a"),
    );
    UNQUOTED_FILTER = error(
        "R0103",
        "the Topic Filter has no quotes",
        "FROM takes Topic Filters in single or double quotes.",
        "Put the filter into quotes.",
        Example::Statement("SELECT a FROM sensors/temp"),
    );
    OPERATOR = error(
        "R0104",
        "an operator or literal that rules do not have",
        "The operator, the form of literal or the kind of call belongs to another language.",
        "The message names the operator and, where there is one, what to write instead.",
        Example::Statement("SELECT a FROM 't' WHERE a == 1"),
    );
    CHAIN = error(
        "R0105",
        "comparisons in a chain",
        "A comparison gives a Boolean, which the next one could not compare.",
        "Join two comparisons with AND, or use BETWEEN.",
        Example::Statement("SELECT a FROM 't' WHERE 1 < a < 5"),
    );
    NUMBER = error(
        "R0106",
        "a malformed number",
        "The number lacks digits on one side of its point, or its exponent is beyond 999.",
        "Write `0.5` and `5.0`, not `.5` and `5.`.",
        Example::Statement("SELECT a * .5 AS x FROM 't'"),
    );
    FILTER = error(
        "R0201",
        "an invalid Topic Filter",
        "MQTT does not allow the filter, or it is a Shared Subscription, which a rule cannot be.",
        "`#` stands only as the last level, `+` and `#` fill a level.",
        Example::Statement("SELECT a FROM 'a/#/b'"),
    );
    UNKNOWN_FUNCTION = error(
        "R0202",
        "an unknown function",
        "No function has this name. For functions of other products the hint says what serves here.",
        "Correct the name; all functions are listed in [rules-functions.md](rules-functions.md).",
        Example::Statement("SELECT uper(a) AS x FROM 't'"),
    );
    ARGUMENTS = error(
        "R0203",
        "a wrong number of arguments",
        "The function takes more or fewer arguments.",
        "The hint shows how it is called.",
        Example::Statement("SELECT round(a, 1, 2) AS x FROM 't'"),
    );
    UNSUPPORTED_FUNCTION = error(
        "R0204",
        "a function that is not supported",
        "The function is known from another product and left out here: it needs that product's services, keeps \
         state between messages, or is broken.",
        "Follow the hint, or do that part in an action.",
        Example::Statement("SELECT aws_lambda('arn', a) AS x FROM 't'"),
    );
    UNNAMED_ITEM = error(
        "R0205",
        "an item without a name",
        "Only a name or a path names its item by itself.",
        "Add AS and a name.",
        Example::Statement("SELECT a + b FROM 't'"),
    );
    SELECT_VALUE = error(
        "R0206",
        "SELECT VALUE with more than one value",
        "SELECT VALUE makes one value the output: it takes one item and no alias.",
        "Leave VALUE out, or build one value: `SELECT VALUE {'a': a, 'b': b}`.",
        Example::Statement("SELECT VALUE a, b FROM 't'"),
    );
    CAST_TYPE = error(
        "R0207",
        "an unknown type in cast",
        "cast knows the types String, Int, Decimal and Boolean, and their other names in AWS IoT SQL.",
        "Use one of them.",
        Example::Statement("SELECT cast(a AS Number) AS x FROM 't'"),
    );
    PATTERN = error(
        "R0208",
        "a pattern that cannot run",
        "The regular expression needs look-around or back-references, which an engine that runs in linear time \
         does not have, or it compiles to more bytes than the limit allows.",
        "Match more than needed and cut with `substring`, or use a group and `regexp_replace`.",
        Example::Statement("SELECT regexp_matches(a, '(?=x)') AS x FROM 't'"),
    );
    STAR = error(
        "R0209",
        "`*` where it is not allowed",
        "`*` stands for the payload as an item, as a member of an object, and as an argument of a few functions.",
        "Name the field that is meant.",
        Example::Statement("SELECT lower(*) AS x FROM 't'"),
    );
    UNKNOWN_VARIABLE = error(
        "R0210",
        "an unknown variable",
        "SET assigns no such variable, or assigns it further on.",
        "Assign it before it is used.",
        Example::Statement("SET @abc = 1 SELECT @abd AS x FROM 't'"),
    );
    VARIABLE_TWICE = error(
        "R0211",
        "a variable assigned twice",
        "A variable has one value.",
        "Give the second one another name.",
        Example::Statement("SET @a = 1, @a = 2 SELECT @a AS x FROM 't'"),
    );
    VARIABLE_NAME = error(
        "R0212",
        "a variable's name that is not allowed",
        "The name of a variable is `@` and 1 to 64 letters, digits and underscores.",
        "Rename it.",
        Example::Statement("SET a = 1 SELECT a FROM 't'"),
    );
    UNKNOWN_WORD = error(
        "R0213",
        "a word that the function does not know",
        "The argument is one of a few words, and a constant stands here that is none of them.",
        "The hint lists the words.",
        Example::Statement("SELECT encode(a, 'hex') AS x FROM 't'"),
    );
    ESCAPE = error(
        "R0214",
        "a bad ESCAPE",
        "ESCAPE takes one character, and in the pattern of LIKE a character follows it.",
        "Write the escape character twice to mean itself.",
        Example::Statement("SELECT a LIKE 'x!' ESCAPE '!' AS x FROM 't'"),
    );
    NESTED_SOURCE = error(
        "R0215",
        "a nested SELECT over a scalar",
        "FROM of a nested SELECT names an array or an object.",
        "Name a field, a path, a variable, or a call that gives one.",
        Example::Statement("SELECT (SELECT a FROM 1) AS x FROM 't'"),
    );
    UNCLOSED = error(
        "R0301",
        "`${` without its end",
        "The expression of a template is not closed by `}`.",
        "Close it. A literal `${` is written `$${`.",
        Example::Template(TemplateKind::PlainText, "t=${t"),
    );
    EMPTY_EXPRESSION = error(
        "R0302",
        "`${}` without an expression",
        "Nothing stands between the braces.",
        "Write an expression, or `$${}` for the text itself.",
        Example::Template(TemplateKind::PlainText, "t=${}"),
    );
    CONSTANT_TEMPLATE = error(
        "R0303",
        "a constant that does not fit its parameter",
        "The template holds no `${…}`, so what it renders to is known, and the parameter cannot take it.",
        "Correct the text.",
        Example::Template(TemplateKind::Topic, "alerts/#"),
    );
    TEMPLATE_BYTES = error(
        "R0304",
        "the template is too long",
        "The template has more bytes than the limit allows.",
        "Shorten it: build the text in SELECT and use `${output()}`.",
        Example::LimitedTemplate("t=${t}, ${topic()}", |limits| limits.template_bytes = 16, "with a limit of 16 bytes"),
    );
    OUTPUT = error(
        "R0305",
        "output() outside a template",
        "The output is what the SELECT makes; only the templates of actions come after it.",
        "Use SET for a value that is needed twice.",
        Example::Statement("SELECT output() AS x FROM 't'"),
    );
    PAYLOAD_PATH = warning(
        "R0900",
        "`payload.x` is a field of a field named payload",
        "Fields of the payload stand by themselves. EMQX writes `payload.x` for the field that is `x` here.",
        "Write the field without `payload.`; if a field is named payload, put that name into backticks.",
        Example::Statement("SELECT payload.t AS t FROM 't'"),
    );
    UNTRUSTED = warning(
        "R0901",
        "a condition on a field that looks like the publisher or the message",
        "A bare name is a field of the payload, which whoever writes the payload chooses. As a check of who publishes, \
         or on which topic, the condition can be met by anyone.",
        "Use the function that the hint names; if the field is meant, put its name into backticks.",
        Example::Statement("SELECT * FROM 't' WHERE clientid = 'dev-1'"),
    );
    FOREIGN_FORM = warning(
        "R0902",
        "written the way of EMQX",
        "In EMQX the name is a column of the message or an event of the broker; here it is a field of the payload.",
        "The hint has the way to write it here; if the field is meant, put its name into backticks.",
        Example::Template(TemplateKind::Topic, "alarms/${clientid}"),
    );
    ALIAS_IN_WHERE = warning(
        "R0903",
        "WHERE uses the name of an item of SELECT",
        "WHERE is evaluated before SELECT and sees the payload, not the names that SELECT gives.",
        "Use the field itself, or compute the value with SET before SELECT.",
        Example::Statement("SELECT temperature AS t FROM 'a' WHERE t > 30"),
    );
    ALIAS_IN_TEMPLATE = warning(
        "R0904",
        "a template uses the name of an item of SELECT",
        "A template sees the original message, not the names that SELECT gives.",
        "Use the field itself, a variable of SET, or `output().name`.",
        Example::Topic("alarms/${site}", "SELECT topic(2) AS site FROM 'a/+'", "of the rule `SELECT topic(2) AS site FROM 'a/+'`"),
    );
    CONSTANT_CONDITION = warning(
        "R0905",
        "a condition that is the same for every message",
        "The condition, or a part of it that AND or OR joins to the rest, reads nothing of the message.",
        "Leave it out, or name the field that it was to read.",
        Example::Statement("SELECT * FROM 't' WHERE a = 1 OR 1 = 1"),
    );
    QUOTED_NAME = warning(
        "R0906",
        "a String in double quotes compared with a constant",
        "Double quotes make a String. Where they make a name, this would read a field.",
        "Write the field without quotes, or in backticks.",
        Example::Statement("SELECT * FROM 't' WHERE \"temperature\" = '60'"),
    );
    RETURNS = warning(
        "R0907",
        "a republish may come back to its own rule",
        "The topic may be one that FROM selects. The rule does not run for messages that it had a part in making, so \
         nothing runs in circles, but the message is not handled again either.",
        "Republish to a topic that no filter of the rule matches.",
        Example::Topic("sensors/${topic(2)}/f", "SELECT * FROM 'sensors/#'", "of the rule `SELECT * FROM 'sensors/#'`"),
    );
    USELESS_ARGUMENT = warning(
        "R0930",
        "an argument that the function never takes",
        "The argument is of a wrong type for every message, so the call is always Undefined.",
        "Convert the argument with cast, or use another function.",
        Example::Statement("SELECT abs('x') AS x FROM 't'"),
    );
    USELESS_OPERAND = warning(
        "R0931",
        "an operand that the operator never takes",
        "The operand is of a wrong type for every message: the operator is always Undefined, or goes by its other \
         operands alone.",
        "Convert the operand with cast. Strings are compared by `=`, `IN` and `LIKE`; they have no order.",
        Example::Statement("SELECT a FROM 't' WHERE level > 'high'"),
    );
    INVALID_PATTERN = warning(
        "R0932",
        "an invalid pattern",
        "The regular expression is malformed, so the call is always Undefined.",
        "Correct the pattern; a literal bracket, dot or star is written with a backslash before it.",
        Example::Statement("SELECT regexp_matches(a, '[0-9') AS x FROM 't'"),
    );
    UNKNOWN_NAME = warning(
        "R0933",
        "a name that the function does not know",
        "The argument is one of a few names, or a time zone, and a constant stands here that is none of them: the call is \
         always Undefined, as AWS IoT has it.",
        "The hint has the nearest name, or all of them.",
        Example::Statement("SELECT get_mqtt_property('content-type') AS x FROM 't'"),
    );
}

#[cfg(test)]
mod tests {
    use super::{ALL, Severity};

    #[test]
    fn codes_are_unique_ordered_and_of_their_severity() {
        for pair in ALL.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} before {}", pair[0].code, pair[1].code);
        }
        for code in ALL {
            let digits = code.code.strip_prefix('R').unwrap();
            assert!(digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{}", code.code);
            assert_eq!(code.severity == Severity::Warning, digits >= "0900", "{}", code.code);
        }
    }

    #[test]
    fn each_example_yields_its_code_and_no_other() {
        for code in ALL {
            let yielded: Vec<&str> = match code.provoke() {
                Ok(warnings) => warnings.iter().map(|warning| warning.details().code).collect(),
                Err(error) => {
                    assert_eq!(code.severity, Severity::Error, "{}: {error}", code.code);
                    vec![error.code]
                }
            };
            assert_eq!(yielded, [code.code], "{}", code.text());
        }
    }

    #[test]
    fn each_code_says_what_it_means_and_what_to_do() {
        for code in ALL {
            assert!(!code.title.is_empty() && !code.title.ends_with('.'), "{}", code.code);
            assert!(code.meaning.ends_with('.') && code.remedy.ends_with('.'), "{}", code.code);
        }
    }
}
