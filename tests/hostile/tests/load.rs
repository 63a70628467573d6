//! A small load run: what a tunnel costs the running `vgw` does not depend on how many others there
//! are. `--bin load` measures the same with thousands. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::time::Duration;

use hostile::load::ours::Ours;
use hostile::load::{Field, measure};

/// Connections beside which the same tunnels come up: ten times as many.
const FEW: usize = 100;
const MANY: usize = 1000;
const TUNNELS: usize = 2 * FEW;
const MEASURED: usize = TUNNELS - 40;

/// KiB of a tunnel that is up, at most.
const TUNNEL_KIB: f64 = 32.0;

#[test]
fn a_tunnel_costs_the_same_however_many_others_there_are() {
    let (few, few_start) = cost(FEW);
    let (many, many_start) = cost(MANY);
    println!("{FEW} connections: {few:?}, started with {few_start:?}");
    println!("{MANY} connections: {many:?}, started with {many_start:?}");
    // With a look at all tunnels for each message it was ten times as much.
    assert!(many < few * 3 + Duration::from_millis(100), "{few:?}, {many:?}");
    // Ten times as much to read; what is quadratic would be a hundred times.
    let linear = (few_start + Duration::from_millis(100)) * 30;
    assert!(many_start < linear, "{few_start:?}, {many_start:?}");
}

/// Processor time for [`MEASURED`] handshakes, and for the start.
fn cost(connections: usize) -> (Duration, Duration) {
    let field = Field::new();
    let mut ours = Ours::start(&field.gateway, connections);
    // The first ones pay for what is made once.
    field.connect(MEASURED, TUNNELS - MEASURED);
    let cost = measure(&field, 0, MEASURED, ours.process());
    assert_eq!(ours.up(), TUNNELS, "tunnels UP of {connections} connections");
    println!("{cost}");
    assert!(cost.per_tunnel() < TUNNEL_KIB, "{cost}");
    let idle = ours.idle(Duration::from_secs(3));
    assert!(idle < 0.1, "{:.1} % of a core with nothing to do", idle * 100.0);
    (cost.busy, ours.busy)
}
