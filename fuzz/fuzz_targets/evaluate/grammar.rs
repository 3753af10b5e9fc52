//! Well-formed statements, templates and payloads from bytes. When the bytes run out, everything ends at its first choice,
//! which is a small one.

use std::fmt::Write as _;

use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::functions::FUNCTIONS;

/// Operands and operators of one statement with its templates.
const NODES: usize = 80;

/// Nesting of expressions, and of JSON in a payload.
const DEPTH: usize = 8;

/// Nested SELECTs within one another; the crate's limit.
const QUERIES: usize = 4;

/// Fields of payloads, some with the names of keywords and functions.
const FIELDS: [&str; 12] =
    ["a", "b", "c", "d", "`my key`", "value", "timestamp", "end", "topic", "é", "_1", "`a``b`"];

/// Words that functions know, patterns, zones, numbers in words, and texts that are none of these.
const WORDS: [&str; 56] = [
    "",
    "a",
    "b",
    "true",
    "FALSE",
    "1",
    "-2.5",
    "1e3",
    "base64",
    "enrichArray",
    "second",
    "millisecond",
    "nanosecond",
    "notrim",
    "leading",
    "both",
    "trailing",
    "no_padding",
    "urlsafe",
    "content_type",
    "correlation_data",
    "yyyy-MM-dd HH:mm:ss.SSS z",
    "yyyy-MM-dd'T'HH:mm:ssXXX VV",
    "D EEEE MMMM zzzz Z ZZZ e K",
    "2024-03-31 02:30:00.123 CEST",
    "2024-03-31T02:30:00+02:00 Europe/Berlin",
    "2024-02-30T25:61:61Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:60-23:59",
    "Europe/Berlin",
    "America/Belize",
    "UTC+05:30",
    "+08:00",
    "Nowhere/Land",
    "(a|b)+",
    "^.*$",
    "[a-z",
    "(?i)é",
    "\\d{3}",
    "a{50}{50}",
    "$1",
    "${0}$$",
    "a%_",
    "!%",
    "{\"a\":[1,2,{\"b\":null}]}",
    "[1,2",
    "\"x\"",
    "eyJhIjoxfQ==",
    "!!",
    "é😀",
    "it's",
    "say \"hi\"",
    "a,b,,c",
    " \t x ",
    "a/b/c",
    "a/+/#",
];

const NUMBERS: [&str; 20] = [
    "0",
    "1",
    "2",
    "3",
    "10",
    "1.5",
    "0.1",
    "2.50",
    "10.0",
    "1e3",
    "1E-40",
    "9223372036854775807",
    "9223372036854775808",
    "1234567890123456789012345678901234567890",
    "9999999999999999999999999999999999e900",
    "1e-999",
    "1700000000123",
    "253402300799999",
    "1000",
    "64",
];

/// Writes text by the choices that bytes make.
pub(crate) struct Grammar<'u, 'b> {
    bytes: &'u mut Unstructured<'b>,
    nodes: usize,
    variables: usize,
    queries: usize,
    in_template: bool,
}

impl<'u, 'b> Grammar<'u, 'b> {
    pub(crate) fn new(bytes: &'u mut Unstructured<'b>) -> Self {
        Grammar { bytes, nodes: NODES, variables: 0, queries: 0, in_template: false }
    }

    /// Whether all bytes are used up, and with them what is worth trying.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn below(&mut self, bound: usize) -> Result<usize> {
        self.bytes.int_in_range(0..=bound - 1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Result<T> {
        self.bytes.choose(from).copied()
    }

    /// One time in `n`.
    fn rarely(&mut self, n: usize) -> Result<bool> {
        Ok(self.below(n)? == n - 1)
    }

    // ---- payloads ----

    /// Mostly a JSON object with the fields that statements name.
    pub(crate) fn payload(&mut self) -> Result<Vec<u8>> {
        if self.rarely(16)? {
            let length = self.below(24)?;
            return Ok(self.bytes.bytes(length.min(self.bytes.len()))?.to_vec());
        }
        let mut out = String::new();
        if self.rarely(16)? {
            self.json(0, &mut out)?;
        } else {
            self.json_object(0, &mut out)?;
        }
        Ok(out.into_bytes())
    }

    fn json(&mut self, depth: usize, out: &mut String) -> Result<()> {
        let kinds = if depth < DEPTH { 8 } else { 6 };
        match self.below(kinds)? {
            0 => out.push_str(self.pick(&NUMBERS)?),
            1 => out.push_str("null"),
            2 => out.push_str(self.pick(&["true", "false"])?),
            3 => json_string(self.pick(&WORDS)?, out),
            4 => write_infallibly(out, format_args!("{}", self.bytes.arbitrary::<i64>()?)),
            5 => {
                let number = self.bytes.arbitrary::<f64>()?;
                if number.is_finite() {
                    write_infallibly(out, format_args!("{number:e}"));
                } else {
                    out.push_str("1e9999");
                }
            }
            6 => {
                out.push('[');
                for place in 0..self.below(5)? {
                    out.push_str(if place > 0 { ", " } else { "" });
                    self.json(depth + 1, out)?;
                }
                out.push(']');
            }
            _ => self.json_object(depth + 1, out)?,
        }
        Ok(())
    }

    fn json_object(&mut self, depth: usize, out: &mut String) -> Result<()> {
        out.push('{');
        for place in 0..self.below(6)? {
            out.push_str(if place > 0 { "," } else { "" });
            let key = self.pick(&FIELDS)?.trim_matches('`').replace("``", "`");
            json_string(&key, out);
            out.push(':');
            self.json(depth, out)?;
        }
        out.push('}');
        Ok(())
    }

    // ---- statements ----

    pub(crate) fn statement(&mut self) -> Result<String> {
        let mut out = String::new();
        for place in 0..self.below(4)? {
            out.push_str(if place > 0 { ", " } else { "SET " });
            write_infallibly(&mut out, format_args!("@v{place} = "));
            self.expr(0, &mut out)?;
            self.variables += 1;
        }
        if self.variables > 0 {
            out.push(' ');
        }
        self.select(&mut out, 0)?;
        out.push_str(" FROM ");
        out.push_str(self.pick(&["'sensors/#'", "\"sensors/+/temp\"", "'a', 'sensors/#'", "'+/+/+'"])?);
        self.condition(&mut out, 0)?;
        if self.rarely(8)? {
            out.push_str(self.pick(&[" -- done", " /* done */", ""])?);
        }
        Ok(out)
    }

    fn select(&mut self, out: &mut String, depth: usize) -> Result<()> {
        out.push_str("SELECT ");
        match self.below(4)? {
            0 => {
                out.push_str("VALUE (");
                self.expr(depth, out)?;
                out.push(')');
            }
            1 => out.push('*'),
            _ => {
                for place in 0..=self.below(4)? {
                    out.push_str(if place > 0 { ", " } else { "" });
                    match self.below(5)? {
                        0 => out.push('*'),
                        1 => self.path(out)?,
                        _ => {
                            // In parentheses: `value` at the front would be a keyword.
                            out.push('(');
                            self.expr(depth, out)?;
                            out.push_str(") AS ");
                            out.push_str(
                                self.pick(&["a", "b", "x", "a.b", "a.b.c", "x.y", "`my key`", "value"])?,
                            );
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn condition(&mut self, out: &mut String, depth: usize) -> Result<()> {
        if self.rarely(2)? {
            out.push_str(" WHERE ");
            for place in 0..=self.below(2)? {
                out.push_str(if place > 0 { " AND " } else { "" });
                out.push('(');
                self.expr(depth, out)?;
                out.push(')');
            }
        }
        Ok(())
    }

    /// A name or a path of names, which implies its key.
    fn path(&mut self, out: &mut String) -> Result<()> {
        // `value` alone after SELECT is a keyword when a value follows it.
        out.push_str(self.pick(&["a", "b", "c", "d", "`my key`", "timestamp", "end", "topic"])?);
        for _ in 0..self.below(3)? {
            out.push('.');
            out.push_str(self.pick(&FIELDS)?);
        }
        Ok(())
    }

    fn expr(&mut self, depth: usize, out: &mut String) -> Result<()> {
        if depth >= DEPTH || self.nodes == 0 || self.bytes.is_empty() {
            return self.leaf(out);
        }
        self.nodes -= 1;
        let depth = depth + 1;
        match self.below(24)? {
            0..=2 => self.leaf(out)?,
            3..=5 => {
                self.operand(depth, out)?;
                for _ in 0..=self.below(3)? {
                    out.push_str(self.pick(&[" + ", " - ", " * ", " / ", " % ", " || ", " mod ", " div "])?);
                    self.operand(depth, out)?;
                }
            }
            6 | 7 => {
                self.operand(depth, out)?;
                out.push_str(self.pick(&[" = ", " <> ", " != ", " < ", " <= ", " > ", " >= ", " =~ "])?);
                self.operand(depth, out)?;
            }
            8 | 9 => {
                for place in 0..=self.below(3)? + 1 {
                    if place > 0 {
                        out.push_str(self.pick(&[" AND ", " OR "])?);
                    }
                    out.push_str(self.pick(&["", "", "NOT "])?);
                    self.operand(depth, out)?;
                }
            }
            10 => {
                out.push_str(self.pick(&["- ", "+ ", "NOT "])?);
                self.operand(depth, out)?;
            }
            11 => {
                self.operand(depth, out)?;
                out.push_str(self.pick(&[" IN ", " NOT IN "])?);
                self.list(depth, '(', ')', out)?;
            }
            12 => {
                self.operand(depth, out)?;
                out.push_str(self.pick(&[" IN ", " NOT IN "])?);
                if self.rarely(2)? { self.list(depth, '[', ']', out)? } else { self.field(out)? }
            }
            13 => {
                self.operand(depth, out)?;
                out.push_str(self.pick(&[" BETWEEN ", " NOT BETWEEN "])?);
                self.operand(depth, out)?;
                out.push_str(" AND ");
                self.operand(depth, out)?;
            }
            14 => {
                self.operand(depth, out)?;
                out.push_str(self.pick(&[" LIKE ", " NOT LIKE "])?);
                self.operand(depth, out)?;
                out.push_str(self.pick(&["", "", " ESCAPE '!'", " ESCAPE '_'"])?);
            }
            15 => {
                out.push_str("CASE");
                if self.rarely(2)? {
                    // In parentheses: a field named end would end it.
                    out.push_str(" (");
                    self.operand(depth, out)?;
                    out.push(')');
                }
                for _ in 0..=self.below(2)? {
                    out.push_str(" WHEN ");
                    self.operand(depth, out)?;
                    out.push_str(" THEN ");
                    self.operand(depth, out)?;
                }
                if self.rarely(2)? {
                    out.push_str(" ELSE ");
                    self.operand(depth, out)?;
                }
                out.push_str(" END");
            }
            16 => self.list(depth, '[', ']', out)?,
            17 => self.object(depth, out)?,
            18 => {
                out.push_str(self.pick(&["CAST(", "cast("])?);
                self.expr(depth, out)?;
                out.push_str(" AS ");
                out.push_str(self.pick(&[
                    "String", "INT", "Decimal", "bool", "Nvarchar", "Double", "Integer", "Boolean",
                ])?);
                out.push(')');
            }
            19 => {
                // In parentheses: nothing is a step of a number.
                out.push('(');
                self.operand(depth, out)?;
                out.push(')');
                for _ in 0..=self.below(2)? {
                    self.step(depth, out)?;
                }
            }
            20 | 21 if self.queries < QUERIES => self.query(depth, out)?,
            _ => self.call(depth, out)?,
        }
        Ok(())
    }

    /// In parentheses, so that comparisons don't chain; the printer decides which of them it needs.
    fn operand(&mut self, depth: usize, out: &mut String) -> Result<()> {
        if self.nodes == 0 || self.rarely(3)? {
            return self.leaf(out);
        }
        out.push('(');
        self.expr(depth, out)?;
        out.push(')');
        Ok(())
    }

    fn leaf(&mut self, out: &mut String) -> Result<()> {
        match self.below(9)? {
            0 => self.field(out)?,
            1 => out.push_str(self.pick(&NUMBERS)?),
            2 => {
                let word = self.pick(&WORDS)?;
                self.literal(word, out)?;
            }
            3 => out.push_str(self.pick(&["true", "false", "NULL"])?),
            4 => write_infallibly(out, format_args!("{}", self.bytes.arbitrary::<u32>()?)),
            5 if self.variables > 0 => {
                let place = self.below(self.variables)?;
                write_infallibly(out, format_args!("@v{place}"));
            }
            6 if self.in_template => out.push_str("output()"),
            7 => out.push_str(self.pick(&[
                "topic()",
                "timestamp()",
                "qos()",
                "newuuid()",
                "rand()",
                "payload()",
            ])?),
            _ => self.field(out)?,
        }
        Ok(())
    }

    fn field(&mut self, out: &mut String) -> Result<()> {
        out.push_str(self.pick(&FIELDS)?);
        for _ in 0..self.below(3)? {
            match self.below(3)? {
                0 => {
                    out.push('.');
                    out.push_str(self.pick(&FIELDS)?);
                }
                1 => out.push_str(self.pick(&["[0]", "[1]", "[-1]", "[9]"])?),
                _ => out.push_str(self.pick(&["['a']", "['my key']", "[\"\"]"])?),
            }
        }
        Ok(())
    }

    fn step(&mut self, depth: usize, out: &mut String) -> Result<()> {
        if self.rarely(2)? {
            out.push('.');
            out.push_str(self.pick(&FIELDS)?);
        } else {
            out.push('[');
            self.expr(depth, out)?;
            out.push(']');
        }
        Ok(())
    }

    fn list(&mut self, depth: usize, open: char, close: char, out: &mut String) -> Result<()> {
        out.push(open);
        // `IN ()` is no list.
        let least = usize::from(open == '(');
        for place in 0..self.below(4)? + least {
            out.push_str(if place > 0 { ", " } else { "" });
            self.expr(depth, out)?;
        }
        out.push(close);
        Ok(())
    }

    fn object(&mut self, depth: usize, out: &mut String) -> Result<()> {
        out.push('{');
        let members = self.below(4)?;
        for place in 0..members {
            out.push_str(if place > 0 { ", " } else { "" });
            let key = self.pick(&["a", "b", "my key", "", "é\"'"])?;
            self.literal(key, out)?;
            out.push_str(": ");
            if self.rarely(4)? { out.push('*') } else { self.expr(depth, out)? }
        }
        if members > 0 && self.rarely(4)? {
            out.push(',');
        }
        out.push('}');
        Ok(())
    }

    fn literal(&mut self, text: &str, out: &mut String) -> Result<()> {
        let quote = self.pick(&['\'', '"'])?;
        out.push(quote);
        for char in text.chars() {
            if char == quote {
                out.push(quote);
            }
            out.push(char);
        }
        out.push(quote);
        Ok(())
    }

    fn query(&mut self, depth: usize, out: &mut String) -> Result<()> {
        self.queries += 1;
        out.push_str(self.pick(&["(", "EXISTS ("])?);
        self.select(out, depth)?;
        out.push_str(" FROM ");
        match self.below(5)? {
            0 => self.list(depth, '[', ']', out)?,
            1 => self.object(depth, out)?,
            2 => self.call(depth, out)?,
            3 if self.variables > 0 => {
                let place = self.below(self.variables)?;
                write_infallibly(out, format_args!("@v{place}"));
            }
            _ => self.field(out)?,
        }
        out.push_str(self.pick(&["", " AS e", " AS a"])?);
        self.condition(out, depth)?;
        out.push(')');
        self.queries -= 1;
        Ok(())
    }

    fn call(&mut self, depth: usize, out: &mut String) -> Result<()> {
        let function = self.bytes.choose(&FUNCTIONS)?;
        let name = function.name;
        let count = self.bytes.int_in_range(function.least..=function.most)?;
        out.push_str(name);
        out.push('(');
        for place in 0..count {
            out.push_str(if place > 0 { ", " } else { "" });
            match (name, place) {
                // A literal scheme is judged when the statement is compiled.
                ("encode" | "decode", 1) => out.push_str("'base64'"),
                _ if function.stars.get(place) == Some(&true) && self.rarely(4)? => out.push('*'),
                // A function's own words more often than by chance.
                _ if self.rarely(3)? => {
                    let word = self.pick(&WORDS)?;
                    self.literal(word, out)?;
                }
                _ => self.expr(depth, out)?,
            }
        }
        out.push(')');
        Ok(())
    }

    // ---- templates ----

    /// A template with expressions that may use the statement's variables.
    pub(crate) fn template(&mut self) -> Result<String> {
        const TEXTS: [&str; 16] = [
            "",
            "a",
            "/",
            "{\"k\": ",
            "\"",
            "}",
            ", \"l\": [",
            "]",
            "$$",
            "$${",
            "$",
            "\\",
            "é",
            " ",
            "?q=",
            "\n",
        ];
        self.in_template = true;
        self.nodes = self.nodes.max(NODES / 4);
        let mut out = String::new();
        let text = |grammar: &mut Self, out: &mut String| -> Result<()> {
            let text = grammar.pick(&TEXTS)?;
            // Nor may two texts make a `${` of their ends.
            if !(out.ends_with('$') && text.starts_with('{')) {
                out.push_str(text);
            }
            Ok(())
        };
        for _ in 0..=self.below(3)? {
            text(self, &mut out)?;
            // A dollar sign before `${` would make it text, and the expression with it.
            if !out.ends_with('$') {
                out.push_str("${");
                self.expr(DEPTH / 2, &mut out)?;
                out.push('}');
            }
            text(self, &mut out)?;
        }
        self.in_template = false;
        Ok(out)
    }
}

fn json_string(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            char if char < ' ' => write_infallibly(out, format_args!("\\u{:04x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out.push('"');
}

fn write_infallibly(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a String takes any text");
}
