//! Running schedules: one, or many on all processors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::plan::Plan;
use crate::violation::{Kind, Violation};
use crate::world::World;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The first seed; schedule number `i` has seed + `i`.
    pub seed: u64,
    /// Threads; at least one runs.
    pub threads: usize,
    /// Only these steps of each plan.
    pub keep: Option<Vec<usize>>,
    /// Print what happens.
    pub trace: bool,
    /// What goes wrong on purpose.
    pub fault: Fault,
}

/// What one schedule came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Operations that were done.
    pub steps: u64,
    /// Inner packets that came out.
    pub delivered: u64,
    /// Inner packets that had to arrive, because nothing that may cost packets had happened.
    pub claimed: u64,
    /// Datagrams that links lost.
    pub lost: u64,
    /// Virtual time.
    pub time: Duration,
    /// How long it took after the last operation until everything was at rest.
    pub rest: Duration,
    /// The most inbound SAs and IKE SAs that a site had at once.
    pub most: (usize, usize),
    /// What was broken.
    pub violations: Vec<Violation>,
}

/// What many schedules came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Schedules that ran.
    pub schedules: u64,
    /// Sums of the outcomes.
    pub steps: u64,
    /// As in [`Outcome`].
    pub delivered: u64,
    /// As in [`Outcome`].
    pub claimed: u64,
    /// As in [`Outcome`].
    pub lost: u64,
    /// As in [`Outcome`].
    pub time: Duration,
    /// The longest way to rest, and its seed.
    pub rest: (Duration, u64),
    /// The most of any schedule.
    pub most: (usize, usize),
    /// The schedules with violations.
    pub failed: Vec<Outcome>,
}

impl Totals {
    fn add(&mut self, outcome: Outcome) {
        self.schedules += 1;
        self.steps += outcome.steps;
        self.delivered += outcome.delivered;
        self.claimed += outcome.claimed;
        self.lost += outcome.lost;
        self.time += outcome.time;
        self.rest = self.rest.max((outcome.rest, outcome.seed));
        self.most = (self.most.0.max(outcome.most.0), self.most.1.max(outcome.most.1));
        if !outcome.violations.is_empty() {
            self.failed.push(outcome);
        }
    }

    /// Violations in all schedules.
    #[must_use]
    pub fn violations(&self) -> usize {
        self.failed.iter().map(|outcome| outcome.violations.len()).sum()
    }
}

/// Runs the schedule of one seed.
#[must_use]
pub fn run_one(seed: u64, options: &Options) -> Outcome {
    let mut plan = Plan::draw(seed);
    if let Some(keep) = &options.keep {
        plan = plan.keep(keep);
    }
    let ran = catch_unwind(AssertUnwindSafe(|| schedule(&plan, seed, options)));
    ran.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        let violations = vec![Violation { kind: Kind::Panic, at: Duration::ZERO, text }];
        Outcome { seed, violations, ..Outcome::default() }
    })
}

fn schedule(plan: &Plan, seed: u64, options: &Options) -> Outcome {
    let mut outcome = Outcome { seed, ..Outcome::default() };
    let refused = |text: String| vec![Violation { kind: Kind::Refused, at: Duration::ZERO, text }];
    let mut world = match World::new(plan, seed, options.fault, options.trace) {
        Ok(world) => world,
        Err(text) => return Outcome { violations: refused(text), ..outcome },
    };
    if options.trace {
        println!("{:?}\n{:?}", plan.settings, plan.quality);
    }
    world.run(Duration::from_secs(plan.settings.dpd + 5), Duration::from_millis(500));
    for step in &plan.steps {
        if let Err(text) = world.step(step) {
            return Outcome { violations: refused(text), ..outcome };
        }
        outcome.steps += 1;
        if !world.model.violations.is_empty() {
            break;
        }
    }
    if world.model.violations.is_empty() {
        world.good_links();
        world.everything_up();
        outcome.rest = world.come_to_rest().unwrap_or_default();
        world.audit();
    }
    outcome.delivered = world.model.delivered;
    outcome.claimed = world.model.claimed;
    outcome.lost = world.net.lost;
    outcome.time = world.elapsed();
    outcome.most = world.most;
    outcome.violations = world.model.violations;
    outcome
}

/// Time between two calls of `progress`.
const PROGRESS: Duration = Duration::from_secs(60);

/// Runs `count` schedules; `failed` hears of each that has violations, as soon as it is known, and
/// `progress` what it came to so far, once a minute.
pub fn run_many(
    count: u64,
    options: &Options,
    failed: impl Fn(&Outcome) + Sync,
    progress: impl Fn(&Totals) + Sync,
) -> Totals {
    let next = AtomicU64::new(0);
    let totals = Mutex::new((Totals::default(), Instant::now()));
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= count {
                        break;
                    }
                    let outcome = run_one(options.seed.wrapping_add(number), options);
                    if !outcome.violations.is_empty() {
                        failed(&outcome);
                    }
                    let Ok(mut all) = totals.lock() else { break };
                    all.0.add(outcome);
                    if all.1.elapsed() >= PROGRESS {
                        all.1 = Instant::now();
                        progress(&all.0);
                    }
                }
            });
        }
    });
    let (mut all, _) = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.failed.sort_by_key(|outcome| outcome.seed);
    all
}
