//! What can go wrong in the lab.

use std::io;
use std::time::Duration;

/// Why the lab could not do something. Each message is one that a user can act on.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program of the operating system is not installed.
    #[error("the program `{program}` is missing: {hint}")]
    MissingProgram {
        /// The program looked for.
        program: String,
        /// Where to get it.
        hint: String,
    },
    /// A program ran in a host and failed.
    #[error("{host}: `{command}` failed ({status}): {stderr}")]
    Command {
        /// The host it ran in.
        host: String,
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// Something took longer than it may.
    #[error("{what} took longer than {} s", limit.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Neither root nor user namespaces.
    #[error("{0}")]
    Privilege(String),
    /// A signal asked the lab to stop.
    #[error("interrupted")]
    Interrupted,
    /// A peer or a daemon did something else than expected.
    #[error("{0}")]
    Unexpected(String),
}

impl LabError {
    /// Wraps an error of the operating system with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let what = what.into();
        move |source| LabError::Io { what, source }
    }

    /// The same for the error numbers of `nix`.
    pub fn errno(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> LabError {
        let what = what.into();
        move |errno| LabError::Io { what, source: errno.into() }
    }
}

/// Result of everything in this crate that touches the operating system.
pub type Result<T, E = LabError> = std::result::Result<T, E>;
