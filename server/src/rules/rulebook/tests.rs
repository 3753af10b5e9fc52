use serde_json::json;

use super::*;
use crate::rules::rulebook::journal::Line;

const FILES: &str = "
[rules.of-file]
sql = \"SELECT * FROM 'a'\"
[[rules.of-file.actions]]
name = 'out'
type = 'republish'
topic = 'out/a'
";

fn files(text: &str) -> RuleSet {
    RuleSet::from_texts([(Path::new("rules.d/a.toml"), text)], &Limits::default()).unwrap()
}

fn start(data_dir: Option<&Path>, text: &str) -> Result<RuleBook, BookError> {
    RuleBook::start(files(text), data_dir, &Limits::default(), &PipelineSettings::default())
}

fn book(data_dir: Option<&Path>) -> RuleBook {
    start(data_dir, FILES).unwrap()
}

fn republish(topic: &str) -> Value {
    json!({
        "sql": "SELECT * FROM 'b'",
        "actions": [{ "name": "out", "type": "republish", "topic": topic }],
    })
}

fn put(name: &str, definition: Value) -> RuleChange {
    RuleChange::Put { name: name.to_owned(), definition, expected: Expected::Any }
}

fn remove(name: &str) -> RuleChange {
    RuleChange::Remove { name: name.to_owned(), expected: Expected::Any }
}

fn suspend(name: &str) -> RuleChange {
    RuleChange::Suspend { name: name.to_owned() }
}

fn resume(name: &str) -> RuleChange {
    RuleChange::Resume { name: name.to_owned() }
}

fn names(book: &RuleBook) -> Vec<String> {
    book.list(None, usize::MAX).0.into_iter().map(|entry| entry.name).collect()
}

/// The rules that run, by name.
fn running(book: &RuleBook) -> Vec<String> {
    let mut names: Vec<String> = book.pipeline().stats().into_iter().map(|stats| stats.name).collect();
    names.sort();
    names
}

/// Everything that a caller can see.
fn seen(book: &RuleBook) -> (Vec<RuleEntry>, Vec<Vec<Version>>) {
    let entries = book.list(None, usize::MAX).0;
    let versions = entries.iter().map(|entry| book.versions(&entry.name).unwrap_or_default()).collect();
    (entries, versions)
}

#[tokio::test]
async fn a_rule_of_the_store_is_made_changed_and_taken_out() {
    let book = book(None);
    let made = book.change(&[put("new", republish("out/b"))], "ada").unwrap();
    assert_eq!((made.rules[0].change, made.rules[0].version), ("added", Some(1)));
    assert_eq!(running(&book), ["new", "of-file"]);
    let entry = book.rule("new").unwrap();
    assert_eq!((entry.owner, entry.version, entry.author.as_deref()), (Owner::Store, Some(1), Some("ada")));
    assert!(entry.runs && entry.definition == republish("out/b"));
    // The same again is no change.
    assert!(book.change(&[put("new", republish("out/b"))], "bob").unwrap().rules.is_empty());
    let changed = book.change(&[put("new", republish("out/c"))], "bob").unwrap();
    let delta = &changed.rules[0];
    assert_eq!((delta.change, delta.version), ("changed", Some(2)));
    assert_eq!(delta.members.len(), 1);
    assert_eq!(delta.members[0].member, "actions.out.topic");
    assert_eq!(book.change(&[remove("new")], "bob").unwrap().rules[0].change, "removed");
    assert_eq!(running(&book), ["of-file"]);
    assert!(book.rule("new").is_none());
    assert!(matches!(book.change(&[remove("new")], "bob"), Err(BookError::Unknown { .. })));
}

#[tokio::test]
async fn what_was_changed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let before = {
        let book = book(Some(folder.path()));
        book.change(&[put("one", republish("x")), put("two", republish("y"))], "ada").unwrap();
        book.change(&[put("one", republish("z")), suspend("of-file")], "bob").unwrap();
        book.change(&[remove("two")], "bob").unwrap();
        seen(&book)
    };
    let book = book(Some(folder.path()));
    assert_eq!(seen(&book), before);
    assert_eq!(running(&book), ["one"]);
    let entry = book.rule("of-file").unwrap();
    assert_eq!(entry.suspended.unwrap().by, "bob");
    assert!(entry.enabled && !entry.runs && entry.owner == Owner::File);
    // What is gone can be brought back, with the next number.
    let back = book.roll_back("two", 1, "eve").unwrap();
    assert_eq!(back.rules[0].version, Some(3));
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(folder.path().join("rules.journal")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn nothing_is_written_before_the_first_change() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(Some(folder.path()));
    book.try_change(&[put("new", republish("x"))], "ada").unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(names(&book), ["of-file"]);
}

#[tokio::test]
async fn one_name_has_one_owner_and_both_places_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(Some(folder.path()));
    let error = book.change(&[put("of-file", republish("x"))], "ada").unwrap_err().to_string();
    assert!(error.contains("rules.d/a.toml") && error.contains("rules.journal"), "{error}");
    let expected = Expected::Version(1);
    let edit = RuleChange::Put { name: "of-file".to_owned(), definition: republish("x"), expected };
    assert!(matches!(book.change(&[edit], "ada"), Err(BookError::OfFile { .. })));
    assert!(matches!(book.change(&[remove("of-file")], "ada"), Err(BookError::OfFile { .. })));
    assert!(matches!(book.set_enabled("of-file", false, "ada"), Err(BookError::OfFile { .. })));
    assert!(matches!(book.versions("of-file"), Err(BookError::OfFile { .. })));
    book.change(&[put("new", republish("x"))], "ada").unwrap();
    assert!(matches!(book.change(&[suspend("new")], "ada"), Err(BookError::OfStore { .. })));
    // A file that takes the name later is refused, by a reload and by a start.
    let both = files(&FILES.replace("of-file", "new"));
    let (targets, connectors) = (TargetPolicy::default(), Connectors::default());
    let refused = book.replace_files(&both, &Limits::default(), &targets, &connectors);
    assert!(matches!(refused, Err(BookError::Twice { .. })));
    assert_eq!(names(&book), ["new", "of-file"]);
    drop(book);
    let error = start(Some(folder.path()), &FILES.replace("of-file", "new")).unwrap_err().to_string();
    assert!(error.contains("rules.d/a.toml") && error.contains("rules.journal"), "{error}");
}

#[tokio::test]
async fn a_suspended_rule_stays_so_through_reloads_until_it_is_resumed() {
    let book = book(None);
    assert_eq!(book.change(&[suspend("of-file")], "ada").unwrap().rules[0].change, "suspended");
    assert!(book.change(&[suspend("of-file")], "bob").unwrap().rules.is_empty());
    assert!(running(&book).is_empty());
    let (targets, connectors) = (TargetPolicy::default(), Connectors::default());
    let more = files(&format!("{FILES}{}", FILES.replace("of-file", "more")));
    book.replace_files(&more, &Limits::default(), &targets, &connectors).unwrap();
    assert_eq!(running(&book), ["more"]);
    // A file that is gone for a while makes no difference.
    book.replace_files(&files(""), &Limits::default(), &targets, &connectors).unwrap();
    book.replace_files(&more, &Limits::default(), &targets, &connectors).unwrap();
    assert_eq!(running(&book), ["more"]);
    assert_eq!(book.change(&[resume("of-file")], "ada").unwrap().rules[0].change, "resumed");
    assert_eq!(running(&book), ["more", "of-file"]);
    assert!(matches!(book.change(&[suspend("nobody")], "ada"), Err(BookError::Unknown { .. })));
    assert!(matches!(book.change(&[resume("nobody")], "ada"), Err(BookError::Unknown { .. })));
}

#[tokio::test]
async fn changes_are_made_all_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(Some(folder.path()));
    book.change(&[put("kept", republish("x"))], "ada").unwrap();
    let before = seen(&book);
    let bytes = std::fs::read(folder.path().join("rules.journal")).unwrap();
    let mut broken = republish("x");
    broken["sql"] = json!("SELECT FROM");
    let mut unconnected = republish("x");
    unconnected["actions"][0] = json!({ "name": "out", "type": "http", "connector": "nowhere" });
    let mut secret = republish("x");
    secret["actions"][0]["payload"] = json!("${env:HOME}");
    let mut without_value = republish("x");
    without_value["description"] = Value::Null;
    let large = json!({ "sql": "x".repeat(DEFINITION_BYTES_MAX) });
    for (name, definition) in [
        ("sql", broken),
        ("unconnected", unconnected),
        ("secret", secret),
        ("null", without_value),
        ("large", large),
        ("text", json!("SELECT 1")),
        ("no such name", republish("x")),
    ] {
        let changes =
            [put("good", republish("y")), remove("kept"), suspend("of-file"), put(name, definition)];
        let error = book.change(&changes, "ada").unwrap_err();
        assert!(matches!(error, BookError::Refused(_) | BookError::Pipeline(_)), "{name}: {error:?}");
        assert!(book.try_change(&changes, "ada").is_err());
        assert!(error.faults().iter().all(|fault| fault.contains(&format!("\"{name}\""))), "{error:?}");
    }
    assert_eq!(seen(&book), before);
    assert_eq!(running(&book), ["kept", "of-file"]);
    assert_eq!(std::fs::read(folder.path().join("rules.journal")).unwrap(), bytes);
    // At the limit it is taken.
    let mut largest = republish("x");
    largest["description"] = json!("");
    let room = DEFINITION_BYTES_MAX - largest.to_string().len();
    largest["description"] = json!("d".repeat(room));
    book.change(&[put("largest", largest)], "ada").unwrap();
}

#[tokio::test]
async fn a_fault_is_told_without_a_place_in_a_text_that_nobody_wrote() {
    let book = book(None);
    let mut broken = republish("x");
    broken["sql"] = json!("SELECT FROM 'a'");
    let Err(BookError::Refused(faults)) = book.change(&[put("r", broken)], "ada") else { panic!() };
    assert_eq!((faults[0].line, faults[0].column, faults[0].rule.as_deref()), (None, None, Some("r")));
    assert!(faults[0].code.is_some() && faults[0].detail.is_some());
}

#[tokio::test]
async fn whoever_saw_another_version_is_refused() {
    let book = book(None);
    let change = |expected, topic: &str| RuleChange::Put {
        name: "r".to_owned(),
        definition: republish(topic),
        expected,
    };
    let changed = |change: RuleChange| book.change(&[change], "ada");
    assert!(matches!(changed(change(Expected::Version(1), "a")), Err(BookError::Unknown { .. })));
    changed(change(Expected::Absent, "a")).unwrap();
    assert!(matches!(changed(change(Expected::Absent, "b")), Err(BookError::Exists { version: 1, .. })));
    changed(change(Expected::Version(1), "b")).unwrap();
    let late = changed(change(Expected::Version(1), "c"));
    assert!(matches!(late, Err(BookError::Changed { version: 2, expected: 1, .. })));
    let gone = RuleChange::Remove { name: "r".to_owned(), expected: Expected::Version(1) };
    assert!(matches!(changed(gone), Err(BookError::Changed { .. })));
    changed(RuleChange::Remove { name: "r".to_owned(), expected: Expected::Version(2) }).unwrap();
}

#[tokio::test]
async fn a_rule_is_switched_off_and_on_and_rolled_back() {
    let book = book(None);
    book.change(&[put("r", republish("a"))], "ada").unwrap();
    book.set_enabled("r", false, "bob").unwrap();
    assert_eq!(running(&book), ["of-file"]);
    let entry = book.rule("r").unwrap();
    assert!(!entry.enabled && !entry.runs && entry.version == Some(2));
    book.set_enabled("r", true, "bob").unwrap();
    assert_eq!(running(&book), ["of-file", "r"]);
    book.change(&[put("r", republish("b"))], "ada").unwrap();
    book.roll_back("r", 1, "eve").unwrap();
    assert_eq!(book.rule("r").unwrap().definition, republish("a"));
    let versions = book.versions("r").unwrap();
    let shown: Vec<_> = versions.iter().map(|version| (version.number, version.author.as_str())).collect();
    assert_eq!(shown, [(1, "ada"), (2, "bob"), (3, "bob"), (4, "ada"), (5, "eve")]);
    assert!(matches!(book.roll_back("r", 6, "eve"), Err(BookError::NoVersion { version: 6, .. })));
    assert!(matches!(book.roll_back("nobody", 1, "eve"), Err(BookError::Unknown { .. })));
}

#[tokio::test]
async fn as_many_versions_are_kept_as_the_limit_says() {
    let book = book(None);
    let last = u32::try_from(VERSIONS_MAX).unwrap() + 1;
    for number in 1..last {
        book.change(&[put("r", republish(&number.to_string()))], "ada").unwrap();
    }
    let numbers = || book.versions("r").unwrap().iter().map(|version| version.number).collect::<Vec<_>>();
    assert_eq!(numbers(), (1..last).collect::<Vec<_>>());
    book.change(&[put("r", republish("more"))], "ada").unwrap();
    assert_eq!(numbers(), (2..=last).collect::<Vec<_>>());
}

#[test]
fn versions_that_no_longer_hold_take_no_more_bytes_than_the_limit_says() {
    let mut histories = Histories::default();
    let text: Arc<str> = "x".repeat(1 << 20).into();
    let version = |number, definition: Option<&Arc<str>>| history::Kept {
        number,
        at_ms: 0,
        author: "ada".to_owned(),
        definition: definition.cloned(),
    };
    // Every rule holds what it says, and one version of before.
    let rules = VERSION_BYTES_MAX / (1 << 20) + 8;
    for number in 1..=2 {
        for rule in 0..rules {
            histories.add(&format!("r{rule}"), version(number, Some(&text)));
        }
    }
    assert_eq!(histories.current().count(), rules, "what holds is never forgotten");
    let kept: usize = (0..rules).map(|rule| histories.of(&format!("r{rule}")).unwrap().len() - 1).sum();
    assert!(kept < VERSION_BYTES_MAX >> 20 && kept + 2 > VERSION_BYTES_MAX >> 20, "{kept}");
    assert_eq!(histories.of("r0").unwrap().len(), 1, "the oldest go first");
    // A rule that was taken out is forgotten in the end.
    for rule in 0..rules {
        histories.add(&format!("r{rule}"), version(3, None));
        histories.add(&format!("r{rule}"), version(4, Some(&text)));
        histories.add(&format!("r{rule}"), version(5, None));
    }
    assert_eq!(histories.current().count(), 0);
    assert!(histories.of("r0").is_none() && histories.of(&format!("r{}", rules - 1)).is_some());
}

#[tokio::test]
async fn an_author_s_name_is_one_short_line() {
    let book = book(None);
    let long = format!("ada\n{}", "x".repeat(1_000));
    book.change(&[put("r", republish("a"))], &long).unwrap();
    let author = book.rule("r").unwrap().author.unwrap();
    assert_eq!(author.chars().count(), AUTHOR_CHARS_MAX);
    assert!(author.starts_with("adaxx"));
}

#[tokio::test]
async fn wanted_rules_are_put_and_others_removed_when_asked_for() {
    let book = book(None);
    book.change(&[put("one", republish("a")), put("two", republish("b"))], "ada").unwrap();
    let wanted: BTreeMap<String, Value> =
        [("two", "b"), ("three", "c")].map(|(name, topic)| (name.to_owned(), republish(topic))).into();
    let told = |prune| {
        let changed = book.try_change(&book.changes_to(&wanted, prune), "ada").unwrap();
        changed.rules.into_iter().map(|delta| (delta.rule, delta.change)).collect::<Vec<_>>()
    };
    assert_eq!(told(Prune::Nothing), [("three".to_owned(), "added")]);
    assert_eq!(told(Prune::Others), [("three".to_owned(), "added"), ("one".to_owned(), "removed")]);
    book.change(&book.changes_to(&wanted, Prune::Others), "ada").unwrap();
    assert_eq!(names(&book), ["of-file", "three", "two"]);
    assert!(told(Prune::Others).is_empty());
}

#[tokio::test]
async fn the_export_is_a_rule_file_of_the_store_s_rules() {
    let book = book(None);
    book.change(&[put("one", republish("a")), put("two", republish("b"))], "ada").unwrap();
    let text = book.export().unwrap();
    let read = RuleSet::from_texts([(Path::new("x"), text.as_str())], &Limits::default()).unwrap();
    let read: Vec<_> = read.iter().map(|rule| (rule.name.clone(), rule.definition_value())).collect();
    let expected = [("one".to_owned(), republish("a")), ("two".to_owned(), republish("b"))];
    assert_eq!(read, expected);
}

#[tokio::test]
async fn pages_follow_one_another() {
    let book = book(None);
    for name in ["a", "b", "z"] {
        book.change(&[put(name, republish(name))], "ada").unwrap();
    }
    let (first, next) = book.list(None, 2);
    assert_eq!((first.len(), next.as_deref()), (2, Some("b")));
    let (rest, next) = book.list(next.as_deref(), 2);
    assert_eq!(rest.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["of-file", "z"]);
    assert!(next.is_none());
}

#[tokio::test]
async fn values_of_secret_names_are_not_told() {
    let book = book(None);
    let with = |token: &str| {
        json!({
            "sql": "SELECT * FROM 'b'",
            "actions": [{ "name": "out", "type": "http", "url": "https://ops.example/", "headers": { "Authorization": token } }],
        })
    };
    book.change(&[put("r", with("Bearer canary-1"))], "ada").unwrap();
    let changed = book.change(&[put("r", with("Bearer canary-2"))], "ada").unwrap();
    let told = json!(changed).to_string();
    assert!(told.contains("Authorization") && !told.contains("canary"), "{told}");
}

#[tokio::test]
async fn an_end_that_was_never_acknowledged_is_cut_off_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.journal");
    {
        let book = book(Some(folder.path()));
        book.change(&[put("one", republish("a"))], "ada").unwrap();
        book.change(&[put("two", republish("b"))], "ada").unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    let starts: Vec<usize> =
        whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    // Whatever a crash leaves of the last line, the change before it is there.
    for end in starts[1]..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert_eq!(names(&book(Some(folder.path()))), ["of-file", "one"], "{end}");
    }
    // And of the first line.
    for end in 0..=starts[0] {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert_eq!(names(&book(Some(folder.path()))), ["of-file"], "{end}");
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    {
        let book = book(Some(folder.path()));
        book.change(&[put("three", republish("c"))], "ada").unwrap();
        assert_eq!(names(&book), ["of-file", "one", "three"]);
    }
    assert_eq!(names(&book(Some(folder.path()))), ["of-file", "one", "three"]);
    // A bit that fell over in what was acknowledged isn't passed over.
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let Err(error) = start(Some(folder.path()), FILES) else {
            // Of the newline at the end nobody can tell.
            assert_eq!(at, whole.len() - 1);
            continue;
        };
        assert!(matches!(error, BookError::Damaged { .. }), "{at}: {error:?}");
    }
    std::fs::write(&path, "tidegate-rules 2\n").unwrap();
    assert!(matches!(start(Some(folder.path()), FILES), Err(BookError::Damaged { line: 1, .. })));
}

#[tokio::test]
async fn what_can_t_be_kept_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let book = book(Some(&data_dir));
    std::fs::remove_dir(&data_dir).unwrap();
    let error = book.change(&[put("r", republish("a"))], "ada").unwrap_err();
    assert!(matches!(error, BookError::Journal { .. }), "{error:?}");
    assert_eq!(running(&book), ["of-file"]);
    assert!(matches!(book.change(&[suspend("of-file")], "ada"), Err(BookError::Journal { .. })));
    assert_eq!(running(&book), ["of-file"]);
    std::fs::create_dir(&data_dir).unwrap();
    book.change(&[put("r", republish("a"))], "ada").unwrap();
    assert_eq!(running(&book), ["of-file", "r"]);
}

#[tokio::test]
async fn the_journal_is_written_anew_when_most_of_it_is_overtaken() {
    let folder = tempfile::tempdir().unwrap();
    let with = |number: usize| {
        let mut definition = republish("a");
        definition["description"] = json!(format!("{number} {}", "d".repeat(100_000)));
        definition
    };
    let before = {
        let book = book(Some(folder.path()));
        book.change(&[suspend("of-file"), put("other", republish("b"))], "ada").unwrap();
        for number in 0..100 {
            book.change(&[put("r", with(number))], "ada").unwrap();
        }
        seen(&book)
    };
    let bytes = std::fs::metadata(folder.path().join("rules.journal")).unwrap().len();
    assert!(bytes < 5_000_000, "{bytes} bytes for 20 versions of 100,000");
    assert_eq!(seen(&book(Some(folder.path()))), before);
}

#[test]
fn a_member_that_is_not_known_is_refused() {
    for text in
        [r#"{"version":[]}"#, r#"{"versions":[{"rule":"r","number":1,"at_ms":0,"author":"a"}],"x":1}"#]
    {
        assert!(serde_json::from_str::<Line>(text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn rules_that_are_too_large_for_new_limits_keep_a_reload_from_happening() {
    let book = book(None);
    let mut long = republish("a");
    long["sql"] = json!(format!("SELECT * FROM 'b' WHERE x = '{}'", "x".repeat(2_000)));
    book.change(&[put("long", long)], "ada").unwrap();
    let tight = Limits { statement_bytes: 1_024, ..Limits::default() };
    let (targets, connectors) = (TargetPolicy::default(), Connectors::default());
    assert!(matches!(
        book.check_files(&files(FILES), &tight, &targets, &connectors),
        Err(BookError::Refused(_))
    ));
    assert!(book.replace_files(&files(FILES), &tight, &targets, &connectors).is_err());
    assert_eq!(running(&book), ["long", "of-file"]);
    book.change(&[remove("long")], "ada").unwrap();
    book.replace_files(&files(FILES), &tight, &targets, &connectors).unwrap();
}

fn has_paused(book: &RuleBook, action: &str) -> Option<String> {
    book.action("mine", action).unwrap().paused.map(|pause| pause.by)
}

#[tokio::test]
async fn pauses_are_kept_with_rules_and_survive_a_journal_that_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let queued = json!({ "sql": "SELECT * FROM 'b'", "actions": [{ "name": "a", "type": "log" }, { "name": "b", "type": "log" }] });
    {
        let book = book(Some(folder.path()));
        book.change(&[put("mine", queued.clone())], "ada").unwrap();
        assert!(book.pause_action("mine", "a", "ada\n").unwrap());
        assert!(!book.pause_action("mine", "a", "bob").unwrap(), "it is already");
        assert!(book.pause_action("mine", "b", "bob").unwrap());
        assert!(book.resume_action("mine", "b", "bob").unwrap());
        assert!(!book.resume_action("mine", "b", "bob").unwrap());
        assert!(matches!(book.pause_action("of-file", "out", "x"), Err(BookError::NoQueue { .. })));
        assert!(matches!(book.pause_action("mine", "c", "x"), Err(BookError::NoAction { .. })));
        assert!(matches!(book.resume_action("none", "a", "x"), Err(BookError::NoAction { .. })));
    }
    for _ in 0..2 {
        let book = book(Some(folder.path()));
        assert_eq!((has_paused(&book, "a").as_deref(), has_paused(&book, "b")), (Some("ada"), None));
        assert!(book.action("mine", "a").unwrap().delivery.unwrap().is_paused, "from its start on");
        // Enough for the journal to be written anew.
        for round in 0..30 {
            let long = "x".repeat(60_000);
            let definition = json!({ "sql": "SELECT * FROM 'b'", "description": format!("{round} {long}"),
                                     "actions": [{ "name": "out", "type": "log" }] });
            book.change(&[put("long", definition)], "ada").unwrap();
        }
    }
    let book = book(Some(folder.path()));
    // What is gone can be let go.
    book.change(&[remove("mine")], "ada").unwrap();
    assert!(book.resume_action("mine", "a", "ada").unwrap());
    book.change(&[put("mine", queued)], "ada").unwrap();
    assert_eq!(has_paused(&book, "a"), None);
}

#[tokio::test]
async fn a_pause_stays_through_changes_of_its_rule() {
    let book = book(None);
    let with = |level: &str, name: &str| json!({ "sql": "SELECT * FROM 'b'", "actions": [{ "name": name, "type": "log", "level": level }] });
    book.change(&[put("mine", with("info", "a"))], "ada").unwrap();
    book.pause_action("mine", "a", "ada").unwrap();
    let is_paused = |book: &RuleBook| book.action("mine", "a").unwrap().delivery.is_some_and(|d| d.is_paused);
    book.change(&[put("mine", with("warn", "a"))], "ada").unwrap();
    assert!(is_paused(&book), "with other settings");
    book.change(&[put("mine", with("warn", "b"))], "ada").unwrap();
    book.change(&[put("mine", with("warn", "a"))], "ada").unwrap();
    assert!(is_paused(&book), "when it is back");
    book.set_enabled("mine", false, "ada").unwrap();
    book.set_enabled("mine", true, "ada").unwrap();
    assert!(is_paused(&book), "when its rule is back");
    assert_eq!(has_paused(&book, "a").as_deref(), Some("ada"));
}
