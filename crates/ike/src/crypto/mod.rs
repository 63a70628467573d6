//! The cryptography of IKEv2: PRFs, key exchange, key derivation, AUTH, and the SK payload.

mod ke;
mod keys;
mod modp;
mod prf;
mod sk;

pub use ke::{KeError, KeyExchange};
pub use keys::{ChildKeys, SaKeys, child_keymat, psk_auth};
pub use prf::{prf, prf_plus};
pub use sk::{SkCipher, SkError};
