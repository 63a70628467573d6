//! Why octets are not an IKEv2 message, and what the RFC answers to it.

use thiserror::Error;

/// A parse failure. [`ParseError::notify`] says what an authenticated peer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ParseError {
    /// A length field reaches past the end.
    #[error("a length reaches past the end of the message")]
    Truncated,
    /// The header's length is not that of the datagram.
    #[error("the header's length is not the datagram's")]
    HeaderLength,
    /// A major version other than 2 (RFC 7296 2.5).
    #[error("major version {0} is not 2")]
    MajorVersion(u8),
    /// A field has a value or length that it cannot have.
    #[error("a malformed {0}")]
    Malformed(&'static str),
    /// More payloads, proposals or transforms than we read.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// An unknown payload with the critical bit (RFC 7296 2.5).
    #[error("unsupported critical payload {0}")]
    UnsupportedCritical(u8),
}

impl ParseError {
    /// The error notification of RFC 7296 3.10.1 that answers this, with its data.
    #[must_use]
    pub fn notify(self) -> super::Notify {
        use super::{Notify, NotifyType as N};
        match self {
            Self::MajorVersion(_) => Notify::new(N::INVALID_MAJOR_VERSION, Vec::new()),
            Self::UnsupportedCritical(kind) => {
                Notify::new(N::UNSUPPORTED_CRITICAL_PAYLOAD, vec![kind])
            }
            _ => Notify::new(N::INVALID_SYNTAX, Vec::new()),
        }
    }
}
