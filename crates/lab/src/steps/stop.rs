//! Stops each side cleanly: it must end by itself with status 0, and the other side must notice at
//! once by the DELETE, not by its dead peer detection. WireGuard has no such message: there only
//! the end and the way back are looked at.

use super::Run;
use crate::error::Result;
use crate::report::{Row, milliseconds};
use std::time::{Duration, Instant};

pub(super) fn stop(run: &mut Run<'_>) -> Result<()> {
    let limit = Duration::from_secs(run.scenario.test.stop_within_s.into());
    let up = Duration::from_secs(run.scenario.test.up_within_s.into());
    for site in 0..run.agents.len() {
        let connection = run.connection(site);
        run.progress.say(format!("{connection}: stopping cgw-agent"));
        let start = Instant::now();
        let ended = run.agent(site)?.stop()?;
        run.report.add(exit_row(
            format!("{connection}: cgw-agent, SIGTERM"),
            ended,
            start.elapsed(),
        ));
        let stop = run.stop;
        if run.has_tunnels(site) {
            let noticed = run.vgw.await_status("aware of the stop", limit, stop, |status| {
                status.of(&connection).all(|tunnel| !tunnel.up)
            });
            run.report.add(noticed_row(format!("{connection}: vgw noticed"), noticed, limit)?);
        }
        run.progress.say(format!("{connection}: cgw-agent starts again"));
        let start = Instant::now();
        run.agent(site)?.start()?;
        run.agent(site)?
            .await_status("both tunnels UP again", up, stop, |status| status.all_up())?;
        let time = start.elapsed();
        run.report.add(
            Row::note(
                "stop",
                format!("{connection}: UP again after a restart"),
                milliseconds(time),
            )
            .value(time.as_secs_f64() * 1e3, "ms")
            .expect(format!("within {} s", up.as_secs()), time <= up),
        );
    }
    run.progress.say("stopping vgw");
    let start = Instant::now();
    let ended = run.vgw.stop()?;
    run.report.add(exit_row("vgw, SIGTERM".into(), ended, start.elapsed()));
    for site in 0..run.agents.len() {
        let connection = run.connection(site);
        let stop = run.stop;
        if run.has_tunnels(site) {
            let noticed =
                run.agent(site)?
                    .await_status("aware of the stop", limit, stop, |status| status.all_down());
            run.report.add(noticed_row(
                format!("{connection}: cgw-agent noticed"),
                noticed,
                limit,
            )?);
        }
        let start = Instant::now();
        let ended = run.agent(site)?.stop()?;
        run.report.add(exit_row(
            format!("{connection}: cgw-agent, SIGTERM"),
            ended,
            start.elapsed(),
        ));
        left_behind(run, site)?;
    }
    Ok(())
}

fn exit_row(what: String, status: Option<std::process::ExitStatus>, time: Duration) -> Row {
    let figure = match status {
        Some(status) => format!("{status} after {}", milliseconds(time)),
        None => "it did not run".into(),
    };
    let passed = status.is_some_and(|status| status.success());
    Row::note("stop", what, figure)
        .value(time.as_secs_f64() * 1e3, "ms")
        .expect("exit status 0", passed)
}

fn noticed_row<T>(what: String, noticed: Result<(T, Duration)>, limit: Duration) -> Result<Row> {
    let expected = format!("within {} s", limit.as_secs());
    match noticed {
        Ok((_, time)) => Ok(Row::note("stop", what, milliseconds(time))
            .value(time.as_secs_f64() * 1e3, "ms")
            .expect(expected, true)),
        Err(crate::LabError::Unexpected(why)) => {
            Ok(Row::note("stop", what, why).expect(expected, false))
        }
        Err(other) => Err(other),
    }
}

/// A stopped daemon leaves no route and no interface.
fn left_behind(run: &mut Run<'_>, site: usize) -> Result<()> {
    let gateways = [run.vgw.host().clone(), run.agent(site)?.host().clone()];
    for host in gateways {
        let links = host.command(
            crate::process::Program::new("ip").args(["-o", "link", "show", "type", "tun"]),
        )?;
        let found: Vec<&str> =
            links.stdout.lines().filter_map(|line| line.split(':').nth(1)).map(str::trim).collect();
        // A TAP device of the lab's own line is called `wan`.
        let own: Vec<&str> = found.into_iter().filter(|name| *name != "wan").collect();
        let figure = if own.is_empty() { "nothing".to_owned() } else { own.join(", ") };
        run.report.add(
            Row::note("stop", format!("{}: interfaces left behind", host.name()), figure)
                .expect("nothing", own.is_empty()),
        );
    }
    Ok(())
}
