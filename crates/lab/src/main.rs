//! `vgw-lab`: sites, NATs and lines in network namespaces, with the real daemons in them.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use lab::bench::{arguments, null};
use lab::layout::Layout;
use lab::scenario::Scenario;
use lab::stop::Stop;
use lab::up::{Options, up};
use lab::{LabError, privilege, settings};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Exit codes: 0 passed, 1 failed, 2 the scenario or the command line was refused.
#[derive(Parser)]
#[command(
    name = "vgw-lab",
    version,
    about = "Sites, NATs and lines in network namespaces, with vgw and cgw-agent in them"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a scenario, run its tests, print a table and a verdict, remove everything
    Up {
        /// The scenario, such as config/lab/nat.toml
        scenario: PathBuf,
        /// Stay up after the tests, until ctrl-c
        #[arg(long)]
        keep: bool,
        /// Write the report as JSON to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Where the binaries vgw and cgw-agent are [default: beside this one]
        #[arg(long, value_name = "FOLDER")]
        bin_dir: Option<PathBuf>,
        /// Fail when it takes longer, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        timeout: u64,
    },
    /// List the scenarios of a folder and what they are about
    List {
        /// The folder
        #[arg(default_value = "config/lab")]
        folder: PathBuf,
    },
    /// Measure vgw and cgw-agent beside plain routing, their bare I/O and other programs
    Bench(Box<arguments::Arguments>),
    /// One end of the null relay of `bench`
    #[command(hide = true)]
    NullRelay {
        /// The TUN device to make
        device: String,
        /// Its address and port
        local: SocketAddr,
        /// Those of the other end
        remote: SocketAddr,
    },
    /// Check a scenario without building it
    Check {
        /// The scenario
        scenario: PathBuf,
        /// Also print the configuration files that the daemons would get
        #[arg(long)]
        show: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vgw-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { scenario, show } => {
            let Some(parsed) = load(&scenario) else { return Ok(ExitCode::from(2)) };
            println!("{}: {}", scenario.display(), parsed.description);
            if show {
                print_settings(&parsed);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::List { folder } => list(&folder),
        Command::Bench(arguments) => {
            privilege::acquire()?;
            let worked = arguments.run(own_folder()?, &Stop::on_signals()?)?;
            Ok(if worked { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::NullRelay { device, local, remote } => {
            null::relay(&device, local, remote)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Up { scenario, keep, json, bin_dir, timeout } => {
            let Some(parsed) = load(&scenario) else { return Ok(ExitCode::from(2)) };
            // Before any thread starts: the kernel moves only single threads into a user namespace.
            let privilege = privilege::acquire()?;
            let stop = Stop::on_signals()?;
            let options = Options {
                name: scenario.display().to_string(),
                binaries: bin_dir.map_or_else(own_folder, Ok)?,
                keep,
                limit: Duration::from_secs(timeout),
                privilege,
            };
            let report = up(&parsed, &options, &stop);
            if let Some(path) = json {
                let text = serde_json::to_string_pretty(&report)? + "\n";
                std::fs::write(&path, text)
                    .map_err(LabError::io(format!("writing {}", path.display())))?;
            }
            if !report.shown {
                println!("{report}");
            }
            Ok(ExitCode::from(report.exit_code()))
        }
    }
}

/// None when it was refused, which was said.
fn load(path: &Path) -> Option<Scenario> {
    Scenario::load(path).inspect_err(|error| eprintln!("vgw-lab: {error}")).ok()
}

fn list(folder: &Path) -> anyhow::Result<ExitCode> {
    let entries = std::fs::read_dir(folder).map_err(LabError::io(folder.display().to_string()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    let scenarios: Vec<_> = paths.iter().map(|path| (path, load(path))).collect();
    for (path, scenario) in
        scenarios.iter().filter_map(|(path, scenario)| Some((path, scenario.as_ref()?)))
    {
        println!("{:<32} {}", path.display(), scenario.description);
    }
    let refused = scenarios.iter().any(|(_, scenario)| scenario.is_none());
    Ok(if refused { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

fn own_folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().map(Path::to_path_buf).unwrap_or_default())
}

fn print_settings(scenario: &Scenario) {
    let layout = Layout::new(scenario);
    let agents = (0..scenario.sites.len()).map(|index| settings::agent(scenario, &layout, index));
    for file in std::iter::once(settings::vgw(scenario, &layout)).chain(agents).flatten() {
        if !file.secret {
            println!("\n# {}\n{}", file.path, file.text);
        }
    }
}
