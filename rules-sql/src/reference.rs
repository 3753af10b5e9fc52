//! What the library knows about itself, as plain data: the codes of its faults and the functions.
//!
//! The pages of the manual are made from it, and whatever helps someone write a rule can be. It reads the tables that
//! the checker uses, so it cannot say anything else than the checker does.

use crate::codes;
use crate::functions;
use crate::functions::Need;

pub use crate::codes::Severity;
pub use crate::functions::Origin;

/// One code of errors or warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Code {
    /// `R` and four digits; stable.
    pub code: &'static str,
    /// Whether the text is refused.
    pub severity: Severity,
    /// A few words.
    pub title: &'static str,
    /// What is wrong, in a sentence or two.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// A statement or template with this fault.
    pub example: &'static str,
    /// What differs from the defaults in the example: a lowered limit, another dialect.
    pub condition: Option<&'static str>,
    /// The example's fault as it is shown on a terminal.
    pub rendered: String,
}

/// Every code, in order.
#[must_use]
pub fn codes() -> Vec<Code> {
    codes::ALL
        .iter()
        .map(|code| Code {
            code: code.code,
            severity: code.severity,
            title: code.title,
            meaning: code.meaning,
            remedy: code.remedy,
            example: code.text(),
            condition: code.condition(),
            rendered: match code.provoke() {
                Ok(warnings) => warnings.iter().map(|warning| warning.render(code.text())).collect(),
                Err(error) => error.render(code.text()),
            },
        })
        .collect()
}

/// A word of the language that isn't a name, and a statement with it in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keyword {
    /// In capitals; it is found in any case.
    pub word: &'static str,
    /// A statement that compiles.
    pub example: &'static str,
}

/// Every word that a rule can be written with, by name.
#[must_use]
pub fn keywords() -> Vec<Keyword> {
    [
        ("AND", "SELECT * FROM 'a' WHERE t > 1 AND t < 9"),
        ("AS", "SELECT t AS temperature FROM 'a'"),
        ("BETWEEN", "SELECT * FROM 'a' WHERE t BETWEEN 1 AND 9"),
        ("CASE", "SELECT CASE t WHEN 1 THEN 'one' ELSE 'more' END AS word FROM 'a'"),
        ("CAST", "SELECT CAST(t AS STRING) AS text FROM 'a'"),
        ("DIV", "SELECT t div 2 AS half FROM 'a'"),
        ("ELSE", "SELECT CASE t WHEN 1 THEN 'one' ELSE 'more' END AS word FROM 'a'"),
        ("END", "SELECT CASE t WHEN 1 THEN 'one' ELSE 'more' END AS word FROM 'a'"),
        ("ESCAPE", "SELECT * FROM 'a' WHERE name LIKE '100!%' ESCAPE '!'"),
        ("EXISTS", "SELECT * FROM 'a' WHERE EXISTS (SELECT * FROM readings WHERE t > 1)"),
        ("FALSE", "SELECT * FROM 'a' WHERE on = false"),
        ("FROM", "SELECT * FROM 'a'"),
        ("IN", "SELECT * FROM 'a' WHERE t IN (1, 2)"),
        ("LIKE", "SELECT * FROM 'a' WHERE name LIKE 'pump-%'"),
        ("MOD", "SELECT t mod 2 AS rest FROM 'a'"),
        ("NOT", "SELECT * FROM 'a' WHERE NOT t > 1"),
        ("NULL", "SELECT * FROM 'a' WHERE t = null"),
        ("OR", "SELECT * FROM 'a' WHERE t < 1 OR t > 9"),
        ("SELECT", "SELECT * FROM 'a'"),
        ("SET", "SET @limit = 9 SELECT * FROM 'a' WHERE t > @limit"),
        ("THEN", "SELECT CASE t WHEN 1 THEN 'one' ELSE 'more' END AS word FROM 'a'"),
        ("TRUE", "SELECT * FROM 'a' WHERE on = true"),
        ("VALUE", "SELECT VALUE t FROM 'a'"),
        ("WHEN", "SELECT CASE t WHEN 1 THEN 'one' ELSE 'more' END AS word FROM 'a'"),
        ("WHERE", "SELECT * FROM 'a' WHERE t > 1"),
    ]
    .into_iter()
    .map(|(word, example)| Keyword { word, example })
    .collect()
}

/// Functions that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// A few words.
    pub title: &'static str,
    /// What holds for all of them.
    pub intro: &'static str,
    /// By name.
    pub functions: Vec<Function>,
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Function {
    /// The name; it is found in any case.
    pub name: &'static str,
    /// Other names of the same function.
    pub aliases: &'static [&'static str],
    /// How it is called.
    pub signature: String,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// The type of its result, which may also be Undefined.
    pub result: &'static str,
    /// What an argument of another type gives; `None` when every argument takes every type.
    pub bad_types: Option<&'static str>,
    /// What else is to be said; may be empty.
    pub note: &'static str,
    /// At least one.
    pub examples: Vec<Example>,
    /// Where it comes from.
    pub origin: Origin,
}

/// One parameter of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameter {
    /// The name, for the signature.
    pub name: &'static str,
    /// What it takes, as the object of a sentence.
    pub takes: String,
    /// Whether it may be left out.
    pub optional: bool,
    /// Whether it may be given any number of times.
    pub repeated: bool,
    /// Whether `*`, the bytes of the payload, may stand for it.
    pub star: bool,
}

/// An expression and what it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Example {
    /// The expression.
    pub expression: &'static str,
    /// The result as JSON text; `None` for Undefined.
    pub result: Option<&'static str>,
}

/// Every function, in groups.
#[must_use]
pub fn functions() -> Vec<Group> {
    functions::groups()
        .iter()
        .map(|group| Group {
            title: group.title,
            intro: group.intro,
            functions: group.functions.iter().map(function).collect(),
        })
        .collect()
}

fn function(function: &functions::Function) -> Function {
    Function {
        name: function.name,
        aliases: function.aliases,
        signature: function.usage(function.name),
        parameters: function
            .params
            .iter()
            .map(|param| Parameter {
                name: param.name,
                takes: param.takes.words(),
                optional: param.need != Need::Once,
                repeated: param.need == Need::Repeated,
                star: param.star,
            })
            .collect(),
        result: function.gives.word(),
        bad_types: function.bad_types(),
        note: function.note,
        examples: function
            .examples
            .iter()
            .map(|(expression, result)| Example {
                expression,
                result: Some(*result).filter(|result| *result != "undefined"),
            })
            .collect(),
        origin: function.origin,
    }
}
