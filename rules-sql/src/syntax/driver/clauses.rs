//! SET, SELECT, FROM and WHERE: everything around the expressions, nested SELECTs included.

use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::super::ast::{Collection, Item, Name, Select, Span, Statement, Variable};
use super::{OTHER_CLAUSES, Parsed, Rules, SIGN, is_any_word, is_word, other_clause, range};
use crate::codes;
use crate::error::Fault;

/// Words that follow an operand, never begin one.
const AFTER_OPERANDS: [&str; 16] = [
    "FROM", "WHERE", "AND", "OR", "AS", "IN", "LIKE", "BETWEEN", "IS", "WHEN", "THEN", "ELSE", "END", "MOD",
    "DIV", "ESCAPE",
];

impl Rules {
    pub(super) fn statement(&self, parser: &mut Parser<'_>) -> Parsed<Statement> {
        let variables = if is_word(parser, 0, "SET") { self.variables(parser)? } else { Vec::new() };
        if is_any_word(parser, 0, &["FOREACH"]) {
            return Err(self.stop(
                codes::CLAUSE,
                self.place(parser),
                "FOREACH is not supported in dialect aws",
            ));
        }
        let select = self.select(parser, Self::filters)?;
        self.skip(parser, &Token::SemiColon);
        self.end(parser, "WHERE or the end of the statement")?;
        Ok(Statement { variables, select })
    }

    fn variables(&self, parser: &mut Parser<'_>) -> Parsed<Vec<Variable>> {
        self.take_word(parser, "SET")?;
        let mut variables = Vec::new();
        loop {
            let name = match &parser.peek_token_ref().token {
                Token::Word(word) if word.quote_style.is_none() && word.value.starts_with('@') => {
                    word.value.clone()
                }
                Token::Word(word) => {
                    let message = format!("variable {} must begin with @", word.value);
                    return Err(self.stop(codes::VARIABLE_NAME, self.place(parser), message));
                }
                _ => return Err(self.unexpected(parser, "a variable such as @name")),
            };
            let span = range(parser.next_token().span);
            if name.len() < 2
                || name.len() > 65
                || !name.bytes().skip(1).all(|b| b.is_ascii_alphanumeric() || b == b'_')
            {
                let message = format!("variable {name} is not @ and 1 to 64 letters, digits and _");
                return Err(self.stop(codes::VARIABLE_NAME, span, message));
            }
            self.take_token(parser, &Token::Eq, "= after the variable")?;
            let value = self.expression(parser)?;
            variables.push(Variable { name: Name { text: name, span }, value });
            self.count(variables.len(), span, "SET")?;
            if !self.skip(parser, &Token::Comma) {
                return Ok(variables);
            }
        }
    }

    fn count(&self, count: usize, at: Span, clause: &str) -> Parsed<()> {
        if count > self.items_limit {
            let message = format!("{clause} holds more than {} items", self.items_limit);
            return Err(self.stop(codes::ITEMS, at, message));
        }
        Ok(())
    }

    fn select<S>(
        &self,
        parser: &mut Parser<'_>,
        source: impl FnOnce(&Self, &mut Parser<'_>) -> Parsed<S>,
    ) -> Parsed<Select<S>> {
        let start = self.take_word(parser, "SELECT")?;
        if is_any_word(parser, 0, &["DISTINCT", "ALL"]) && self.begins_operand(parser, 1) {
            return Err(self.unexpected_clause(parser));
        }
        let value = is_word(parser, 0, "VALUE") && self.is_value_keyword(parser);
        if value {
            parser.next_token();
        }
        let mut items = Vec::new();
        loop {
            let at = self.place(parser);
            items.push(self.item(parser)?);
            self.count(items.len(), at, "SELECT")?;
            if !self.skip(parser, &Token::Comma) {
                break;
            }
        }
        if !is_word(parser, 0, "FROM") {
            return Err(self.unexpected(parser, "a comma or FROM"));
        }
        parser.next_token();
        let source = source(self, parser)?;
        let condition = if is_word(parser, 0, "WHERE") {
            parser.next_token();
            Some(self.expression(parser)?)
        } else {
            None
        };
        if is_any_word(parser, 0, &OTHER_CLAUSES) {
            return Err(self.unexpected_clause(parser));
        }
        Ok(Select { value, items, source, condition, span: start })
    }

    fn unexpected_clause(&self, parser: &Parser<'_>) -> ParserError {
        let word = parser.peek_token_ref().token.to_string().to_uppercase();
        self.stop_with(other_clause(&word, self.place(parser)))
    }

    /// Whether the token `ahead` can begin an operand and cannot go on after one.
    pub(super) fn begins_operand(&self, parser: &Parser<'_>, ahead: usize) -> bool {
        match &parser.peek_nth_token_ref(ahead).token {
            // `mod(8, 3)` is a call, `value mod (3)` a field and an operator.
            Token::Word(word)
                if ["MOD", "DIV"].iter().any(|w| w.eq_ignore_ascii_case(&word.value))
                    && parser.peek_nth_token_ref(ahead + 1).token == Token::LParen =>
            {
                let gap = |n: usize| range(parser.peek_nth_token_ref(n).span);
                gap(ahead).end == gap(ahead + 1).start
            }
            Token::Word(word) if word.quote_style.is_none() => {
                let goes_on = AFTER_OPERANDS.iter().any(|w| w.eq_ignore_ascii_case(&word.value));
                let negated = word.value.eq_ignore_ascii_case("NOT")
                    && is_any_word(parser, ahead + 1, &["IN", "LIKE", "BETWEEN"]);
                !goes_on && !negated
            }
            Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::LBrace
            | Token::LParen => true,
            // `value[0]` is a field, `VALUE [x]` an Array.
            Token::LBracket => {
                let gap = |n: usize| range(parser.peek_nth_token_ref(n).span);
                gap(ahead.saturating_sub(1)).end < gap(ahead).start
            }
            _ => false,
        }
    }

    /// The next token is VALUE: the keyword, or a field of that name?
    fn is_value_keyword(&self, parser: &Parser<'_>) -> bool {
        if parser.peek_nth_token_ref(1).token == Token::Mul {
            return matches!(parser.peek_nth_token_ref(2).token, Token::EOF | Token::Comma)
                || is_word(parser, 2, "FROM");
        }
        // `VALUE -1` is a value, `value - 1` a field.
        let gap = |n: usize| range(parser.peek_nth_token_ref(n).span);
        if parser.peek_nth_token_ref(1).token == Token::Minus {
            return gap(0).end < gap(1).start && gap(1).end == gap(2).start;
        }
        self.begins_operand(parser, 1)
    }

    fn item(&self, parser: &mut Parser<'_>) -> Parsed<Item> {
        if parser.peek_token_ref().token == Token::Mul {
            let span = range(parser.next_token().span);
            if is_any_word(parser, 0, &["EXCEPT", "REPLACE", "EXCLUDE"]) {
                return Err(self.unexpected_clause(parser));
            }
            return Ok(Item::Star(span));
        }
        let value = self.expression(parser)?;
        let mut alias = Vec::new();
        if is_word(parser, 0, "AS") {
            parser.next_token();
            loop {
                alias.push(self.name(parser, "an alias")?);
                if !self.skip(parser, &Token::Period) {
                    break;
                }
            }
        }
        Ok(Item::Expr { value, alias })
    }

    pub(super) fn name(&self, parser: &mut Parser<'_>, wanted: &str) -> Parsed<Name> {
        match &parser.peek_token_ref().token {
            Token::Word(word) if !word.value.starts_with('@') || word.quote_style.is_some() => {
                let text = word.value.clone();
                Ok(Name { text, span: range(parser.next_token().span) })
            }
            _ => Err(self.unexpected(parser, wanted)),
        }
    }

    fn filters(&self, parser: &mut Parser<'_>) -> Parsed<Vec<Name>> {
        let mut filters = Vec::new();
        loop {
            match &parser.peek_token_ref().token {
                Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => {
                    let text = text.clone();
                    filters.push(Name { text, span: range(parser.next_token().span) });
                }
                Token::EOF => return Err(self.unexpected(parser, "a topic filter in quotes")),
                _ => return Err(self.stop_with(unquoted(parser))),
            }
            if !self.skip(parser, &Token::Comma) {
                return Ok(filters);
            }
        }
    }

    fn collection(&self, parser: &mut Parser<'_>) -> Parsed<Collection> {
        let value = self.subexpression(parser, SIGN)?;
        let alias = if is_word(parser, 0, "AS") {
            parser.next_token();
            Some(self.name(parser, "an alias")?)
        } else {
            None
        };
        if parser.peek_token_ref().token == Token::Comma {
            return Err(self.stop(codes::CLAUSE, self.place(parser), "a nested SELECT has one source"));
        }
        Ok(Collection { value, alias })
    }

    /// From behind `(` to the `)`.
    pub(super) fn nested(&self, parser: &mut Parser<'_>) -> Parsed<(Select<Collection>, Span)> {
        let at = self.place(parser);
        if self.subqueries.get() >= self.subquery_limit {
            let message = format!("nested SELECTs stand deeper than the limit of {}", self.subquery_limit);
            return Err(self.stop(codes::SUBQUERIES, at, message));
        }
        self.subqueries.set(self.subqueries.get() + 1);
        let select = self.select(parser, Self::collection);
        self.subqueries.set(self.subqueries.get() - 1);
        let select = select?;
        let end = self.take_token(parser, &Token::RParen, "WHERE or a closing parenthesis")?;
        Ok((select, end))
    }
}

/// A filter without quotes: the tokens that stand together where it is due.
fn unquoted(parser: &Parser<'_>) -> Fault {
    let mut filter = String::new();
    let mut span = range(parser.peek_token_ref().span);
    for ahead in 0.. {
        let token = parser.peek_nth_token_ref(ahead);
        let at = range(token.span);
        if matches!(token.token, Token::EOF | Token::Comma) || (ahead > 0 && at.start != span.end) {
            break;
        }
        filter.push_str(&token.token.to_string());
        span.end = at.end;
    }
    Fault::new(codes::UNQUOTED_FILTER, span, "the topic filter after FROM needs quotes")
        .with_hint(format!("write FROM '{filter}'"))
}
