//! The seed corpora of the fuzz targets for this crate are made of its own test tables.
//!
//! `UPDATE_FUZZ_SEEDS=1 cargo test -p mqtt-protocol --test fuzz_seeds` writes them anew; without it they are compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    reason = "test code"
)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use mqtt_protocol::ProtocolVersion;

/// Path inside `fuzz/corpus` and content.
type Seeds = BTreeMap<String, Vec<u8>>;

#[test]
fn seeds_are_up_to_date() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut seeds = Seeds::new();
    packets(&mut seeds);
    sequences(&mut seeds);
    topics(&mut seeds);
    assert!(seeds.len() < 200, "seeds stay few");
    if std::env::var_os("UPDATE_FUZZ_SEEDS").is_some() {
        for (path, content) in &seeds {
            let path = corpus.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
    for (path, content) in &seeds {
        let found = fs::read(corpus.join(path))
            .unwrap_or_else(|error| panic!("{path}: {error}; see the module's head"));
        assert_eq!(&found, content, "{path} is out of date; see the module's head");
    }
}

/// The golden packets, the same bytes once.
fn packets(seeds: &mut Seeds) {
    let mut seen = BTreeSet::new();
    for row in common::rows(common::GOLDEN, 2) {
        if seen.insert(row.bytes.clone()) {
            let name = format!("{}_v{}", row.words[0], row.versions[0].level());
            seeds.insert(format!("differential/{name}"), row.bytes.clone());
            seeds.insert(format!("packet/{name}"), row.bytes);
        }
    }
}

/// A stream for each version, cut in three ways, and one that ends in a packet to be refused.
fn sequences(seeds: &mut Seeds) {
    let golden = common::rows(common::GOLDEN, 2);
    let refused = common::rows(common::REFUSALS, 3);
    for version in ProtocolVersion::ALL {
        let level = version.level();
        let rows = golden.iter().filter(|row| row.versions.contains(&version));
        let stream: Vec<u8> = rows.flat_map(|row| row.bytes.iter().copied()).collect();
        for (name, pieces) in [("at_once", &[0][..]), ("bytes", &[1, 0]), ("mixed", &[3, 0, 6, 40])] {
            seeds.insert(format!("packet_sequence/{name}_v{level}"), [pieces, &stream].concat());
        }
        let last = refused.iter().rev().find(|row| row.versions.contains(&version)).unwrap();
        seeds.insert(
            format!("packet_sequence/refused_v{level}"),
            [&[1, 4], &stream[..], &last.bytes].concat(),
        );
    }
}

fn topics(seeds: &mut Seeds) {
    let texts = [
        "a/b\na/b",
        "a/+/c\na/b/c",
        "a/#\na",
        "#\n$SYS/x",
        "+/+\n/finance",
        "$SYS/#\n$SYS/a/b",
        "$share/group/a/+\na/b",
        "$share/group",
        "$share//a\na",
        "a/#/b\na/x/b",
        "a+\na",
        "é/+\né/x",
        "//\n//",
    ];
    for (index, text) in texts.iter().enumerate() {
        seeds.insert(format!("topic/seed_{index:02}"), text.as_bytes().to_vec());
    }
}
