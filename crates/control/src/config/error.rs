//! Errors that name file and line.

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
            let message = error.message().lines().next().unwrap_or("not TOML").to_owned();
            self.error(&span, message)
        })
    }

    pub(super) fn error(&self, span: &Range<usize>, message: String) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        ConfigError { file: self.file.to_owned(), line, message }
    }
}
