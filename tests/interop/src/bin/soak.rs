//! `cargo run --release -p interop --bin soak -- --minutes 30`: rekeys against strongSwan, with
//! traffic all the time. Needs root, and `vgw` beside this program or in VGW_BIN_DIR.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Rekeys against strongSwan, with traffic all the time
#[derive(Parser)]
struct Line {
    /// How long
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Keep charon's log and ours in this folder
    #[arg(long)]
    logs: Option<PathBuf>,
}

fn main() -> Result<()> {
    let line = Line::parse();
    let time = Duration::try_from_secs_f64(line.minutes * 60.0)?;
    let report = interop::soak::run(time, |progress| eprintln!("{progress}"))?;
    print!("{report}");
    if let Some(folder) = line.logs {
        for (name, log) in ["charon.log", "vgw.log"].into_iter().zip(&report.logs) {
            std::fs::write(folder.join(name), log)?;
        }
    }
    report.check()
}
