//! Logic of three values against a model of a few lines.

use proptest::prelude::*;
use rules_sql::Outcome;

use super::{config, outcome, truth};

#[derive(Clone, Debug)]
enum Logic {
    Leaf(&'static str, Option<bool>),
    Not(Box<Logic>),
    And(Box<Logic>, Box<Logic>),
    Or(Box<Logic>, Box<Logic>),
}

const PAYLOAD: &[u8] = br#"{"t": true, "f": false, "T": "TRUE", "F": "faLse", "n": null, "one": 1, "s": "yes", "o": {"t": true}}"#;

const LEAVES: [(&str, Option<bool>); 14] = [
    ("true", Some(true)),
    ("false", Some(false)),
    ("t", Some(true)),
    ("f", Some(false)),
    ("T", Some(true)),
    ("F", Some(false)),
    ("o.t", Some(true)),
    ("1 < 2", Some(true)),
    ("n", None),
    ("NULL", None),
    ("one", None),
    ("s", None),
    ("missing", None),
    ("missing = 1", None),
];

impl Logic {
    fn sql(&self) -> String {
        match self {
            Logic::Leaf(text, _) => format!("({text})"),
            Logic::Not(inner) => format!("NOT {}", inner.sql()),
            Logic::And(a, b) => format!("({} AND {})", a.sql(), b.sql()),
            Logic::Or(a, b) => format!("({} OR {})", a.sql(), b.sql()),
        }
    }

    /// By minimum and maximum of false, unknown, true.
    fn truth(&self) -> Option<bool> {
        let rank = |value: Option<bool>| match value {
            Some(false) => 0,
            None => 1,
            Some(true) => 2,
        };
        let back = |rank| [Some(false), None, Some(true)][rank];
        match self {
            Logic::Leaf(_, value) => *value,
            Logic::Not(inner) => back(2 - rank(inner.truth())),
            Logic::And(a, b) => back(rank(a.truth()).min(rank(b.truth()))),
            Logic::Or(a, b) => back(rank(a.truth()).max(rank(b.truth()))),
        }
    }
}

fn logic() -> impl Strategy<Value = Logic> {
    let leaf = prop::sample::select(LEAVES.to_vec()).prop_map(|(text, value)| Logic::Leaf(text, value));
    leaf.prop_recursive(5, 24, 2, |inner| {
        let pair = (inner.clone().prop_map(Box::new), inner.clone().prop_map(Box::new));
        prop_oneof![
            inner.prop_map(Box::new).prop_map(Logic::Not),
            pair.clone().prop_map(|(a, b)| Logic::And(a, b)),
            pair.prop_map(|(a, b)| Logic::Or(a, b)),
        ]
    })
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn logic_is_that_of_three_values(condition in logic()) {
        let (sql, expected) = (condition.sql(), condition.truth());
        // An operand alone is a value of its own type: twice negated it is its truth.
        prop_assert_eq!(truth(&format!("NOT NOT ({sql})"), PAYLOAD), expected, "{}", sql);
        let matched = matches!(outcome(&format!("SELECT * FROM '#' WHERE {sql}"), PAYLOAD), Outcome::Output(_));
        prop_assert_eq!(matched, expected == Some(true), "{}", sql);
        let searched = truth(&format!("CASE WHEN {sql} THEN true ELSE false END"), PAYLOAD);
        prop_assert_eq!(searched, Some(expected == Some(true)), "{}", sql);
        // De Morgan.
        if let Logic::And(a, b) = &condition {
            prop_assert_eq!(truth(&format!("NOT {} OR NOT {}", a.sql(), b.sql()), PAYLOAD), expected.map(|value| !value));
        }
    }
}
