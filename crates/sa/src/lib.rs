//! The nouns that the IKE plane and the data plane share: SPIs, ESP suites, traffic selectors,
//! key material, paths and the descriptions of the two halves of a Child SA.
//!
//! This crate holds values only. It reads no clock, socket or randomness, and it never encrypts.
#![forbid(unsafe_code)]

mod child;
mod path;
mod secret;
mod selector;
mod spi;
mod suite;

pub use child::{InboundSa, Lifetime, OutboundSa, TunnelId};
pub use path::Path;
pub use secret::Secret;
pub use selector::{SelectorError, SelectorSet, TrafficSelector};
pub use spi::Spi;
pub use suite::{Bits, CbcIntegrity, EspSuite};
