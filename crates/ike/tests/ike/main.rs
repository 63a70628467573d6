//! The public interface of the crate: messages, suites, exchanges and what hostile peers send. One
//! program, so that the pair of endpoints in memory is compiled once.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod collisions;
mod common;
mod diagnosis;
mod every_suite;
mod exchanges;
mod forged_answers;
mod handshake;
mod hostile;
mod hostile_after_auth;
mod hostile_before_auth;
mod hostile_limits;
mod identity;
mod kdf_vectors;
mod ke_vectors;
mod layout;
mod mobike;
mod mobike_nat;
mod orders;
mod rekey;
mod second_child;
mod suite;
mod teardown;
mod wire;
