//! What stands between operators: literals, paths, calls, CASE, CAST, arrays, objects and parentheses.

use sqlparser::ast::Expr as Placeholder;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::super::ast::{Expr, ExprKind, Name, Span, Step};
use super::{NOT, Parsed, Rules, SIGN, is_word, range};
use crate::codes;
use crate::error::Fault;

/// Words that are never a field where an operand is due.
const NEVER_OPERANDS: [&str; 7] = ["FROM", "WHERE", "AND", "OR", "AS", "IN", "SELECT"];

/// Words that are a field where an operand is due, unless an operand follows: then one is missing before them.
const SELDOM_OPERANDS: [&str; 6] = ["LIKE", "BETWEEN", "IS", "WHEN", "THEN", "ELSE"];

impl Rules {
    /// Goes one level deeper: operands and operators both nest, and both use up stack.
    pub(super) fn deeper<T>(
        &self,
        parser: &mut Parser<'_>,
        parse: impl FnOnce(&mut Parser<'_>) -> Parsed<T>,
    ) -> Parsed<T> {
        if self.depth.get() >= self.depth_limit {
            return Err(self.stop_with(self.too_deep(self.place(parser))));
        }
        self.depth.set(self.depth.get() + 1);
        let result = parse(parser);
        self.depth.set(self.depth.get() - 1);
        result
    }

    pub(super) fn guarded(&self, parser: &mut Parser<'_>) -> Parsed<Placeholder> {
        let (expr, closed) = self.deeper(parser, |parser| self.operand(parser))?;
        Ok(self.keep(expr, closed))
    }

    fn operand(&self, parser: &mut Parser<'_>) -> Parsed<(Expr, bool)> {
        let token = parser.peek_token_ref();
        let span = range(token.span);
        let open = |kind| Ok((Expr { kind, span }, false));
        let root = match &token.token {
            Token::Number(text, long) => {
                let valid = !long && !text.starts_with('.') && !text.ends_with('.');
                let text = number_text(text);
                if !valid || text.is_empty() {
                    let mut fault = Fault::new(codes::NUMBER, span, "malformed number");
                    fault.hint = Some("a number has digits on both sides of its point".to_owned());
                    return Err(self.stop_with(fault));
                }
                parser.next_token();
                return open(ExprKind::Number(text));
            }
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => {
                let kind = ExprKind::String(text.clone());
                parser.next_token();
                (Expr { kind, span }, false)
            }
            Token::LParen => {
                parser.next_token();
                if is_word(parser, 0, "SELECT") {
                    let (query, end) = self.nested(parser)?;
                    (Expr { kind: ExprKind::Subquery(Box::new(query)), span: span.to(end) }, true)
                } else {
                    let inner = self.expression(parser)?;
                    let end =
                        self.take_token(parser, &Token::RParen, "an operator or a closing parenthesis")?;
                    (Expr { kind: inner.kind, span: span.to(end) }, true)
                }
            }
            Token::LBracket => {
                parser.next_token();
                let (items, end) = self.list(parser, &Token::RBracket, "a comma or ]")?;
                (Expr { kind: ExprKind::Array(items), span: span.to(end) }, false)
            }
            Token::LBrace => {
                parser.next_token();
                let (members, end) = self.members(parser)?;
                (Expr { kind: ExprKind::Object(members), span: span.to(end) }, false)
            }
            Token::Minus => {
                parser.next_token();
                let value = self.subexpression(parser, SIGN)?;
                let span = span.to(value.span);
                return Ok((Expr { kind: ExprKind::Negate(Box::new(value)), span }, false));
            }
            Token::Plus => {
                parser.next_token();
                let value = self.subexpression(parser, SIGN)?;
                let span = span.to(value.span);
                return Ok((Expr { kind: ExprKind::Plus(Box::new(value)), span }, false));
            }
            Token::Mul => {
                let mut fault = Fault::new(codes::STAR, span, "* is not allowed here");
                fault.hint = Some("it stands alone as an item, argument or member".to_owned());
                return Err(self.stop_with(fault));
            }
            Token::Word(_) => return self.word(parser),
            _ => return Err(self.unexpected(parser, "an expression")),
        };
        self.steps(parser, root)
    }

    /// An operand that begins with a word.
    fn word(&self, parser: &mut Parser<'_>) -> Parsed<(Expr, bool)> {
        let token = parser.next_token();
        let span = range(token.span);
        let Token::Word(word) = token.token else { return Err(self.unexpected(parser, "a word")) };
        let called = parser.peek_token_ref().token == Token::LParen;
        let upper = if word.quote_style.is_some() { String::new() } else { word.value.to_ascii_uppercase() };
        let kind = match upper.as_str() {
            "" => ExprKind::Name(word.value),
            "NOT" => {
                let value = self.subexpression(parser, NOT)?;
                let span = span.to(value.span);
                return Ok((Expr { kind: ExprKind::Not(Box::new(value)), span }, false));
            }
            "CASE" if is_word(parser, 0, "WHEN") || self.begins_case(parser) => {
                let case = self.case(parser, span)?;
                return self.steps(parser, (case, false));
            }
            "CAST" if called => {
                let cast = self.cast(parser, span)?;
                return self.steps(parser, (cast, false));
            }
            "EXISTS" if called && is_word(parser, 1, "SELECT") => {
                parser.next_token();
                let (query, end) = self.nested(parser)?;
                let kind = ExprKind::Exists(Box::new(query));
                return Ok((Expr { kind, span: span.to(end) }, false));
            }
            reserved
                if NEVER_OPERANDS.contains(&reserved)
                    || (SELDOM_OPERANDS.contains(&reserved) && self.begins_operand(parser, 0)) =>
            {
                let goes_on = self.begins_operand(parser, 0);
                parser.prev_token();
                let fault = match reserved {
                    "SELECT" => Fault::new(codes::UNEXPECTED, span, "a nested SELECT needs parentheses")
                        .with_hint("write (SELECT …)"),
                    _ => {
                        let found = word.value;
                        let message = format!("expected an expression, found {found}");
                        let mut fault = Fault::new(codes::UNEXPECTED, span, message);
                        fault.hint = (!goes_on).then(|| format!("a field of that name is written `{found}`"));
                        fault
                    }
                };
                return Err(self.stop_with(fault));
            }
            _ if called => {
                parser.next_token();
                let (args, end) = self.list(parser, &Token::RParen, "a comma or a closing parenthesis")?;
                let name = Name { text: word.value, span };
                let call = Expr { kind: ExprKind::Call { name, args }, span: span.to(end) };
                return self.steps(parser, (call, false));
            }
            "TRUE" => return Ok((Expr { kind: ExprKind::Bool(true), span }, false)),
            "FALSE" => return Ok((Expr { kind: ExprKind::Bool(false), span }, false)),
            "NULL" => return Ok((Expr { kind: ExprKind::Null, span }, false)),
            variable if variable.starts_with('@') => ExprKind::Variable(word.value),
            _ => ExprKind::Name(word.value),
        };
        self.steps(parser, (Expr { kind, span }, false))
    }

    /// `.name` and `[index]` after an operand.
    fn steps(&self, parser: &mut Parser<'_>, (root, closed): (Expr, bool)) -> Parsed<(Expr, bool)> {
        let mut steps = Vec::new();
        let mut span = root.span;
        loop {
            if self.skip(parser, &Token::Period) {
                let name = match &parser.peek_token_ref().token {
                    Token::SingleQuotedString(text) => {
                        let text = text.clone();
                        Name { text, span: range(parser.next_token().span) }
                    }
                    _ => self.name(parser, "a field name")?,
                };
                if parser.peek_token_ref().token == Token::LParen {
                    let message = format!("calls into modules are not supported: .{}(", name.text);
                    return Err(self.stop(codes::OPERATOR, name.span, message));
                }
                span = span.to(name.span);
                steps.push(Step::Member(name));
            } else if self.skip(parser, &Token::LBracket) {
                let index = self.expression(parser)?;
                if parser.peek_token_ref().token == Token::Colon {
                    return Err(self.stop(codes::OPERATOR, self.place(parser), "slices are not supported"));
                }
                span = span.to(self.take_token(parser, &Token::RBracket, "]")?);
                steps.push(match index.kind {
                    ExprKind::String(text) => Step::Member(Name { text, span: index.span }),
                    _ => Step::Element(index),
                });
            } else if steps.is_empty() {
                return Ok((root, closed));
            } else {
                let kind = match root.kind {
                    // One path, however it was put into parentheses.
                    ExprKind::Path { root, steps: mut first } => {
                        first.append(&mut steps);
                        ExprKind::Path { root, steps: first }
                    }
                    _ => ExprKind::Path { root: Box::new(root), steps },
                };
                return Ok((Expr { kind, span }, false));
            }
        }
    }

    /// Expressions up to `close`; `*` may stand for one.
    pub(super) fn list(
        &self,
        parser: &mut Parser<'_>,
        close: &Token,
        wanted: &str,
    ) -> Parsed<(Vec<Expr>, Span)> {
        let mut items = Vec::new();
        if parser.peek_token_ref().token == *close {
            return Ok((items, range(parser.next_token().span)));
        }
        loop {
            items.push(self.argument(parser)?);
            if !self.skip(parser, &Token::Comma) {
                return Ok((items, self.take_token(parser, close, wanted)?));
            }
        }
    }

    fn argument(&self, parser: &mut Parser<'_>) -> Parsed<Expr> {
        if parser.peek_token_ref().token == Token::Mul {
            let span = range(parser.next_token().span);
            return Ok(Expr { kind: ExprKind::Star, span });
        }
        if is_word(parser, 0, "SELECT") {
            // An argument may be a query without parentheses of its own.
            let at = self.place(parser);
            return Err(self.stop(codes::UNEXPECTED, at, "a nested SELECT needs parentheses of its own"));
        }
        self.expression(parser)
    }

    /// Members up to `}`; a comma may stand before it.
    fn members(&self, parser: &mut Parser<'_>) -> Parsed<(Vec<(String, Expr)>, Span)> {
        let mut members = Vec::new();
        loop {
            let key = match &parser.peek_token_ref().token {
                Token::RBrace => return Ok((members, range(parser.next_token().span))),
                Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => text.clone(),
                _ => return Err(self.unexpected(parser, "a key in quotes")),
            };
            parser.next_token();
            self.take_token(parser, &Token::Colon, ": after the key")?;
            members.push((key, self.argument(parser)?));
            if !self.skip(parser, &Token::Comma) {
                return Ok((members, self.take_token(parser, &Token::RBrace, "a comma or }")?));
            }
        }
    }

    /// After CASE: an operand, or was it a field of that name?
    fn begins_case(&self, parser: &Parser<'_>) -> bool {
        matches!(parser.peek_token_ref().token, Token::Minus | Token::LBracket)
            || self.begins_operand(parser, 0)
    }

    fn case(&self, parser: &mut Parser<'_>, start: Span) -> Parsed<Expr> {
        let subject =
            if is_word(parser, 0, "WHEN") { None } else { Some(Box::new(self.expression(parser)?)) };
        let mut branches = Vec::new();
        while is_word(parser, 0, "WHEN") {
            parser.next_token();
            let when = self.expression(parser)?;
            self.take_word(parser, "THEN")?;
            branches.push((when, self.expression(parser)?));
        }
        if branches.is_empty() {
            return Err(self.unexpected(parser, "WHEN"));
        }
        let otherwise = if is_word(parser, 0, "ELSE") {
            parser.next_token();
            Some(Box::new(self.expression(parser)?))
        } else {
            None
        };
        if !is_word(parser, 0, "END") {
            return Err(self.unexpected(parser, "WHEN, ELSE or END"));
        }
        let end = range(parser.next_token().span);
        Ok(Expr { kind: ExprKind::Case { subject, branches, otherwise }, span: start.to(end) })
    }

    fn cast(&self, parser: &mut Parser<'_>, start: Span) -> Parsed<Expr> {
        parser.next_token();
        let value = Box::new(self.expression(parser)?);
        self.take_word(parser, "AS")?;
        let target = self.name(parser, "a type")?;
        let end = self.take_token(parser, &Token::RParen, "a closing parenthesis")?;
        Ok(Expr { kind: ExprKind::Cast { value, target }, span: start.to(end) })
    }
}

/// Number text as JSON has it: no leading zeros. Empty when it is no such number.
fn number_text(text: &str) -> String {
    let whole = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(whole).unwrap_or((text, ""));
    if digits.is_empty() || rest.starts_with(".e") || rest.starts_with(".E") {
        return String::new();
    }
    let significant = digits.trim_start_matches('0');
    format!("{}{rest}", if significant.is_empty() { "0" } else { significant })
}
