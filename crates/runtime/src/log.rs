//! Structured logs on standard error: text, or JSON with `VGW_LOG=json`. `RUST_LOG` sets the level.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Starts logging for the whole process. A process that logs already keeps its way.
pub(crate) fn start() {
    let levels = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| "info".into());
    let filter = EnvFilter::new(levels);
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    let _ = if std::env::var_os("VGW_LOG").is_some_and(|format| format == "json") {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(stderr().is_terminal()).try_init()
    };
}
