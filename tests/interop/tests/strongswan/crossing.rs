//! The soak of `src/soak.rs`, short. The long one: `cargo run --release -p interop --bin soak`.

use anyhow::{Result, ensure};
use std::time::Duration;

#[test]
fn lifetimes_of_20_seconds_and_rekeys_that_cross_lose_nothing() -> Result<()> {
    let report = interop::soak::run(Duration::from_secs(75), |_| ())?;
    println!("{report}");
    report.check()?;
    // Each tunnel rekeys both SAs every 8 to 14 seconds, and what is made to cross beside that.
    ensure!(report.ike_rekeys >= 20 && report.child_rekeys >= 20, "{report}");
    Ok(())
}
