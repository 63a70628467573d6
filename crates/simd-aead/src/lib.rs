//! AEAD over batches of packets.
//!
//! A caller describes many packets at once as [`SealJob`]s or [`OpenJob`]s over one source and one
//! destination buffer; [`seal_batch`] and [`open_batch`] run them all. Sealing reads the body of
//! each packet from the source and leaves ciphertext in the destination, so that the copy into a
//! send buffer and the encryption are one pass. Transport checksums are completed on the way, and opening
//! gives the sum of each plaintext.
//!
//! The crate does three AEADs with 12-octet nonces and 16-octet tags: AES-GCM with 128- and
//! 256-bit keys (RFC 4106 uses it for ESP) and ChaCha20-Poly1305 (RFC 8439, for ESP RFC 7634).
//! It never builds nonces, never checks replay, and knows no header but the associated data.
//!
//! [`backend()`] says which implementation runs. It is chosen once: the best one that the processor
//! has and that passes a self test. See [`Backend`] for how to force one.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;
mod batch;
#[cfg(target_arch = "x86_64")]
mod chacha;
#[cfg(target_arch = "x86_64")]
mod chachapoly;
mod checksum;
#[cfg(target_arch = "x86_64")]
mod forget;
#[cfg(target_arch = "x86_64")]
mod gcm;
mod job;
mod key;
#[cfg(target_arch = "x86_64")]
mod poly1305;
mod portable;
mod self_test;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(target_arch = "x86_64")]
mod sum;
#[cfg(target_arch = "x86_64")]
mod text;
#[cfg(target_arch = "x86_64")]
mod window;

pub use backend::{Backend, UnknownBackend, backend, force_backend, refused_backends};
pub use batch::{open_batch, open_batch_on, seal_batch, seal_batch_on};
pub use checksum::Checksum;
pub use job::{Aad, BadJob, MAX_PLAINTEXT, OpenJob, SealJob, TAG};
pub use key::{Algorithm, InvalidKey, Key};
