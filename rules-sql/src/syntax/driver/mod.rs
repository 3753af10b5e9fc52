//! The only place that knows `sqlparser`: its tokenizer and its operator loop, under a grammar of our own.
//!
//! The clauses (`clauses`) and every operand (`operands`) are read by us. The crate's loop over operators
//! (`parse_subexpr`) calls back through two hooks of its `Dialect` trait, one for an operand, one for an operator
//! (`operators`): each makes our tree at once and hands the crate a placeholder, an identifier whose name is a number
//! in [`State::built`]. So no tree of the crate ever grows, none is lowered, and no construct can come back in a shape
//! that was not meant: `SELECT VALUE x`, `x IN a AND b`, `a =~ 't/#'`, `trim(s)`, `||`, `substring(s, 1)` and long
//! chains of operators all had one.
//!
//! Rewrites of the token list, before any parsing: white space and comments go; `=` directly before `~` becomes one
//! operator; each token's place becomes a byte range (`span.start.line` to `span.end.line`).

use std::cell::{Cell, RefCell};

use sqlparser::ast::{Expr as Placeholder, Ident};
use sqlparser::dialect::Dialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span as TokenSpan, Token, TokenWithSpan, Tokenizer};

mod clauses;
mod operands;
mod operators;

use super::ast::{Expr, Span, Statement};
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
                    return self.stop_with(other_clause(&upper, at));
                }
                let hint = wanted.contains("FROM").then_some("an alias is written with AS");
                (codes::UNEXPECTED, format!("expected {wanted}, found {}", word.value), hint)
            }
            _ => (codes::UNEXPECTED, format!("expected {wanted}, found {}", visible(token)), None),
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
}

/// A token for a message: a character that shows nothing by itself, such as a byte order mark, by its number.
fn visible(token: &Token) -> String {
    let text = token.to_string();
    match (text.chars().next(), text.chars().count()) {
        (Some(char), 1) if char.is_control() || char.escape_debug().len() > 2 => {
            format!("U+{:04X}", u32::from(char))
        }
        _ => text,
    }
}

/// A clause of queries over tables that no rule has, with what serves instead.
fn other_clause(word: &str, at: Span) -> Fault {
    let hint = match word {
        "UNION" | "INTERSECT" | "JOIN" | "INNER" | "LEFT" | "RIGHT" | "FULL" | "CROSS" => {
            "a rule sees one message at a time; several filters are written FROM 'a', 'b'"
        }
        "EXCEPT" => "name the fields that are wanted",
        "HAVING" => "conditions stand in WHERE",
        _ => "a rule sees one message at a time: there are no rows to group, order or count",
    };
    Fault::new(codes::CLAUSE, at, format!("{word} is not supported in a rule")).with_hint(hint)
}
