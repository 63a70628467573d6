//! The wire format of IKEv2 (RFC 7296 section 3): checked parsing and emission.
//!
//! Parsing never panics and never allocates more than the datagram justifies: the number of
//! payloads, proposals and transforms is capped, and every length is checked against what is there.

mod error;
mod header;
mod identity;
mod notify;
mod payload;
mod proposal;
mod reader;
mod selectors;

pub use error::ParseError;
pub use header::{ExchangeType, HEADER_LEN, Header};
pub use identity::{Identity, IdentityError};
pub use notify::{Notify, NotifyType};
pub use payload::{
    Encrypted, MAX_PAYLOADS, Message, Payload, PayloadType, emit_chain, parse_chain, parse_message,
};
pub use proposal::{Proposal, ProtocolId, Transform, TransformType};
pub use selectors::{emit_selectors, parse_selectors};

pub(crate) use reader::Reader;
