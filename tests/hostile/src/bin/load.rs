//! Handshakes a second of one gateway with thousands of tunnels, beside strongSwan's charon with the
//! same peers in the same run; memory of a tunnel, processor time while they are held, and how long
//! thousands of connections take to load. Needs root, and the daemons of the same build; charon is
//! left out, with a line that says so, where Debian's strongswan-charon, strongswan-swanctl and
//! libcharon-extra-plugins are missing.
//!
//! `cargo run --release -p hostile --bin load -- [TUNNELS] [CONNECTIONS]`
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a measurement that goes wrong ends")]

use std::path::Path;
use std::time::Duration;

use hostile::load::charon::{Charon, Known};
use hostile::load::ours::Ours;
use hostile::load::{Field, SUITE, measure, resident};
use lab::process::find_program;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let tunnels = numbers.next().unwrap_or(2000);
    let connections = numbers.next().unwrap_or(10_000);
    println!("{SUITE}, one Child SA, {tunnels} tunnels");
    let (ours, field) = (vgw(tunnels), Field::new());
    for known in [Known::Together, Known::Apart] {
        if ["charon", "swanctl"].iter().any(|name| find_program(Path::new(name)).is_err()) {
            println!("charon: not installed");
            break;
        }
        let charon = Charon::start(&field.gateway, known, tunnels);
        let cost = measure(&field, 0, tunnels, charon.process());
        assert_eq!(charon.up(), tunnels, "IKE SAs of charon");
        let how = match known {
            Known::Together => "one connection for all",
            Known::Apart => "a connection for each",
        };
        println!("charon, {how}: {cost}; vgw does {:.1} times as many", ours / cost.rate());
    }
    load_time(connections);
}

/// Returns the rate.
fn vgw(tunnels: usize) -> f64 {
    let field = Field::new();
    let mut ours = Ours::start(&field.gateway, tunnels.div_ceil(2));
    let cost = measure(&field, 0, tunnels, ours.process());
    assert_eq!(ours.up(), tunnels, "tunnels UP");
    println!("vgw: {cost}");
    let idle = ours.idle(Duration::from_secs(10));
    println!("vgw holds them with {:.2} % of a core", idle * 100.0);
    cost.rate()
}

fn load_time(connections: usize) {
    let field = Field::new();
    let mut ours = Ours::start(&field.gateway, connections);
    println!(
        "{connections} connections: checked in {:.2} s; started, and answering after {:.2} s ({:.2} s of processor time) with {} MiB resident; the same configuration reloaded in {:.2} s",
        ours.checked.as_secs_f64(),
        ours.answering.as_secs_f64(),
        ours.busy.as_secs_f64(),
        resident(ours.process()) / 1024,
        ours.reload().as_secs_f64(),
    );
}
