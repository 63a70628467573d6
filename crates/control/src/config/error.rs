//! Errors that name file, line and key.

use std::ops::Range;

use serde::de::DeserializeOwned;
use thiserror::Error;

/// What is wrong with a configuration, in one line: `FILE:LINE: KEY = VALUE: what would be right`.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{file}:{line}: {message}")]
pub struct ConfigError {
    file: String,
    line: usize,
    message: String,
}

impl ConfigError {
    /// What is wrong with a file of lines.
    pub(super) fn at_line(file: &str, line: usize, message: String) -> Self {
        Self { file: file.to_owned(), line, message }
    }
}

/// The most octets of a value that an error repeats.
const LONGEST_VALUE: usize = 60;

/// The text that is being read.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) file: &'a str,
}

impl Source<'_> {
    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            // Only the first line: the library adds a picture of the text behind it.
            let reason = error.message().lines().next().unwrap_or("not TOML");
            self.error(&span, self.explain(&span, reason))
        })
    }

    pub(super) fn error(&self, span: &Range<usize>, message: String) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        ConfigError { file: self.file.to_owned(), line, message }
    }

    /// What the parser says, with the table or the key that it speaks of.
    fn explain(&self, span: &Range<usize>, reason: &str) -> String {
        let value = self.text.get(span.clone()).unwrap_or_default();
        if reason.starts_with("missing field") {
            let table = value.lines().next().unwrap_or_default().trim();
            let table = if table.starts_with('[') { table } else { "the file" };
            return format!("{reason} in {table}");
        }
        if reason == "duplicate key" {
            return format!("{}: this key stands twice", value.trim());
        }
        let key = self.key_of(span.start).unwrap_or_default();
        let of_value = ["invalid type", "invalid value", "unknown variant", "invalid IP address"];
        if key.is_empty() || !of_value.iter().any(|start| reason.starts_with(start)) {
            return reason.to_owned();
        }
        let value = value.lines().next().unwrap_or_default();
        let shown = value.char_indices().nth(LONGEST_VALUE).map_or(value, |(end, _)| &value[..end]);
        let right = match reason.rsplit_once("expected ").map(|(_, expected)| expected) {
            Some("u16") => "must be a number from 0 to 65535".to_owned(),
            Some("u64") => "must be a number, 0 or more".to_owned(),
            Some("a boolean") => "must be true or false".to_owned(),
            Some("a sequence") => "must be a list in [ ]".to_owned(),
            Some(expected) => format!("must be {expected}"),
            None if reason.contains("IP address") => must_be(key).to_owned(),
            None => reason.to_owned(),
        };
        format!("{key} = {shown}: {right}")
    }

    /// The key whose value stands at `at`.
    fn key_of(&self, at: usize) -> Option<&str> {
        let before = self.text.get(..at)?;
        let (left, _) = before.rsplit_once('=')?;
        let key = left.rsplit(['\n', '{', ',']).next()?.trim();
        let fine = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        key.chars().all(fine).then_some(key)
    }
}

/// What an address or prefix looks like under `key`.
fn must_be(key: &str) -> &'static str {
    match key {
        "tunnel_inside_cidr" => "must be a /30, such as 169.254.10.0/30",
        "tunnel_inside_ipv6_cidr" => "must be a /126, such as fd00::/126",
        _ if key.contains("ipv6") => "must be an IPv6 prefix, such as fd00:1::/48",
        _ if key.contains("ipv4") => "must be an IPv4 prefix, such as 10.0.0.0/16",
        _ if key.contains("cidr") || key.contains("routes") => {
            "must be a prefix, such as 10.0.0.0/16"
        }
        _ => "must be an IP address",
    }
}
