//! Text to tree and back: the driver over `sqlparser`, the tree itself, and the printer.

pub(crate) mod ast;
mod driver;
pub(crate) mod printer;

pub(crate) use driver::{parse_expression, parse_statement};
