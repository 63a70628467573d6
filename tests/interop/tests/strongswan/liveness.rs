//! Dead peer detection of both sides while all is well, and peers that lose their power.

use anyhow::{Context, Result, ensure};
use interop::pair::{Begins, NAME, Pair, Plan};
use lab::daemon::Kind;
use std::time::{Duration, Instant};

#[test]
fn an_idle_tunnel_stays_up_while_both_sides_ask_whether_the_other_is_alive() -> Result<()> {
    let mut plan = Plan::new(Kind::Vgw, Begins::Charon);
    plan.charon.swan = "dpd_delay = 2s".into();
    plan.ours.tunnel = "dpd_timeout_seconds = 3".into();
    let pair = Pair::up(&plan)?;
    let before = pair.await_agreed()?.1;
    std::thread::sleep(Duration::from_secs(10));
    let after = pair.await_agreed()?.1;
    ensure!(before.text("spi_in") == after.text("spi_in"), "{before:?} {after:?}");
    ensure!(after.number("since") == before.number("since"), "it was down: {after:?}");
    let log = pair.charon.log();
    let asked = log.lines().filter(|l| l.contains("parsed INFORMATIONAL request")).count();
    let answered = log.lines().filter(|l| l.contains("parsed INFORMATIONAL response")).count();
    ensure!(asked >= 2, "we asked {asked} times:\n{log}");
    // charon asks only when it has heard nothing for its delay, and we may be faster.
    ensure!(asked + answered >= 4, "{asked} asked, {answered} answered:\n{log}");
    pair.traffic()
}

/// What both sides do about a peer that says nothing: a few seconds, and then anew.
fn restarting(kind: Kind, begins: Begins) -> Plan {
    let mut plan = Plan::new(kind, begins);
    plan.charon_settings =
        "retransmit_timeout = 0.5\n  retransmit_base = 1.0\n  retransmit_tries = 3".into();
    plan.charon.swan = "dpd_delay = 1s".into();
    plan.charon.swan_child = "dpd_action = restart".into();
    plan.ours.tunnel = "dpd_timeout_seconds = 3\ndpd_timeout_action = \"restart\"".into();
    plan
}

/// Waits for the tunnel after `start`, and says how long it was away.
fn back(pair: &Pair, story: &str, start: Instant) -> Result<()> {
    pair.await_agreed().with_context(|| pair.logs())?;
    pair.traffic()?;
    let outage = start.elapsed();
    println!("{story}: traffic again after {} ms", outage.as_millis());
    ensure!(outage < Duration::from_secs(25), "{story}: {outage:?}\n{}", pair.logs());
    Ok(())
}

#[test]
fn charon_restarts_and_begins_anew() -> Result<()> {
    let plan = restarting(Kind::Vgw, Begins::Charon);
    let mut pair = Pair::up(&plan)?;
    pair.traffic()?;
    let start = Instant::now();
    pair.restart_charon(&plan)?;
    pair.charon.initiate(NAME)?;
    back(&pair, "charon, which begins, restarted", start)
}

#[test]
fn charon_restarts_and_we_begin_anew() -> Result<()> {
    let plan = restarting(Kind::Agent, Begins::Ours);
    let mut pair = Pair::up(&plan)?;
    pair.traffic()?;
    let start = Instant::now();
    pair.restart_charon(&plan)?;
    let line = pair.ours.await_line("DOWN: ").with_context(|| pair.logs())?;
    println!("we noticed: {line}");
    back(&pair, "charon, which answers, restarted", start)
}

#[test]
fn we_restart_and_begin_anew() -> Result<()> {
    let mut pair = Pair::up(&restarting(Kind::Agent, Begins::Ours))?;
    pair.traffic()?;
    let start = Instant::now();
    pair.ours.restart()?;
    back(&pair, "the agent, which begins, restarted", start)
}

#[test]
fn we_restart_and_charon_begins_anew() -> Result<()> {
    let mut pair = Pair::up(&restarting(Kind::Vgw, Begins::Charon))?;
    pair.traffic()?;
    let start = Instant::now();
    pair.ours.restart()?;
    back(&pair, "vgw, which answers, restarted", start)
}
