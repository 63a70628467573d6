//! One measurement: one workload on one contender, once.

use crate::bench::cpu::Meter;
use crate::bench::rig::Rig;
use crate::bench::workload::{FIXED_RATE, Workload};
use crate::error::{LabError, Result};
use crate::stop::Stop;
use crate::traffic::load::{self, Load};
use crate::traffic::tcp::Pair;
use crate::traffic::{flood, ping};
use std::time::{Duration, Instant};

/// How long a load runs before it is measured: TCP opens its window, caches fill.
const WARM_UP: Duration = Duration::from_millis(300);

/// Time between two pings.
const PING_INTERVAL: Duration = Duration::from_millis(5);

/// How long the gateways must do next to nothing before the next measurement, and how often that
/// is tried.
const QUIET: Duration = Duration::from_millis(60);
const QUIET_TRIES: u32 = 50;

/// What one measurement found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The figure, in the workload's unit.
    pub figure: f64,
    /// Bits of payload that arrived in a second; 0 when nothing but pings was sent.
    pub rate: f64,
    /// CPU-seconds of the gateways for each GB (10^9 octets) of payload that arrived.
    pub cpu_s_per_gb: Option<f64>,
    /// The share of the datagrams that did not arrive; UDP only.
    pub loss: Option<f64>,
    /// The 99th percentile of the round trip times, in ms; ping only.
    pub p99: Option<f64>,
}

/// What happened in a window of time.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    seconds: f64,
    octets: u64,
    packets: u64,
    sent: u64,
    cpu: Duration,
}

impl Window {
    fn add(&mut self, other: Window) {
        self.seconds += other.seconds;
        self.octets += other.octets;
        self.packets += other.packets;
        self.sent += other.sent;
        self.cpu += other.cpu;
    }

    fn rate(&self) -> f64 {
        self.octets as f64 * 8.0 / self.seconds.max(1e-9)
    }

    fn cpu_s_per_gb(&self) -> Option<f64> {
        (self.octets > 0).then(|| self.cpu.as_secs_f64() * 1e9 / self.octets as f64)
    }
}

/// Measures. `time` is that of each window.
pub fn measure(
    rig: &mut Rig,
    workload: Workload,
    time: Duration,
    meter: &Meter,
    stop: &Stop,
) -> Result<Sample> {
    rig.check_running()?;
    let mut stage = Stage { processes: rig.processes(), rig, meter, time, stop };
    let sample = if let Some(flows) = workload.flows() {
        stage.tcp(flows)
    } else if let Some(shape) = workload.shape() {
        stage.udp(&shape)
    } else {
        match workload {
            Workload::PingLoad => stage.ping(true),
            Workload::PingIdle => stage.ping(false),
            _ => stage.fixed_rate(),
        }
    };
    let sample = sample?;
    stage.settle()?;
    stage.rig.check_running()?;
    Ok(sample)
}

struct Stage<'a> {
    rig: &'a mut Rig,
    processes: Vec<u32>,
    meter: &'a Meter,
    time: Duration,
    stop: &'a Stop,
}

impl Stage<'_> {
    /// Both directions, one after the other.
    fn tcp(&mut self, flows: usize) -> Result<Sample> {
        let mut total = Window::default();
        for pair in [self.rig.forth(), self.rig.back()] {
            total.add(self.stream(pair, flows, None)?);
        }
        Ok(sample(total.rate() / 1e9, &total))
    }

    /// Waits until the gateways have worked off their queues, so that the next contender does not
    /// pay for this one; not for ever.
    fn settle(&self) -> Result<()> {
        for _ in 0..QUIET_TRIES {
            let before = self.meter.read(&self.processes)?;
            self.stop.sleep(QUIET)?;
            if self.meter.read(&self.processes)?.saturating_sub(before) <= QUIET / 4 {
                break;
            }
        }
        Ok(())
    }

    fn stream(&self, pair: Pair<'_>, flows: usize, rate: Option<f64>) -> Result<Window> {
        let load = || load::tcp(pair, flows, rate);
        let window = self.watch(load, |stage| stage.stop.sleep(stage.time))?;
        // Of a flood nothing may be left, but TCP adapts to whatever there is.
        if window.octets == 0 {
            return Err(LabError::Unexpected("nothing arrived".into()));
        }
        Ok(window)
    }

    fn fixed_rate(&mut self) -> Result<Sample> {
        let window = self.stream(self.rig.forth(), 1, Some(FIXED_RATE))?;
        let cost = window.cpu_s_per_gb().unwrap_or_default();
        Ok(sample(cost, &window))
    }

    fn udp(&mut self, shape: &flood::Shape) -> Result<Sample> {
        let load = || flood::udp(self.rig.forth(), shape);
        let window = self.watch(load, |stage| stage.stop.sleep(stage.time))?;
        let loss = 1.0 - window.packets as f64 / window.sent.max(1) as f64;
        Ok(Sample {
            // Datagrams that were on their way when the window began arrive in it too.
            loss: Some(loss.clamp(0.0, 1.0)),
            ..sample(window.packets as f64 / window.seconds, &window)
        })
    }

    fn ping(&mut self, beside_load: bool) -> Result<Sample> {
        let mut answers = ping::Answers::default();
        let ping = |stage: &Stage<'_>| {
            let count = (stage.time.as_secs_f64() / PING_INTERVAL.as_secs_f64()).ceil();
            let plan = ping::Plan {
                // A cast of a float ends at the largest number.
                count: Some((count as u32).max(20)),
                interval: PING_INTERVAL,
                ..ping::Plan::new(stage.rig.forth().address)
            };
            answers = ping::run(&stage.rig.client, plan)?;
            Ok(())
        };
        let window = if beside_load {
            self.watch(|| load::tcp(self.rig.forth(), 1, None), ping)?
        } else {
            self.window(None, ping)?
        };
        let quantile = |share| answers.quantile(share).map(|time| time.as_secs_f64() * 1e3);
        let (Some(p50), Some(p99)) = (quantile(0.5), quantile(0.99)) else {
            return Err(LabError::Unexpected("no ping was answered".into()));
        };
        Ok(Sample { p99: Some(p99), loss: None, ..sample(p50, &window) })
    }

    /// Starts a load, lets it warm up, and takes what happens during `action`. An error when less
    /// crossed the WAN than arrived, because then something else than the contender was measured.
    fn watch(
        &self,
        load: impl FnOnce() -> Result<Load>,
        action: impl FnOnce(&Stage<'_>) -> Result<()>,
    ) -> Result<Window> {
        let before = self.rig.wan_octets()?;
        let load = load()?;
        self.stop.sleep(WARM_UP)?;
        let window = self.window(Some(&load), action)?;
        // Over all of the load's life, since queues that were full when the window began empty in it.
        let arrived = load.progressed().octets;
        let crossed = self.rig.wan_octets()?.saturating_sub(before);
        if crossed < arrived {
            return Err(LabError::Unexpected(format!(
                "{arrived} octets arrived and only {crossed} crossed the WAN"
            )));
        }
        Ok(window)
    }

    fn window(
        &self,
        load: Option<&Load>,
        action: impl FnOnce(&Stage<'_>) -> Result<()>,
    ) -> Result<Window> {
        let progressed = || load.map(Load::progressed).unwrap_or_default();
        let (cpu, start, before) =
            (self.meter.read(&self.processes)?, Instant::now(), progressed());
        action(self)?;
        let (after, seconds) = (progressed(), start.elapsed().as_secs_f64());
        let cpu = self.meter.read(&self.processes)?.saturating_sub(cpu);
        Ok(Window {
            seconds,
            octets: after.octets - before.octets,
            packets: after.packets - before.packets,
            sent: after.sent - before.sent,
            cpu,
        })
    }
}

fn sample(figure: f64, window: &Window) -> Sample {
    Sample {
        figure,
        rate: window.rate(),
        cpu_s_per_gb: window.cpu_s_per_gb(),
        loss: None,
        p99: None,
    }
}
