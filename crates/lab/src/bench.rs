//! `vgw-lab bench`: what our gateways carry, beside plain routing, our bare I/O and other programs.
//!
//! For each kind of link every contender gets a [`rig::Rig`] of its own. Then the rounds go A B C,
//! A B C, so that whatever else the machine does meets everybody alike. A contender that fails is
//! reported and left out; what the others showed stays.

pub mod arguments;
pub mod contender;
pub mod cpu;
pub mod figures;
pub mod null;
pub mod peers;
pub mod plot;
pub mod rig;
pub mod sample;
mod table;
pub mod workload;

use crate::error::Result;
use crate::progress::Progress;
use crate::stop::Stop;
use contender::{Contender, Paths};
use cpu::Meter;
use figures::{Figures, Missing};
use rig::{Link, Rig};
use std::path::PathBuf;
use std::time::Duration;
use workload::Workload;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The workloads, in order.
    pub workloads: Vec<Workload>,
    /// The contenders, in order.
    pub contenders: Vec<Contender>,
    /// Programs that the user named.
    pub paths: Paths,
    /// The kinds of links, one after the other.
    pub links: Vec<Link>,
    /// How often everything is measured.
    pub rounds: u32,
    /// How long each measurement takes.
    pub time: Duration,
    /// The folder of vgw and cgw-agent.
    pub binaries: PathBuf,
}

/// Measures all of it. An interruption ends the run early and leaves what was measured so far.
pub fn bench(plan: &Plan, stop: &Stop) -> (Figures, Result<()>) {
    let mut run = Run {
        plan,
        stop,
        meter: Meter::new(),
        progress: Progress::new(),
        figures: Figures::default(),
    };
    let ended = plan.links.iter().try_for_each(|link| run.link(*link));
    run.progress.done();
    (run.figures, ended)
}

struct Run<'a> {
    plan: &'a Plan,
    stop: &'a Stop,
    meter: Meter,
    progress: Progress,
    figures: Figures,
}

impl Run<'_> {
    fn link(&mut self, link: Link) -> Result<()> {
        let mut rigs = Vec::new();
        for contender in &self.plan.contenders {
            self.stop.check()?;
            rigs.extend(self.build(*contender, link)?);
        }
        for workload in &self.plan.workloads {
            for round in 1..=self.plan.rounds {
                self.round(*workload, link, round, &mut rigs)?;
            }
        }
        self.progress.say("removing everything");
        Ok(())
    }

    /// None when the contender is absent or does not work, which is noted.
    fn build(&mut self, contender: Contender, link: Link) -> Result<Option<Rig>> {
        let Plan { paths, binaries, .. } = self.plan;
        let program = match contender.find(paths) {
            Ok(program) => program,
            Err(install) => {
                self.figures.miss(link, contender, Missing::Absent(install));
                return Ok(None);
            }
        };
        self.progress.say(format!("bringing up {contender}"));
        match Rig::build(contender, program.as_deref(), link, binaries, self.stop) {
            Ok(rig) => Ok(Some(rig)),
            Err(error) => {
                self.stop.check()?;
                self.fail(contender, link, error.to_string());
                Ok(None)
            }
        }
    }

    fn round(
        &mut self,
        workload: Workload,
        link: Link,
        round: u32,
        rigs: &mut Vec<Rig>,
    ) -> Result<()> {
        let mut failed = Vec::new();
        for rig in rigs.iter_mut() {
            self.stop.check()?;
            let contender = rig.contender;
            self.progress
                .say(format!("{workload}, round {round} of {}: {contender}", self.plan.rounds));
            match sample::measure(rig, workload, self.plan.time, &self.meter, self.stop) {
                Ok(sample) => self.figures.add(link, workload, contender, sample),
                Err(error) => {
                    self.stop.check()?;
                    self.fail(contender, link, format!("{workload}: {error}"));
                    failed.push(contender);
                }
            }
        }
        rigs.retain(|rig| !failed.contains(&rig.contender));
        Ok(())
    }

    fn fail(&mut self, contender: Contender, link: Link, error: String) {
        self.progress.print(&format!("{contender} failed and is left out: {error}"));
        self.figures.miss(link, contender, Missing::Failed(error));
    }
}
