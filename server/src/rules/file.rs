//! Rule files: TOML text in, checked and compiled rules out.
//!
//! A file holds any number of `[rules.<name>]` tables. Every fault of every file is reported in one go, each with its
//! file, line, rule and action. A rule that is not enabled is checked all the same.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actions::config::OnRemove;
use actions::{ActionConfig, ActionConfigError, ActionPlan, Connectors, Outlet, Slot};
use rules_sql::{CompileError, CompiledRule, Dialect, Limits, Template, TemplateKind, Undefined};
use schemars::JsonSchema;
use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::RuleFileError;
use super::source::Source;

/// Largest rule file in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most rules of all files together.
const RULES_MAX: usize = 100_000;
/// Most actions of one rule.
pub(super) const ACTIONS_MAX: usize = 64;
/// Longest name of a rule in characters.
pub(super) const NAME_CHARS_MAX: usize = 64;
/// The name that an error action goes by.
pub const ERROR_ACTION: &str = "error_action";

/// Rules that were read, checked and compiled; nothing of them runs yet.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    pub(super) rules: Vec<Arc<LoadedRule>>,
    /// Names of those that don't run, whatever they say.
    pub(super) suspended: Arc<HashSet<String>>,
    /// Actions whose queues send nothing, as `rule/action`.
    pub(super) paused: Arc<HashSet<String>>,
}

/// One rule that was read, checked and compiled.
#[derive(Debug)]
pub struct LoadedRule {
    /// Its name, unique among all.
    pub name: String,
    /// The file that it stands in.
    pub file: PathBuf,
    /// The SQL as written.
    pub sql: String,
    /// Everything that its author said of it, as JSON with its members in order: what two versions are compared by.
    pub definition: Box<str>,
    /// Whether it is to run.
    pub enabled: bool,
    /// What it is for, in its author's words.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What is allowed in it but hardly meant.
    pub warnings: Vec<RuleFileError>,
    /// Whether an output without any member counts as none.
    pub(super) skip_empty: bool,
    /// What becomes of the outbox of an action that is gone, unless the action says so itself.
    pub(super) on_remove: Option<OnRemove>,
    /// User name whose rights its republishes need; `None`: it may publish what it likes.
    pub(super) run_as: Option<Arc<str>>,
    pub(super) compiled: CompiledRule,
    pub(super) actions: Vec<LoadedAction>,
    pub(super) error_action: Option<LoadedAction>,
}

#[derive(Debug)]
pub(super) struct LoadedAction {
    pub(super) config: ActionConfig,
    pub(super) plan: ActionPlan,
    /// One for each of the plan's templates, in their order.
    pub(super) templates: Vec<Template>,
    /// What becomes of its outbox when it is gone.
    pub(super) on_remove: Option<OnRemove>,
    /// Line and column of its connector's name, or of the action itself.
    place: (usize, usize),
}

impl RuleSet {
    /// Reads rules from texts that are at hand; the paths are for error messages.
    ///
    /// # Errors
    /// Every fault of every text.
    pub fn from_texts<'a>(
        texts: impl IntoIterator<Item = (&'a Path, &'a str)>,
        limits: &Limits,
    ) -> Result<Self, Vec<RuleFileError>> {
        let mut loader = Loader::new(limits);
        for (file, text) in texts {
            loader.read(file, text);
        }
        loader.finish()
    }

    /// Returns the rules in the order of their files, and within a file in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &LoadedRule> {
        self.rules.iter().map(AsRef::as_ref)
    }

    /// Returns what is allowed in the rules but hardly meant, in their order.
    pub fn warnings(&self) -> impl Iterator<Item = &RuleFileError> {
        self.iter().flat_map(|rule| &rule.warnings)
    }

    /// Returns every action that doesn't fit the configuration's connectors.
    #[must_use]
    pub fn unconnected(&self, connectors: &Connectors) -> Vec<RuleFileError> {
        let mut faults = Vec::new();
        for rule in self.iter() {
            for action in rule.actions.iter().chain(&rule.error_action) {
                if let Err(error) = Outlet::check(&action.config, connectors) {
                    let message = match &error {
                        ActionConfigError::Field { field, problem, .. } => format!("{field}: {problem}"),
                        other => other.to_string(),
                    };
                    let fault = RuleFileError::of_file(&rule.file, message).at(action.place);
                    faults.push(fault.in_rule(&rule.name).in_action(action.config.name()));
                }
            }
        }
        faults
    }

    /// Whether a rule of these is to run.
    pub(super) fn runs(&self, rule: &LoadedRule) -> bool {
        rule.enabled && !self.suspended.contains(&rule.name)
    }

    /// Returns how many rules there are, those that are not enabled included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl LoadedRule {
    /// The definition as a value.
    #[must_use]
    pub fn definition_value(&self) -> serde_json::Value {
        // It was printed from a value.
        serde_json::from_str(&self.definition).unwrap_or_default()
    }

    /// Returns the Topic Filters of the rule's FROM.
    #[must_use]
    pub fn filters(&self) -> &[String] {
        self.compiled.filters()
    }

    /// The actions with an outbox, the error action among them, with the names of their outboxes.
    pub(super) fn outboxes(&self) -> impl Iterator<Item = (String, &LoadedAction)> {
        let actions = self.actions.iter().chain(&self.error_action);
        actions
            .filter(|action| action.config.has_outbox())
            .map(|action| (format!("{}/{}", self.name, action.config.name()), action))
    }

    /// Its actions, the error action last.
    pub(super) fn all_actions(&self) -> impl Iterator<Item = &LoadedAction> {
        self.actions.iter().chain(&self.error_action)
    }

    /// Returns the names of the rule's actions, in order; the error action isn't among them.
    pub fn action_names(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().map(|action| action.config.name())
    }
}

/// Reads every `*.toml` file of a folder, in the order of their names. Hidden files and sub-folders are left alone.
///
/// # Errors
/// Every fault of every file; a folder that can't be read is one.
pub fn load_rules(dir: &Path, limits: &Limits) -> Result<RuleSet, Vec<RuleFileError>> {
    let files = files_in(dir)
        .map_err(|error| vec![RuleFileError::of_file(dir, format!("can't be read: {error}"))])?;
    let mut loader = Loader::new(limits);
    for file in files {
        match read_text(&file) {
            Ok(text) => loader.read(&file, &text),
            Err(message) => loader.errors.push(RuleFileError::of_file(&file, message)),
        }
    }
    loader.finish()
}

/// The rule files of a folder, in the order of their names.
pub(crate) fn files_in(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(super) fn read_text(file: &Path) -> Result<String, String> {
    let size = fs::metadata(file).map_err(|error| format!("can't be read: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("has {size} bytes, more than the limit of {FILE_BYTES_MAX}"));
    }
    fs::read_to_string(file).map_err(|error| format!("can't be read: {error}"))
}

/// A rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// The statement.
    #[schemars(with = "String")]
    sql: Spanned<String>,
    /// Whose SQL it is. Default `aws`.
    #[serde(default)]
    dialect: DialectName,
    /// Whether the rule runs. Default: true.
    #[serde(default = "yes")]
    enabled: bool,
    /// What it is for.
    #[serde(default)]
    description: String,
    /// Words to find it by.
    #[serde(default)]
    tags: Vec<String>,
    /// Whether an output without any member counts as none. Default: false.
    #[serde(default)]
    skip_empty: bool,
    /// What becomes of the outbox of an action that is removed or renamed. Default: as long as requests wait there, it can't be.
    on_remove: Option<OnRemove>,
    /// User name whose rights its republishes need. Default: none; then it may publish what it likes.
    run_as: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DialectName {
    /// As AWS IoT rules are written.
    #[default]
    Aws,
    /// As EMQX rules are written.
    Emqx,
}

const fn yes() -> bool {
    true
}

struct Loader<'l> {
    limits: &'l Limits,
    rules: Vec<Arc<LoadedRule>>,
    /// Every name seen, with its file.
    names: HashMap<String, PathBuf>,
    errors: Vec<RuleFileError>,
}

impl<'l> Loader<'l> {
    fn new(limits: &'l Limits) -> Self {
        Self { limits, rules: Vec::new(), names: HashMap::new(), errors: Vec::new() }
    }

    fn read(&mut self, file: &Path, text: &str) {
        let source = Source { file, text };
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => return self.errors.push(source.toml(&error)),
        };
        for (key, value) in table {
            if key.as_ref() != "rules" {
                let message =
                    format!("unknown key \"{}\"; expected tables named [rules.<name>]", key.as_ref());
                self.errors.push(source.fault(&key.span(), message));
                continue;
            }
            let span = value.span();
            let DeValue::Table(rules) = value.into_inner() else {
                self.errors.push(source.fault(&span, "expected tables named [rules.<name>]"));
                continue;
            };
            for (name, rule) in rules {
                self.read_rule(&source, &name, rule);
            }
        }
    }

    fn read_rule(
        &mut self,
        source: &Source<'_>,
        name: &Spanned<impl AsRef<str>>,
        rule: Spanned<DeValue<'_>>,
    ) {
        let place = name.span();
        let name = name.get_ref().as_ref();
        let before = self.errors.len();
        let fault = |span: &Range<usize>, message: String| source.fault(span, message).in_rule(name);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_plain) {
            let message = format!("a rule's name is 1 to {NAME_CHARS_MAX} letters, digits, \"-\" or \"_\"");
            self.errors.push(fault(&place, message));
        }
        if let Some(other) = self.names.insert(name.to_owned(), source.file.to_owned()) {
            self.errors.push(fault(&place, format!("{} has a rule of this name already", other.display())));
        }
        if self.rules.len() >= RULES_MAX {
            self.errors.push(fault(&place, format!("more than {RULES_MAX} rules")));
            return;
        }
        let span = rule.span();
        let DeValue::Table(table) = rule.into_inner() else {
            self.errors.push(fault(&span, "expected a table".to_owned()));
            return;
        };
        let definition = match definition_of(&span, &table) {
            Ok(definition) => definition,
            Err(error) => return self.errors.push(source.toml_in(&error, &place).in_rule(name)),
        };
        let mut head = DeTable::new();
        let mut actions = None;
        let mut error_action = None;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "actions" => actions = Some(value),
                "error_action" => error_action = Some(value),
                _ => {
                    head.insert(key, value);
                }
            }
        }
        let head = match Head::deserialize(Spanned::new(span.clone(), head).into_deserializer()) {
            Ok(head) => head,
            Err(error) => {
                self.errors.push(source.toml_in(&error, &place).in_rule(name));
                return;
            }
        };
        let dialect = match head.dialect {
            DialectName::Aws => Dialect::Aws,
            DialectName::Emqx => Dialect::Emqx,
        };
        let sql_span = head.sql.span();
        let sql = head.sql.into_inner();
        let limits = self.limits;
        if let Some(at) = find_secret(&sql, Escapes::None) {
            let place = source.inside_at(&sql_span, &sql, at);
            self.errors.push(fault(&sql_span, format!("sql: {NO_SECRETS}")).at(place));
            return;
        }
        let compiled = match rules_sql::compile(&sql, dialect, limits) {
            Ok(compiled) => compiled,
            Err(error) => {
                let fault = source.compile_fault(&sql_span, "", &error, error.render(&sql));
                self.errors.push(fault.in_rule(name));
                return;
            }
        };
        let mut maker = ActionMaker {
            source,
            rule: name,
            compiled: &compiled,
            limits,
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        for warning in compiled.warnings() {
            let fault = source.compile_fault(&sql_span, "", warning.details(), warning.render(&sql));
            maker.warnings.push(fault.in_rule(name));
        }
        let actions = actions.map(|value| maker.all(value)).unwrap_or_default();
        let error_action = error_action.and_then(|value| maker.one(value, Some(ERROR_ACTION)));
        let warnings = maker.warnings;
        self.errors.append(&mut maker.errors);
        if actions.is_empty() && self.errors.len() == before {
            self.errors.push(fault(&place, format!("has no action; expected [[rules.{name}.actions]]")));
        }
        if self.errors.len() > before {
            return;
        }
        self.rules.push(Arc::new(LoadedRule {
            name: name.to_owned(),
            file: source.file.to_owned(),
            sql,
            definition,
            enabled: head.enabled,
            description: head.description,
            tags: head.tags,
            warnings,
            skip_empty: head.skip_empty,
            on_remove: head.on_remove,
            run_as: head.run_as.map(Into::into),
            compiled,
            actions,
            error_action,
        }));
    }

    fn finish(self) -> Result<RuleSet, Vec<RuleFileError>> {
        if self.errors.is_empty() {
            Ok(RuleSet { rules: self.rules, ..RuleSet::default() })
        } else {
            Err(self.errors)
        }
    }
}

/// A rule's table as JSON.
fn definition_of(span: &Range<usize>, table: &DeTable<'_>) -> Result<Box<str>, toml::de::Error> {
    let deserializer = Spanned::new(span.clone(), table.clone()).into_deserializer();
    Ok(serde_json::Value::deserialize(deserializer)?.to_string().into())
}

/// Makes the actions of one rule.
struct ActionMaker<'a> {
    source: &'a Source<'a>,
    rule: &'a str,
    compiled: &'a CompiledRule,
    limits: &'a Limits,
    errors: Vec<RuleFileError>,
    warnings: Vec<RuleFileError>,
}

impl ActionMaker<'_> {
    fn all(&mut self, value: Spanned<DeValue<'_>>) -> Vec<LoadedAction> {
        let span = value.span();
        let DeValue::Array(values) = value.into_inner() else {
            self.fault(&span, "", format!("expected [[rules.{}.actions]], a list of tables", self.rule));
            return Vec::new();
        };
        if values.len() > ACTIONS_MAX {
            self.fault(&span, "", format!("{} actions, more than the limit of {ACTIONS_MAX}", values.len()));
            return Vec::new();
        }
        let mut actions: Vec<LoadedAction> = Vec::new();
        for value in values {
            let span = value.span();
            let Some(action) = self.one(value, None) else { continue };
            let name = action.config.name();
            if name == ERROR_ACTION {
                self.fault(&span, name, format!("the name \"{ERROR_ACTION}\" is the error action's own"));
            } else if actions.iter().any(|other| other.config.name() == name) {
                self.fault(&span, name, "the rule has an action of this name already".to_owned());
            } else {
                actions.push(action);
            }
        }
        actions
    }

    /// Makes one action; `given_name` is the name of an action that has no key for it.
    fn one(&mut self, value: Spanned<DeValue<'_>>, given_name: Option<&str>) -> Option<LoadedAction> {
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            self.fault(&span, given_name.unwrap_or_default(), "expected a table".to_owned());
            return None;
        };
        let keys = table.clone();
        let text_of = |key: &str| keys.get(key).and_then(|value| value.get_ref().as_str());
        let name = given_name.or_else(|| text_of("name")).unwrap_or_default().to_owned();
        let before = self.errors.len();
        self.refuse_secrets(&keys, "", &name);
        if self.errors.len() > before {
            return None;
        }
        let expected = || format!("expected type = \"{}\"", ActionConfig::KINDS.join("\", \""));
        let Some(kind) = text_of("type") else {
            self.fault(&find(&keys, "type").unwrap_or(span), &name, format!("has no type; {}", expected()));
            return None;
        };
        if given_name.is_some()
            && let Some(place) = find(&keys, "name")
        {
            self.fault(&place, &name, "an error action has no name of its own".to_owned());
            return None;
        }
        let undefined = self.undefined(&keys, &name)?;
        let on_remove = self.on_remove(&keys, &name)?;
        let mut settings = DeTable::new();
        for (key, value) in table {
            if !["type", "strict", "undefined", "on_remove"].contains(&key.get_ref().as_ref()) {
                settings.insert(key, value);
            }
        }
        let deserializer = Spanned::new(span.clone(), settings).into_deserializer();
        let config = match ActionConfig::from_kind(kind, deserializer) {
            Some(Ok(config)) => config,
            Some(Err(error)) => {
                let fault = self.source.toml_in(&error, &span).in_rule(self.rule).in_action(&name);
                self.errors.push(fault);
                return None;
            }
            None => {
                let place = find(&keys, "type").unwrap_or(span);
                self.fault(&place, &name, format!("unknown type \"{kind}\"; {}", expected()));
                return None;
            }
        };
        let config = match given_name {
            Some(name) => config.named(name),
            None => config,
        };
        let plan = match ActionPlan::new(self.rule, &config) {
            Ok(plan) => plan,
            Err(error) => {
                let place = find(&keys, error.field()).unwrap_or(span);
                let message = match &error {
                    ActionConfigError::Field { field, problem, .. } => format!("{field}: {problem}"),
                    other => other.to_string(),
                };
                self.fault(&place, &name, message);
                return None;
            }
        };
        let templates = self.templates(&plan, &keys, &span, undefined)?;
        let place = self.source.place(find(&keys, "connector").unwrap_or(span).start);
        Some(LoadedAction { config, plan, templates, on_remove, place })
    }

    /// Reads `on_remove`, which every kind has.
    fn on_remove(&mut self, keys: &DeTable<'_>, action: &str) -> Option<Option<OnRemove>> {
        let Some(value) = keys.get("on_remove") else { return Some(None) };
        match OnRemove::deserialize(value.clone().into_deserializer()) {
            Ok(on_remove) => Some(Some(on_remove)),
            Err(_) => {
                let expected = "expected \"drain\", \"dead_letter\" or \"purge\"";
                self.fault(&value.span(), action, format!("on_remove: {expected}"));
                None
            }
        }
    }

    /// Reads what becomes of Undefined in the action's templates: `strict` and `undefined`, which every kind has.
    fn undefined(&mut self, keys: &DeTable<'_>, action: &str) -> Option<Undefined> {
        let strict = match keys.get("strict") {
            None => false,
            Some(value) => match value.get_ref().as_bool() {
                Some(strict) => strict,
                None => {
                    self.fault(&value.span(), action, "strict: expected true or false".to_owned());
                    return None;
                }
            },
        };
        let Some(value) = keys.get("undefined") else {
            return Some(if strict { Undefined::Fail } else { Undefined::Blank });
        };
        let problem = match value.get_ref().as_str() {
            Some(_) if strict => "strict = true lets nothing be undefined",
            Some("null") => return Some(Undefined::Blank),
            Some("omit") => return Some(Undefined::Omit),
            _ => "expected \"null\" or \"omit\"",
        };
        self.fault(&value.span(), action, format!("undefined: {problem}"));
        None
    }

    fn templates(
        &mut self,
        plan: &ActionPlan,
        keys: &DeTable<'_>,
        span: &Range<usize>,
        undefined: Undefined,
    ) -> Option<Vec<Template>> {
        let before = self.errors.len();
        let mut templates = Vec::with_capacity(plan.templates().len());
        for spec in plan.templates() {
            let place = || find(keys, &spec.field).unwrap_or_else(|| span.clone());
            let fault = |error: &CompileError, rendered: String| {
                let fault =
                    self.source.compile_fault(&place(), &format!("{}: ", spec.field), error, rendered);
                fault.in_rule(self.rule).in_action(plan.name())
            };
            match self.compiled.template(&spec.text, template_kind(spec.slot), self.limits) {
                Ok(template) => {
                    let returns = match (plan.kind(), spec.field.as_str()) {
                        ("republish", "topic") => self.compiled.doubt_return(&template),
                        _ => None,
                    };
                    for warning in template.warnings().iter().chain(&returns) {
                        self.warnings.push(fault(warning.details(), warning.render(&spec.text)));
                    }
                    templates.push(template.with_undefined(undefined));
                }
                Err(error) => self.errors.push(fault(&error, error.render(&spec.text))),
            }
        }
        (self.errors.len() == before).then_some(templates)
    }

    /// Reports every reference to a secret among the values of an action; `within` names the table, with a dot.
    fn refuse_secrets(&mut self, table: &DeTable<'_>, within: &str, action: &str) {
        for (key, value) in table {
            let field = format!("{within}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => self.refuse_secrets(table, &format!("{field}."), action),
                DeValue::String(text) => {
                    if let Some(at) = find_secret(text, Escapes::DoubledDollar) {
                        let span = value.span();
                        let place = self.source.inside_at(&span, text, at);
                        let message = format!("{field}: {NO_SECRETS} (a literal ${{ is written $${{)");
                        let fault = self.source.fault(&span, message).at(place);
                        self.errors.push(fault.in_rule(self.rule).in_action(action));
                    }
                }
                _ => {}
            }
        }
    }

    fn fault(&mut self, span: &Range<usize>, action: &str, message: String) {
        self.errors.push(self.source.fault(span, message).in_rule(self.rule).in_action(action));
    }
}

/// Why a rule may not say `${env:…}`.
const NO_SECRETS: &str = "`${env:…}`, `${file:…}` and `${credential:…}` stand only in the configuration; a rule reads no \
     secrets, since it could put them into an output";

/// How a text writes a literal `${`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// As it is.
    None,
    /// As `$${`.
    DoubledDollar,
}

/// Where the first `${env:`, `${file:` or `${credential:` of a text begins, in bytes. Spaces around the word make no
/// difference.
fn find_secret(text: &str, escapes: Escapes) -> Option<usize> {
    let mut rest = text;
    while let Some((before, inner)) = rest.split_once("${") {
        let is_escaped = escapes == Escapes::DoubledDollar && before.ends_with('$');
        let word = inner.trim_start();
        let after = ["env", "file", "credential"].iter().find_map(|name| word.strip_prefix(name));
        if !is_escaped && after.is_some_and(|after| after.trim_start().starts_with(':')) {
            return Some(text.len() - inner.len() - "${".len());
        }
        rest = inner;
    }
    None
}

/// The language's name for a slot.
fn template_kind(slot: Slot) -> TemplateKind {
    match slot {
        Slot::Text => TemplateKind::Text,
        Slot::Topic => TemplateKind::Topic,
        Slot::UrlPart => TemplateKind::UrlPart,
        Slot::HeaderValue => TemplateKind::HeaderValue,
        Slot::Integer { min, max } => TemplateKind::Integer { min, max },
        Slot::Boolean => TemplateKind::Boolean,
        // What a slot added later needs is settled here before anything uses it.
        Slot::PlainText | _ => TemplateKind::PlainText,
    }
}

/// Where the value of a key stands; `headers.X-Site` and `queue.max_items` stand in a table of their own.
fn find(table: &DeTable<'_>, field: &str) -> Option<Range<usize>> {
    if let Some(value) = table.get(field) {
        return Some(value.span());
    }
    let (outer, inner) = field.split_once('.')?;
    let outer = table.get(outer)?;
    match outer.get_ref() {
        DeValue::Table(table) => Some(find(table, inner).unwrap_or_else(|| outer.span())),
        _ => Some(outer.span()),
    }
}
