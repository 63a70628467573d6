//! What a run found: rows of figures and a verdict, as a table and as JSON.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// One measured fact.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The step that measured it.
    pub step: &'static str,
    /// Between whom, or about what.
    pub what: String,
    /// The figure in words.
    pub figure: String,
    /// The figure as a number, in `unit`.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: &'static str,
    /// What it had to be.
    pub expected: Option<String>,
    /// Whether it was.
    pub passed: bool,
}

impl Row {
    /// A fact that nothing is expected of.
    pub fn note(step: &'static str, what: impl Into<String>, figure: impl Into<String>) -> Row {
        let (what, figure) = (what.into(), figure.into());
        Row { step, what, figure, value: None, unit: "", expected: None, passed: true }
    }

    /// Adds the number behind the words.
    pub fn value(mut self, value: f64, unit: &'static str) -> Row {
        self.value = Some(value);
        self.unit = unit;
        self
    }

    /// Says what the figure had to be, and whether it was.
    pub fn expect(mut self, expected: impl Into<String>, passed: bool) -> Row {
        self.expected = Some(expected.into());
        self.passed = passed;
        self
    }
}

/// All rows of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's file.
    pub scenario: String,
    /// Its description.
    pub description: String,
    /// `PASS` or `FAIL`; set by [`Report::finish`].
    pub verdict: Verdict,
    /// Why it failed.
    pub reason: Option<String>,
    /// How long the run took, in seconds.
    pub seconds: f64,
    /// The facts.
    pub rows: Vec<Row>,
    /// Whether the user has seen it already.
    #[serde(skip)]
    pub shown: bool,
}

/// The end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Everything was as expected.
    Pass,
    /// Something was not.
    Fail,
}

impl Report {
    /// A report without rows, which fails until it is finished.
    pub fn new(scenario: &str, description: &str) -> Report {
        Report {
            scenario: scenario.into(),
            description: description.into(),
            verdict: Verdict::Fail,
            reason: None,
            seconds: 0.0,
            rows: Vec::new(),
            shown: false,
        }
    }

    /// Adds a fact.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Decides the verdict: the error that ended the run early, or the first row that failed.
    pub fn finish(&mut self, error: Option<String>, time: Duration) {
        let failed = self.rows.iter().find(|row| !row.passed).map(|row| {
            let expected = row.expected.as_deref().unwrap_or("something else");
            format!("{}, {}: {} (expected {expected})", row.step, row.what, row.figure)
        });
        self.reason = error.or(failed);
        self.verdict = if self.reason.is_none() { Verdict::Pass } else { Verdict::Fail };
        self.seconds = time.as_secs_f64();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["step", "what", "figure", "expected", ""]);
        let mut step = "";
        for row in &self.rows {
            let name = if row.step == step { "" } else { row.step };
            step = row.step;
            let mark = match (&row.expected, row.passed) {
                (_, false) => "FAIL",
                (Some(_), true) => "ok",
                (None, true) => "",
            };
            table.add_row([
                name,
                &row.what,
                &row.figure,
                row.expected.as_deref().unwrap_or(""),
                mark,
            ]);
        }
        writeln!(f, "{table}")?;
        match (&self.verdict, &self.reason) {
            (Verdict::Pass, _) => write!(f, "PASS ({} in {:.1} s)", self.scenario, self.seconds),
            (Verdict::Fail, Some(reason)) => write!(f, "FAIL: {reason}"),
            (Verdict::Fail, None) => write!(f, "FAIL: the run did not end"),
        }
    }
}

/// A duration in milliseconds, with as many digits as help.
pub fn milliseconds(duration: Duration) -> String {
    let value = duration.as_secs_f64() * 1000.0;
    if value < 10.0 { format!("{value:.2} ms") } else { format!("{value:.0} ms") }
}

/// A rate in Mbit/s or Gbit/s.
pub fn rate(bits_a_second: f64) -> String {
    if bits_a_second < 1e9 {
        format!("{:.0} Mbit/s", bits_a_second / 1e6)
    } else {
        format!("{:.2} Gbit/s", bits_a_second / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_that_failed_is_the_reason() {
        let mut report = Report::new("a.toml", "");
        report.add(Row::note("ping", "a -> b", "10 of 10"));
        report.add(Row::note("ping", "b -> a", "9 of 10").expect("10 of 10", false));
        report.finish(None, Duration::from_secs(2));
        assert_eq!(report.verdict, Verdict::Fail);
        assert!(
            report.to_string().ends_with("FAIL: ping, b -> a: 9 of 10 (expected 10 of 10)"),
            "{report}"
        );
    }

    #[test]
    fn an_error_that_ended_the_run_comes_before_any_row() {
        let mut report = Report::new("a.toml", "");
        report.finish(Some("interrupted".into()), Duration::ZERO);
        assert!(report.to_string().ends_with("FAIL: interrupted"));
        report.finish(None, Duration::from_millis(1500));
        assert!(report.to_string().ends_with("PASS (a.toml in 1.5 s)"));
    }
}
