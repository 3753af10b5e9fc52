//! What joins two operands, as the loop of `sqlparser` asks for it.

use sqlparser::ast::Expr as Placeholder;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::super::ast::{Among, ArithmeticOp, CompareOp, Expr, ExprKind, Span};
use super::{AND, Built, COMPARE, OR, PRODUCT, Parsed, Rules, SUM, is_word, range};
use crate::codes;
use crate::error::Fault;

impl Rules {
    pub(super) fn infix(&self, parser: &mut Parser<'_>, left: &Placeholder) -> Parsed<Placeholder> {
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
