//! A schedule: what is done to the sites, in order, drawn from the seed before anything runs. So a
//! schedule can be cut down to the steps that matter without changing those that stay.

use std::time::Duration;

use crate::draw::Draw;
use crate::net::{Cut, Quality};
use crate::sites::Settings;

/// An option that a reload changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// None: the file is the same.
    Nothing,
    /// Silence after which the peer is dead, in seconds.
    Dpd(u64),
    /// Lifetime of a Child SA, in seconds.
    Lifetime(u64),
    /// Packets of the replay window.
    Window(u32),
}

/// What somebody who knows no key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Knock {
    /// Sends datagrams again that arrived before.
    Replay,
    /// The same from another address.
    ReplayFromElsewhere,
    /// Sends datagrams with a few bits changed.
    Flip,
    /// Sends noise that begins like something real.
    Noise,
    /// Begins IKE SAs from invented addresses.
    Begin,
}

/// One thing that is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// A user rekeys the IKE SA or the Child SA of a tunnel.
    Rekey { host: usize, agent: usize, tunnel: u8, ike: bool },
    /// Users of both sides do, one this much after the other.
    CrossRekey { agent: usize, tunnel: u8, ike: [bool; 2], skew: Duration },
    /// A user takes a tunnel down.
    Down { host: usize, agent: usize, tunnel: u8 },
    /// A user lets it come up.
    Up { host: usize, agent: usize, tunnel: u8 },
    /// A reload changes an option of all tunnels.
    Reload { host: usize, change: Change },
    /// A reload of the VGW takes a connection out, and a later one puts it back.
    Withdraw { agent: usize, time: Duration },
    /// A site stops, or is killed, and comes back without its state.
    Restart { host: usize, time: Duration, graceful: bool },
    /// A NAT forgets its mappings, or gets another address; a customer gateway without one gets
    /// another address itself.
    Rebind { agent: usize, address: bool },
    /// The outer path takes datagrams of this size.
    PathMtu(usize),
    /// The links change.
    Links(Quality),
    /// Something is cut for a while.
    Cut { cut: Cut, time: Duration },
    /// A site's clock jumps ahead: it was suspended.
    ClockJump { host: usize, time: Duration },
    /// Hardly anything is sent.
    Idle(Duration),
    /// Somebody knocks.
    Knock { host: usize, knock: Knock, count: u64 },
}

/// An operation, and how long and how densely traffic flows after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// Time until the next operation.
    pub pause: Duration,
    /// Time between two packets of a site.
    pub gap: Duration,
}

/// Everything that a seed decides beforehand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The sites.
    pub settings: Settings,
    /// The links in the beginning.
    pub quality: Quality,
    /// What is done.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut draw = Draw::new(seed, 1);
        let settings = Settings::draw(&mut draw, &mut Draw::new(seed, 4));
        let quality = links(&mut draw, settings.lossless);
        let count = draw.number(3..=12);
        let steps = (0..count).map(|_| step(&mut draw, &settings)).collect();
        Self { settings, quality, steps }
    }

    /// Only the steps with these numbers.
    #[must_use]
    pub fn keep(mut self, numbers: &[usize]) -> Self {
        let mut index = 0;
        self.steps.retain(|_| {
            index += 1;
            numbers.contains(&(index - 1))
        });
        self
    }
}

fn links(draw: &mut Draw, lossless: bool) -> Quality {
    let jitter = draw.pick(&[0, 0, 1, 20, 150, 400]);
    Quality {
        loss: if lossless { 0 } else { draw.pick(&[0, 10, 50, 150, 300]) },
        duplicates: draw.pick(&[0, 0, 20, 200]),
        delay: draw.millis(1..=80),
        jitter: Duration::from_millis(jitter),
    }
}

fn step(draw: &mut Draw, settings: &Settings) -> Step {
    let op = op(draw, settings);
    // Often the next operation falls into the exchanges of this one.
    let pause = match draw.index(10) {
        0..=3 => draw.millis(0..=200),
        4..=7 => draw.millis(200..=3_000),
        _ => draw.millis(3_000..=25_000),
    };
    let gap = match pause.as_millis() {
        0..=200 => draw.millis(3..=20),
        201..=3_000 => draw.millis(10..=150),
        _ => draw.millis(100..=1_500),
    };
    Step { op, pause, gap }
}

fn op(draw: &mut Draw, settings: &Settings) -> Op {
    let agent = 1 + draw.index(settings.agents);
    let host = if draw.coin() { 0 } else { agent };
    let tunnel = draw.index(2) as u8;
    let seconds = |draw: &mut Draw, most: u64| draw.millis(0..=most * 1000);
    match draw.index(100) {
        0..=19 => Op::Rekey { host, agent, tunnel, ike: draw.coin() },
        20..=39 => {
            let skew = draw.millis(0..=120);
            Op::CrossRekey { agent, tunnel, ike: [draw.coin(), draw.coin()], skew }
        }
        40..=43 => Op::Down { host, agent, tunnel },
        44..=49 => Op::Up { host, agent, tunnel },
        50..=57 => {
            let change = match draw.index(4) {
                0 => Change::Nothing,
                1 => Change::Dpd(draw.number(9..=30)),
                2 => Change::Lifetime(draw.number(40..=3_600)),
                // No link delays a packet by more than 500 ms, or 170 of its successors.
                _ => Change::Window(draw.pick(&[256, 1024, 4096])),
            };
            Op::Reload { host, change }
        }
        58..=60 => Op::Withdraw { agent, time: seconds(draw, 10) },
        61..=66 => Op::Restart { host, time: seconds(draw, 20), graceful: draw.coin() },
        67..=71 => Op::Rebind { agent, address: draw.coin() },
        72..=74 => Op::PathMtu(draw.pick(&[1300, 1400, 1500])),
        75..=79 => Op::Links(links(draw, settings.lossless)),
        80..=83 if !settings.lossless => {
            let cut = match draw.index(4) {
                0 => Cut::All,
                1 => Cut::Address(tunnel),
                2 => Cut::From(host),
                _ => Cut::To(host),
            };
            Op::Cut { cut, time: seconds(draw, 40) }
        }
        84..=85 => {
            Op::ClockJump { host, time: Duration::from_secs(draw.pick(&[2, 20, 600, 100_000])) }
        }
        86..=91 => Op::Idle(draw.millis(1_000..=3_000 * settings.lifetimes.1.min(400))),
        _ => {
            let knock = draw.pick(&[
                Knock::Replay,
                Knock::ReplayFromElsewhere,
                Knock::Flip,
                Knock::Noise,
                Knock::Begin,
            ]);
            Op::Knock { host, knock, count: draw.number(1..=40) }
        }
    }
}
