//! The tree back to SQL that parses to an equal tree: one line, canonical keywords, parentheses where strength needs them.

use std::fmt::Write as _;

use super::ast::{Among, Collection, Expr, ExprKind, Item, Name, Select, Statement, Step};

/// Strengths, weak to strong; as in the driver.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const COMPARE: u8 = 4;
const SUM: u8 = 5;
const PRODUCT: u8 = 6;
const SIGN: u8 = 7;
const PRIMARY: u8 = 8;

/// Words that a name in backticks is not mistaken for.
const PLAIN_REFUSED: [&str; 18] = [
    "select", "from", "where", "as", "and", "or", "not", "in", "like", "between", "is", "case", "when",
    "then", "else", "null", "true", "false",
];

/// Prints a statement.
pub(crate) fn print(statement: &Statement) -> String {
    let mut out = String::new();
    for (position, variable) in statement.variables.iter().enumerate() {
        out.push_str(if position == 0 { "SET " } else { ", " });
        let _infallible = write!(out, "{} = ", variable.name.text);
        expr(&variable.value, OR, &mut out);
    }
    if !statement.variables.is_empty() {
        out.push(' ');
    }
    select(&statement.select, &mut out, |filters, out| {
        for (position, filter) in filters.iter().enumerate() {
            if position > 0 {
                out.push_str(", ");
            }
            string(&filter.text, out);
        }
    });
    out
}

fn select<S>(select: &Select<S>, out: &mut String, source: impl Fn(&S, &mut String)) {
    out.push_str(if select.value { "SELECT VALUE " } else { "SELECT " });
    for (position, item) in select.items.iter().enumerate() {
        if position > 0 {
            out.push_str(", ");
        }
        match item {
            Item::Star(_) => out.push('*'),
            Item::Expr { value, alias } => {
                // A sign or a bracket right after VALUE would be read as part of a field named so.
                let open = select.value && !matches!(value.kind, ExprKind::Star);
                expr(value, if open { PRIMARY + 1 } else { OR }, out);
                for (position, name) in alias.iter().enumerate() {
                    out.push_str(if position == 0 { " AS " } else { "." });
                    self::name(&name.text, out);
                }
            }
        }
    }
    out.push_str(" FROM ");
    source(&select.source, out);
    if let Some(condition) = &select.condition {
        out.push_str(" WHERE ");
        expr(condition, OR, out);
    }
}

fn nested(query: &Select<Collection>, out: &mut String) {
    out.push('(');
    select(query, out, |collection, out| {
        expr(&collection.value, PRIMARY, out);
        if let Some(alias) = &collection.alias {
            out.push_str(" AS ");
            name(&alias.text, out);
        }
    });
    out.push(')');
}

fn list<'e>(items: impl IntoIterator<Item = &'e Expr>, out: &mut String) {
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            out.push_str(", ");
        }
        expr(item, OR, out);
    }
}

fn string(text: &str, out: &mut String) {
    out.push('\'');
    out.push_str(&text.replace('\'', "''"));
    out.push('\'');
}

fn name(text: &str, out: &mut String) {
    let plain = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !PLAIN_REFUSED.iter().any(|word| word.eq_ignore_ascii_case(text))
        && !text.eq_ignore_ascii_case("value")
        && !text.eq_ignore_ascii_case("distinct");
    if plain {
        out.push_str(text);
    } else {
        let _infallible = write!(out, "`{}`", text.replace('`', "``"));
    }
}

fn strength(kind: &ExprKind) -> u8 {
    match kind {
        ExprKind::Or(_) => OR,
        ExprKind::And(_) => AND,
        ExprKind::Not(_) => NOT,
        ExprKind::Compare { .. } | ExprKind::In { .. } | ExprKind::Between { .. } | ExprKind::Like { .. } => {
            COMPARE
        }
        ExprKind::Arithmetic { rest, .. } => {
            if rest.last().is_some_and(|(op, _)| op.is_product()) {
                PRODUCT
            } else {
                SUM
            }
        }
        ExprKind::Negate(_) | ExprKind::Plus(_) => SIGN,
        _ => PRIMARY,
    }
}

/// Prints, in parentheses when the expression binds weaker than `least`.
fn expr(e: &Expr, least: u8, out: &mut String) {
    if strength(&e.kind) < least {
        out.push('(');
        bare(&e.kind, out);
        out.push(')');
    } else {
        bare(&e.kind, out);
    }
}

fn operands(items: &[Expr], word: &str, least: u8, out: &mut String) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.push_str(word);
        }
        expr(item, least, out);
    }
}

fn bare(kind: &ExprKind, out: &mut String) {
    match kind {
        ExprKind::Null => out.push_str("NULL"),
        ExprKind::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        ExprKind::Number(text) | ExprKind::Variable(text) => out.push_str(text),
        ExprKind::String(text) => string(text, out),
        ExprKind::Name(text) => name(text, out),
        ExprKind::Star => out.push('*'),
        ExprKind::Array(items) => {
            out.push('[');
            list(items, out);
            out.push(']');
        }
        ExprKind::Object(members) => {
            out.push('{');
            for (position, (key, value)) in members.iter().enumerate() {
                if position > 0 {
                    out.push_str(", ");
                }
                string(key, out);
                out.push_str(": ");
                expr(value, OR, out);
            }
            out.push('}');
        }
        ExprKind::Call { name, args } => {
            out.push_str(&name.text);
            out.push('(');
            list(args, out);
            out.push(')');
        }
        ExprKind::Cast { value, target } => {
            out.push_str("CAST(");
            expr(value, OR, out);
            let _infallible = write!(out, " AS {})", target.text);
        }
        ExprKind::Case { subject, branches, otherwise } => {
            out.push_str("CASE ");
            if let Some(subject) = subject {
                expr(subject, PRIMARY + 1, out);
                out.push(' ');
            }
            for (when, then) in branches {
                out.push_str("WHEN ");
                expr(when, OR, out);
                out.push_str(" THEN ");
                expr(then, OR, out);
                out.push(' ');
            }
            if let Some(otherwise) = otherwise {
                out.push_str("ELSE ");
                expr(otherwise, OR, out);
                out.push(' ');
            }
            out.push_str("END");
        }
        ExprKind::Path { root, steps } => {
            // A step after a literal word or a number would not be read as one.
            let open = matches!(
                root.kind,
                ExprKind::Path { .. }
                    | ExprKind::Null
                    | ExprKind::Bool(_)
                    | ExprKind::Number(_)
                    | ExprKind::Exists(_)
            );
            expr(root, if open { PRIMARY + 1 } else { PRIMARY }, out);
            for step in steps {
                match step {
                    Step::Member(Name { text, .. }) => {
                        out.push('.');
                        name(text, out);
                    }
                    Step::Element(index) => {
                        out.push('[');
                        expr(index, OR, out);
                        out.push(']');
                    }
                }
            }
        }
        // A space keeps two signs from becoming a comment.
        ExprKind::Negate(value) => {
            out.push_str("- ");
            expr(value, SIGN, out);
        }
        ExprKind::Plus(value) => {
            out.push_str("+ ");
            expr(value, SIGN, out);
        }
        ExprKind::Not(value) => {
            out.push_str("NOT ");
            expr(value, NOT, out);
        }
        ExprKind::And(items) => operands(items, " AND ", NOT, out),
        ExprKind::Or(items) => operands(items, " OR ", AND, out),
        ExprKind::Compare { op, left, right } => {
            expr(left, SUM, out);
            let _infallible = write!(out, " {} ", op.text());
            expr(right, SUM, out);
        }
        ExprKind::Arithmetic { first, rest } => arithmetic(first, rest, out),
        ExprKind::In { value, among, negated } => {
            expr(value, SUM, out);
            out.push_str(if *negated { " NOT IN " } else { " IN " });
            match among {
                Among::List(items) => {
                    out.push('(');
                    list(items, out);
                    out.push(')');
                }
                Among::Value(array) => expr(array, SUM, out),
            }
        }
        ExprKind::Between { value, low, high, negated } => {
            expr(value, SUM, out);
            out.push_str(if *negated { " NOT BETWEEN " } else { " BETWEEN " });
            expr(low, SUM, out);
            out.push_str(" AND ");
            expr(high, SUM, out);
        }
        ExprKind::Like { value, pattern, escape, negated } => {
            expr(value, SUM, out);
            out.push_str(if *negated { " NOT LIKE " } else { " LIKE " });
            expr(pattern, SUM, out);
            if let Some(escape) = escape {
                out.push_str(" ESCAPE ");
                string(&escape.to_string(), out);
            }
        }
        ExprKind::Exists(query) => {
            out.push_str("EXISTS ");
            nested(query, out);
        }
        ExprKind::Subquery(query) => nested(query, out),
    }
}

/// A chain runs left to right; a first operand that is a chain of its own was in parentheses, or it would be part of this one.
fn arithmetic(first: &Expr, rest: &[(super::ast::ArithmeticOp, Expr)], out: &mut String) {
    expr(first, SIGN, out);
    for (op, operand) in rest {
        let _infallible = write!(out, " {} ", op.text());
        expr(operand, if op.is_product() { SIGN } else { PRODUCT }, out);
    }
}
