//! Sessions for as long as one likes: pings and TCP both ways all the time, through a NAT. In one
//! world wireguard-go begins and rekeys by its own clock, in one we do, and in one both ends are
//! ours and rekey every few seconds.

use super::go::{At, Go};
use super::world::{self, Keys, Outside, World, is_up};
use crate::traffic::{plan, tcp_both_ways};
use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind};
use lab::traffic::ping::{self, Answers};
use std::fmt;
use std::time::{Duration, Instant};

/// Milliseconds between two pings each way.
const APART: u64 = 20;
/// Octets of each TCP transfer, one each way every few seconds. Few enough that they overflow no
/// queue: what is lost is then lost by a session.
const TRANSFER: u64 = 256 << 10;
const EVERY: Duration = Duration::from_secs(5);

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// Each way of each world.
    pub answers: Vec<(String, Answers)>,
    /// TCP transfers of each world that arrived whole.
    pub transfers: Vec<(&'static str, usize)>,
}

impl Report {
    /// An error if a single ping was lost or came twice.
    ///
    /// # Errors
    /// What was lost, and where.
    pub fn check(&self) -> Result<()> {
        for (way, answers) in &self.answers {
            let fine = answers.lost() == 0 && answers.duplicates == 0 && answers.damaged == 0;
            ensure!(
                fine && answers.received > 0,
                "{way}: {} of {} lost, at {:?}; {} twice, {} damaged",
                answers.lost(),
                answers.sent,
                answers.lost_at,
                answers.duplicates,
                answers.damaged
            );
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (way, answers) in &self.answers {
            let (sent, lost) = (answers.sent, answers.lost());
            let worst = answers.longest_outage.as_millis();
            writeln!(f, "{way}: {lost} of {sent} pings lost, longest gap {worst} ms")?;
        }
        for (world, transfers) in &self.transfers {
            writeln!(
                f,
                "{world}: {transfers} transfers of {} KiB each way intact",
                TRANSFER >> 10
            )?;
        }
        Ok(())
    }
}

/// Runs for `time`, all three worlds at once.
///
/// # Errors
/// A world could not be built, or a transfer failed.
pub fn run(time: Duration) -> Result<Report> {
    let worlds: [(&str, Build); 3] = [
        ("wireguard-go begins", |world, keys| {
            let mut vgw = world::daemon(world, Kind::Vgw, keys, "")?;
            let go = Go::start(world, At::Site, keys)?;
            is_up(&mut vgw)?;
            Ok(Parts { daemons: vec![vgw], _go: Some(go) })
        }),
        ("we begin, with wireguard-go", |world, keys| {
            let go = Go::start(world, At::Cloud, keys)?;
            let mut agent = world::daemon(world, Kind::Agent, keys, "persistent_keepalive = 25")?;
            is_up(&mut agent)?;
            Ok(Parts { daemons: vec![agent], _go: Some(go) })
        }),
        ("both ends ours, a rekey every 5 s", |world, keys| {
            let mut vgw = world::daemon(world, Kind::Vgw, keys, "")?;
            let agent = world::daemon(world, Kind::Agent, keys, "rekey_after_seconds = 5")?;
            is_up(&mut vgw)?;
            Ok(Parts { daemons: vec![vgw, agent], _go: None })
        }),
    ];
    let threads: Vec<_> = worlds
        .into_iter()
        .map(|(name, build)| (name, std::thread::spawn(move || one(name, build, time))))
        .collect();
    let mut report = Report::default();
    for (name, thread) in threads {
        let joined = thread.join().map_err(|_| anyhow::anyhow!("{name}: panicked"))?;
        let (answers, transfers) = joined.with_context(|| name)?;
        report.answers.extend(answers);
        report.transfers.push((name, transfers));
    }
    Ok(report)
}

/// What runs in a world.
struct Parts {
    daemons: Vec<Daemon>,
    _go: Option<Go>,
}

type Build = fn(&World, &Keys) -> Result<Parts>;
type Figures = (Vec<(String, Answers)>, usize);

fn one(name: &str, build: fn(&World, &Keys) -> Result<Parts>, time: Duration) -> Result<Figures> {
    let world = World::new(Outside { ipv6: false, nat: true })?;
    let mut parts = build(&world, &Keys::new(true)?)?;
    let (cloud, site) = world.inner(0)?;
    let start = Instant::now();
    let up = ping::start(site.host, plan(site, cloud, None, APART))?;
    let down = ping::start(cloud.host, plan(cloud, site, None, APART))?;
    let mut transfers = 0;
    while start.elapsed() < time {
        tcp_both_ways(cloud, site, TRANSFER)?;
        transfers += 1;
        for daemon in &mut parts.daemons {
            daemon.check_running()?;
        }
        std::thread::sleep(EVERY.min(time.saturating_sub(start.elapsed())));
    }
    let answers = vec![
        (format!("{name}: to the cloud"), up.stop()?),
        (format!("{name}: to the site"), down.stop()?),
    ];
    Ok((answers, transfers))
}
