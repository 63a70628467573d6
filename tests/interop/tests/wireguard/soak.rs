//! The soak, short.

use anyhow::Result;
use std::time::Duration;

#[test]
fn a_soak_loses_nothing() -> Result<()> {
    let report = interop::wireguard::soak::run(Duration::from_secs(20))?;
    report.check()
}
