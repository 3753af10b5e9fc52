//! What a statement's author hardly meant: allowed by the dialect, and told as warnings.
//!
//! Most of it is EMQX's way of writing. There a bare `clientid` is the publisher; here it is a field of the payload,
//! which whoever writes the payload chooses. A condition on it looks like a check of identity and is none, so the
//! warning names the function to use. The rest are conditions that are the same for every message, and aliases that
//! are used where they are not known.
//!
//! Everything here reads the tree as written; nothing here can refuse a statement.

use crate::codes;
use crate::error::Fault;
use crate::functions;
use crate::syntax::ast::{Among, Expr, ExprKind, Item, Select, Span, Statement, Step};

/// Columns of EMQX that are read by a function here.
const COLUMNS: [(&str, &str); 8] = [
    ("clientid", "clientid()"),
    ("username", "username()"),
    ("topic", "topic()"),
    ("qos", "qos()"),
    ("peerhost", "sourceip()"),
    ("peername", "sourceip()"),
    ("payload", "payload()"),
    ("event", ""),
];

/// Beginnings of paths that only EMQX has, with what to write.
const PATHS: [(&str, &str, &str); 5] = [
    ("flags", "retain", "write retain()"),
    ("flags", "dup", "whether a packet was sent again is not known here"),
    ("pub_props", "", "write get_mqtt_property('content_type') or get_user_properties('name')"),
    ("client_attrs", "", "attributes of clients are not known here"),
    ("metadata", "rule_id", "the name of the rule is known to whoever writes it"),
];

/// A name that SELECT gives to an item.
#[derive(Clone, Debug)]
pub(crate) struct Alias {
    name: String,
    /// The item's text.
    source: String,
    /// Whether the item is a field of the payload.
    is_field: bool,
}

/// The doubts about a statement whose text is `text`.
pub(crate) fn statement(statement: &Statement, text: &str) -> Vec<Fault> {
    let mut reader = Reader { text, doubts: Vec::new() };
    let select = &statement.select;
    for filter in &select.source {
        if filter.text.starts_with("$events/") {
            let message = format!("nothing is published on {}", filter.text);
            let hint = "rules of dialect aws see messages, not events of the broker";
            reader.doubt(Fault::new(codes::FOREIGN_FORM, filter.span, message).with_hint(hint));
        }
    }
    let decisive = decisive(statement);
    for variable in &statement.variables {
        let decides = decisive.contains(&variable.name.text.as_str());
        reader.forms(&variable.value, if decides { Place::Condition } else { Place::Value });
        reader.quoted_names(&variable.value);
    }
    for item in &select.items {
        if let Item::Expr { value, .. } = item {
            reader.forms(value, Place::Value);
            reader.quoted_names(value);
        }
    }
    if let Some(condition) = &select.condition {
        reader.forms(condition, Place::Condition);
        reader.uses_of_aliases(condition, &aliases(statement, text), Use::Where);
        let before = reader.doubts.len();
        reader.quoted_names(condition);
        // Such a comparison is constant as well, but not what was meant.
        if reader.doubts.len() == before {
            reader.constants(condition);
        }
    }
    reader.doubts
}

/// The variables that WHERE reads, and those that they read: what stands in them is part of the condition.
fn decisive(statement: &Statement) -> Vec<&str> {
    let mut found = Vec::new();
    statement.select.condition.iter().for_each(|condition| variables_of(condition, &mut found));
    // A variable reads earlier ones alone.
    for variable in statement.variables.iter().rev() {
        if found.contains(&variable.name.text.as_str()) {
            variables_of(&variable.value, &mut found);
        }
    }
    found
}

fn variables_of<'e>(expr: &'e Expr, found: &mut Vec<&'e str>) {
    if let ExprKind::Variable(name) = &expr.kind
        && !found.contains(&name.as_str())
    {
        found.push(name);
    }
    expr.for_each_part(&mut |part| variables_of(part, found));
}

/// The doubts about an expression of a template, whose places are places in `text`.
pub(crate) fn template(expr: &Expr, text: &str, aliases: &[Alias]) -> Vec<Fault> {
    let mut reader = Reader { text, doubts: Vec::new() };
    reader.uses_of_aliases(expr, aliases, Use::Template);
    reader.forms(expr, Place::Template);
    reader.quoted_names(expr);
    reader.doubts
}

/// Doubts and the checker's warnings together. A place that is doubtful already needs no second word.
pub(crate) fn beside(mut doubts: Vec<Fault>, warnings: Vec<Fault>) -> Vec<Fault> {
    let told: Vec<usize> = doubts.iter().map(|doubt| doubt.span.start).collect();
    doubts.extend(warnings.into_iter().filter(|warning| !told.contains(&warning.span.start)));
    doubts
}

/// Reads a tree and takes down what is doubtful.
struct Reader<'t> {
    text: &'t str,
    doubts: Vec<Fault>,
}

/// The names that SELECT gives and that mean nothing outside of the output.
pub(crate) fn aliases(statement: &Statement, text: &str) -> Vec<Alias> {
    let Select { items, .. } = &statement.select;
    let mut found = Vec::new();
    for item in items {
        let Item::Expr { value, alias } = item else { continue };
        let [name] = alias.as_slice() else { continue };
        // Who makes `t` of a field `t` knows that field.
        if mentions(value, &name.text) {
            continue;
        }
        let source = text.get(value.span.start..value.span.end).unwrap_or_default().to_owned();
        let is_field = match &value.kind {
            ExprKind::Name(_) => true,
            ExprKind::Path { root, .. } => matches!(root.kind, ExprKind::Name(_)),
            _ => false,
        };
        found.push(Alias { name: name.text.clone(), source, is_field });
    }
    found
}

fn mentions(expr: &Expr, name: &str) -> bool {
    if matches!(&expr.kind, ExprKind::Name(own) if own == name) {
        return true;
    }
    let mut found = false;
    expr.for_each_part(&mut |part| found |= mentions(part, name));
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Where,
    Template,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Condition,
    Value,
    Template,
}

impl Reader<'_> {
    /// Takes a doubt down, unless there is one about the same place already.
    fn doubt(&mut self, doubt: Fault) {
        if !self.doubts.iter().any(|known| known.span.start == doubt.span.start) {
            self.doubts.push(doubt);
        }
    }

    /// EMQX's way of writing.
    fn forms(&mut self, expr: &Expr, place: Place) {
        match &expr.kind {
            ExprKind::Path { root, steps } => {
                if let ExprKind::Name(name) = &root.kind
                    && let Some(Step::Member(first)) = steps.first()
                {
                    self.path(name, &first.text, root.span.to(first.span));
                }
                // The root is a part of the path and no column by itself.
                steps.iter().for_each(|step| match step {
                    Step::Element(index) => self.forms(index, place),
                    Step::Member(_) => {}
                });
                if !matches!(root.kind, ExprKind::Name(_)) {
                    self.forms(root, place);
                }
                return;
            }
            ExprKind::Name(name) => self.column(name, expr.span, place),
            // Its conditions are conditions wherever it stands.
            ExprKind::Case { subject: None, branches, otherwise } => {
                for (when, then) in branches {
                    self.forms(when, if place == Place::Template { place } else { Place::Condition });
                    self.forms(then, place);
                }
                otherwise.iter().for_each(|otherwise| self.forms(otherwise, place));
                return;
            }
            _ => {}
        }
        expr.for_each_part(&mut |part| self.forms(part, place));
    }

    fn path(&mut self, root: &str, first: &str, span: Span) {
        if self.is_in_backticks(span) {
            return;
        }
        if root == "payload" {
            let message = format!("payload.{first} is the field {first} of a field named payload");
            let hint = format!("fields of the payload stand by themselves here: {first}");
            self.doubt(Fault::new(codes::PAYLOAD_PATH, span, message).with_hint(hint));
            return;
        }
        let known = PATHS.iter().find(|(name, next, _)| *name == root && (next.is_empty() || *next == first));
        if let Some((_, _, hint)) = known {
            let message = format!("{root}.{first} is a field of the payload here");
            self.doubt(Fault::new(codes::FOREIGN_FORM, span, message).with_hint(*hint));
        }
    }

    /// A name in backticks is meant as a field.
    fn is_in_backticks(&self, span: Span) -> bool {
        self.text.as_bytes().get(span.start) == Some(&b'`')
    }

    fn column(&mut self, name: &str, span: Span, place: Place) {
        if self.is_in_backticks(span) {
            return;
        }
        let Some((_, function)) = COLUMNS.iter().find(|(column, _)| *column == name) else { return };
        // In SELECT such a field may well be meant; the whole payload hardly ever is.
        if place == Place::Value && name != "payload" {
            return;
        }
        let (code, message) = if place == Place::Condition && name != "payload" {
            (codes::UNTRUSTED, format!("{name} is a field of the payload, which its author controls"))
        } else {
            (codes::FOREIGN_FORM, format!("{name} is a field of the payload here"))
        };
        let hint = match *function {
            "" => "rules of dialect aws see messages, not events of the broker".to_owned(),
            function => {
                format!(
                    "write {function} for what the broker knows; in backticks the field is meant: `{name}`"
                )
            }
        };
        self.doubt(Fault::new(code, span, message).with_hint(hint));
    }

    fn uses_of_aliases(&mut self, expr: &Expr, aliases: &[Alias], used: Use) {
        if let ExprKind::Name(name) = &expr.kind
            && !self.is_in_backticks(expr.span)
            && let Some(alias) = aliases.iter().find(|alias| alias.name == *name)
        {
            let Alias { source, is_field, .. } = alias;
            let (code, message, hint) = match used {
                Use::Where => {
                    let message = format!(
                        "{name} is the name of an item of SELECT; WHERE reads the field {name} of the payload"
                    );
                    let hint = if *is_field {
                        format!("write {source}")
                    } else {
                        format!("write SET @{name} = {source} before SELECT, and @{name}")
                    };
                    (codes::ALIAS_IN_WHERE, message, hint)
                }
                Use::Template => {
                    let message = format!(
                        "{name} is the name of an item of SELECT; a template reads the field {name} of the payload"
                    );
                    let field = if *is_field { format!("{source} or ") } else { String::new() };
                    (codes::ALIAS_IN_TEMPLATE, message, format!("write {field}output().{name}"))
                }
            };
            self.doubt(Fault::new(code, expr.span, message).with_hint(hint));
        }
        expr.for_each_part(&mut |part| self.uses_of_aliases(part, aliases, used));
    }

    /// Conditions that are the same for every message.
    fn constants(&mut self, condition: &Expr) {
        if is_constant(condition) {
            let message = "this condition is the same for every message";
            self.doubt(
                Fault::new(codes::CONSTANT_CONDITION, condition.span, message)
                    .with_hint("leave it out, or name a field"),
            );
        } else if let ExprKind::And(parts) | ExprKind::Or(parts) = &condition.kind {
            parts.iter().for_each(|part| self.constants(part));
        }
    }

    /// Comparisons of `"x"` with a constant: where `"x"` is a name, that reads as a comparison of a field.
    fn quoted_names(&mut self, expr: &Expr) {
        let operands: Vec<&Expr> = match &expr.kind {
            ExprKind::Compare { left, right, .. } => vec![left, right],
            ExprKind::Between { value, low, high, .. } => vec![value, low, high],
            ExprKind::Like { value, pattern, .. } => vec![value, pattern],
            ExprKind::In { value, among: Among::List(items), .. } => {
                std::iter::once(&**value).chain(items).collect()
            }
            ExprKind::Case { subject: Some(subject), branches, .. } => {
                std::iter::once(&**subject).chain(branches.iter().map(|(when, _)| when)).collect()
            }
            _ => Vec::new(),
        };
        let is_quoted = |operand: &&&Expr| {
            matches!(operand.kind, ExprKind::String(_))
                && self.text.as_bytes().get(operand.span.start) == Some(&b'"')
        };
        if operands.iter().all(|operand| is_constant(operand))
            && let Some(quoted) = operands.iter().find(is_quoted)
            && let ExprKind::String(name) = &quoted.kind
        {
            let message = format!("\"{name}\" is a String here, compared with a constant");
            let plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
            let hint = if plain {
                format!("the field is written {name}")
            } else {
                format!("the field is written `{name}`")
            };
            self.doubt(Fault::new(codes::QUOTED_NAME, quoted.span, message).with_hint(hint));
        }
        expr.for_each_part(&mut |part| self.quoted_names(part));
    }
}

/// Whether an expression has the same value for every message.
fn is_constant(expr: &Expr) -> bool {
    match &expr.kind {
        // A variable may hold anything.
        ExprKind::Name(_) | ExprKind::Star | ExprKind::Variable(_) => return false,
        ExprKind::Exists(_) | ExprKind::Subquery(_) => return false,
        ExprKind::Call { name, .. } if !functions::is_pure(&name.text) => return false,
        _ => {}
    }
    let mut constant = true;
    expr.for_each_part(&mut |part| constant &= is_constant(part));
    constant
}
