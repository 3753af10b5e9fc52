//! Where values come from: files laid one over the other, variables, flags, secrets; and what `tidegate check` says of it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

mod common;

use std::path::{Path, PathBuf};

use common::tidegate;
use serde_json::Value;
use tempfile::TempDir;
use tidegate::config::{
    Assignment, ByteSize, ConfigErrors, Environment, Inputs, Loaded, MissingSecrets, changes,
};

/// A folder with `tidegate.toml` and files of `conf.d`.
struct Folder(TempDir);

impl Folder {
    fn new(main: &str, more: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("tidegate.toml", main);
        for (name, text) in more {
            folder.write(&format!("conf.d/{name}"), text);
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn load(&self, variables: &[(&str, &str)], flags: &[&str]) -> Result<Loaded, ConfigErrors> {
        let environment: Environment = variables.iter().copied().collect();
        let flags: Vec<Assignment> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
        let path = self.path("tidegate.toml");
        Inputs { flags: &flags, ..Inputs::new(Some(&path), &environment) }.load()
    }

    #[track_caller]
    fn accepted(&self, variables: &[(&str, &str)], flags: &[&str]) -> Loaded {
        self.load(variables, flags).unwrap_or_else(|errors| panic!("{}", errors.render()))
    }

    #[track_caller]
    fn refused(&self, variables: &[(&str, &str)], flags: &[&str]) -> String {
        match self.load(variables, flags) {
            Ok(loaded) => panic!("accepted: {:?}", loaded.config),
            Err(errors) => errors.render(),
        }
    }

    /// Origins are shown with this in place of the folder's path.
    fn shown(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

const LISTENER: &str = "[[listeners]]\nname = 'tcp'\naddress = '127.0.0.1:0'\nallow_anonymous = true\n";

#[track_caller]
fn origin(loaded: &Loaded, key: &str) -> String {
    let found = loaded.effective.settings().iter().find(|setting| setting.key() == key);
    found.unwrap_or_else(|| panic!("no {key}: {:#?}", loaded.effective.settings())).origin().to_owned()
}

#[test]
fn each_layer_wins_over_those_before_it_and_every_origin_is_known() {
    let main = format!(
        "{LISTENER}[limits]\nmax_packet_size = '1KiB'\nreceive_maximum = 1\nmax_inflight = 1\ntopic_alias_maximum = 1\n"
    );
    let folder = Folder::new(
        &main,
        &[
            ("20-b.toml", "[limits]\nmax_inflight = 3\n"),
            ("10-a.toml", "[limits]\nreceive_maximum = 2\nmax_inflight = 2\ntopic_alias_maximum = 2\n"),
            ("readme.txt", "no TOML"),
            (".hidden.toml", "no TOML"),
        ],
    );
    let loaded = folder.accepted(
        &[("TIDEGATE_LIMITS__TOPIC_ALIAS_MAXIMUM", "4"), ("TIDEGATE_LIMITS__MAX_TOPIC_LEVELS", "4")],
        &["limits.max_topic_levels=5", "listeners.tcp.max_connections=5"],
    );
    let limits = &loaded.config.limits;
    assert_eq!(limits.max_packet_size, ByteSize::kib(1));
    assert_eq!((limits.receive_maximum, limits.max_inflight, limits.topic_alias_maximum), (2, 3, 4));
    assert_eq!((limits.max_topic_levels, loaded.config.listeners[0].max_connections), (5, 5));
    for (key, expected) in [
        ("limits.max_packet_size", "tidegate.toml:6"),
        ("limits.receive_maximum", "conf.d/10-a.toml:2"),
        ("limits.max_inflight", "conf.d/20-b.toml:2"),
        ("limits.topic_alias_maximum", "TIDEGATE_LIMITS__TOPIC_ALIAS_MAXIMUM"),
        ("limits.max_topic_levels", "--set limits.max_topic_levels"),
        ("listeners.tcp.address", "tidegate.toml:3"),
        ("listeners.tcp.max_connections", "--set listeners.tcp.max_connections"),
        ("listeners.tcp.kind", "default"),
        ("sys.interval", "default"),
    ] {
        assert_eq!(folder.shown(&origin(&loaded, key)), expected, "{key}");
    }
}

#[test]
fn lists_of_named_tables_are_merged_by_name_and_other_lists_replaced() {
    let folder = Folder::new(
        &format!("{LISTENER}[actions]\nallow_private = ['10.0.0.0/8', '127.0.0.1']\n"),
        &[(
            "a.toml",
            "[actions]\nallow_private = ['::1']\n[[listeners]]\nname = 'TCP'\nmax_connections = 7\n\
             [[listeners]]\nname = 'lan'\naddress = '127.0.0.1:2'\nallow_anonymous = true\n",
        )],
    );
    let loaded = folder.accepted(&[], &[]);
    let listeners: Vec<_> = loaded
        .config
        .listeners
        .iter()
        .map(|listener| (listener.name.as_str(), listener.address.unwrap().port(), listener.max_connections))
        .collect();
    assert_eq!(listeners, [("TCP", 0, 7), ("lan", 2, 100_000)]);
    assert_eq!(loaded.config.actions.allow_private.len(), 1);
    assert_eq!(folder.shown(&origin(&loaded, "listeners.TCP.address")), "tidegate.toml:3");
    assert_eq!(folder.shown(&origin(&loaded, "listeners.lan.address")), "conf.d/a.toml:8");
}

#[test]
fn two_entries_of_one_name_in_one_file_stay_a_fault() {
    let folder = Folder::new(LISTENER, &[("a.toml", &LISTENER.repeat(2))]);
    let text = folder.refused(&[], &[]);
    assert!(folder.shown(&text).contains("conf.d/a.toml:6:8: two listeners are named \"tcp\""), "{text}");
}

#[test]
fn faults_are_told_with_the_file_that_has_them() {
    let folder = Folder::new(
        "[limits]\nmax_inflight = 0\n",
        &[("a.toml", "[limits]\nrecieve_maximum = 3\n"), ("b.toml", "\nlimits.max_packet_size = '1B'\n")],
    );
    let text = folder.shown(&folder.refused(&[], &["limits.max_keep_alive=70000s", "limits.max_inflight=0"]));
    for part in [
        "conf.d/a.toml:2:1: unknown key `recieve_maximum` in [limits]\n",
        "help: did you mean `receive_maximum`?",
        "conf.d/b.toml:2:26: limits.max_packet_size is 1B",
        "flag --set limits.max_keep_alive: limits.max_keep_alive is 70000s",
        "flag --set limits.max_inflight: limits.max_inflight is 0",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(text.matches("error: ").count(), 4, "{text}");

    let folder = Folder::new("[limits\n", &[("a.toml", "limits = \n")]);
    let text = folder.shown(&folder.refused(&[], &[]));
    assert!(text.contains("error: tidegate.toml:1:8: not TOML"), "{text}");
    assert!(text.contains("error: conf.d/a.toml:1:10: not TOML"), "{text}");
}

#[test]
fn a_flag_sets_what_there_is_and_nothing_else() {
    let folder = Folder::new(LISTENER, &[]);
    let text = folder.refused(&[], &["listeners.tpc.max_connections=1"]);
    assert!(text.contains("flag --set listeners.tpc.max_connections: no entry of [[listeners]]"), "{text}");
    let text = folder.refused(&[], &["limits.nosuch=1"]);
    assert!(text.contains("flag --set limits.nosuch: unknown key `nosuch` in [limits]"), "{text}");
    for text in ["", "limits.depth", "=1", "limits.=1", ".depth=1", "limits..depth=1"] {
        assert!(text.parse::<Assignment>().is_err(), "{text}");
    }
    // What stands behind the first sign is the value.
    let loaded = folder.accepted(&[], &["log.level=info,broker=debug", "data_dir=/a=b"]);
    assert_eq!(loaded.config.log.level, "info,broker=debug");
    assert_eq!(loaded.config.data_dir.as_deref(), Some(Path::new("/a=b")));
}

#[test]
fn a_folder_of_files_has_limits() {
    let folder = Folder::new(LISTENER, &[]);
    let at = |count: usize| {
        for number in 0..count {
            folder.write(&format!("conf.d/{number}.toml"), "");
        }
        folder.load(&[], &[])
    };
    assert!(at(1_000).is_ok());
    let text = at(1_001).unwrap_err().render();
    assert!(text.contains("conf.d can't be read") && text.contains("the limit of 1000"), "{text}");

    let folder = Folder::new(LISTENER, &[]);
    let bytes = 4 * 1024 * 1024;
    let full = |bytes: usize| format!("{LISTENER}#{}", "x".repeat(bytes - LISTENER.len() - 1));
    folder.write("tidegate.toml", &full(bytes));
    assert!(folder.load(&[], &[]).is_ok());
    folder.write("tidegate.toml", &full(bytes + 1));
    let text = folder.refused(&[], &[]);
    assert!(text.contains("larger than the limit of 4194304 bytes"), "{text}");
}

#[test]
fn a_file_of_the_folder_that_leads_nowhere_is_told_and_a_folder_is_none() {
    let folder = Folder::new(LISTENER, &[]);
    std::fs::create_dir_all(folder.path("conf.d/sub.toml")).unwrap();
    assert!(folder.load(&[], &[]).is_ok());
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("conf.d/link.toml")).unwrap();
    let text = folder.refused(&[], &[]);
    assert!(text.contains("conf.d/link.toml can't be read"), "{text}");
}

#[test]
fn credentials_of_systemd_are_secrets() {
    let connector = "[connectors.ops]\ntype = 'http'\nurl = 'https://ops.example'\nauth = { type = 'bearer', token = '${credential:ops}' }\n";
    let folder = Folder::new(&format!("{LISTENER}{connector}"), &[]);
    folder.write("credentials/ops", "s3cret\n");
    let credentials = folder.path("credentials");
    let variables = [("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())];
    let loaded = folder.accepted(&variables, &[]);
    let shown = loaded.effective.to_toml();
    assert!(shown.contains("token = \"${credential:ops}\""), "{shown}");
    for text in [shown, &format!("{loaded:?}")] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    // Only whoever compares learns that it has changed.
    folder.write("credentials/ops", "other\n");
    let other = folder.accepted(&variables, &[]);
    let keys: Vec<String> = changes(loaded.effective.settings(), other.effective.settings())
        .into_iter()
        .map(|change| change.key)
        .collect();
    assert_eq!(keys, ["connectors.ops.auth.token"]);

    for (variables, expected) in [
        (&[][..], "credential \"ops\": CREDENTIALS_DIRECTORY is not set"),
        (&[("CREDENTIALS_DIRECTORY", "/nowhere")][..], "credential \"ops\" can't be read"),
    ] {
        let text = folder.refused(variables, &[]);
        assert!(text.contains(expected), "{text}");
    }
    for name in ["", "../ops", "a/b", ".", ".."] {
        folder.write(
            "tidegate.toml",
            &format!("{LISTENER}{}", connector.replace(":ops}", &format!(":{name}}}"))),
        );
        let text = folder.refused(&variables, &[]);
        assert!(text.contains("can't be the name of a credential"), "{name}\n{text}");
    }
}

const WITH_SECRETS: &str = "[log]\nlevel = '${env:LEVEL}'\n[connectors.ops]\ntype = 'http'\nurl = '${env:URL}'\n\
                            auth = { type = 'bearer', token = '${file:nowhere}' }\n";

#[test]
fn missing_secrets_may_be_let_pass_and_then_what_hangs_on_them_is_not_judged() {
    let folder = Folder::new(&format!("{LISTENER}{WITH_SECRETS}"), &[]);
    let path = folder.path("tidegate.toml");
    let none = Environment::default();
    let lenient = Inputs { missing_secrets: MissingSecrets::Allow, ..Inputs::new(Some(&path), &none) };
    let text = folder.refused(&[], &[]);
    assert_eq!(text.matches("error: ").count(), 3, "{text}");
    let loaded = lenient.load().unwrap_or_else(|errors| panic!("{}", errors.render()));
    assert_eq!(loaded.missing_secrets, ["connectors.ops.auth.token", "connectors.ops.url", "log.level"]);

    // What isn't theirs is refused all the same, and a broken reference isn't a missing secret.
    for broken in ["[limits]\nmax_inflight = 0\n", "[limits]\nmax_inflight = 'a ${env:X}'\n", "nosuch = 1\n"]
    {
        folder.write("tidegate.toml", &format!("{broken}{LISTENER}{WITH_SECRETS}"));
        let text = lenient.load().unwrap_err().render();
        assert_eq!(text.matches("error: ").count(), 1, "{text}");
    }
}

#[test]
fn check_lets_missing_secrets_pass_only_when_told_so() {
    let folder = Folder::new(&format!("{LISTENER}{WITH_SECRETS}"), &[]);
    let rule = "[rules.r]\nsql = \"SELECT * FROM 'a'\"\n[[rules.r.actions]]\nname = 'x'\ntype = 'http'\nconnector = 'ops'\nurl = '/x'\n";
    folder.write("rules.d/r.toml", rule);
    let path = folder.path("tidegate.toml");
    let check = ["check", "--config", path.to_str().unwrap()];
    assert_eq!(tidegate(&check).status.code(), Some(3));
    let output = tidegate(&[&check[..], &["--allow-missing-secrets", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["missing_secrets"][2], "log.level", "{answer}");
}

#[test]
fn the_effective_configuration_reads_back_and_names_every_origin() {
    let folder = Folder::new(
        &format!(
            "{LISTENER}[log]\nlevel = '${{env:LEVEL}}'\n[authentication.users]\ntype='password_file'\nfile='passwd'\n"
        ),
        &[("a.toml", "[store]\nreserve = '512MiB'\n")],
    );
    folder.write("passwd", "");
    let variables = [("LEVEL", "warn")];
    let loaded = folder.accepted(&variables, &["sys.interval=3s"]);
    let shown = folder.shown(loaded.effective.to_toml());
    for line in [
        "address = \"127.0.0.1:0\"  # tidegate.toml:3\n",
        "level = \"${env:LEVEL}\"  # tidegate.toml:6\n",
        "reserve = \"512MiB\"  # conf.d/a.toml:2\n",
        "interval = \"3s\"  # --set sys.interval\n",
        "durability = \"commit\"  # default\n",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let values = shown.lines().filter(|line| line.contains(" = "));
    assert!(values.clone().count() > 40 && values.clone().all(|line| line.contains("  # ")), "{shown}");

    let again = Folder::new(loaded.effective.to_toml(), &[]);
    assert_eq!(again.accepted(&variables, &[]).config, loaded.config);
    assert!(
        changes(loaded.effective.settings(), again.accepted(&variables, &[]).effective.settings()).is_empty()
    );
}

#[test]
fn check_shows_the_effective_configuration_as_json_with_flags_and_without_secrets() {
    let folder = Folder::new(
        &format!(
            "{LISTENER}[connectors.ops]\ntype = 'http'\nurl = 'https://ops.example'\nauth = {{ type = 'bearer', token = 's3cret' }}\n"
        ),
        &[],
    );
    let path = folder.path("tidegate.toml");
    let arguments =
        ["--set", "log.level=warn", "check", "-f", path.to_str().unwrap(), "--set", "log.format=json"];
    let output = tidegate(&[&arguments[..], &["--effective", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let of = |key: &str| {
        let settings = answer["effective"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).unwrap().clone()
    };
    assert_eq!(
        (&of("log.level")["value"], &of("log.level")["origin"]),
        (&"warn".into(), &"--set log.level".into())
    );
    assert_eq!(of("log.format")["value"], "json");
    assert_eq!(of("connectors.ops.auth.token")["value"], "(secret)");
    assert_eq!(
        of("limits.receive_maximum"),
        serde_json::json!({ "key": "limits.receive_maximum", "value": 1024, "origin": "default" })
    );

    let output = tidegate(&[&arguments[..], &["--set", "log.level"]].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
