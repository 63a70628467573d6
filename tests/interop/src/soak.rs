//! Rekeys for as long as one likes: lifetimes of 20 seconds on both sides, rekeys that cross, and
//! pings each way through every tunnel all the time.
//!
//! Half of the tunnels rekey when their lifetimes say so, which both sides' clocks do by turns. In
//! the others both sides are told to rekey at the same moment, on a line that is slow enough for
//! the two requests to cross.

use crate::charon::Charon;
use crate::connection::Connection;
use crate::ours::{Ours, Settings};
use crate::pair::summary;
use crate::traffic::plan;
use crate::wait;
use crate::world::{OURS, OURS_INSIDE, World};
use anyhow::{Context, Result, ensure};
use lab::daemon::Kind;
use lab::netns::Host;
use lab::topology::{address, end};
use lab::traffic::ping::{self, Answers, Pinging};
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Lifetime of every SA on both sides, in seconds.
const LIFETIME: u32 = 20;
/// Tunnels: charon begins the even ones, we the odd ones.
const TUNNELS: usize = 4;
/// From this one on, rekeys are made to cross.
const CROSSING: usize = 2;
/// How long a frame is under way on the line between both.
const DELAY: Duration = Duration::from_millis(25);
/// Milliseconds between two pings each way through each tunnel.
const APART: u64 = 20;
/// Time between two pairs of rekeys that cross.
const EVERY: Duration = Duration::from_millis(2_500);
/// What crosses, by turns: charon's rekey and ours.
const CROSSINGS: [(&str, &str); 4] = [
    ("child", "rekey-child"),
    ("ike", "rekey-ike"),
    ("child", "rekey-ike"),
    ("ike", "rekey-child"),
];

/// What charon says when rekeys cross: two of the same kind, and then one of each.
const COLLISIONS: [&str; 4] = [
    "detected CHILD_REKEY collision with CHILD_REKEY",
    "detected IKE_REKEY collision with IKE_REKEY",
    "unable to create CHILD_SA while rekeying IKE_SA",
    "peer initiated rekeying, but a child is half-open",
];

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// When the pings began.
    pub began: Option<SystemTime>,
    /// How long traffic ran.
    pub time: Duration,
    /// Each way of each tunnel.
    pub answers: Vec<(String, Answers)>,
    /// Rekeys of IKE SAs in charon's log.
    pub ike_rekeys: usize,
    /// Rekeys of Child SAs in charon's log.
    pub child_rekeys: usize,
    /// How often charon's log has each line of a collision.
    pub collisions: Vec<(&'static str, usize)>,
    /// Pairs of rekeys that were begun at the same moment.
    pub pairs: usize,
    /// Retransmissions of charon's and of ours.
    pub retransmissions: (usize, u64),
    /// Packets that our side dropped, by reason.
    pub drops: String,
    /// Packets that the kernel dropped because a daemon had no processor for so long that a queue
    /// before it was full: at charon's host and at ours.
    pub overflows: [u64; 2],
    /// What went wrong beside the pings, and when.
    pub trouble: Vec<String>,
    /// charon's log and ours.
    pub logs: [String; 2],
}

impl Report {
    /// Requests sent in all.
    pub fn sent(&self) -> u32 {
        self.answers.iter().map(|(_, answers)| answers.sent).sum()
    }

    /// The time of day, as the logs have it, so long after the pings began.
    fn clock(&self, after: Duration) -> String {
        let at = self.began.unwrap_or(UNIX_EPOCH) + after;
        let milliseconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
        let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
        format!("{hours:02}:{minutes:02}:{:02}.{rest:03}", seconds % 60)
    }

    /// Requests that were not answered.
    pub fn lost(&self) -> u32 {
        self.answers.iter().map(|(_, answers)| answers.lost()).sum()
    }

    /// An error when a daemon lost a request or it came twice, or when a kind of crossing never
    /// happened. A machine that is too busy fills charon's receive buffer, whose size only the
    /// whole machine's settings change; each packet that went that way is counted by the kernel.
    pub fn check(&self) -> Result<()> {
        let twice: u32 = self.answers.iter().map(|(_, a)| a.duplicates + a.damaged).sum();
        let overflows = self.overflows.iter().sum();
        let by_daemons = u64::from(self.lost()).saturating_sub(overflows);
        ensure!(by_daemons == 0 && twice == 0, "pings were lost or damaged:\n{self}");
        ensure!(self.trouble.is_empty(), "{self}");
        let happened = self.collisions.iter().all(|(_, count)| *count > 0);
        ensure!(happened, "a kind of crossing did not happen:\n{self}");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} s, {TUNNELS} tunnels, lifetimes {LIFETIME} s: {} pings, {} lost; {:?} packets dropped by the \
             kernel before the sockets and devices of charon and ours; {} IKE rekeys, {} Child rekeys, \
             {} pairs begun at the same moment; {} and {} retransmissions (charon, ours); our drops: {}",
            self.time.as_secs(),
            self.sent(),
            self.lost(),
            self.overflows,
            self.ike_rekeys,
            self.child_rekeys,
            self.pairs,
            self.retransmissions.0,
            self.retransmissions.1,
            self.drops,
        )?;
        for (kind, count) in &self.collisions {
            writeln!(f, "  charon: {kind}: {count}")?;
        }
        for (way, answers) in &self.answers {
            writeln!(f, "  {way}: {}", summary(answers))?;
            for gap in answers.lost_at.chunk_by(|one, next| *next - *one < Duration::from_secs(1)) {
                let (first, last) = (gap[0], gap[gap.len() - 1]);
                let (first, last) = (self.clock(first), self.clock(last));
                writeln!(f, "    {} lost from {first} to {last}", gap.len())?;
            }
        }
        for trouble in &self.trouble {
            writeln!(f, "  {trouble}")?;
        }
        Ok(())
    }
}

struct Soak {
    names: Vec<String>,
    world: World,
    charon: Charon,
    ours: Ours,
}

/// Runs for `time`. `progress` gets a line now and then.
pub fn run(time: Duration, mut progress: impl FnMut(&str)) -> Result<Report> {
    let soak = Soak::start()?;
    soak.await_one_each()?;
    let began = Some(SystemTime::now());
    let pings = soak.ping()?;
    let start = Instant::now();
    let (mut pairs, mut said) = (0, Instant::now());
    let mut report = Report { began, ..Report::default() };
    while start.elapsed() < time {
        let turn = Instant::now();
        if let Err(error) = soak.cross(pairs) {
            let at = start.elapsed().as_secs_f32();
            let text = format!("after {at:.1} s: {error}; {}", soak.state());
            progress(&text);
            report.trouble.push(text);
        }
        pairs += 1;
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            let troubles = report.trouble.len();
            progress(&format!(
                "{} s: {pairs} pairs of rekeys, {troubles} troubles",
                start.elapsed().as_secs()
            ));
        }
        std::thread::sleep(EVERY.saturating_sub(turn.elapsed()));
    }
    (report.time, report.pairs) = (start.elapsed(), pairs);
    for (way, pinging) in pings {
        report.answers.push((way, pinging.stop()?));
    }
    if let Err(error) = soak.await_one_each() {
        report.trouble.push(format!("at the end: {error:#}"));
    }
    soak.count(&mut report)?;
    Ok(report)
}

impl Soak {
    fn start() -> Result<Soak> {
        let world = World::with_delay(DELAY)?;
        let mut connections = Vec::new();
        for i in 0..TUNNELS {
            address(end(&world.swan, "wan"), format!("192.0.2.{}/24", 10 + i))?;
            address(end(&world.swan, "lo"), Soak::inside(i))?;
            connections.push(Soak::connection(i));
        }
        let charon = Charon::with(&world.swan, "", &connections)?;
        charon.route(&["10.0.0.0/16"])?;
        let settings = Settings {
            kind: Kind::Vgw,
            listen: OURS.map(str::to_owned).to_vec(),
            networks: vec!["10.0.0.0/16".into()],
            extra: String::new(),
        };
        let ours = Ours::start(&world.ours, &settings, &connections)?;
        let names: Vec<String> = connections.into_iter().map(|c| c.name).collect();
        for name in names.iter().step_by(2) {
            charon.initiate(name)?;
        }
        Ok(Soak { names, world, charon, ours })
    }

    fn inside(i: usize) -> String {
        format!("192.168.{i}.20")
    }

    /// Both sides rekey within the same seconds of an SA's life, so that now one and now the other
    /// is first.
    fn connection(i: usize) -> Connection {
        let mut connection =
            Connection::new(&format!("tunnel-{i}"), &format!("192.0.2.{}", 10 + i), OURS[0]);
        connection.peer_id = format!("swan-{i}.example");
        connection.peer_networks = format!("192.168.{i}.0/24");
        connection.swan = "rekey_time = 14s\nrand_time = 4s\nover_time = 6s".into();
        connection.swan_child =
            format!("rekey_time = 14s\nrand_time = 4s\nlife_time = {LIFETIME}s");
        let startup = if i.is_multiple_of(2) { "add" } else { "start" };
        connection.tunnel = format!(
            "startup_action = \"{startup}\"\nphase1_lifetime_seconds = {LIFETIME}\n\
             phase2_lifetime_seconds = {LIFETIME}\nrekey_margin_time_seconds = 6\n\
             rekey_fuzz_percentage = 66"
        );
        connection
    }

    fn ping(&self) -> Result<Vec<(String, Pinging)>> {
        let mut pings = Vec::new();
        for (i, name) in self.names.iter().enumerate() {
            let swan = self.world.swan_inner(&Soak::inside(i));
            let ours = self.world.our_inner(OURS_INSIDE);
            for (way, from, to) in [("to us", swan, ours), ("to charon", ours, swan)] {
                pings.push((
                    format!("{name} {way}"),
                    ping::start(from.host, plan(from, to, None, APART))?,
                ));
            }
        }
        Ok(pings)
    }

    /// Tells both sides at the same moment to rekey something of the same tunnel.
    fn cross(&self, turn: usize) -> Result<()> {
        let (what, verb) = CROSSINGS[(turn / (TUNNELS - CROSSING)) % CROSSINGS.len()];
        let name = &self.names[CROSSING + turn % (TUNNELS - CROSSING)];
        std::thread::scope(|scope| {
            let charons = scope.spawn(|| self.charons_rekey(what, name));
            self.ours.verb(name, verb)?;
            charons.join().map_err(|_| anyhow::anyhow!("charon's rekey panicked"))?
        })
    }

    /// charon finds no Child SA while it moves them from an IKE SA to the one that replaces it: the
    /// command is repeated then.
    fn charons_rekey(&self, what: &str, name: &str) -> Result<()> {
        let moving = |error: &anyhow::Error| error.to_string().contains("no matching SAs to rekey");
        for _ in 0..5 {
            match self.charon.rekey(what, name) {
                Err(error) if moving(&error) => std::thread::sleep(Duration::from_millis(100)),
                other => return other,
            }
        }
        self.charon.rekey(what, name)
    }

    /// Waits until each tunnel has one IKE SA and one Child SA on both sides.
    fn await_one_each(&self) -> Result<()> {
        wait::until("one SA pair for each tunnel", Duration::from_secs(60), || {
            let (sas, tunnels) = (self.charon.sas()?, self.ours.tunnels()?);
            for name in &self.names {
                let of_name: Vec<_> = sas.iter().filter(|sa| sa.name == *name).collect();
                let tunnel = tunnels.iter().find(|(id, _)| id == name).map(|(_, tunnel)| tunnel);
                let (&[sa], Some(tunnel)) = (of_name.as_slice(), tunnel) else {
                    return Ok(Err(format!("{name}: {of_name:?}, {tunnel:?}")));
                };
                let spi = sa.installed().map(|child| child.text("spi-out"));
                if !tunnel.is_up() || spi != Some(tunnel.text("spi_in")) {
                    return Ok(Err(format!("{name}: {sa:?}, {tunnel:?}")));
                }
            }
            Ok(Ok(()))
        })
        .with_context(|| format!("our log:\n{}", self.ours.last_lines(60)))
    }

    /// All SAs of both sides, for what went wrong.
    fn state(&self) -> String {
        let (sas, tunnels) = (self.charon.sas(), self.ours.tunnels());
        format!("charon: {sas:?}; ours: {tunnels:?}")
    }

    fn count(&self, report: &mut Report) -> Result<()> {
        let log = self.charon.log();
        let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        report.ike_rekeys = lines("] rekeyed between ");
        report.child_rekeys = lines("] inbound CHILD_SA tunnel-");
        report.collisions = COLLISIONS.map(|text| (text, lines(text))).to_vec();
        let status = self.ours.status()?;
        let ours = status["ike"]["retransmits"].as_u64().unwrap_or(0);
        report.retransmissions = (lines("retransmit "), ours);
        report.drops = status["drops"].to_string();
        report.overflows =
            [overflows(&self.world.swan, "ipsec0")?, overflows(&self.world.ours, "vgw0")?];
        report.logs = [log, self.ours.last_lines(usize::MAX)];
        Ok(())
    }
}

/// What the kernel dropped in a host because UDP sockets or the queue of a TUN device were full.
fn overflows(host: &Host, device: &str) -> Result<u64> {
    // `/proc/net` is that of the process's first thread.
    let read = |file: &str| host.read(format!("/proc/thread-self/net/{file}"));
    let (udp, udp6, devices) = (read("snmp")?, read("snmp6")?, read("dev")?);
    let mut lines = udp.lines().filter(|line| line.starts_with("Udp: "));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let v4 = pairs.find(|(name, _)| *name == "RcvbufErrors").map(|(_, value)| value);
    let v6 = udp6.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    // The columns of a device (proc(5)): eight of what it received, then octets, packets, errors
    // and drops of what it sent.
    let line = devices.lines().find_map(|line| line.trim().strip_prefix(device));
    let sent = line.and_then(|line| line.split_whitespace().nth(12));
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
    let all = [number(v4), number(v6), number(sent)];
    all.into_iter().sum::<Option<u64>>().with_context(|| format!("{}: {all:?}", host.name()))
}
