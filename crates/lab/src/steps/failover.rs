//! Switches the active tunnel of each site off while a ping runs, shows the traffic on the other
//! one, and switches it on again.

use super::{Run, Way};
use crate::error::{LabError, Result};
use crate::report::{Row, milliseconds};
use crate::status::Status;
use crate::traffic::ping::{self, Plan};
use std::time::Duration;

/// Time between two requests, and so how exactly the outage is known.
const INTERVAL: Duration = Duration::from_millis(5);

/// How long the ping runs before and after the change.
const AROUND: Duration = Duration::from_millis(500);

pub(super) fn failover(run: &mut Run<'_>) -> Result<()> {
    for site in 0..run.scenario.sites.len() {
        if !run.has_tunnels(site) {
            continue;
        }
        let name = run
            .world
            .sites
            .get(site)
            .and_then(|site| site.hosts.first())
            .map(|desk| desk.host.name().to_owned());
        let way = run.ways().into_iter().find(|way| Some(way.from.host.name()) == name.as_deref());
        let way = way.ok_or_else(|| LabError::Unexpected("no way to ping".into()))?;
        one_site(run, site, &way)?;
    }
    Ok(())
}

fn one_site(run: &mut Run<'_>, site: usize, way: &Way) -> Result<()> {
    let connection = run.connection(site);
    let first = run.vgw.status()?.active(&connection);
    let first =
        first.ok_or_else(|| LabError::Unexpected(format!("{connection}: no tunnel is active")))?;
    let other = 3 - first;

    let (sent, outage) = during_ping(run, way, &connection, |run| {
        run.progress.say(format!("{connection}: tunnel {first} down while a ping runs"));
        run.vgw.tunnel(&connection, first, "down")?;
        let moved = |status: &Status| status.active(&connection) == Some(other);
        let limit = Duration::from_secs(10);
        run.vgw.await_status(&format!("tunnel {other} active"), limit, run.stop, moved)?;
        let stop = run.stop;
        run.agent(site)?.await_status(&format!("tunnel {other} active"), limit, stop, moved)?;
        Ok(())
    })?;
    let limit = Duration::from_millis(run.scenario.test.outage_within_ms.into());
    run.report.add(
        Row::note(
            "failover",
            format!("{connection}: tunnel {first} down, outage"),
            milliseconds(outage),
        )
        .value(outage.as_secs_f64() * 1e3, "ms")
        .expect(format!("at most {} ms", limit.as_millis()), outage <= limit),
    );
    run.report.add(sent.row(&connection, other));

    let (sent, outage) = during_ping(run, way, &connection, |run| {
        run.progress.say(format!("{connection}: tunnel {first} up again while a ping runs"));
        run.vgw.tunnel(&connection, first, "up")?;
        let limit = Duration::from_secs(run.scenario.test.up_within_s.into());
        run.vgw.await_status(&format!("tunnel {first} UP again"), limit, run.stop, |status| {
            status.all_up()
        })?;
        Ok(())
    })?;
    run.report.add(
        Row::note(
            "failover",
            format!("{connection}: tunnel {first} up again, outage"),
            milliseconds(outage),
        )
        .value(outage.as_secs_f64() * 1e3, "ms")
        .expect(format!("at most {} ms", limit.as_millis()), outage <= limit),
    );
    let active = run.vgw.status()?.active(&connection);
    if let Some(active) = active {
        run.report.add(sent.row(&connection, active));
    }
    Ok(())
}

/// Packets that the VGW got through each tunnel while the change was over.
struct Packets([u64; 2]);

impl Packets {
    fn row(&self, connection: &str, tunnel: usize) -> Row {
        let [one, two] = self.0;
        let through = if tunnel == 1 { one } else { two };
        let rest = one + two - through;
        Row::note(
            "failover",
            format!("{connection}: traffic afterwards"),
            format!("tunnel 1: {one} packets, tunnel 2: {two} packets"),
        )
        .expect(format!("on tunnel {tunnel}"), through > 0 && through > rest)
    }
}

/// Changes something under a running ping. Returns where packets went after the change, and the
/// longest time in which no request was answered.
fn during_ping(
    run: &mut Run<'_>,
    way: &Way,
    connection: &str,
    change: impl FnOnce(&mut Run<'_>) -> Result<()>,
) -> Result<(Packets, Duration)> {
    let plan =
        Plan { source: Some(way.source), count: None, interval: INTERVAL, ..Plan::new(way.target) };
    let pinging = ping::start(&way.from.host, plan)?;
    run.stop.sleep(AROUND)?;
    if pinging.answered() == 0 {
        return Err(LabError::Unexpected(format!("{}: no answer before the change", way.name)));
    }
    change(run)?;
    let before = run.vgw.status()?;
    run.stop.sleep(AROUND)?;
    let after = run.vgw.status()?;
    let answers = pinging.stop()?;
    let packets = [1, 2].map(|number| {
        let count = |status: &Status| {
            status.tunnel(connection, number).map_or(0, |tunnel| tunnel.packets_in)
        };
        count(&after).saturating_sub(count(&before))
    });
    Ok((Packets(packets), answers.longest_outage))
}
