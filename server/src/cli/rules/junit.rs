//! A report in the XML that CI servers know from JUnit: a suite for each case file, a test case for each case.

use super::test::{Count, Report};

/// The report as XML text.
pub(super) fn report(reports: &[Report]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    xml.push_str(&format!("<testsuites{}>\n", totals(reports)));
    for report in reports {
        let name = escaped(&report.path.display().to_string());
        xml.push_str(&format!("  <testsuite name=\"{name}\"{}>\n", totals(std::slice::from_ref(report))));
        for verdict in &report.verdicts {
            let group = escaped(verdict.group.as_deref().unwrap_or("cases"));
            let head = format!("    <testcase classname=\"{group}\" name=\"{}\"", escaped(&verdict.id));
            let why = escaped(verdict.why.as_deref().unwrap_or_default());
            let inside = match verdict.pass {
                Some(true) => String::new(),
                Some(false) => format!("<failure message=\"{why}\"/>"),
                None => "<skipped message=\"nothing is expected\"/>".to_owned(),
            };
            if inside.is_empty() {
                xml.push_str(&format!("{head}/>\n"));
            } else {
                xml.push_str(&format!("{head}>{inside}</testcase>\n"));
            }
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn totals(reports: &[Report]) -> String {
    let Count { failed, open, .. } = Count::of(reports);
    format!(" tests=\"{}\" failures=\"{failed}\" skipped=\"{open}\"", Count::of(reports).all())
}

/// Text for an attribute. XML 1.0 can't hold most control characters at all (section 2.2): they become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\r' | '\t' => out.push_str(&format!("&#{};", u32::from(char))),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_xml_cannot_hold_is_escaped_or_replaced() {
        assert_eq!(escaped("a<b>&\"'\n\u{1}é\u{ffff}"), "a&lt;b&gt;&amp;&quot;'&#10;\u{fffd}é\u{fffd}");
    }
}
