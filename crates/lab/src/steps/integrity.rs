//! TCP transfers both ways, each octet compared with what was sent.

use super::Run;
use crate::error::Result;
use crate::report::{Row, rate};
use crate::traffic::tcp;

pub(super) fn integrity(run: &mut Run<'_>) -> Result<()> {
    let mebibytes = run.scenario.test.transfer_mib;
    for (index, way) in run.ways().into_iter().enumerate() {
        run.progress.say(format!("TCP {}: {mebibytes} MiB, compared", way.name));
        let seed = run.scenario.seed.wrapping_add(index as u64);
        let moved = tcp::transfer(way.pair(), u64::from(mebibytes) << 20, seed, run.stop);
        let row = match moved {
            Ok(moved) => {
                let figure =
                    format!("{mebibytes} MiB intact, {}, MSS {}", rate(moved.rate()), moved.mss);
                Row::note("integrity", way.name, figure)
                    .value(moved.rate() / 1e6, "Mbit/s")
                    .expect("intact", true)
            }
            Err(crate::LabError::Unexpected(what)) => {
                Row::note("integrity", way.name, what).expect("intact", false)
            }
            Err(other) => return Err(other),
        };
        run.report.add(row);
    }
    Ok(())
}
