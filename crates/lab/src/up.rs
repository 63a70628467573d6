//! `vgw-lab up`: builds a scenario, runs the steps, reports, and removes everything.

use crate::daemon::{Daemon, Kind};
use crate::error::{LabError, Result};
use crate::layout::Layout;
use crate::netns::Host;
use crate::privilege::Privilege;
use crate::progress::Progress;
use crate::report::{Report, Verdict};
use crate::scenario::{Scenario, Step};
use crate::settings;
use crate::steps::{Run, Wan, connect};
use crate::stop::Stop;
use crate::world::World;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How many lines of each daemon's log are shown after a failure.
const LOG_LINES: usize = 30;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The scenario's name in the report.
    pub name: String,
    /// The folder of the binaries `vgw` and `cgw-agent`.
    pub binaries: PathBuf,
    /// Stay up until stopped.
    pub keep: bool,
    /// How long everything may take, not counting the time that it stays up.
    pub limit: Duration,
    /// How this process may build namespaces.
    pub privilege: Privilege,
}

/// Runs a scenario. Failures of what is tested are in the report; so is what the daemons said.
pub fn up(scenario: &Scenario, options: &Options, stop: &Stop) -> Report {
    let progress = Progress::new();
    let mut report = Report::new(&options.name, &scenario.description);
    let timer = Timer::start(options.limit, stop);
    let ended = run(scenario, options, stop, &timer, &progress, &mut report);
    let error = match ended {
        Err(LabError::Interrupted) if timer.expired() => {
            Some(format!("not done within {} s (--timeout)", options.limit.as_secs()))
        }
        Err(error) => Some(error.to_string()),
        Ok(()) => None,
    };
    if !report.shown {
        report.finish(error, progress.elapsed());
    }
    progress.done();
    report
}

fn run(
    scenario: &Scenario,
    options: &Options,
    stop: &Stop,
    timer: &Timer,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    progress.say("building hosts, links and routes");
    let layout = Layout::new(scenario);
    let world = World::build(scenario, &layout)?;
    let binaries = &options.binaries;
    let vgw =
        Daemon::new(&world.vpc.gateway, Kind::Vgw, binaries, &settings::vgw(scenario, &layout))?;
    let agents = world.sites.iter().enumerate().map(|(index, site)| {
        Daemon::new(
            &site.gateway,
            Kind::Agent,
            binaries,
            &settings::agent(scenario, &layout, index),
        )
    });
    let agents = agents.collect::<Result<Vec<_>>>()?;
    let mut wan = Wan::default();
    wan.resume(&world.internet)?;
    let mut run =
        Run { scenario, layout: &layout, world: &world, vgw, agents, wan, report, progress, stop };
    let steps = all_steps(&mut run, options.keep);
    // Whoever interrupts knows why.
    let failed = steps.is_err() || run.report.rows.iter().any(|row| !row.passed);
    if failed && (!stop.is_set() || timer.expired()) {
        progress.done();
        explain(&run);
    }
    // A lab that failed is worth a look too.
    if options.keep && !stop.is_set() {
        timer.cancel();
        run.report.finish(steps.as_ref().err().map(LabError::to_string), progress.elapsed());
        stay(&mut run, options);
    }
    progress.say("removing everything");
    stop_daemons(&mut run);
    steps
}

fn all_steps(run: &mut Run<'_>, keep: bool) -> Result<()> {
    connect(run)?;
    if let Some(way) = run.ways().first() {
        Wan::control(way)?;
    }
    for step in &run.scenario.test.steps {
        // What stays up is not stopped to test stopping.
        if keep && *step == Step::Stop {
            continue;
        }
        // What arrives for a daemon that has ended is answered by its kernel, with ICMP.
        if *step == Step::Stop {
            run.wan.pause()?;
        }
        run.step(*step)?;
    }
    let Run { wan, report, .. } = run;
    wan.finish(report)
}

/// What the daemons say about themselves, for whoever has to find out why.
fn explain(run: &Run<'_>) {
    for daemon in std::iter::once(&run.vgw).chain(&run.agents) {
        let (host, name) = (daemon.host().name(), daemon.kind().name());
        if let Ok(status) = daemon.status() {
            for tunnel in &status.tunnels {
                run.progress.print(&format!("{host}: {name}: {}", tunnel.line()));
            }
        }
        let lines = daemon.last_lines(LOG_LINES);
        run.progress.print(&format!("--- {host}: the last {} lines of {name}", lines.len()));
        for line in lines {
            run.progress.print(&line);
        }
    }
}

/// Prints how to look around, and waits until the user has seen enough.
fn stay(run: &mut Run<'_>, options: &Options) {
    run.progress.done();
    run.report.shown = true;
    // Nobody may be reading any more; the lab still has to clean up.
    let _ = writeln!(std::io::stdout(), "{}\n\n{}", run.report, directions(run, options.privilege));
    run.stop.wait();
}

/// How to enter each host, and what to try there.
fn directions(run: &Run<'_>, privilege: Privilege) -> String {
    // In a user namespace `nsenter` has to enter that one first.
    let user = match privilege {
        Privilege::Root => "",
        Privilege::UserNamespace => "--user --preserve-credentials ",
    };
    let enter = |host: &Host| format!("nsenter --target {} {user}--net --mount --uts", host.tid());
    let mut lines =
        vec!["The lab stays up. Enter a host (add a command to run only that):".to_owned()];
    for host in run.world.network.hosts() {
        lines.push(format!("  {:<16} {}", host.name(), enter(host)));
    }
    lines.push("Look at the gateways:".into());
    for daemon in std::iter::once(&run.vgw).chain(&run.agents) {
        lines.push(format!("  {} {}", enter(daemon.host()), daemon.line(&["status"]).line()));
    }
    lines.push("Switch a tunnel:".into());
    let switch = run.vgw.line(&["tunnel", &run.connection(0), "1", "down"]).line();
    lines.push(format!("  {} {switch}", enter(run.vgw.host())));
    lines.push("Stop with ctrl-c; everything is removed then.".into());
    lines.join("\n")
}

/// In order, so that each side tells the other; whatever does not stop dies with its host.
fn stop_daemons(run: &mut Run<'_>) {
    for daemon in run.agents.iter_mut().chain([&mut run.vgw]) {
        if let Err(error) = daemon.stop() {
            run.progress.print(&error.to_string());
        }
    }
}

/// Asks for a stop when the time is over.
struct Timer {
    cancelled: Stop,
    expired: Arc<AtomicBool>,
}

impl Timer {
    fn start(limit: Duration, stop: &Stop) -> Timer {
        let timer = Timer { cancelled: Stop::new(), expired: Arc::default() };
        let (cancelled, expired, stop) =
            (timer.cancelled.clone(), timer.expired.clone(), stop.clone());
        std::thread::spawn(move || {
            if cancelled.sleep(limit).is_ok() {
                expired.store(true, Relaxed);
                stop.set();
            }
        });
        timer
    }

    fn cancel(&self) {
        self.cancelled.set();
    }

    fn expired(&self) -> bool {
        self.expired.load(Relaxed)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Report {
    /// The exit status of a run: 0 passed, 1 failed.
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Pass => 0,
            Verdict::Fail => 1,
        }
    }
}
