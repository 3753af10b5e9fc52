//! Rules: those that are there, and trying others out. Nothing here changes or sends anything; `rule_changes` does.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mqtt_protocol::QoS;
use rules_sql::{CompileError, Dialect, Evaluation, compile};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::{Caller, Role, now_ms};
use super::counters::of_rule;
use super::extract::{Json, Path, Query, object, objects};
use super::gateway::Gateway;
use super::messages::UserProperty;
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};
use super::rule_changes::etag;
use crate::rules::{
    BookError, HIDDEN, LoadedRule, Owner, RuleEntry, RuleExplanation, RuleFileError, RuleSet, SampleMessage,
    SampleProperties, Suspension, explanation_line, is_secret_name,
};
use crate::server::random;

/// What a rule file that came in a request is called in its faults.
const REQUEST_FILE: &str = "request.toml";
/// Most rules that are explained in one request.
pub const EXPLAINED_MAX: usize = 100;

/// Bytes of details past which a page has no more rules.
pub const RULES_PAGE_BYTES_MAX: usize = 1 << 20;

/// Rules that are looked at in one go.
const LOOKED_AT_ONCE: usize = 5_000;

/// Which rules are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RulesQuery {
    /// Part of the name, of the description or of a tag; upper and lower case are the same.
    search: Option<String>,
    /// Those with this tag.
    tag: Option<String>,
    /// Those that run, or those that don't.
    runs: Option<bool>,
    /// Whether each comes with its details. A page ends, then, with the rule that makes them 1 MiB long.
    #[serde(default)]
    details: bool,
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of rules, by name.
#[derive(Serialize, ToSchema)]
pub(super) struct RulePage {
    rules: Vec<RuleSummary>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
    /// Rules that there are, whichever were wanted.
    total: usize,
}

#[derive(Serialize, ToSchema)]
pub(super) struct RuleSummary {
    name: String,
    /// `file` or `store`.
    owner: Owner,
    /// Whether it runs.
    runs: bool,
    /// Whether its definition says that it is to run.
    enabled: bool,
    /// That it doesn't run though its file says so; null: it wasn't suspended.
    suspended: Option<SuspensionInfo>,
    /// Of a rule of the store: its version, counted from 1.
    version: Option<u32>,
    /// Of a rule of the store: who changed it last.
    author: Option<String>,
    /// Of a rule of the store: when it was changed last, milliseconds since 1970.
    changed_at_ms: Option<i64>,
    description: String,
    tags: Vec<String>,
    /// The file that it stands in.
    file: String,
    /// How many warnings there are about it.
    warnings: usize,
    /// In lists for which they were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    details: Option<RuleDetails>,
}

/// What is long about a rule, but for its definition.
#[derive(Serialize, ToSchema)]
pub(super) struct RuleDetails {
    /// Its statement.
    sql: String,
    warnings: Vec<String>,
    /// As those of the rule alone; null: the rule doesn't run.
    #[schema(value_type = Option<Object>)]
    counters: Option<Value>,
}

/// Who stopped a rule of a file, or an action.
#[derive(Serialize, ToSchema)]
pub(super) struct SuspensionInfo {
    pub(super) by: String,
    /// Milliseconds since 1970.
    pub(super) at_ms: i64,
}

/// A rule.
#[derive(Serialize, ToSchema)]
pub(super) struct Rule {
    summary: RuleSummary,
    /// What it says: the keys of `[rules.<name>]`. A viewer isn't shown the values of secret names.
    #[schema(value_type = Object)]
    definition: Value,
    warnings: Vec<String>,
    /// What became of every message and every request, as docs/cli.md has them under `rules counters`; null: the rule doesn't run.
    #[schema(value_type = Option<Object>)]
    counters: Option<Value>,
}

/// What is wrong with a rule file, or allowed in it but hardly meant.
#[derive(Serialize, ToSchema)]
pub(super) struct Finding {
    rule: Option<String>,
    action: Option<String>,
    /// From 1.
    line: Option<usize>,
    /// From 1, in characters.
    column: Option<usize>,
    /// The code of SQL's faults and doubts.
    code: Option<&'static str>,
    message: String,
    /// The text with the place marked: several lines, for a terminal.
    detail: Option<String>,
}

/// A rule file to be checked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Validate {
    /// TOML, as it would stand in rules.d.
    text: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Validated {
    is_valid: bool,
    /// The names of its rules, where there are no faults.
    rules: Vec<String>,
    faults: Vec<Finding>,
    warnings: Vec<Finding>,
}

/// What to explain for a message: a rule that is there, the rules of a file, or a statement alone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Explain {
    /// Name of a rule that is there.
    #[serde(default)]
    rule: Option<String>,
    /// A rule file, TOML.
    #[serde(default)]
    text: Option<String>,
    /// A statement.
    #[serde(default)]
    sql: Option<String>,
    #[serde(deserialize_with = "object")]
    message: TriedMessage,
}

/// A message to try rules on. Nobody gets it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SampleMessage)]
pub(super) struct TriedMessage {
    /// Topic Name.
    #[schema(pattern = r"^[^+#\x00]+$")]
    topic: String,
    /// Payload as text.
    #[serde(default)]
    payload: Option<String>,
    /// Payload in base64.
    #[serde(default)]
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
    payload_base64: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    listener: Option<String>,
    /// 0, 1 or 2.
    #[serde(default)]
    #[schema(maximum = 2)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    response_topic: Option<String>,
    #[serde(default, deserialize_with = "objects")]
    user_properties: Vec<UserProperty>,
}

/// One explanation for each rule, as `tidegate rules explain --json` prints them (docs/cli.md).
#[derive(Serialize, ToSchema)]
pub(super) struct Explained {
    #[schema(value_type = Vec<Object>)]
    explanations: Vec<Box<RawValue>>,
}

impl From<&RuleEntry> for RuleSummary {
    fn from(rule: &RuleEntry) -> Self {
        let suspended = rule.suspended.clone();
        Self {
            name: rule.name.clone(),
            owner: rule.owner,
            runs: rule.runs,
            enabled: rule.enabled,
            suspended: suspended.map(|Suspension { by, at_ms }| SuspensionInfo { by, at_ms }),
            version: rule.version,
            author: rule.author.clone(),
            changed_at_ms: rule.changed_at_ms,
            description: rule.description.clone(),
            tags: rule.tags.clone(),
            file: rule.file.display().to_string(),
            warnings: rule.warnings.len(),
            details: None,
        }
    }
}

impl RuleDetails {
    fn of(rule: &RuleEntry, gateway: &Gateway) -> Self {
        let sql = rule.definition.get("sql").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { sql, warnings: rule.warnings.clone(), counters: counters(gateway, &rule.name) }
    }

    /// How long they are, written down.
    fn bytes(&self) -> usize {
        let warnings: usize = self.warnings.iter().map(String::len).sum();
        self.sql.len() + warnings + self.counters.as_ref().map_or(0, |counters| counters.to_string().len())
    }
}

/// What became of every message and every request of a rule that runs.
fn counters(gateway: &Gateway, rule: &str) -> Option<Value> {
    gateway.rules().stats_of(rule).map(|stats| of_rule(&stats))
}

impl RulesQuery {
    /// The query with its search in lower case, as [`RulesQuery::fits`] takes it.
    fn folded(self) -> Self {
        Self { search: self.search.map(|part| part.to_lowercase()), ..self }
    }

    fn fits(&self, rule: &RuleEntry) -> bool {
        let has = |text: &str, part: &str| text.to_lowercase().contains(part);
        self.search.as_ref().is_none_or(|part| {
            has(&rule.name, part)
                || has(&rule.description, part)
                || rule.tags.iter().any(|tag| has(tag, part))
        }) && self.tag.as_ref().is_none_or(|tag| rule.tags.contains(tag))
            && self.runs.is_none_or(|runs| rule.runs == runs)
    }
}

/// A definition without the values of secret names.
fn without_secrets(definition: &mut Value) {
    match definition {
        Value::Object(members) => {
            for (name, value) in members {
                if value.is_string() && is_secret_name(name) {
                    *value = HIDDEN.into();
                } else {
                    without_secrets(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_secrets),
        _ => {}
    }
}

impl From<&RuleFileError> for Finding {
    fn from(finding: &RuleFileError) -> Self {
        Self {
            rule: finding.rule.clone(),
            action: finding.action.clone(),
            line: finding.line,
            column: finding.column,
            code: finding.code,
            message: finding.message.clone(),
            detail: finding.detail.clone(),
        }
    }
}

/// Lists rules.
#[utoipa::path(get, path = "/api/v1/rules", operation_id = "listRules", tag = "rules", params(RulesQuery),
    responses((status = 200, description = "A page of rules", body = RulePage)))]
pub(super) async fn list_rules(
    State(api): State<Arc<Api>>,
    Query(query): Query<RulesQuery>,
) -> Result<Json<RulePage>, Problem> {
    let limit = limit(query.limit)?;
    let after: Option<String> = place(query.after.as_deref())?;
    let query = query.folded();
    api.blocking(move |api| {
        let mut rules: Vec<RuleSummary> = Vec::new();
        let mut bytes = 0;
        let mut behind = after;
        let mut has_more = false;
        loop {
            let (entries, next) = api.gateway.book.list(behind.as_deref(), LOOKED_AT_ONCE);
            for rule in entries.iter().filter(|rule| query.fits(rule)) {
                has_more = rules.len() >= limit || bytes >= RULES_PAGE_BYTES_MAX;
                if has_more {
                    break;
                }
                let details = query.details.then(|| RuleDetails::of(rule, &api.gateway));
                bytes += details.as_ref().map_or(0, RuleDetails::bytes);
                rules.push(RuleSummary { details, ..RuleSummary::from(rule) });
            }
            behind = next;
            if behind.is_none() || has_more {
                break;
            }
        }
        let next = rules.last().filter(|_| has_more).map(|last| cursor(&last.name));
        Ok::<_, Problem>(Json(RulePage { rules, next, total: api.gateway.book.count() }))
    })
    .await
}

fn find(gateway: &Gateway, name: &str) -> Result<Arc<LoadedRule>, Problem> {
    let found = gateway.rules().loaded().into_iter().find(|rule| rule.name == name);
    found.ok_or_else(|| Problem::new(Kind::Missing, format!("there is no rule {name:?}")))
}

/// Shows a rule and its counters.
#[utoipa::path(get, path = "/api/v1/rules/{name}", operation_id = "getRule", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 200, description = "The rule", body = Rule)))]
pub(super) async fn get_rule(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    api.blocking(move |api| {
        let rule = api.gateway.book.rule(&name);
        let mut rule = rule.ok_or_else(|| BookError::Unknown { rule: name.clone() })?;
        if caller.role < Role::Operator {
            without_secrets(&mut rule.definition);
        }
        let shown = Rule {
            summary: RuleSummary::from(&rule),
            definition: rule.definition,
            warnings: rule.warnings,
            counters: counters(&api.gateway, &name),
        };
        Ok::<_, Problem>((etag(rule.version), Json(shown)).into_response())
    })
    .await
}

/// Checks a rule file.
#[utoipa::path(post, path = "/api/v1/rules/validate", operation_id = "validateRules", tag = "rules", request_body = Validate,
    responses((status = 200, description = "What is to be said of it", body = Validated)))]
pub(super) async fn validate(
    State(api): State<Arc<Api>>,
    Json(body): Json<Validate>,
) -> Result<Json<Validated>, Problem> {
    api.blocking(move |api| {
        let validated = match read(&api.gateway, &body.text) {
            Ok(rules) => Validated {
                is_valid: true,
                rules: rules.iter().map(|rule| rule.name.clone()).collect(),
                faults: Vec::new(),
                warnings: rules.warnings().map(Finding::from).collect(),
            },
            Err(faults) => Validated {
                is_valid: false,
                rules: Vec::new(),
                faults: faults.iter().map(Finding::from).collect(),
                warnings: Vec::new(),
            },
        };
        Ok::<_, Problem>(Json(validated))
    })
    .await
}

/// Reads a rule file as it would be read from the folder, its actions' connectors too.
pub(super) fn read(gateway: &Gateway, text: &str) -> Result<RuleSet, Vec<RuleFileError>> {
    let rules = RuleSet::from_texts([(FilePath::new(REQUEST_FILE), text)], &gateway.rule_limits)?;
    let faults = rules.unconnected(&gateway.rules().connectors());
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// Says for a message what each rule makes of it and why, down to what each action would send. Nothing is sent.
#[utoipa::path(post, path = "/api/v1/rules/explain", operation_id = "explainRules", tag = "rules", request_body = Explain,
    responses((status = 200, description = "The explanations", body = Explained)))]
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    Json(body): Json<Explain>,
) -> Result<Json<Explained>, Problem> {
    let message = body.message.read()?;
    let (rule, text, sql) = (body.rule, body.text, body.sql);
    api.blocking(move |api| {
        let properties = message.properties();
        let seed = random();
        let trace_id = (u128::from(random()) << 64) | u128::from(random());
        let event = message.event(&properties, now_ms(), trace_id);
        let mut explanations = Vec::new();
        match (rule, text, sql) {
            (Some(name), None, None) => {
                let rule = find(&api.gateway, &name)?;
                explanations.push(shown(&rule.explain(&mut Evaluation::new(&event, seed)))?);
            }
            (None, Some(text), None) => {
                let rules = read(&api.gateway, &text).map_err(|faults| refused(&faults))?;
                if rules.len() > EXPLAINED_MAX {
                    let detail =
                        format!("text: {} rules, more than the limit of {EXPLAINED_MAX}", rules.len());
                    return Err(Problem::new(Kind::Invalid, detail));
                }
                for (number, rule) in (0..).zip(rules.iter()) {
                    // As for live messages, each rule has random numbers of its own.
                    let mut evaluation = Evaluation::new(&event, seed);
                    evaluation.begin_rule(number);
                    explanations.push(shown(&rule.explain(&mut evaluation))?);
                }
            }
            (None, None, Some(sql)) => {
                let compiled = compile(&sql, Dialect::Aws, &api.gateway.rule_limits)
                    .map_err(|error| Problem::new(Kind::Invalid, place_of(&error)))?;
                let mut evaluation = Evaluation::new(&event, seed);
                explanations.push(shown(&RuleExplanation::of_statement(&compiled, &mut evaluation))?);
            }
            _ => return Err(Problem::new(Kind::Invalid, "expected one of rule, text and sql")),
        }
        Ok(Json(Explained { explanations }))
    })
    .await
}

fn shown(explanation: &RuleExplanation<'_>) -> Result<Box<RawValue>, Problem> {
    explanation_line(explanation).and_then(RawValue::from_string).map_err(|error| {
        tracing::error!(%error, "an explanation can't be written");
        Problem::new(Kind::Internal, "the explanation can't be written")
    })
}

pub(super) fn refused(faults: &[RuleFileError]) -> Problem {
    let first = faults.first().map(ToString::to_string).unwrap_or_default();
    let detail = match faults.len() {
        0 | 1 => first,
        count => format!("{first} (the first of {count} faults; validateRules tells them all)"),
    };
    Problem::new(Kind::Invalid, detail)
}

fn place_of(error: &CompileError) -> String {
    format!("sql: {}:{}: {}: {}", error.line, error.column, error.code, error.message)
}

impl TriedMessage {
    fn read(self) -> Result<SampleMessage, Problem> {
        let invalid = |detail: String| Problem::new(Kind::Invalid, format!("message: {detail}"));
        let payload = match (self.payload, self.payload_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => BASE64_STANDARD
                .decode(text)
                .map_err(|_| invalid("payload_base64: expected base64".to_owned()))?,
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => {
                return Err(invalid("expected either payload or payload_base64".to_owned()));
            }
        };
        let properties = SampleProperties {
            content_type: self.content_type,
            response_topic: self.response_topic,
            user_properties: self.user_properties.into_iter().map(UserProperty::into_pair).collect(),
            ..SampleProperties::default()
        };
        let message = SampleMessage {
            topic: self.topic,
            payload,
            client_id: self.client_id,
            username: self.username,
            source_ip: None,
            listener: self.listener,
            qos: QoS::try_from(self.qos).map_err(|_| invalid("qos: expected 0, 1 or 2".to_owned()))?,
            retain: self.retain,
            properties: properties.encode().map_err(&invalid)?,
        };
        message.check_topic().map_err(&invalid)?;
        Ok(message)
    }
}
