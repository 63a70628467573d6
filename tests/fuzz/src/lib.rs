//! Fuzz targets: each is a plain function of octets that must not panic and asserts what must hold
//! for every input. The committed corpus is replayed by `cargo test -p fuzz`; `runner/` puts a
//! coverage-guided fuzzer around the same functions.
//!
//! Targets behind a key know the key, so that what is changed still gets past the ICV.
#![forbid(unsafe_code)]

mod demux;
mod esp;
mod ike_message;
mod inner;
mod input;
mod payloads;
mod peer;
mod seeds;
mod text;
mod wireguard;

/// What a target is called, and the target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("ike_message", ike_message::run),
    ("payloads", payloads::run),
    ("fragments", payloads::run_fragments),
    ("demux", demux::run),
    ("esp", esp::run),
    ("inner", inner::run),
    ("wireguard", wireguard::run),
    ("config", text::config),
    ("scenario", text::scenario),
];

/// Inputs to begin with, that are made rather than found: target, name, octets.
#[must_use]
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    seeds::all()
}
