//! The subscription index against a trie, at a million mixed filters: what docs/decisions/0004 is based on.
//!
//! `cargo bench -p broker --bench subscription_index [-- FILTERS]` prints, for each, nanoseconds per insertion and per
//! match, and bytes of process memory per filter. Each index is measured in a process of its own.

#![allow(
    dead_code,
    missing_docs,
    unused_imports,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a bench prints, and panics where it can't go on"
)]

#[path = "../src/subscriptions/compact_set.rs"]
mod compact_set;
#[path = "../src/subscriptions/index.rs"]
mod index;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use index::{FilterIndex, Place};

#[derive(Debug, Default)]
struct Count(u32);

impl Place for Count {
    fn is_vacant(&self) -> bool {
        self.0 == 0
    }
}

/// The usual alternative: a node for each level, children by name, `+` and `#` beside them.
#[derive(Default)]
struct Trie {
    children: HashMap<Box<str>, Trie, foldhash::fast::RandomState>,
    plus: Option<Box<Trie>>,
    tail: u32,
    here: u32,
}

impl Trie {
    fn insert(&mut self, filter: &str) {
        let mut node = self;
        for level in filter.split('/') {
            match level {
                "#" => {
                    node.tail += 1;
                    return;
                }
                "+" => node = node.plus.get_or_insert_default(),
                level => {
                    if !node.children.contains_key(level) {
                        node.children.insert(level.into(), Trie::default());
                    }
                    node = node.children.get_mut(level).unwrap();
                }
            }
        }
        node.here += 1;
    }

    fn matching(&self, levels: &[&str], found: &mut u32) {
        *found += self.tail;
        let Some((level, rest)) = levels.split_first() else {
            *found += self.here;
            return;
        };
        if let Some(child) = self.children.get(*level) {
            child.matching(rest, found);
        }
        if let Some(plus) = &self.plus {
            plus.matching(rest, found);
        }
    }
}

/// Six in ten exact, the rest with `+` in the middle, at the end or in front, or `#`.
fn filter(number: usize) -> String {
    let (site, line, device) = (number % 50, number / 50 % 200, number);
    match number % 10 {
        0..=5 => format!("site{site}/line{line}/dev{device}/temp"),
        6 => format!("site{site}/+/dev{device}/temp"),
        7 => format!("site{site}/line{line}/dev{device}/+"),
        8 => format!("site{site}/line{line}/dev{device}/#"),
        _ => format!("+/line{line}/dev{device}/temp"),
    }
}

fn topic(number: usize) -> String {
    format!("site{}/line{}/dev{number}/temp", number % 50, number / 50 % 200)
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn measure(
    name: &str,
    filters: usize,
    mut insert: impl FnMut(&str),
    matching: impl FnOnce(&[String]) -> u64,
) {
    let texts: Vec<String> = (0..filters).map(filter).collect();
    let topics: Vec<String> = (0..200_000).map(|number| topic(number * 7919 % filters)).collect();
    let before = resident_bytes();
    let began = Instant::now();
    for text in &texts {
        insert(text);
    }
    let inserted = began.elapsed();
    let bytes = resident_bytes().saturating_sub(before);
    drop(texts);
    let began = Instant::now();
    let found = matching(&topics);
    let matched = began.elapsed();
    println!(
        "{name:6} {filters:8} filters: insert {:5.0} ns, match {:5.0} ns ({:.2} found each), {:4} bytes per filter",
        inserted.as_nanos() as f64 / filters as f64,
        matched.as_nanos() as f64 / topics.len() as f64,
        found as f64 / topics.len() as f64,
        bytes / filters,
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let filters = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    match arguments.get(1).map(String::as_str) {
        Some("shapes") => {
            let index = FilterIndex::<Count>::new();
            measure(
                "shapes",
                filters,
                |filter| index.change(filter, |_, count| count.0 += 1),
                |topics| {
                    let mut found = 0;
                    for topic in topics {
                        let hash = compact_set::hash_of(topic.as_str());
                        index.matching(topic, hash, |_, count| found += u64::from(count.0));
                    }
                    black_box(found)
                },
            );
        }
        Some("trie") => {
            let trie = std::cell::RefCell::new(Trie::default());
            measure(
                "trie",
                filters,
                |filter| trie.borrow_mut().insert(filter),
                |topics| {
                    let trie = trie.borrow();
                    let mut found = 0;
                    for topic in topics {
                        let levels: smallvec::SmallVec<[&str; 16]> = topic.split('/').collect();
                        trie.matching(&levels, &mut found);
                    }
                    u64::from(black_box(found))
                },
            );
        }
        _ => {
            for which in ["shapes", "trie"] {
                let status = std::process::Command::new(std::env::current_exe().unwrap())
                    .args([filters.to_string(), which.to_owned()])
                    .status()
                    .unwrap();
                assert!(status.success());
            }
        }
    }
}
