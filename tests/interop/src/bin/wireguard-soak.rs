//! `cargo run --release -p interop --bin wireguard-soak -- --minutes 30`: WireGuard sessions with
//! traffic all the time. Needs root, wireguard-go, and our daemons beside this program or in
//! VGW_BIN_DIR.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use std::time::Duration;

/// WireGuard sessions against wireguard-go and between both of our ends, with traffic all the time
#[derive(Parser)]
struct Line {
    /// How long
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
}

fn main() -> Result<()> {
    let line = Line::parse();
    let report = interop::wireguard::soak::run(Duration::try_from_secs_f64(line.minutes * 60.0)?)?;
    print!("{report}");
    report.check()
}
