//! Where the daemons under test are.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// The folder of `vgw` and `cgw-agent`: the variable `VGW_BIN_DIR`, or the target folder in which
/// this program stands.
pub fn folder() -> Result<PathBuf> {
    let folder = match std::env::var_os("VGW_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => beside()?,
    };
    for name in ["vgw", "cgw-agent"] {
        ensure!(
            folder.join(name).is_file(),
            "{} is missing: build it with `cargo build -p vgw -p cgw-agent`, or name its folder in VGW_BIN_DIR",
            folder.join(name).display()
        );
    }
    Ok(folder)
}

/// `target/debug` for `target/debug/interop-soak` and for `target/debug/deps/strongswan-…`.
fn beside() -> Result<PathBuf> {
    let this = std::env::current_exe().context("the path of this program")?;
    let folder = this.parent().context("the folder of this program")?;
    let up = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    Ok(up.context("the target folder")?.to_owned())
}
