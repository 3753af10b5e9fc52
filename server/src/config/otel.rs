//! The variables of OpenTelemetry, `OTEL_…`, laid under the files: they hold where no file says anything, key by key.
//!
//! They are often set for all programs of a machine at once. So one that makes no sense is told and left out, as the
//! specification asks, and doesn't keep the gateway from starting; but for a protocol that isn't spoken here.
//!
//! Source: OpenTelemetry specification 1.40, "Environment Variable Specification" and "OpenTelemetry Protocol Exporter".

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode_str;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Environment;
use super::otlp::{BATCH_SPANS, EXPORT_TIMEOUT, QUEUED_SPANS, SCHEDULE_DELAY, TIMEOUT};
use super::source::{Origin, Sources};
use super::tree::with_span;
use super::units::Period;

/// Puts what the variables say into the tree where nothing is said. Returns what was left out.
pub(super) fn lay_under<'i>(
    root: &mut DeTable<'i>,
    environment: &'i Environment,
    sources: &mut Sources,
) -> Vec<String> {
    let mut layer = Layer { environment, sources, root, warnings: Vec::new() };
    layer.switch();
    layer.target();
    layer.resource();
    layer.numbers();
    layer.sampler();
    layer.warnings
}

struct Layer<'l, 'i> {
    environment: &'i Environment,
    sources: &'l mut Sources,
    root: &'l mut DeTable<'i>,
    warnings: Vec<String>,
}

impl<'i> Layer<'_, 'i> {
    /// The first of these variables that is set; an empty one isn't.
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, &'i str)> {
        let environment = self.environment;
        names.iter().find_map(|name| {
            let text = environment.get(name)?.trim();
            (!text.is_empty()).then_some((*name, text))
        })
    }

    fn leave_out(&mut self, name: &str, expected: &str) {
        // Not its value: it may be a secret.
        self.warnings.push(format!("the variable {name} is left out: expected {expected}"));
    }

    /// Puts a value at a key of `[trace.otlp]`, unless one is there.
    fn put(
        &mut self,
        key: &'static str,
        name: &str,
        text: &str,
        value: impl FnOnce(Range<usize>) -> DeValue<'i>,
    ) {
        let span = self.sources.add(Origin::Variable(name.to_owned()), text);
        let Some(otlp) = table(self.root, "trace", &span).and_then(|trace| table(trace, "otlp", &span))
        else {
            return;
        };
        put(otlp, key, &span, value(span.clone()));
    }

    fn put_text(&mut self, key: &'static str, name: &str, text: String) {
        let source = text.clone();
        self.put(key, name, &source, |_| DeValue::String(Cow::Owned(text)));
    }

    fn has(&self, key: &str) -> bool {
        let otlp = self.root.get("trace").and_then(|trace| trace.get_ref().get("otlp"));
        otlp.is_some_and(|otlp| otlp.get_ref().get(key).is_some())
    }

    /// Whether anything is sent.
    fn switch(&mut self) {
        match self.first(&["OTEL_SDK_DISABLED"]) {
            Some((name, text)) if text.eq_ignore_ascii_case("true") => {
                self.put("enabled", name, text, |_| DeValue::Boolean(false));
            }
            Some((_, text)) if text.eq_ignore_ascii_case("false") => {}
            Some((name, _)) => self.leave_out(name, "true or false"),
            None => {}
        }
        match self.first(&["OTEL_TRACES_EXPORTER"]) {
            Some((name, "none")) => self.put("enabled", name, "none", |_| DeValue::Boolean(false)),
            None | Some((_, "otlp")) => {}
            Some((name, _)) => self.leave_out(name, "otlp or none"),
        }
    }

    /// Where spans go, and how.
    fn target(&mut self) {
        let given = self.first(&["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
        if let Some((name, text)) = given.filter(|_| !self.has("endpoint")) {
            let endpoint = match name {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => text.to_owned(),
                _ => format!("{}/v1/traces", text.trim_end_matches('/')),
            };
            // There, the scheme is all that says whether TLS is wanted.
            if endpoint.starts_with("http://") {
                self.put("insecure_http", name, text, |_| DeValue::Boolean(true));
            }
            self.put_text("endpoint", name, endpoint);
        }
        let given = self.first(&["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        if let Some((name, text)) = given {
            self.put_text("protocol", name, text.to_owned());
        }
        let certificate =
            self.first(&["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]);
        if let Some((name, text)) = certificate {
            self.put_text("ca", name, text.to_owned());
        }
        if let Some((name, text)) =
            self.first(&["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"])
        {
            match pairs(text) {
                Some(pairs) => self.put("headers", name, text, |span| table_of(pairs, &span)),
                None => self.leave_out(name, "name=value,name=value, percent-encoded"),
            }
        }
    }

    /// Whose spans they are.
    fn resource(&mut self) {
        if let Some((name, text)) = self.first(&["OTEL_SERVICE_NAME"]) {
            self.put_text("service_name", name, text.to_owned());
        }
        let Some((name, text)) = self.first(&["OTEL_RESOURCE_ATTRIBUTES"]) else { return };
        let Some(mut pairs) = pairs(text) else {
            return self.leave_out(name, "name=value,name=value, percent-encoded");
        };
        let is_service = |(key, _): &(String, String)| key == "service.name";
        if let Some(place) = pairs.iter().position(is_service) {
            let (_, service) = pairs.remove(place);
            self.put_text("service_name", name, service);
        }
        if !pairs.is_empty() {
            self.put("resource_attributes", name, text, |span| table_of(pairs, &span));
        }
    }

    fn numbers(&mut self) {
        let timeout: &[&str] = &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        for (names, key, (min, max)) in [
            (timeout, "timeout", TIMEOUT),
            (&["OTEL_BSP_EXPORT_TIMEOUT"], "export_timeout", EXPORT_TIMEOUT),
            (&["OTEL_BSP_SCHEDULE_DELAY"], "schedule_delay", SCHEDULE_DELAY),
        ] {
            let Some((name, text)) = self.first(names) else { continue };
            match text.parse().map(Period::millis) {
                Ok(period) if (min..=max).contains(&period) => self.put_text(key, name, period.to_string()),
                _ => self.leave_out(name, &format!("milliseconds, {min} to {max}")),
            }
        }
        for (name, key, (min, max)) in [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "max_queued_spans", QUEUED_SPANS),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "max_batch_spans", BATCH_SPANS),
        ] {
            let Some((name, text)) = self.first(&[name]) else { continue };
            let is_one = text.parse::<u32>().is_ok_and(|number| (min..=max).contains(&number));
            match DeValue::parse(text) {
                Ok(value) if is_one => {
                    self.put(key, name, text, |span| with_span(value.into_inner(), &span).into_inner());
                }
                _ => self.leave_out(name, &format!("a number from {min} to {max}")),
            }
        }
    }

    /// Which messages: the share of `[trace]`. Whether a publisher's decision counts is said there and nowhere else, since
    /// clients are strangers.
    fn sampler(&mut self) {
        let Some((name, sampler)) = self.first(&["OTEL_TRACES_SAMPLER"]) else { return };
        let argument = self.first(&["OTEL_TRACES_SAMPLER_ARG"]);
        let (by, ratio) = match sampler {
            "always_on" | "parentbased_always_on" => (name, "1"),
            "always_off" | "parentbased_always_off" => (name, "0"),
            "traceidratio" | "parentbased_traceidratio" => match argument {
                None => (name, "1"),
                Some((by, text)) if text.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio)) => {
                    (by, text)
                }
                Some((by, _)) => return self.leave_out(by, "a number from 0 to 1"),
            },
            _ => {
                return self.leave_out(
                    name,
                    "always_on, always_off or traceidratio, each with or without parentbased_",
                );
            }
        };
        let Ok(value) = DeValue::parse(ratio) else { return self.leave_out(by, "a number from 0 to 1") };
        let span = self.sources.add(Origin::Variable(by.to_owned()), ratio);
        if let Some(trace) = table(self.root, "trace", &span) {
            put(trace, "ratio", &span, with_span(value.into_inner(), &span).into_inner());
        }
    }
}

/// The table of that name, made if it isn't there; `None`: something else is.
fn table<'t, 'i>(
    parent: &'t mut DeTable<'i>,
    name: &'static str,
    span: &Range<usize>,
) -> Option<&'t mut DeTable<'i>> {
    let node = parent
        .entry(Spanned::new(span.clone(), Cow::Borrowed(name)))
        .or_insert_with(|| Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
    match node.get_mut() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn put<'i>(table: &mut DeTable<'i>, key: &'static str, span: &Range<usize>, value: DeValue<'i>) {
    table
        .entry(Spanned::new(span.clone(), Cow::Borrowed(key)))
        .or_insert_with(|| Spanned::new(span.clone(), value));
}

fn table_of<'i>(pairs: Vec<(String, String)>, span: &Range<usize>) -> DeValue<'i> {
    let mut table = DeTable::new();
    for (key, value) in pairs {
        let value = Spanned::new(span.clone(), DeValue::String(Cow::Owned(value)));
        table.insert(Spanned::new(span.clone(), Cow::Owned(key)), value);
    }
    DeValue::Table(table)
}

/// `key=value,key=value`, both percent-encoded, as in W3C Baggage without properties. All or nothing: half of a list of
/// headers is no use.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(Cow::into_owned);
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((decoded(key).filter(|key| !key.is_empty())?, decoded(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Loaded, OtlpProtocol, load_text};
    use super::*;

    #[track_caller]
    fn loaded(text: &str, variables: &[(&str, &str)]) -> Loaded {
        let environment: Environment = variables.iter().copied().collect();
        load_text(text, Some(Path::new("/etc/tidegate.toml")), &environment).unwrap()
    }

    #[test]
    fn variables_hold_where_the_file_says_nothing() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20dXM6cHc=, x-tenant=a%2Cb"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"),
            ("OTEL_SERVICE_NAME", "edge-7"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=plant%20a"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4096"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1000"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "20000"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ];
        let all = loaded("", &variables);
        assert_eq!(all.warnings, Vec::<String>::new());
        let (trace, otlp) = (&all.config.trace, &all.config.trace.otlp);
        assert_eq!((trace.ratio, trace.trust_context), (0.25, false));
        assert_eq!(otlp.endpoint.as_deref(), Some("https://collector:4318/v1/traces"));
        assert_eq!(otlp.headers["authorization"].expose(), "Basic dXM6cHc=");
        assert_eq!(otlp.headers["x-tenant"].expose(), "a,b");
        assert_eq!((otlp.timeout, otlp.export_timeout), (Period::millis(2_500), Period::secs(20)));
        assert_eq!((otlp.protocol, otlp.schedule_delay), (OtlpProtocol::HttpJson, Period::secs(1)));
        assert_eq!((otlp.max_queued_spans, otlp.max_batch_spans), (4_096, 64));
        assert_eq!(otlp.ca.as_deref(), Some(Path::new("/etc/ca.pem")));
        assert_eq!((otlp.service_name.as_str(), otlp.insecure_http), ("edge-7", false));
        assert_eq!(otlp.resource_attributes.len(), 1);
        assert_eq!(otlp.resource_attributes["deployment.environment.name"], "plant a");
        let shown = all.effective.to_toml();
        assert!(!shown.contains("dXM6cHc") && shown.contains("OTEL_EXPORTER_OTLP_TIMEOUT"), "{shown}");

        // Each key for itself.
        let file = "[trace]\nratio = 0.5\n[trace.otlp]\nendpoint = 'https://other/x'\ntimeout = '3s'\nheaders = {}\n";
        let both = loaded(file, &variables);
        let otlp = &both.config.trace.otlp;
        assert_eq!(both.config.trace.ratio, 0.5);
        assert_eq!(otlp.endpoint.as_deref(), Some("https://other/x"));
        assert_eq!((otlp.timeout, otlp.export_timeout), (Period::secs(3), Period::secs(20)));
        assert!(otlp.headers.is_empty());
        // Variables of ours are above the file, so above these too.
        let ours = [&variables[..], &[("TIDEGATE_TRACE__OTLP__SERVICE_NAME", "ours")]].concat();
        assert_eq!(loaded("", &ours).config.trace.otlp.service_name, "ours");
    }

    #[test]
    fn the_variables_for_traces_come_before_those_for_all() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
        ];
        let config = loaded("", &variables).config;
        let otlp = &config.trace.otlp;
        // As it is; and its scheme says that plain HTTP is meant.
        assert_eq!(otlp.endpoint.as_deref(), Some("http://traces:4318"));
        assert!(otlp.insecure_http);
        assert_eq!(otlp.headers.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(otlp.timeout, Period::secs(2));
    }

    #[test]
    fn samplers_say_which_share() {
        for (sampler, ratio) in [
            ("always_on", 1.0),
            ("always_off", 0.0),
            ("parentbased_always_on", 1.0),
            ("parentbased_always_off", 0.0),
            ("traceidratio", 0.125),
            ("parentbased_traceidratio", 0.125),
        ] {
            let variables = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", "0.125")];
            assert_eq!(loaded("", &variables).config.trace.ratio, ratio, "{sampler}");
        }
        assert_eq!(loaded("", &[("OTEL_TRACES_SAMPLER", "traceidratio")]).config.trace.ratio, 1.0);
    }

    #[test]
    fn what_turns_all_of_it_off() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        for (variable, is_on) in [
            (("OTEL_SDK_DISABLED", "TRUE"), false),
            (("OTEL_SDK_DISABLED", "false"), true),
            (("OTEL_TRACES_EXPORTER", "none"), false),
            (("OTEL_TRACES_EXPORTER", "otlp"), true),
            // Empty is as if it weren't there.
            (("OTEL_SDK_DISABLED", ""), true),
        ] {
            let loaded = loaded("", &[endpoint, variable]);
            assert_eq!(loaded.config.trace.otlp.enabled, is_on, "{variable:?}");
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        }
        assert_eq!(loaded("", &[]).config.trace.otlp.endpoint, None);
    }

    #[test]
    fn what_makes_no_sense_is_told_and_left_out() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "99"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "60001"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1000001"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1"),
            ("OTEL_BSP_SCHEDULE_DELAY", "9"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "999"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%ff"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_SDK_DISABLED", "maybe"),
        ] {
            let loaded = loaded("", &[(name, value)]);
            let [warning] = loaded.warnings.as_slice() else { panic!("{name}: {:?}", loaded.warnings) };
            assert!(warning.contains(name) && !warning.contains("s3cret"), "{warning}");
            assert_eq!(loaded.config, super::super::Config::default(), "{name}");
        }
        for ratio in ["1.1", "-0.1", "x", "NaN"] {
            let variables = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", ratio)];
            let loaded = loaded("", &variables);
            assert_eq!((loaded.config.trace.ratio, loaded.warnings.len()), (0.0, 1), "{ratio}");
        }
    }
}
