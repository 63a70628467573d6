//! `sim`: runs schedules of simulated sites and says what is broken. See the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sim::{Options, Outcome, Totals, run_many};

/// Runs random schedules of simulated VPN gateways against a reference model.
#[derive(Parser)]
struct Arguments {
    /// How many schedules.
    #[arg(long, default_value_t = 1_000)]
    schedules: u64,
    /// Seed of the first one; each further one has the next number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; as many as there are processors if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Do only these steps of each schedule, by number from 0: what `--shrink` prints.
    #[arg(long, value_delimiter = ',')]
    keep: Option<Vec<usize>>,
    /// Leave out steps of a failing schedule as long as it fails, and print what is left.
    #[arg(long)]
    shrink: bool,
    /// Print every message, every line of the logs and every operation.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if arguments.trace { 1 } else { arguments.threads.unwrap_or(processors) };
    let options = Options {
        seed: arguments.seed,
        threads,
        keep: arguments.keep,
        trace: arguments.trace,
        ..Options::default()
    };
    if !arguments.trace {
        // A panic is a violation and is printed as one.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let begin = Instant::now();
    let totals = run_many(
        arguments.schedules,
        &options,
        |outcome| report(outcome, &options, arguments.shrink),
        |so_far| eprintln!("{}", counts(so_far)),
    );
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", counts(&totals));
    println!(
        "{} packets delivered, {} of those sent had to arrive; links lost {} datagrams",
        totals.delivered, totals.claimed, totals.lost
    );
    println!(
        "at rest after {:.1} s at most (seed {}); at most {} inbound SAs and {} IKE SAs at a site",
        totals.rest.0.as_secs_f64(),
        totals.rest.1,
        totals.most.0,
        totals.most.1
    );
    println!(
        "{:.0} hours of virtual time in {seconds:.1} s, {:.0} schedules a second",
        totals.time.as_secs_f64() / 3600.0,
        totals.schedules as f64 / seconds
    );
    if totals.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn counts(totals: &Totals) -> String {
    format!(
        "{} schedules, {} steps, {} violations in {} schedules",
        totals.schedules,
        totals.steps,
        totals.violations(),
        totals.failed.len()
    )
}

fn report(outcome: &Outcome, options: &Options, shrink: bool) {
    for violation in &outcome.violations {
        println!("seed {}: {violation}", outcome.seed);
    }
    let mut keep = options.keep.clone();
    if shrink {
        let kept = sim::shrink(outcome, options);
        for (number, step) in &kept {
            println!("    {number}: {step}");
        }
        keep = Some(kept.into_iter().map(|(number, _)| number).collect());
    }
    let keep = keep.map_or_else(String::new, |numbers| {
        let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
        format!(" --keep {}", numbers.join(","))
    });
    println!(
        "replay: cargo run --release -p sim -- --schedules 1 --seed {}{keep} --trace",
        outcome.seed
    );
}
