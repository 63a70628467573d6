//! The soak of `src/soak.rs`, short. The long one: `cargo run --release -p interop --bin soak`. Needs
//! root and the packages of the tests against strongSwan, and is a program of its own: requests cross
//! within milliseconds, which other tests beside it would spoil.

use anyhow::{Context, Result, ensure};
use std::time::Duration;

#[test]
fn lifetimes_of_20_seconds_and_rekeys_that_cross_lose_nothing() -> Result<()> {
    let report = interop::soak::run(Duration::from_secs(75), |_| ())?;
    println!("{report}");
    let folder = env!("CARGO_TARGET_TMPDIR");
    for (name, log) in ["soak-charon.log", "soak-vgw.log"].into_iter().zip(&report.logs) {
        std::fs::write(format!("{folder}/{name}"), log)?;
    }
    report.check().with_context(|| format!("the logs are in {folder}"))?;
    // Each tunnel rekeys both SAs every 8 to 14 seconds, and what is made to cross beside that.
    ensure!(report.ike_rekeys >= 20 && report.child_rekeys >= 20, "{report}");
    Ok(())
}
