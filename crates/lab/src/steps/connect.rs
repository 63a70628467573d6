//! Starts the daemons and waits until both tunnels of all sites are UP on both sides.

use super::Run;
use crate::error::Result;
use crate::report::{Row, milliseconds};
use std::time::{Duration, Instant};

/// Runs first, whatever the scenario lists.
pub fn connect(run: &mut Run<'_>) -> Result<()> {
    let limit = Duration::from_secs(run.scenario.test.up_within_s.into());
    run.progress.say("starting vgw and cgw-agent");
    let start = Instant::now();
    run.vgw.start()?;
    for agent in &mut run.agents {
        agent.start()?;
    }
    run.progress.say("waiting for the tunnels");
    let (status, _) =
        run.vgw.await_status("all tunnels UP", limit, run.stop, |status| status.all_up())?;
    for agent in &mut run.agents {
        let left = limit.saturating_sub(start.elapsed()).max(Duration::from_secs(1));
        agent.await_status("both tunnels UP", left, run.stop, |status| status.all_up())?;
    }
    let time = start.elapsed();
    let count = status.tunnels.len();
    run.report.add(
        Row::note("connect", format!("{count} tunnels UP on both sides"), milliseconds(time))
            .value(time.as_secs_f64() * 1e3, "ms")
            .expect(format!("within {} s", limit.as_secs()), time <= limit),
    );
    for index in 0..run.scenario.sites.len() {
        let connection = run.connection(index);
        if let Some(tunnel) = status.of(&connection).find(|tunnel| tunnel.active) {
            let mtu = tunnel.mtu.map(|mtu| format!(", MTU {mtu}")).unwrap_or_default();
            let what = format!("{connection}: tunnel {} is active", tunnel.number);
            run.report.add(Row::note("connect", what, format!("{}{mtu}", tunnel.suite)));
        }
    }
    Ok(())
}
