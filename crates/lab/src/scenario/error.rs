//! What is wrong with a scenario, and where.

use std::fmt;
use std::ops::Range;
use std::path::Path;

/// A scenario that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// The file as it was named.
    pub file: String,
    /// The line, from 1; none when the file could not be read.
    pub line: Option<usize>,
    /// The table and the key on that line.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl ScenarioError {
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> ScenarioError {
        ScenarioError {
            file: path.display().to_string(),
            line: None,
            key: None,
            message: error.to_string(),
        }
    }

    pub(super) fn at(
        file: &str,
        text: &str,
        span: Option<Range<usize>>,
        message: &str,
    ) -> ScenarioError {
        let before =
            span.and_then(|span| text.get(..span.start)).map(|text| text.matches('\n').count());
        ScenarioError {
            file: file.into(),
            line: before.map(|line| line + 1),
            key: before.and_then(|line| key_at(text, line)),
            message: message.trim().replace('\n', ", "),
        }
    }
}

/// The key on a line (from 0) with the table it stands in: `site.host.addresses`.
fn key_at(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(line + 1).collect();
    let table = lines.iter().rev().find_map(|line| {
        let name = line.trim().trim_start_matches('[').split(']').next()?;
        line.trim().starts_with('[').then(|| name.trim().to_owned())
    });
    // A value may go on over several lines: its key stands on one of those before.
    let key =
        lines.iter().rev().take_while(|line| !line.trim().starts_with("[[")).find_map(|line| {
            let (key, _) = line.split_once('=')?;
            let key = key.trim();
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.\"".contains(c);
            (!key.is_empty() && key.chars().all(plain)).then(|| key.to_owned())
        });
    if lines.last().is_some_and(|line| line.trim().starts_with('[')) {
        return table;
    }
    let joined = [table, key].into_iter().flatten().collect::<Vec<_>>().join(".");
    (!joined.is_empty()).then_some(joined)
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": `{key}`")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ScenarioError {}
