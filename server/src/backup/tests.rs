//! What is written is read again; what isn't whole, or isn't ours, is refused.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::Role;

const LINE: usize = line_bytes_max(1 << 20);

fn header() -> Header {
    Header {
        format: FORMAT,
        product: "0.1.0".into(),
        store: "00000000000000ff".into(),
        made_at_ms: 1_764_250_000_000,
        parts: vec![Part::Rules, Part::Cases, Part::Retained, Part::Users, Part::Files],
    }
}

fn entries() -> Vec<Entry> {
    let rule = RuleRecord {
        name: "overheat".into(),
        definition: json!({ "sql": "SELECT * FROM 'a'", "actions": [{ "name": "a", "type": "log" }] }),
        version: Some(3),
        author: Some("ada".into()),
        changed_at_ms: Some(1),
    };
    let suspended = SuspensionRecord { rule: "comfort".into(), by: "ada".into(), at_ms: 2 };
    let user = UserRecord {
        name: "ada".into(),
        role: Role::Admin,
        password_hash: "$argon2id$".into(),
        created_at_ms: 3,
    };
    let token = TokenRecord {
        name: "ci".into(),
        role: Role::Viewer,
        scopes: Some(vec!["rules:read".into()]),
        sha256: "00".into(),
        expires_at_ms: None,
        created_at_ms: 4,
        created_by: "ada".into(),
    };
    let bare =
        RetainedRecord { topic: "hall/1".into(), payload: vec![0, 255, 10], qos: 1, ..Default::default() };
    let full = RetainedRecord {
        topic: "hall/\u{1}\"\n".into(),
        payload: b"x".to_vec(),
        qos: 2,
        received_at_ms: -5,
        expires_at_ms: Some(6),
        publisher: Some("press-1".into()),
        author: vec![1, 2],
        content_type: Some("text/plain".into()),
        response_topic: Some("r".into()),
        correlation_data: Some(vec![9]),
        payload_is_text: Some(true),
        user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
    };
    vec![
        Entry::Rule(rule),
        Entry::Suspended(suspended),
        Entry::Cases(CasesRecord { rule: "warm".into(), cases: vec![json!({ "id": "a", "rule": "warm" })] }),
        Entry::User(user),
        Entry::Token(token),
        Entry::Retained(bare),
        Entry::Retained(full),
        Entry::File(FileRecord { name: "conf.d/a.toml".into(), text: "a = \"${env:A}\"\n".into() }),
    ]
}

fn written(header: &Header, entries: &[Entry]) -> Vec<u8> {
    let (mut writer, mut bytes) = Writer::begin(header).unwrap();
    entries.iter().for_each(|entry| bytes.extend(writer.entry(entry).unwrap()));
    bytes.extend(writer.end());
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, BackupError> {
    read_within(bytes, LINE)
}

fn read_within(bytes: &[u8], line_bytes_max: usize) -> Result<Vec<Entry>, BackupError> {
    let mut reader = Reader::open(bytes, line_bytes_max)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    assert!(reader.next_entry().is_ok_and(|more| more.is_none()), "there is nothing behind the end");
    Ok(entries)
}

/// A backup whose lines were changed and whose end was made to fit, as somebody who forges one does it.
fn forged(lines: &[&str]) -> Vec<u8> {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let digest = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
    let entries = lines.len() - 1;
    let end = json!({ "end": { "entries": entries, "sha256": super::write::hex(digest.as_ref()) } });
    format!("{body}{end}\n").into_bytes()
}

#[test]
fn what_is_written_is_read_again() {
    assert_eq!(read(&written(&header(), &entries())).unwrap(), entries());
    assert_eq!(read(&written(&header(), &[])).unwrap(), []);
    let bytes = written(&header(), &[]);
    assert_eq!(Reader::open(&bytes[..], LINE).unwrap().header(), &header());
}

/// Backups of this format stay readable, those too that were made before cases were in them: their bytes are kept here.
#[test]
fn backups_of_format_1_are_read() {
    let kept = include_bytes!("testdata/format-1-with-cases.jsonl");
    assert_eq!(read(kept).unwrap(), entries());
    assert_eq!(written(&header(), &entries()), kept);
    let mut before = entries();
    before.retain(|entry| !matches!(entry, Entry::Cases(_)));
    assert_eq!(read(include_bytes!("testdata/format-1.jsonl")).unwrap(), before);
}

#[test]
fn however_it_is_cut_it_is_refused() {
    let whole = written(&header(), &entries());
    for length in 0..whole.len() {
        let error = read(&whole[..length]).unwrap_err();
        assert!(
            matches!(error, BackupError::Foreign | BackupError::CutOff { .. }),
            "{length} of {}: {error}",
            whole.len()
        );
    }
}

#[test]
fn whichever_bit_is_flipped_it_is_refused() {
    let whole = written(&header(), &entries());
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bytes).is_err(), "bit {bit}: {}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn lines_that_are_missing_twice_there_or_in_another_order_are_noticed() {
    let whole = String::from_utf8(written(&header(), &entries())).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    for line in 1..lines.len() - 1 {
        let without: String = [&lines[..line], &lines[line + 1..]].concat().concat();
        assert!(matches!(
            read(without.as_bytes()),
            Err(BackupError::Damaged { what: "the number of entries" })
        ));
        let mut swapped = lines.clone();
        swapped.swap(line, line % (lines.len() - 2) + 1);
        assert!(matches!(
            read(swapped.concat().as_bytes()),
            Err(BackupError::Damaged { what: "what it says" })
        ));
    }
    let twice = whole.clone() + lines.last().unwrap();
    assert!(matches!(read(twice.as_bytes()), Err(BackupError::Trailing)));
    assert!(matches!(read((whole + "\n").as_bytes()), Err(BackupError::Trailing)));
}

#[test]
fn what_is_no_backup_of_this_version_is_refused() {
    for foreign in ["", "\n", "{}\n", "[1]\n", "\u{1f}\u{8b}\n", "{\"tidegate_backup\":\"1\"}\n"] {
        assert!(matches!(read(foreign.as_bytes()), Err(BackupError::Foreign)), "{foreign}");
    }
    assert!(matches!(read(&vec![b' '; 1 << 20]), Err(BackupError::Foreign)));
    let newer = Header { format: FORMAT + 1, ..header() };
    assert!(matches!(read(&written(&newer, &[])), Err(BackupError::Format { found: 2 })));
    let (first, rule) =
        (serde_json::to_string(&header()).unwrap(), serde_json::to_string(&entries()[0]).unwrap());
    assert_eq!(read(&forged(&[&first, &rule])).unwrap().len(), 1);
    for line in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"rule":{"name":"x"}}"#,
        r#"{"file":{"name":"../../etc/passwd","text":""}}"#,
        r#"{"file":{"name":"tidegate.toml"}}"#,
        r#"{"link":{"name":"tidegate.toml","to":"/etc/passwd"}}"#,
        r#"{"retained":{"topic":"a","payload":"*","qos":1,"received_at_ms":0}}"#,
        r#"{"retained":{"topic":"a","payload":"","qos":256,"received_at_ms":0}}"#,
        r#"{"suspended":{"rule":"a","by":"b","at_ms":1,"more":2}}"#,
        r#"{"suspended":["a","b",1]}"#,
        r#"{"end":{"entries":0,"sha256":""},"rule":1}"#,
    ] {
        let error = read(&forged(&[&first, line])).unwrap_err();
        assert!(matches!(error, BackupError::Line { line: 2, .. }), "{line}: {error}");
    }
    let unknown = first.replace("\"parts\"", "\"more\":1,\"parts\"");
    assert!(matches!(read(&forged(&[&unknown])), Err(BackupError::Line { line: 1, .. })));
}

#[test]
fn an_entry_of_a_part_that_is_not_named_is_refused() {
    for entry in entries() {
        let bytes = written(&Header { parts: Vec::new(), ..header() }, &[entry]);
        assert!(matches!(read(&bytes), Err(BackupError::Line { line: 2, .. })));
    }
}

#[test]
fn a_line_may_have_its_limit_and_no_more() {
    let bytes = written(&Header { parts: vec![Part::Retained], ..header() }, &entries()[5..6]);
    let longest = bytes.split_inclusive(|byte| *byte == b'\n').skip(1).map(<[u8]>::len).max().unwrap();
    // Without its newline.
    assert_eq!(read_within(&bytes, longest - 1).unwrap().len(), 1);
    let error = read_within(&bytes, longest - 2).unwrap_err();
    assert!(matches!(error, BackupError::LineTooLong { .. }), "{error}");
}

#[test]
fn no_fault_repeats_what_a_line_says() {
    let first = serde_json::to_string(&header()).unwrap();
    let user = r#"{"user":{"name":"ada","role":"admin","password_hash":7,"c4n4ry":"c4n4ry"}}"#;
    for line in [user, "c4n4ry"] {
        assert!(!crate::cli::chain(&read(&forged(&[&first, line])).unwrap_err()).contains("c4n4ry"));
    }
    assert!(!format!("{:?}", entries()).contains("argon2id"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512), at in 0..1_000_usize) {
        drop(read(&bytes));
        let mut whole = written(&header(), &entries());
        let at = at.min(whole.len());
        whole.splice(at..at, bytes.iter().copied());
        prop_assert_eq!(read(&whole).is_ok(), bytes.is_empty());
    }
}
