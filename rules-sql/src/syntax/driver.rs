//! The only place that knows `sqlparser`: its tokenizer and its operator loop, under a grammar of our own.
//!
//! The clauses, and every operand, are read here; the crate's loop over operators (`parse_subexpr`) calls back through
//! two hooks of its `Dialect` trait, which build our tree at once and hand the crate a placeholder: an identifier
//! whose name is a number in [`State::built`]. So no tree of the crate ever grows, none is lowered, and no construct
//! can come back in a shape that was not meant: `SELECT VALUE x`, `x IN a AND b`, `a =~ 't/#'`, `trim(s)`, `||`,
//! `substring(s, 1)` and long chains of operators all had one.
//!
//! Rewrites of the token list, before any parsing: white space and comments go; `=` directly before `~` becomes one
//! operator; each token's place becomes a byte range (`span.start.line` to `span.end.line`).

use std::cell::{Cell, RefCell};

use sqlparser::ast::{Expr as Placeholder, Ident};
use sqlparser::dialect::Dialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span as TokenSpan, Token, TokenWithSpan, Tokenizer};

use super::ast::{
    Among, ArithmeticOp, Collection, CompareOp, Expr, ExprKind, Item, Name, Select, Span, Statement, Step,
    Variable,
};
use crate::check::nesting;
use crate::codes::{self, Code};
use crate::error::Fault;
use crate::limits::Limits;

const OR: u8 = 10;
const AND: u8 = 20;
const NOT: u8 = 30;
const COMPARE: u8 = 40;
const SUM: u8 = 50;
const PRODUCT: u8 = 60;
const SIGN: u8 = 70;

/// Clauses of other dialects that are refused by name.
const OTHER_CLAUSES: [&str; 17] = [
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "JOIN",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "CROSS",
    "WINDOW",
    "QUALIFY",
    "FETCH",
];

/// Words that are never a field where an operand is due.
const NEVER_OPERANDS: [&str; 13] =
    ["FROM", "WHERE", "AND", "OR", "AS", "IN", "LIKE", "BETWEEN", "IS", "WHEN", "THEN", "ELSE", "SELECT"];

/// Words that follow an operand, never begin one.
const AFTER_OPERANDS: [&str; 16] = [
    "FROM", "WHERE", "AND", "OR", "AS", "IN", "LIKE", "BETWEEN", "IS", "WHEN", "THEN", "ELSE", "END", "MOD",
    "DIV", "ESCAPE",
];

type Parsed<T> = Result<T, ParserError>;

/// Parses one statement.
pub(crate) fn parse_statement(sql: &str, limits: &Limits) -> Result<Statement, Fault> {
    run(sql, limits, |rules, parser| rules.statement(parser))
}

/// Parses one expression that is the whole text.
pub(crate) fn parse_expression(text: &str, limits: &Limits) -> Result<Expr, Fault> {
    run(text, limits, |rules, parser| {
        let expr = rules.expression(parser)?;
        rules.end(parser, "an operator or the end of the expression")?;
        Ok(expr)
    })
}

fn run<T>(
    text: &str,
    limits: &Limits,
    parse: impl FnOnce(&Rules, &mut Parser<'_>) -> Parsed<T>,
) -> Result<T, Fault> {
    if text.len() > limits.statement_bytes {
        let message =
            format!("statement of {} bytes exceeds the limit of {}", text.len(), limits.statement_bytes);
        return Err(Fault::new(codes::STATEMENT_BYTES, Span::default(), message));
    }
    let rules = Rules {
        end: text.len(),
        depth_limit: nesting(limits),
        items_limit: limits.items,
        subquery_limit: limits.subquery_depth,
        state: RefCell::default(),
        depth: Cell::new(0),
        subqueries: Cell::new(0),
    };
    let tokens = tokens(&rules, text, limits)?;
    // The crate's own counter stands behind ours, which knows better words.
    let mut parser =
        Parser::new(&rules).with_recursion_limit(nesting(limits) * 4 + 8).with_tokens_with_locations(tokens);
    parse(&rules, &mut parser).map_err(|error| {
        let at = rules.place(&parser);
        rules.state.borrow_mut().fault.take().unwrap_or_else(|| match error {
            ParserError::RecursionLimitExceeded => rules.too_deep(at),
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => {
                Fault::new(codes::UNEXPECTED, at, message)
            }
        })
    })
}

/// Cuts the text into tokens, each placed by bytes.
fn words(rules: &Rules, text: &str) -> Result<Vec<TokenWithSpan>, Fault> {
    let mut words = Vec::new();
    let mut base = 0;
    loop {
        let rest = text.get(base..).unwrap_or("");
        let mut tokens = Vec::new();
        let result = Tokenizer::new(rules, rest).tokenize_with_location_into_buf(&mut tokens);
        let mut places = Places { text: rest, offset: 0, line: 1, column: 1 };
        for token in tokens {
            let (start, end) = (places.offset(token.span.start), places.offset(token.span.end));
            words.push(TokenWithSpan { token: token.token, span: placed(base + start, base + end) });
        }
        let Err(error) = result else { return Ok(words) };
        let start = base + places.offset(error.location);
        // The tokenizer takes `._` for the beginning of a number, except right after a word: `a[0]._id` is a step.
        if !text.get(start..).is_some_and(|fault| fault.starts_with("._")) {
            let message = error.message.to_lowercase();
            return Err(Fault::new(codes::WORDS, Span { start, end: text.len() }, message));
        }
        words.push(TokenWithSpan { token: Token::Period, span: placed(start, start + 1) });
        base = start + 1;
    }
}

/// The words of a text without white space and comments.
fn tokens(rules: &Rules, text: &str, limits: &Limits) -> Result<Vec<TokenWithSpan>, Fault> {
    let words = words(rules, text)?;
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(words.len());
    let mut operators = 0;
    for token in words {
        let Span { start, end } = range(token.span);
        match (&token.token, kept.last_mut()) {
            (Token::Whitespace(_), _) => continue,
            (Token::Tilde, Some(last)) if last.token == Token::Eq && range(last.span).end == start => {
                *last = TokenWithSpan {
                    token: Token::CustomBinaryOperator("=~".to_owned()),
                    span: placed(range(last.span).start, end),
                };
                continue;
            }
            (Token::Comma | Token::Number(..) | Token::SingleQuotedString(_), _) => {}
            _ => {
                operators += 1;
                if operators > limits.operators {
                    let message = format!(
                        "statement holds more than {} operators, names and brackets",
                        limits.operators
                    );
                    return Err(Fault::new(codes::OPERATORS, Span { start, end }, message));
                }
            }
        }
        kept.push(token);
    }
    Ok(kept)
}

/// Turns the tokenizer's lines and columns, which only ever grow, into byte offsets.
struct Places<'t> {
    text: &'t str,
    offset: usize,
    line: u64,
    column: u64,
}

impl Places<'_> {
    fn offset(&mut self, to: Location) -> usize {
        let mut rest = self.text.get(self.offset..).unwrap_or("").chars();
        while (self.line, self.column) < (to.line, to.column) {
            let Some(char) = rest.next() else { break };
            self.offset += char.len_utf8();
            if char == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.offset
    }
}

/// A byte range in the clothes of the crate's span.
fn placed(start: usize, end: usize) -> TokenSpan {
    let location = |offset: usize| Location { line: offset as u64, column: 1 };
    TokenSpan { start: location(start), end: location(end) }
}

fn range(span: TokenSpan) -> Span {
    let offset = |location: Location| usize::try_from(location.line).unwrap_or(0);
    Span { start: offset(span.start), end: offset(span.end) }
}

/// The dialect, and what is built while it drives.
#[derive(Debug)]
struct Rules {
    /// Bytes of the text.
    end: usize,
    depth_limit: usize,
    items_limit: usize,
    subquery_limit: usize,
    state: RefCell<State>,
    depth: Cell<usize>,
    subqueries: Cell<usize>,
}

#[derive(Debug, Default)]
struct State {
    built: Vec<Option<Built>>,
    fault: Option<Fault>,
}

#[derive(Debug)]
struct Built {
    expr: Expr,
    /// In parentheses: never joined with what stands beside it.
    closed: bool,
}

impl Dialect for Rules {
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '`'
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_' || ch == '@'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_'
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Parsed<u8>> {
        Some(Ok(match &parser.peek_token_ref().token {
            Token::Eq | Token::Neq | Token::Lt | Token::LtEq | Token::Gt | Token::GtEq => COMPARE,
            Token::CustomBinaryOperator(_) => COMPARE,
            Token::Plus | Token::Minus | Token::StringConcat => SUM,
            Token::Mul | Token::Div | Token::Mod => PRODUCT,
            Token::Word(word) if word.quote_style.is_none() => {
                match word.value.to_ascii_uppercase().as_str() {
                    "OR" => OR,
                    "AND" => AND,
                    "IN" | "BETWEEN" | "LIKE" | "IS" => COMPARE,
                    "NOT" if is_any_word(parser, 1, &["IN", "BETWEEN", "LIKE"]) => COMPARE,
                    "MOD" | "DIV" => PRODUCT,
                    _ => 0,
                }
            }
            _ => 0,
        }))
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Parsed<Placeholder>> {
        Some(self.guarded(parser))
    }

    fn parse_infix(&self, parser: &mut Parser<'_>, left: &Placeholder, _: u8) -> Option<Parsed<Placeholder>> {
        Some(self.deeper(parser, |parser| self.infix(parser, left)))
    }
}

/// Whether the token `ahead` is this bare word, in any case.
fn is_word(parser: &Parser<'_>, ahead: usize, wanted: &str) -> bool {
    matches!(&parser.peek_nth_token_ref(ahead).token,
        Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

fn is_any_word(parser: &Parser<'_>, ahead: usize, wanted: &[&str]) -> bool {
    wanted.iter().any(|word| is_word(parser, ahead, word))
}

impl Rules {
    fn stop(&self, code: &'static Code, span: Span, message: impl Into<String>) -> ParserError {
        self.stop_with(Fault::new(code, span, message))
    }

    fn stop_with(&self, fault: Fault) -> ParserError {
        self.state.borrow_mut().fault.get_or_insert(fault);
        ParserError::ParserError(String::new())
    }

    fn too_deep(&self, at: Span) -> Fault {
        Fault::new(
            codes::NESTING,
            at,
            format!("expression is nested deeper than the limit of {}", self.depth_limit),
        )
    }

    /// Where the next token stands.
    fn place(&self, parser: &Parser<'_>) -> Span {
        let token = parser.peek_token_ref();
        if token.token == Token::EOF { Span { start: self.end, end: self.end } } else { range(token.span) }
    }

    /// The next token is not what the grammar wants.
    fn unexpected(&self, parser: &Parser<'_>, wanted: &str) -> ParserError {
        let at = self.place(parser);
        let token = &parser.peek_token_ref().token;
        let (code, message, hint) = match token {
            Token::EOF => (codes::UNEXPECTED, format!("expected {wanted}, found the end"), None),
            Token::DoubleEq => (codes::OPERATOR, "operator == is not supported".to_owned(), Some("write =")),
            Token::HexStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_) => {
                (codes::OPERATOR, "this form of literal is not supported".to_owned(), None)
            }
            Token::Number(text, _) if text.starts_with('.') => (
                codes::UNEXPECTED,
                format!("expected {wanted}, found {text}"),
                Some("elements are written a[1]; numbers begin with a digit"),
            ),
            Token::Colon
            | Token::DoubleColon
            | Token::Arrow
            | Token::LongArrow
            | Token::Tilde
            | Token::Pipe
            | Token::Ampersand
            | Token::Caret
            | Token::ExclamationMark
            | Token::Spaceship
            | Token::ShiftLeft
            | Token::ShiftRight
            | Token::Assignment => (codes::OPERATOR, format!("operator {token} is not supported"), None),
            Token::Word(word) if word.quote_style.is_none() => {
                let upper = word.value.to_ascii_uppercase();
                if OTHER_CLAUSES.contains(&upper.as_str()) {
                    (codes::CLAUSE, format!("{upper} is not supported in a rule"), None)
                } else {
                    let hint = wanted.contains("FROM").then_some("an alias is written with AS");
                    (codes::UNEXPECTED, format!("expected {wanted}, found {}", word.value), hint)
                }
            }
            _ => (codes::UNEXPECTED, format!("expected {wanted}, found {token}"), None),
        };
        let mut fault = Fault::new(code, at, message);
        fault.hint = hint.map(str::to_owned);
        self.stop_with(fault)
    }

    fn keep(&self, expr: Expr, closed: bool) -> Placeholder {
        let mut state = self.state.borrow_mut();
        state.built.push(Some(Built { expr, closed }));
        Placeholder::Identifier(Ident::new((state.built.len() - 1).to_string()))
    }

    fn built(&self, parser: &Parser<'_>, placeholder: &Placeholder) -> Parsed<Built> {
        let built = match placeholder {
            Placeholder::Identifier(ident) => ident
                .value
                .parse::<usize>()
                .ok()
                .and_then(|place| self.state.borrow_mut().built.get_mut(place).and_then(Option::take)),
            _ => None,
        };
        // What the crate made by itself, such as COLLATE, is none of ours.
        built.ok_or_else(|| self.unexpected(parser, "an operator"))
    }

    fn subexpression(&self, parser: &mut Parser<'_>, strength: u8) -> Parsed<Expr> {
        let placeholder = parser.parse_subexpr(strength)?;
        Ok(self.built(parser, &placeholder)?.expr)
    }

    fn expression(&self, parser: &mut Parser<'_>) -> Parsed<Expr> {
        self.subexpression(parser, 0)
    }

    fn take_token(&self, parser: &mut Parser<'_>, token: &Token, wanted: &str) -> Parsed<Span> {
        if parser.peek_token_ref().token != *token {
            return Err(self.unexpected(parser, wanted));
        }
        Ok(range(parser.next_token().span))
    }

    fn take_word(&self, parser: &mut Parser<'_>, word: &str) -> Parsed<Span> {
        if !is_word(parser, 0, word) {
            return Err(self.unexpected(parser, word));
        }
        Ok(range(parser.next_token().span))
    }

    fn skip(&self, parser: &mut Parser<'_>, token: &Token) -> bool {
        let found = parser.peek_token_ref().token == *token;
        if found {
            parser.next_token();
        }
        found
    }

    fn end(&self, parser: &Parser<'_>, wanted: &str) -> Parsed<()> {
        if parser.peek_token_ref().token == Token::EOF {
            Ok(())
        } else {
            Err(self.unexpected(parser, wanted))
        }
    }

    // ---- clauses ----

    fn statement(&self, parser: &mut Parser<'_>) -> Parsed<Statement> {
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
        self.stop(codes::CLAUSE, self.place(parser), format!("{word} is not supported in a rule"))
    }

    /// Whether the token `ahead` can begin an operand and cannot go on after one.
    fn begins_operand(&self, parser: &Parser<'_>, ahead: usize) -> bool {
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

    fn name(&self, parser: &mut Parser<'_>, wanted: &str) -> Parsed<Name> {
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
                _ => {
                    let mut fault = Fault::new(
                        codes::UNQUOTED_FILTER,
                        self.place(parser),
                        "the topic filter after FROM needs quotes",
                    );
                    fault.hint = Some("write FROM 'sensors/+/temp'".to_owned());
                    return Err(self.stop_with(fault));
                }
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
    fn nested(&self, parser: &mut Parser<'_>) -> Parsed<(Select<Collection>, Span)> {
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

    // ---- operands ----

    /// Goes one level deeper: operands and operators both nest, and both use up stack.
    fn deeper<T>(
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

    fn guarded(&self, parser: &mut Parser<'_>) -> Parsed<Placeholder> {
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
            reserved if NEVER_OPERANDS.contains(&reserved) => {
                parser.prev_token();
                let fault = match reserved {
                    "SELECT" => {
                        let mut fault =
                            Fault::new(codes::UNEXPECTED, span, "a nested SELECT needs parentheses");
                        fault.hint = Some("write (SELECT …)".to_owned());
                        fault
                    }
                    _ => Fault::new(
                        codes::UNEXPECTED,
                        span,
                        format!("expected an expression, found {}", word.value),
                    ),
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
    fn list(&self, parser: &mut Parser<'_>, close: &Token, wanted: &str) -> Parsed<(Vec<Expr>, Span)> {
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

    // ---- operators ----

    fn infix(&self, parser: &mut Parser<'_>, left: &Placeholder) -> Parsed<Placeholder> {
        let left = self.built(parser, left)?;
        let token = parser.next_token();
        let at = range(token.span);
        let expr = match &token.token {
            Token::Eq => self.compare(parser, left, CompareOp::Equal, at)?,
            Token::Neq => self.compare(parser, left, CompareOp::NotEqual, at)?,
            Token::Lt => self.compare(parser, left, CompareOp::Less, at)?,
            Token::LtEq => self.compare(parser, left, CompareOp::LessOrEqual, at)?,
            Token::Gt => self.compare(parser, left, CompareOp::Greater, at)?,
            Token::GtEq => self.compare(parser, left, CompareOp::GreaterOrEqual, at)?,
            Token::CustomBinaryOperator(_) => self.compare(parser, left, CompareOp::TopicMatch, at)?,
            Token::Plus => self.arithmetic(parser, left, ArithmeticOp::Add)?,
            Token::Minus => self.arithmetic(parser, left, ArithmeticOp::Subtract)?,
            Token::StringConcat => self.arithmetic(parser, left, ArithmeticOp::Concat)?,
            Token::Mul => self.arithmetic(parser, left, ArithmeticOp::Multiply)?,
            Token::Div => self.arithmetic(parser, left, ArithmeticOp::Divide)?,
            Token::Mod => self.arithmetic(parser, left, ArithmeticOp::Remainder)?,
            Token::Word(word) => match word.value.to_ascii_uppercase().as_str() {
                "OR" => self.logic(parser, left, OR)?,
                "AND" => self.logic(parser, left, AND)?,
                "MOD" => self.arithmetic(parser, left, ArithmeticOp::Remainder)?,
                "DIV" => self.arithmetic(parser, left, ArithmeticOp::DivideWhole)?,
                "IS" => {
                    let mut fault = Fault::new(codes::OPERATOR, at, "operator IS is not supported");
                    fault.hint = Some("use isNull(x) or isUndefined(x)".to_owned());
                    return Err(self.stop_with(fault));
                }
                "NOT" => {
                    let next = parser.next_token();
                    self.predicate(parser, left, &next, true)?
                }
                _ => self.predicate(parser, left, &token, false)?,
            },
            _ => {
                parser.prev_token();
                return Err(self.unexpected(parser, "an operator"));
            }
        };
        Ok(self.keep(expr, false))
    }

    fn logic(&self, parser: &mut Parser<'_>, left: Built, strength: u8) -> Parsed<Expr> {
        let right = self.subexpression(parser, strength)?;
        let span = left.expr.span.to(right.span);
        let kind = match (left.expr.kind, strength) {
            (ExprKind::Or(mut operands), OR) if !left.closed => {
                operands.push(right);
                ExprKind::Or(operands)
            }
            (ExprKind::And(mut operands), AND) if !left.closed => {
                operands.push(right);
                ExprKind::And(operands)
            }
            (kind, OR) => ExprKind::Or(vec![Expr { kind, span: left.expr.span }, right]),
            (kind, _) => ExprKind::And(vec![Expr { kind, span: left.expr.span }, right]),
        };
        Ok(Expr { kind, span })
    }

    fn arithmetic(&self, parser: &mut Parser<'_>, left: Built, op: ArithmeticOp) -> Parsed<Expr> {
        let right = self.subexpression(parser, if op.is_product() { PRODUCT } else { SUM })?;
        let span = left.expr.span.to(right.span);
        let kind = match left.expr.kind {
            ExprKind::Arithmetic { first, mut rest } if !left.closed => {
                rest.push((op, right));
                ExprKind::Arithmetic { first, rest }
            }
            kind => ExprKind::Arithmetic {
                first: Box::new(Expr { kind, span: left.expr.span }),
                rest: vec![(op, right)],
            },
        };
        Ok(Expr { kind, span })
    }

    /// Comparisons, IN, BETWEEN and LIKE do not chain.
    fn unchained(&self, left: &Built, at: Span) -> Parsed<()> {
        let chained = matches!(
            left.expr.kind,
            ExprKind::Compare { .. } | ExprKind::In { .. } | ExprKind::Between { .. } | ExprKind::Like { .. }
        );
        if chained && !left.closed {
            let mut fault = Fault::new(codes::CHAIN, at, "comparisons do not chain");
            fault.hint = Some("join them with AND, or use parentheses".to_owned());
            return Err(self.stop_with(fault));
        }
        Ok(())
    }

    fn compare(&self, parser: &mut Parser<'_>, left: Built, op: CompareOp, at: Span) -> Parsed<Expr> {
        self.unchained(&left, at)?;
        let right = self.subexpression(parser, COMPARE)?;
        let span = left.expr.span.to(right.span);
        let kind = ExprKind::Compare { op, left: Box::new(left.expr), right: Box::new(right) };
        Ok(Expr { kind, span })
    }

    /// IN, BETWEEN or LIKE, whose word was just read.
    fn predicate(
        &self,
        parser: &mut Parser<'_>,
        left: Built,
        word: &TokenWithSpan,
        negated: bool,
    ) -> Parsed<Expr> {
        self.unchained(&left, range(word.span))?;
        let start = left.expr.span;
        let value = Box::new(left.expr);
        let Token::Word(text) = &word.token else {
            return Err(self.unexpected(parser, "IN, BETWEEN or LIKE"));
        };
        let (kind, end) = match text.value.to_ascii_uppercase().as_str() {
            "BETWEEN" => {
                let low = Box::new(self.subexpression(parser, COMPARE)?);
                self.take_word(parser, "AND")?;
                let high = Box::new(self.subexpression(parser, COMPARE)?);
                let end = high.span;
                (ExprKind::Between { value, low, high, negated }, end)
            }
            "LIKE" => {
                let pattern = Box::new(self.subexpression(parser, COMPARE)?);
                let mut end = pattern.span;
                let mut escape = None;
                if is_word(parser, 0, "ESCAPE") {
                    parser.next_token();
                    let (char, span) = self.escape(parser)?;
                    escape = Some(char);
                    end = span;
                }
                (ExprKind::Like { value, pattern, escape, negated }, end)
            }
            _ => {
                let listed = parser.peek_token_ref().token == Token::LParen && !is_word(parser, 1, "SELECT");
                let (among, end) = if listed {
                    let open = range(parser.next_token().span);
                    let (items, end) =
                        self.list(parser, &Token::RParen, "a comma or a closing parenthesis")?;
                    if items.is_empty() {
                        return Err(self.stop(codes::UNEXPECTED, open.to(end), "the list after IN is empty"));
                    }
                    (Among::List(items), end)
                } else {
                    let array = Box::new(self.subexpression(parser, COMPARE)?);
                    let end = array.span;
                    (Among::Value(array), end)
                };
                (ExprKind::In { value, among, negated }, end)
            }
        };
        Ok(Expr { kind, span: start.to(end) })
    }

    fn escape(&self, parser: &mut Parser<'_>) -> Parsed<(char, Span)> {
        let span = self.place(parser);
        if let Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) =
            &parser.peek_token_ref().token
        {
            let mut chars = text.chars();
            if let (Some(char), None) = (chars.next(), chars.next()) {
                parser.next_token();
                return Ok((char, span));
            }
        }
        Err(self.stop(codes::ESCAPE, span, "ESCAPE takes a string of one character"))
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
