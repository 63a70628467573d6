//! TCP as fast as it goes, through the tunnel and by plain routing, in turns.

use super::Run;
use crate::error::Result;
use crate::report::{Row, rate};
use crate::traffic::tcp;
use std::time::Duration;

pub(super) fn throughput(run: &mut Run<'_>) -> Result<()> {
    let test = &run.scenario.test;
    let time = Duration::from_secs_f64(test.throughput_s.clamp(0.1, 60.0));
    let least = test.throughput_min_mbit;
    // Copying every frame to the capture would cost the tunnel and plain routing differently.
    run.wan.pause()?;
    for way in run.ways() {
        run.progress.say(format!("throughput {}: tunnel, then plain routing", way.name));
        let tunnel = tcp::throughput(way.pair(), 1, time, run.stop)?.rate();
        let plain = tcp::throughput(way.plain().pair(), 1, time, run.stop)?.rate();
        let share = if plain > 0.0 { tunnel / plain } else { 0.0 };
        run.report.add(
            Row::note(
                "throughput",
                format!("{}, tunnel", way.name),
                format!("{} ({share:.2} of plain)", rate(tunnel)),
            )
            .value(tunnel / 1e6, "Mbit/s")
            .expect(format!("at least {least} Mbit/s"), tunnel / 1e6 >= least),
        );
        run.report.add(
            Row::note("throughput", format!("{}, plain routing", way.name), rate(plain))
                .value(plain / 1e6, "Mbit/s")
                .expect("more than nothing", plain > 0.0),
        );
    }
    run.wan.resume(&run.world.internet)
}
