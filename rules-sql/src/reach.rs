//! Whether what a topic template renders can be a topic that a filter matches: a republish that may come back to its
//! own rule.
//!
//! A `${…}` may turn out as any text, one level where it is `topic(n)`. Both sides are sequences of characters and
//! gaps, so the question is whether two such patterns have a text in common, which a walk over pairs of places answers.

use std::collections::HashSet;

use crate::plan::{Expr, Op};
use crate::template::Part;

/// A piece of a pattern over Topic Names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    One(char),
    /// Any text.
    Any,
    /// Any text without `/`.
    Level,
}

/// Whether some rendering of `parts` is a topic that `filter` matches. True when in doubt.
pub(crate) fn reaches(parts: &[Part], filter: &str) -> bool {
    let topic: Vec<Piece> = parts
        .iter()
        .flat_map(|part| match part {
            Part::Literal(text) => text.chars().map(Piece::One).collect(),
            Part::Value { expr, .. } => vec![if is_level(expr) { Piece::Level } else { Piece::Any }],
        })
        .collect();
    // [MQTT-4.7.2-1, v3.1.1 and v5]: a wildcard at the front doesn't match what begins with `$`.
    if topic.first() == Some(&Piece::One('$')) && filter.starts_with(['+', '#']) {
        return false;
    }
    if filter == "#" {
        return true;
    }
    match filter.strip_suffix("/#") {
        // `a/#` matches `a` as well.
        Some(parent) => {
            let mut below = levels(parent);
            let exactly = meet(&topic, &below);
            below.extend([Piece::One('/'), Piece::Any]);
            exactly || meet(&topic, &below)
        }
        None => meet(&topic, &levels(filter)),
    }
}

fn levels(filter: &str) -> Vec<Piece> {
    filter.chars().map(|char| if char == '+' { Piece::Level } else { Piece::One(char) }).collect()
}

/// `topic(n)` alone is certain to hold no `/`.
fn is_level(expr: &Expr) -> bool {
    matches!(&expr.op, Op::Call { function, args } if function.name == "topic" && args.len() == 1)
}

/// Whether two patterns have a text in common.
fn meet(left: &[Piece], right: &[Piece]) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![(0, 0)];
    while let Some((i, j)) = open.pop() {
        if !seen.insert((i, j)) {
            continue;
        }
        let (a, b) = (left.get(i).copied(), right.get(j).copied());
        if a.is_none() && b.is_none() {
            return true;
        }
        // A gap may be empty.
        if matches!(a, Some(Piece::Any | Piece::Level)) {
            open.push((i + 1, j));
        }
        if matches!(b, Some(Piece::Any | Piece::Level)) {
            open.push((i, j + 1));
        }
        match (a, b) {
            (Some(Piece::One(x)), Some(Piece::One(y))) if x == y => open.push((i + 1, j + 1)),
            (Some(Piece::One(x)), Some(gap)) if takes(gap, x) => open.push((i + 1, j)),
            (Some(gap), Some(Piece::One(y))) if takes(gap, y) => open.push((i, j + 1)),
            _ => {}
        }
    }
    false
}

fn takes(gap: Piece, char: char) -> bool {
    match gap {
        Piece::One(_) => false,
        Piece::Any => true,
        Piece::Level => char != '/',
    }
}
