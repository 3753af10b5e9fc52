//! Values of one moment, and how they are written: the text format of Prometheus 0.0.4, and OpenMetrics 1.0.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use store::HistogramSnapshot;

use super::families::{ALL, Family, Kind, Together};

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The Content-Type of an answer.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a client would rather have, by its Accept header. Whoever says nothing that is known gets the older one.
    pub(crate) fn wanted(accept: &str) -> Self {
        let (mut plain, mut open) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0, None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse::<f32>().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match media_type.as_str() {
                "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => {
                    open = quality.max(open);
                }
                "text/plain" | "text/*" => plain = quality.max(plain),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Whole(u64),
    Real(f64),
    Durations(HistogramSnapshot),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<HistogramSnapshot> for Value {
    fn from(value: HistogramSnapshot) -> Self {
        Self::Durations(value)
    }
}

impl Value {
    #[expect(clippy::cast_precision_loss, reason = "a figure of this size is rounded wherever it is read")]
    fn real(&self) -> f64 {
        match self {
            Self::Whole(value) => *value as f64,
            Self::Real(value) => *value,
            Self::Durations(durations) => durations.count as f64,
        }
    }

    fn join(&mut self, other: Self, together: Together) {
        match (&mut *self, other, together) {
            (Self::Durations(mine), Self::Durations(other), _) => mine.add(&other),
            (Self::Whole(mine), Self::Whole(other), Together::Sum) => *mine = mine.saturating_add(other),
            (_, other, Together::Sum) => *self = Self::Real(self.real() + other.real()),
            (_, other, Together::Max) => {
                if other.real() > self.real() {
                    *self = other;
                }
            }
        }
    }
}

/// Values of one moment.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// By family and the values of its labels.
    values: HashMap<&'static str, BTreeMap<Vec<String>, Value>>,
}

impl Page {
    /// Adds a value. One that is there under the same labels is joined with it.
    pub(crate) fn add(&mut self, family: &'static Family, labels: &[&str], value: impl Into<Value>) {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let value = value.into();
        let values = self.values.entry(family.name).or_default();
        match values.get_mut(&labels) {
            Some(before) => before.join(value, family.together),
            None => {
                values.insert(labels, value);
            }
        }
    }

    /// The sum of a family's values.
    #[cfg(test)]
    pub(crate) fn sum(&self, family: &Family) -> f64 {
        self.values.get(family.name).into_iter().flat_map(BTreeMap::values).map(Value::real).sum()
    }

    /// Names of all families that have values.
    #[cfg(test)]
    pub(crate) fn has(&self, family: &Family) -> bool {
        self.values.contains_key(family.name)
    }

    /// Writes all of them, in the order of the table.
    pub(crate) fn text(&self, format: Format) -> String {
        let mut out = String::new();
        for family in ALL {
            if let Some(values) = self.values.get(family.name) {
                // A String takes everything.
                let written = write_family(&mut out, family, values, format);
                debug_assert!(written.is_ok());
            }
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }
}

fn write_family(
    out: &mut String,
    family: &Family,
    values: &BTreeMap<Vec<String>, Value>,
    format: Format,
) -> std::fmt::Result {
    let shown = family.shown();
    let (described, kind) = match (format, family.kind) {
        (Format::OpenMetrics, Kind::Info) => (family.name, "info"),
        (Format::Prometheus, Kind::Info) => (shown.as_str(), "gauge"),
        (Format::OpenMetrics, Kind::Counter) => (family.name, "counter"),
        (Format::Prometheus, Kind::Counter) => (shown.as_str(), "counter"),
        (_, Kind::Gauge) => (family.name, "gauge"),
        (_, Kind::Histogram) => (family.name, "histogram"),
    };
    writeln!(out, "# HELP {described} {}", family.help)?;
    writeln!(out, "# TYPE {described} {kind}")?;
    if let (Format::OpenMetrics, Some(unit)) = (format, family.unit()) {
        writeln!(out, "# UNIT {described} {unit}")?;
    }
    for (labels, value) in values {
        match value {
            Value::Whole(value) => {
                write_labels(out, &shown, family.labels, labels, None)?;
                writeln!(out, " {value}")?;
            }
            Value::Real(value) => {
                write_labels(out, &shown, family.labels, labels, None)?;
                writeln!(out, " {value:?}")?;
            }
            Value::Durations(durations) => {
                let bucket = format!("{shown}_bucket");
                for (bound_ns, count) in &durations.buckets {
                    write_labels(out, &bucket, family.labels, labels, Some(&seconds(*bound_ns)))?;
                    writeln!(out, " {count}")?;
                }
                write_labels(out, &bucket, family.labels, labels, Some("+Inf"))?;
                writeln!(out, " {}", durations.count)?;
                write_labels(out, &format!("{shown}_sum"), family.labels, labels, None)?;
                writeln!(out, " {}", seconds(durations.sum_ns))?;
                write_labels(out, &format!("{shown}_count"), family.labels, labels, None)?;
                writeln!(out, " {}", durations.count)?;
            }
        }
    }
    Ok(())
}

/// Nanoseconds as exact decimal seconds, with at least one place.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

fn write_labels(
    out: &mut String,
    name: &str,
    names: &[&str],
    values: &[String],
    bound: Option<&str>,
) -> std::fmt::Result {
    out.push_str(name);
    let mut pairs =
        names.iter().copied().zip(values.iter().map(String::as_str)).chain(bound.map(|bound| ("le", bound)));
    let Some(first) = pairs.next() else { return Ok(()) };
    out.push('{');
    for (place, (label, value)) in std::iter::once(first).chain(pairs).enumerate() {
        write!(out, "{}{label}=\"", if place == 0 { "" } else { "," })?;
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::families;
    use super::*;

    #[test]
    fn the_format_is_what_the_accept_header_asks_for() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("application/json", Format::Prometheus),
            ("text/plain;version=0.0.4", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
            ("application/openmetrics-text;version=9.0.0", Format::Prometheus),
            ("application/openmetrics-text;version=1.0.0;q=0", Format::Prometheus),
            ("text/plain;q=0.9, application/openmetrics-text;version=1.0.0;q=0.5", Format::Prometheus),
            // What Prometheus 2 says.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (";;q=x,,=", Format::Prometheus),
        ] {
            assert_eq!(Format::wanted(accept), format, "{accept}");
        }
    }

    fn page() -> Page {
        let mut page = Page::default();
        page.add(&families::BUILD, &["1.2.3"], 1);
        page.add(&families::RECEIVED, &["0"], 7);
        page.add(&families::RECEIVED, &["1"], 2);
        page.add(&families::QUEUE_AGE, &["a\"b\\c\nd"], 0.25);
        let durations = HistogramSnapshot {
            buckets: vec![(500, 1), (1_000_000_000, 3)],
            count: 4,
            sum_ns: 5_000_000_001,
        };
        page.add(&families::RULE_EVAL, &["r"], durations);
        page
    }

    #[test]
    fn prometheus_reads_this() {
        let expected = "\
# HELP tidegate_build_info Version of the program
# TYPE tidegate_build_info gauge
tidegate_build_info{version=\"1.2.3\"} 1
# HELP tidegate_messages_received_total PUBLISH packets of clients, whatever became of them
# TYPE tidegate_messages_received_total counter
tidegate_messages_received_total{qos=\"0\"} 7
tidegate_messages_received_total{qos=\"1\"} 2
# HELP tidegate_queue_oldest_age_seconds Age of what has waited longest, as far as it is in memory
# TYPE tidegate_queue_oldest_age_seconds gauge
tidegate_queue_oldest_age_seconds{owner=\"a\\\"b\\\\c\\nd\"} 0.25
# HELP tidegate_rule_eval_seconds How long evaluations took, of those that were timed (one in metrics.rule_sample)
# TYPE tidegate_rule_eval_seconds histogram
tidegate_rule_eval_seconds_bucket{rule=\"r\",le=\"0.0000005\"} 1
tidegate_rule_eval_seconds_bucket{rule=\"r\",le=\"1.0\"} 3
tidegate_rule_eval_seconds_bucket{rule=\"r\",le=\"+Inf\"} 4
tidegate_rule_eval_seconds_sum{rule=\"r\"} 5.000000001
tidegate_rule_eval_seconds_count{rule=\"r\"} 4
";
        assert_eq!(page().text(Format::Prometheus), expected);
    }

    #[test]
    fn openmetrics_names_families_without_endings_says_units_and_ends() {
        let text = page().text(Format::OpenMetrics);
        for line in [
            "# TYPE tidegate_build info",
            "tidegate_build_info{version=\"1.2.3\"} 1",
            "# TYPE tidegate_messages_received counter",
            "tidegate_messages_received_total{qos=\"0\"} 7",
            "# UNIT tidegate_rule_eval_seconds seconds",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing in {text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn what_shares_its_labels_is_joined() {
        let mut page = page();
        page.add(&families::RECEIVED, &["0"], 3);
        page.add(&families::QUEUE_AGE, &["o"], 2.0);
        page.add(&families::QUEUE_AGE, &["o"], 1.0);
        let more = HistogramSnapshot { buckets: vec![(500, 1), (1_000_000_000, 1)], count: 1, sum_ns: 10 };
        page.add(&families::RULE_EVAL, &["r"], more);
        assert_eq!(page.sum(&families::RECEIVED), 12.0);
        let text = page.text(Format::Prometheus);
        assert!(text.contains("tidegate_queue_oldest_age_seconds{owner=\"o\"} 2.0\n"), "{text}");
        assert!(text.contains("tidegate_rule_eval_seconds_count{rule=\"r\"} 5\n"), "{text}");
    }
}
