//! From text to a checked [`Config`].

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};

use actions::config::ConnectorConfig;
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::DeTable;

use super::effective::Effective;
use super::layers::{self, Layer};
use super::otel;
use super::overrides::{self, Assignment, Override};
use super::secrets::{self, Secret};
use super::source::{Origin, Place, Sources};
use super::tree::{self, Path};
use super::validate::{self, Finding};
use super::{Config, ConfigError, ConfigErrors, Environment, Listener, MAX_ERRORS};

/// The listener of a configuration that names none, as text, so that variables can change it by name.
const DEFAULT_LISTENERS: &str = "\
[[listeners]]
name = \"tcp\"
kind = \"tcp\"
address = \"127.0.0.1:1883\"
allow_anonymous = true
";

/// A configuration that may be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values; paths are absolute or relative to the working directory.
    pub config: Config,
    /// What is allowed but hardly meant: one line each.
    pub warnings: Vec<String>,
    /// Where it came from; `None`: defaults and environment only.
    pub path: Option<PathBuf>,
    /// Every value with its origin.
    pub effective: Effective,
    /// Keys whose values have a part from outside that wasn't there, with [`MissingSecrets::Allow`].
    pub missing_secrets: Vec<String>,
}

/// What becomes of a reference with nothing behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingSecrets {
    /// It is a fault.
    #[default]
    Refuse,
    /// Something stands for it, and what depends on it isn't checked: for a check on a machine that hasn't got the secrets.
    Allow,
}

/// What a configuration is made of.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'i> {
    /// The file; without one, defaults.
    pub path: Option<&'i FsPath>,
    /// The variables.
    pub environment: &'i Environment,
    /// What the command line sets; it wins over everything else.
    pub flags: &'i [Assignment],
    /// What becomes of a reference with nothing behind it.
    pub missing_secrets: MissingSecrets,
}

impl<'i> Inputs<'i> {
    /// A file and the environment.
    pub fn new(path: Option<&'i FsPath>, environment: &'i Environment) -> Self {
        Self { path, environment, flags: &[], missing_secrets: MissingSecrets::Refuse }
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`ConfigErrors::Read`] when a file can't be read, [`ConfigErrors::Faults`] when anything in one, or in a variable
    /// or flag meant for us, is wrong.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let layers = self.path.map(layers::read).transpose()?.unwrap_or_default();
        of_layers(&layers, self)
    }
}

/// Reads the configuration from a file, with those of `conf.d` beside it, or from defaults when there is none, and from the
/// environment.
///
/// # Errors
/// As [`Inputs::load`].
pub fn load(path: Option<&FsPath>, environment: &Environment) -> Result<Loaded, ConfigErrors> {
    Inputs::new(path, environment).load()
}

/// Reads the configuration from text; `path` names it in messages and is what relative paths relate to. No other file is
/// read.
///
/// # Errors
/// [`ConfigErrors::Faults`] when anything in it, or in a variable meant for us, is wrong.
pub fn load_text(
    text: &str,
    path: Option<&FsPath>,
    environment: &Environment,
) -> Result<Loaded, ConfigErrors> {
    let layer = Layer { path: path.unwrap_or(FsPath::new("")).to_owned(), text: text.to_owned() };
    of_layers(&[layer], &Inputs::new(path, environment))
}

fn of_layers(layers: &[Layer], inputs: &Inputs<'_>) -> Result<Loaded, ConfigErrors> {
    let Inputs { path, environment, flags, .. } = *inputs;
    let mut sources = Sources::default();
    let mut parsed = DeTable::new();
    let mut broken = Vec::new();
    for Layer { path, text } in layers {
        // What has no path stands for no file.
        let origin = if path.as_os_str().is_empty() { Origin::Defaults } else { Origin::File(path.clone()) };
        let range = sources.add(origin, text);
        match DeTable::parse(text) {
            Ok(layer) => tree::lay_over(&mut parsed, tree::shifted(layer.into_inner(), range.start)),
            Err(error) => {
                let span = error.span().map(|span| span.start + range.start..span.end + range.start);
                let mut place = span.and_then(|span| sources.place(&span));
                // Where the fault lies isn't known, and a connector's lines may hold secrets.
                if ["connectors", "authentication", "otlp"].iter().any(|word| text.contains(word)) {
                    hide_text(&mut place);
                }
                broken.push(ConfigError {
                    place,
                    message: format!("not TOML: {}", error.message()),
                    help: None,
                });
            }
        }
    }
    if !broken.is_empty() {
        broken.truncate(MAX_ERRORS);
        return Err(ConfigErrors::Faults { faults: broken });
    }
    let mut warnings = otel::lay_under(&mut parsed, environment, &mut sources);
    let overrides = overrides::collect(environment, flags, &mut sources);
    let mut reader = Reader { overrides, sources, environment, missing: inputs.missing_secrets };
    let defaults = reader.sources.add(Origin::Defaults, DEFAULT_LISTENERS);
    let is_default = !parsed.contains_key("listeners");
    let root = with_default_listeners(Spanned::new(0..0, parsed), &defaults);
    let Reading { mut config, tree, secrets, mut errors } = reader.read(&root);
    if let Some(config) = config.as_mut().filter(|_| is_default) {
        reader.shut_what_was_opened(config);
    }
    if let Some(config) = &config {
        for finding in validate::findings(config) {
            match finding {
                // Listeners that were taken out for their faults are not missing.
                Finding::Error { at, .. } if at == Path::keys(&["listeners"]) && !errors.is_empty() => {}
                Finding::Error { at, message, help } => {
                    // A node taken out for its own fault reads as its default, which has none.
                    let span = tree::span_of(&tree, &at);
                    let mut place = span.as_ref().and_then(|span| reader.sources.place(span));
                    if may_hold_secrets(&at) {
                        hide_text(&mut place);
                    }
                    match secrets.iter().find(|secret| Some(&secret.span) == span.as_ref()) {
                        Some(secret) if secret.is_missing => {}
                        Some(secret) => errors.push(redacted(place, &at, secret)),
                        None => errors.push(ConfigError { place, message, help }),
                    }
                }
                // What is missing may have been taken out for its fault.
                Finding::Missing { .. } if !errors.is_empty() => {}
                Finding::Missing { at, message } => {
                    let place = tree::span_of(&tree, &at).and_then(|span| reader.sources.place(&span));
                    errors.push(ConfigError { place, message, help: None });
                }
                Finding::Warning(text) => warnings.push(text),
            }
        }
    }
    match config {
        Some(mut config) if errors.is_empty() => {
            make_paths_relative_to(&mut config, path.and_then(FsPath::parent));
            let effective = Effective::of(&config, &tree, &reader.sources, &secrets, environment);
            let effective = effective.map_err(|error| {
                one(ConfigError {
                    place: None,
                    message: format!("the configuration can't be shown: {error}"),
                    help: None,
                })
            })?;
            let missing = secrets.iter().filter(|secret| secret.is_missing);
            let missing = missing.filter_map(|secret| tree::locate(&tree, &secret.span, None));
            Ok(Loaded {
                config,
                warnings,
                path: path.map(FsPath::to_owned),
                effective,
                missing_secrets: missing.map(|path| path.to_string()).collect(),
            })
        }
        _ => {
            errors.truncate(MAX_ERRORS);
            errors.sort_by_key(|error| {
                error.place.as_ref().map(|place| (place.text_number, place.line, place.column))
            });
            Err(ConfigErrors::Faults { faults: errors })
        }
    }
}

fn one(error: ConfigError) -> ConfigErrors {
    ConfigErrors::Faults { faults: vec![error] }
}

/// Adds the default listener where the file says nothing about listeners.
fn with_default_listeners<'i>(mut root: Spanned<DeTable<'i>>, place: &Range<usize>) -> Spanned<DeTable<'i>> {
    if root.get_ref().contains_key("listeners") {
        return root;
    }
    if let Ok(defaults) = DeTable::parse(DEFAULT_LISTENERS) {
        for (key, value) in defaults.into_inner() {
            let key = Spanned::new(place.clone(), key.into_inner());
            root.get_mut().insert(key, tree::with_span(value.into_inner(), place));
        }
    }
    root
}

/// What came of reading a tree.
struct Reading<'i> {
    config: Option<Config>,
    tree: DeTable<'i>,
    secrets: Vec<Secret>,
    errors: Vec<ConfigError>,
}

struct Reader<'i> {
    sources: Sources,
    overrides: Vec<Override<'i>>,
    environment: &'i Environment,
    missing: MissingSecrets,
}

impl<'i> Reader<'i> {
    /// Reads the tree; every fault costs the node it is in, so that the next one is found too. `None` instead of a
    /// configuration: no fault was left whose node could be taken out.
    fn read(&mut self, parsed: &Spanned<DeTable<'i>>) -> Reading<'i> {
        let (mut root, mut secrets, mut errors) = self.prepare(parsed);
        let mut removed: Vec<Path> = Vec::new();
        loop {
            let tree = root.get_ref().clone();
            let mut by_kind = root.clone();
            if let Some(connectors) = by_kind.get_mut().get_mut("connectors") {
                tree::wrap_by_type(connectors.get_mut());
            }
            let fault = match Config::deserialize(toml::Deserializer::from(by_kind)) {
                Ok(config) => return Reading { config: Some(config), tree, secrets, errors },
                Err(fault) => fault,
            };
            let span = fault.span().unwrap_or_default();
            if let Some(over) = self.overrides.iter_mut().find(|over| over.span == span)
                && over.retype()
            {
                (root, secrets, errors) = self.prepare(parsed);
                removed.clear();
                continue;
            }
            let path = tree::locate(&tree, &span, unknown_key(fault.message())).unwrap_or_default();
            // After a key was taken out for its fault, its absence is no second fault.
            let follows = fault.message().starts_with("missing field")
                && removed.iter().any(|gone| gone.parent().as_ref() == Some(&path));
            let is_missing = secrets.iter().any(|secret| secret.is_missing && secret.span == span);
            if !follows && !is_missing {
                errors.push(self.explain(&fault, &span, &path, &secrets));
            }
            if errors.len() >= MAX_ERRORS || !tree::remove(root.get_mut(), &path) {
                return Reading { config: None, tree, secrets, errors };
            }
            removed.retain(|gone| !gone.starts_with(&path));
            removed.iter_mut().for_each(|gone| gone.after_removal_of(&path));
            removed.push(path);
        }
    }

    /// The default listener lets everybody in because it can be reached from this machine only. A variable that gives it
    /// another address doesn't say that everybody there may come in.
    fn shut_what_was_opened(&self, config: &mut Config) {
        for listener in &mut config.listeners {
            if !listener.is_local() && !self.overrides.iter().any(|over| over.sets("allow_anonymous")) {
                listener.allow_anonymous = false;
            }
        }
    }

    /// The tree with overrides and secrets in place.
    fn prepare(
        &self,
        parsed: &Spanned<DeTable<'i>>,
    ) -> (Spanned<DeTable<'i>>, Vec<Secret>, Vec<ConfigError>) {
        let mut root = parsed.clone();
        let mut errors = Vec::new();
        for over in &self.overrides {
            if let Err(error) = overrides::apply(root.get_mut(), over, &self.sources) {
                errors.push(error);
            }
        }
        let (secrets, faults) =
            secrets::resolve(root.get_mut(), self.environment, &self.sources, self.missing);
        errors.extend(faults);
        for name in tree::without_type(root.get_ref(), "connectors") {
            let path = Path::keys(&["connectors", &name]);
            let mut place = tree::span_of(root.get_ref(), &path).and_then(|span| self.sources.place(&span));
            hide_text(&mut place);
            let message = format!("key `type` is missing in {}", path.as_section());
            errors.push(ConfigError { place, message, help: Some(one_of(ConnectorConfig::KINDS)) });
            tree::remove(root.get_mut(), &path);
        }
        (root, secrets, errors)
    }

    /// Says in our words what the reader of a value said.
    fn explain(
        &self,
        fault: &toml::de::Error,
        span: &Range<usize>,
        path: &Path,
        secrets: &[Secret],
    ) -> ConfigError {
        let mut place = self.sources.place(span);
        if may_hold_secrets(path) {
            hide_text(&mut place);
        }
        let said = fault.message();
        // A fault of a list's entry may be told with the place of the list.
        let quotes_values = !said.starts_with("missing field") && unknown_key(said).is_none();
        let is_told_of = |secret: &Secret| {
            secret.span == *span
                || quotes_values && span.start <= secret.span.start && secret.span.end <= span.end
        };
        if let Some(secret) = secrets.iter().find(|secret| is_told_of(secret)) {
            return redacted(place, path, secret);
        }
        let quoted: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
        let (message, help) = match quoted.as_slice() {
            [unknown, known @ ..] if unknown_key(said).is_some() => {
                let section = path.parent().unwrap_or_default();
                let planned = section.0.is_empty() && PLANNED_SECTIONS.contains(unknown);
                if planned {
                    (format!("[{unknown}] is not available yet in this version"), None)
                } else {
                    let message = format!("unknown key `{unknown}` in {}", section.as_section());
                    (message, suggest(unknown, known.iter().copied()))
                }
            }
            [unknown, known @ ..] if said.starts_with("unknown variant") => {
                // No guessing between values: the nearest spelling may mean the opposite.
                (format!("{path}: unknown value \"{unknown}\""), Some(one_of(known)))
            }
            [missing] if said.starts_with("missing field") => {
                (format!("key `{missing}` is missing in {}", path.as_section()), None)
            }
            _ if path.0.is_empty() => (said.to_owned(), None),
            _ => (format!("{path}: {said}"), None),
        };
        ConfigError { place, message, help }
    }
}

/// A fault of a value that came from outside. What was said about it quotes the value, in whatever escaping, so nothing of
/// that is repeated.
fn redacted(place: Option<Box<Place>>, path: &Path, secret: &Secret) -> ConfigError {
    ConfigError {
        place,
        message: format!("{path}: the value of {} doesn't fit", secret.reference),
        help: Some("config/tidegate.toml says what this key takes; the value is not shown".to_owned()),
    }
}

/// Whether lines of this part of the configuration may hold secrets, so that none is quoted.
fn may_hold_secrets(path: &Path) -> bool {
    [&["connectors"][..], &["authentication"], &["trace", "otlp"]]
        .iter()
        .any(|section| path.starts_with(&Path::keys(section)))
}

fn hide_text(place: &mut Option<Box<Place>>) {
    if let Some(place) = place {
        place.text.clear();
    }
}

/// The key that a message of the reader calls unknown.
fn unknown_key(said: &str) -> Option<&str> {
    said.strip_prefix("unknown field `")?.split('`').next()
}

/// Sections that later versions will have; a file that uses one must not start as if it had been read.
const PLANNED_SECTIONS: [&str; 1] = ["tls"];

/// "did you mean …", or the list when nothing is near.
pub(crate) fn suggest<'k>(given: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let known: Vec<&str> = known.collect();
    let nearest = known
        .iter()
        .map(|name| {
            (strsim::damerau_levenshtein(&given.to_ascii_lowercase(), &name.to_ascii_lowercase()), name)
        })
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        // A third of the letters may be wrong: more is guessing.
        Some((distance, name)) if distance <= (name.len() / 3).max(1) => {
            Some(format!("did you mean `{name}`?"))
        }
        Some(_) => Some(one_of(&known)),
        None => None,
    }
}

fn one_of(known: &[&str]) -> String {
    format!("expected one of `{}`", known.join("`, `"))
}

fn make_paths_relative_to(config: &mut Config, folder: Option<&FsPath>) {
    let folder = folder.unwrap_or(FsPath::new(""));
    let certificates = config.connectors.values_mut().flat_map(|connector| connector.files_mut());
    let authentication = config.authentication.values_mut().flat_map(|method| method.paths_mut());
    let admin = config.admin.tls.iter_mut().flat_map(|tls| tls.files_mut());
    let others = [&mut config.data_dir, &mut config.rules_dir].into_iter().flatten();
    let others = others.chain(config.acl.paths_mut()).chain(&mut config.trace.otlp.ca);
    let listeners = config.listeners.iter_mut().flat_map(Listener::paths_mut);
    for path in others.chain(certificates).chain(authentication).chain(listeners).chain(admin) {
        *path = folder.join(&*path);
    }
}
