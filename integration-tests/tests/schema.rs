//! The schemas that `tidegate schema` prints, in the hands of a validator that somebody else wrote: what the program takes fits them, and
//! what doesn't fit them the program refuses.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::fs;
use std::path::{Path, PathBuf};

use integration_tests::{new_folder, tools};

/// Configurations that both refuse.
const BAD: &[(&str, &str)] = &[
    ("unknown section", "[limit]\nmax_inflight = 3\n"),
    ("unknown key", "[limits]\nmax_inflihgt = 3\n"),
    ("unknown key of a listener", "[[listeners]]\nname = 'a'\naddress = '127.0.0.1:0'\nport = 1883\n"),
    ("text for a number", "[limits]\nmax_inflight = '3'\n"),
    ("fraction", "[limits]\nmax_inflight = 3.5\n"),
    ("number too small", "[limits]\nreceive_maximum = 0\n"),
    ("number too large", "[limits]\nmax_topic_levels = 129\n"),
    ("negative number", "[limits]\nmax_connections = -1\n"),
    ("number too large in a section of a section", "[limits.rules]\ndepth = 65\n"),
    ("size with an unknown unit", "[limits]\nmax_packet_size = '1 megabyte'\n"),
    ("size with a fraction", "[limits]\nmax_packet_size = '1.5MiB'\n"),
    ("bare size beyond its range", "[limits]\nmax_packet_size = 1\n"),
    ("duration without a unit", "[limits]\nconnect_timeout = 10\n"),
    ("duration without a unit, as text", "[limits]\nconnect_timeout = '10'\n"),
    ("duration of several units", "[limits]\nconnect_timeout = '1m30s'\n"),
    ("unknown value", "[limits]\nmax_queued_policy = 'drop_newest'\n"),
    ("value in capitals", "[log]\nformat = 'JSON'\n"),
    ("number for a truth value", "[admin]\nenabled = 1\n"),
    ("listener without a name", "[[listeners]]\naddress = '127.0.0.1:0'\n"),
    ("listener whose name can't be a variable's", "[[listeners]]\nname = 'a__b'\naddress = '127.0.0.1:0'\n"),
    ("no listener", "listeners = []\n"),
    ("table for a list", "[listeners]\nname = 'a'\n"),
    ("name for an address", "[[listeners]]\nname = 'a'\naddress = 'localhost:1883'\n"),
    ("address without a port", "[admin]\naddress = '127.0.0.1'\n"),
    (
        "permissions that are none",
        "[[listeners]]\nname = 'a'\nkind = 'unix'\npath = 'a.sock'\nmode = '0999'\n",
    ),
    (
        "certificate without a key",
        "[[listeners]]\nname = 'a'\nkind = 'tls'\naddress = '127.0.0.1:0'\ntls = { certificate = 'a' }\n",
    ),
    ("reference within a text", "[log]\nformat = 'a ${env:FORMAT}'\n"),
    ("connector of an unknown type", "[connectors.a]\ntype = 'pigeon'\n"),
    ("connector without a type", "[connectors.a]\nurl = 'https://a.example'\n"),
    ("key of another type of connector", "[connectors.a]\ntype = 'http'\nservers = ['a:1']\n"),
    ("connector whose name is none", "[connectors.\"a b\"]\ntype = 'http'\nurl = 'https://a.example'\n"),
    ("authentication without a type", "[authentication.a]\nfile = 'users'\n"),
    ("unknown algorithm", "[authentication.a]\ntype = 'jwt'\nalgorithms = ['none']\nsecret = 'x'\n"),
    ("unknown role", "[[admin.tokens]]\nname = 'a'\nrole = 'root'\nsha256 = '0'\n"),
    ("digest that is too short", "[[admin.tokens]]\nname = 'a'\nrole = 'viewer'\nsha256 = '00'\n"),
    ("range of addresses that is none", "[actions]\nallow_private = ['home']\n"),
    ("rules of access in one text", "[acl]\nrules = 'allow all all \"#\"'\n"),
];

/// Rule files that both refuse.
const BAD_RULES: &[(&str, &str)] = &[
    ("unknown table", "[rule.a]\nsql = \"SELECT * FROM 'a'\"\n"),
    ("no statement", "[rules.a]\n[[rules.a.actions]]\nname = 'x'\ntype = 'log'\n"),
    ("no action", "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n"),
    ("empty list of actions", "[rules.a]\nsql = \"SELECT * FROM 'a'\"\nactions = []\n"),
    (
        "unknown key",
        "[rules.a]\nsql = \"SELECT * FROM 'a'\"\nactive = true\n[[rules.a.actions]]\nname = 'x'\ntype = 'log'\n",
    ),
    (
        "rule whose name is none",
        "[rules.\"a b\"]\nsql = \"SELECT * FROM 'a'\"\n[[rules.\"a b\".actions]]\nname = 'x'\ntype = 'log'\n",
    ),
    ("action without a name", "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n[[rules.a.actions]]\ntype = 'log'\n"),
    ("action without a type", "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n[[rules.a.actions]]\nname = 'x'\n"),
    (
        "action of an unknown type",
        "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n[[rules.a.actions]]\nname = 'x'\ntype = 'pigeon'\n",
    ),
    (
        "key of another type",
        "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n[[rules.a.actions]]\nname = 'x'\ntype = 'log'\ntopic = 'b'\n",
    ),
    (
        "republish without a topic",
        "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n[[rules.a.actions]]\nname = 'x'\ntype = 'republish'\n",
    ),
    (
        "number out of range",
        "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n[[rules.a.actions]]\nname = 'x'\ntype = 'http'\nurl = 'https://a.example'\nconcurrency = 257\n",
    ),
    (
        "unknown policy",
        "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n[[rules.a.actions]]\nname = 'x'\ntype = 'log'\nqueue = { overflow = 'explode' }\n",
    ),
    (
        "duration of microseconds",
        "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n[[rules.a.actions]]\nname = 'x'\ntype = 'http'\nurl = 'https://a.example'\ntimeout = '50us'\n",
    ),
    (
        "error action with a name",
        "[rules.a]\nsql = \"SELECT * FROM 'a'\"\n[[rules.a.actions]]\nname = 'x'\ntype = 'log'\n[rules.a.error_action]\nname = 'y'\ntype = 'log'\n",
    ),
    (
        "unknown dialect",
        "[rules.a]\nsql = \"SELECT * FROM 'a'\"\ndialect = 'mysql'\n[[rules.a.actions]]\nname = 'x'\ntype = 'log'\n",
    ),
];

/// Runs a command of ours: its exit code and what it printed on standard output.
fn run(arguments: &[&str]) -> (i32, String) {
    let output = tools::tidegate().args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

#[test]
fn the_schemas_and_the_program_judge_alike() {
    let folder = new_folder();
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mut arguments = Vec::new();
    for (name, flags) in [("config.json", &["schema"][..]), ("rules.json", &["schema", "--rules"])] {
        let (code, schema) = run(flags);
        assert_eq!(code, 0);
        arguments.push(write(name, &schema));
    }
    // Every key with its default.
    let (code, effective) = run(&["check", "--effective"]);
    assert_eq!(code, 0);
    arguments.push(format!("fits:config:{}", write("effective.toml", &effective)));
    let mut add = |word: &str, paths: Vec<PathBuf>| {
        assert!(!paths.is_empty(), "{word}");
        arguments.extend(paths.iter().map(|path| format!("{word}:{}", path.display())));
    };
    add("fits:config", vec![tree.join("config/tidegate.toml")]);
    add("fits:config", files(&tree.join("config/examples"), "toml"));
    add("fits:rules", files(&tree.join("config/rules.d"), "toml"));
    add("page", files(&tree.join("docs"), "md"));
    for (number, (name, text)) in BAD.iter().enumerate() {
        let path = write(&format!("{number} {name}.toml"), text);
        let (code, printed) = run(&["check", "--config", &path]);
        assert_eq!(code, 3, "{name} is taken: {printed}");
        arguments.push(format!("unfit:config:{path}"));
    }
    for (number, (name, text)) in BAD_RULES.iter().enumerate() {
        let rules = folder.join(format!("rules {number}"));
        fs::create_dir(&rules).unwrap();
        let path = rules.join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        let (code, printed) = run(&["check", "--set", &format!("rules_dir={}", rules.display())]);
        assert_eq!(code, 3, "{name} is taken: {printed}");
        arguments.push(format!("unfit:rules:{}", path.display()));
    }
    let output = tools::python("schema_checks.py", "schemathesis").args(&arguments).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    drop(fs::remove_dir_all(&folder));
    let judged = said.trim().strip_suffix(" documents").and_then(|count| count.parse::<usize>().ok());
    assert!(output.status.success() && judged.is_some_and(|count| count > 90), "{said}");
}
