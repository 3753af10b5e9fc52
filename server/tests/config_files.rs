//! Every file under `config/` is loaded here, and the commented file is compared with the model: no key without its
//! description, no description without its key, no default that isn't the real one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tidegate::config::{Config, Environment, load, load_text};
use tidegate::rules::{RuleSet, load_rules};
use tidegate::server::rule_limits;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

fn toml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

/// What the examples take from the environment.
fn environment() -> Environment {
    ["OPS_TOKEN", "CLOUD_SECRET", "ID_TOKEN", "COLLECTOR_TOKEN"]
        .map(|name| (name, "secret"))
        .into_iter()
        .chain([("LOG_LEVEL", "info")])
        .collect()
}

fn commented() -> String {
    std::fs::read_to_string(folder().join("tidegate.toml")).unwrap()
}

/// The file with every commented-out key switched on.
fn switched_on() -> String {
    let lines = commented().lines().map(str::to_owned).collect::<Vec<_>>();
    let on = lines.iter().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ") => rest,
        _ => line.as_str(),
    });
    on.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_packaged_file_lets_in_clients_of_the_machine_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/tidegate.toml");
    let loaded = load(Some(&path), &Environment::default()).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let config = loaded.config;
    assert_eq!(config.data_dir.as_deref(), Some(Path::new("/var/lib/tidegate")));
    assert_eq!(config.listeners.len(), 1);
    assert!(config.listeners[0].address.unwrap().ip().is_loopback());
    assert!(config.admin.address.ip().is_loopback());
    assert_eq!(config.rules_dir, None, "rules.d beside it");
}

#[test]
fn every_file_is_read_without_fault() {
    let examples = toml_files(&folder().join("examples"));
    assert!(!examples.is_empty());
    for path in examples.iter().chain([&folder().join("tidegate.toml")]) {
        if let Err(errors) = load(Some(path), &environment()) {
            panic!("{}:\n{}", path.display(), errors.render());
        }
    }
}

#[test]
fn every_rule_is_compiled() {
    let folder = folder().join("rules.d");
    let rules = load_rules(&folder, &rule_limits(&Config::default().limits.rules)).unwrap_or_else(|faults| {
        panic!("{}", faults.iter().map(|fault| format!("{fault}\n")).collect::<String>())
    });
    assert!(!rules.is_empty());
    assert!(rules.iter().all(|rule| !rule.description.is_empty()));
}

#[test]
fn the_example_of_access_rules_says_what_it_says() {
    let text = std::fs::read_to_string(folder().join("examples/rights.acl")).unwrap();
    let rules = access::acl::parse_text(&text, "rights.acl").unwrap_or_else(|faults| panic!("{faults:?}"));
    assert_eq!(rules.len(), 5);
}

#[test]
fn only_the_examples_that_say_so_are_open_to_the_network() {
    for path in toml_files(&folder().join("examples")) {
        let loaded = load(Some(&path), &environment()).unwrap();
        let open = loaded.config.listeners.iter().any(|listener| !listener.is_local());
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(open, ["lan.toml", "container.toml"].contains(&name.as_str()), "{name}");
        assert_eq!(open, !loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
    }
}

#[test]
fn the_commented_file_says_what_the_defaults_are() {
    let as_it_is = load_text(&commented(), None, &Environment::default()).unwrap().config;
    assert_eq!(as_it_is, Config::default());
    let mut on = load_text(&switched_on(), None, &Environment::default()).unwrap().config;
    // The two whose default depends on the machine.
    assert!(on.data_dir.take().is_some());
    assert!(on.rules_dir.take().is_some());
    assert_eq!(on, Config::default());
}

#[test]
fn every_key_of_the_model_is_in_the_commented_file_and_has_a_comment() {
    let all = Config {
        data_dir: Some("/var/lib/tidegate".into()),
        rules_dir: Some("rules.d".into()),
        ..Config::default()
    };
    let mut of_model = BTreeSet::new();
    collect("", &toml::Value::try_from(all).unwrap(), &mut of_model);
    let mut of_file = BTreeSet::new();
    collect("", &toml::from_str::<toml::Value>(&switched_on()).unwrap(), &mut of_file);
    assert_eq!(of_model, of_file);
    assert!(of_model.len() > 40, "{of_model:?}");

    let text = commented();
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let is_key = line.trim_start_matches('#').starts_with(|c: char| c.is_ascii_lowercase())
            && line.contains(" = ");
        if is_key && !line.starts_with("# ") {
            assert!(lines[i - 1].starts_with("# "), "line {}: `{line}` has no comment", i + 1);
        }
    }
}

fn collect(prefix: &str, value: &toml::Value, keys: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                collect(&format!("{prefix}.{key}"), value, keys);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| collect(prefix, item, keys)),
        _ => {
            keys.insert(prefix.trim_start_matches('.').to_owned());
        }
    }
}

/// Every fenced `toml` block of a documentation page is a whole configuration or a whole rule file.
#[test]
fn every_example_in_the_documentation_is_read() {
    let docs = folder().join("../docs");
    let mut seen = 0;
    let pages = [
        "authorisation.md",
        "configuration.md",
        "limits.md",
        "cli.md",
        "getting-started.md",
        "rules.md",
        "actions.md",
        "connectors.md",
        "listeners.md",
        "testing-rules.md",
        "tracing.md",
        "metrics.md",
        "alarms.md",
    ];
    for page in pages {
        let text = std::fs::read_to_string(docs.join(page)).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            seen += 1;
            if block.contains("[rules.") {
                let limits = rule_limits(&Config::default().limits.rules);
                if let Err(faults) = RuleSet::from_texts([(Path::new(page), block)], &limits) {
                    panic!("{page}: {}", faults.iter().map(|fault| format!("{fault}\n")).collect::<String>());
                }
            } else if let Err(errors) = load_text(block, None, &environment()) {
                panic!("{page}:\n{}", errors.render());
            }
        }
    }
    assert!(seen >= 3, "only {seen} examples");
}
