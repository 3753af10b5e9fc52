//! The dialects and the limits a statement, an evaluation and a template are held to.

/// The reading of a rule's SQL, chosen per rule and settled at compile time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// AWS IoT SQL 2016-03-23: a bare name is a field of the JSON payload.
    #[default]
    Aws,
    /// EMQX rule SQL: a bare name is a column of the message. Refused by [`compile`](crate::compile) with a code of its own.
    Emqx,
}

/// What bounds a statement, its evaluation and its templates. Every refusal names the limit and the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one SQL statement. Default 64 KiB.
    pub statement_bytes: usize,
    /// Operators, parentheses, dots and words of one statement; bounds the depth of operator chains. Default 8,192.
    pub operators: usize,
    /// Nesting of operands and operators in an expression, and half of what variables may add up to. Default 64,
    /// which is also the most that counts.
    pub depth: usize,
    /// Items of one SELECT, and variables of one SET. Default 256.
    pub items: usize,
    /// Nested SELECTs within one another. Default 4.
    pub subquery_depth: usize,
    /// Array elements visited in one evaluation of one rule. Default 10,000.
    pub array_steps: u32,
    /// Operations in one evaluation of one rule: nodes evaluated, plus work that grows with the data. Default 1,000,000.
    pub steps: u32,
    /// Bytes of one output, and of every text or collection an expression builds. Default 1 MiB.
    pub output_bytes: usize,
    /// Bytes of one compiled regular expression; a sixteenth of it when the pattern is no literal. Default 1 MiB.
    pub regex_bytes: usize,
    /// Nesting of JSON that is read as JSON; a deeper payload counts as text. Default 64, at most 128.
    pub json_depth: usize,
    /// Bytes of one template's text. Default 8 KiB.
    pub template_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            statement_bytes: 64 << 10,
            operators: 8_192,
            depth: 64,
            items: 256,
            subquery_depth: 4,
            array_steps: 10_000,
            steps: 1_000_000,
            output_bytes: 1 << 20,
            regex_bytes: 1 << 20,
            json_depth: 64,
            template_bytes: 8 << 10,
        }
    }
}
