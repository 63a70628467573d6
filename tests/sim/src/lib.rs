//! A simulation of whole sites: one VGW and its customer gateways in one process, each the real
//! policy, the real IKE endpoint and both halves of the real data plane, in virtual time and on
//! links that lose, repeat, delay, reorder and shrink.
//!
//! A schedule is drawn from a seed: what is done to the sites and when . A reference
//! model  knows what may happen to every packet, and what must not; what it objects to
//! is a [`Violation`]. Nothing but the seed decides what happens, so a seed is a bug report.
#![forbid(unsafe_code)]

mod attack;
mod draw;
mod fault;
mod model;
mod net;
mod node;
mod operate;
mod plan;
mod rest;
mod run;
mod shrink;
mod sites;
mod traffic;
mod violation;
mod world;

pub use fault::Fault;
pub use run::{Options, Outcome, Totals, run_many, run_one};
pub use shrink::shrink;
pub use violation::{Kind, Violation};
