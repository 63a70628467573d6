//! The subcommands. Each does its work through `runtime` and says what went wrong in one line.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use control::config::{self, Role};
use control::{Request, TunnelVerb};
use runtime::RunError;
use runtime::client::{Response, ask};

use crate::wireguard::{self, WireGuardCommand};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Bring the tunnels up and carry their traffic, until SIGTERM or SIGINT
    Run(File),
    /// Say what is right or wrong with a configuration, without starting anything
    Check(File),
    /// Print how each tunnel stands
    Status {
        #[command(flatten)]
        file: File,
        /// Print the whole document as JSON
        #[arg(long)]
        json: bool,
        /// Print it again every second
        #[arg(long)]
        watch: bool,
    },
    /// Read the configuration again; tunnels that did not change are not touched
    Reload(File),
    #[command(flatten)]
    WireGuard(WireGuardCommand),
    /// Take one tunnel down or up, or rekey it
    Tunnel {
        /// The connection's id
        connection: String,
        /// Which of its two tunnels; 1 for a WireGuard connection
        #[arg(value_parser = clap::value_parser!(u8).range(1..=2))]
        number: u8,
        /// What to do
        verb: Verb,
        #[command(flatten)]
        file: File,
    },
}

#[derive(Args)]
pub(crate) struct File {
    /// The configuration
    #[arg(long = "config", value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Verb {
    /// Delete its SAs, and keep it down
    Down,
    /// Let it come up again
    Up,
    /// Rekey its Child SA
    RekeyChild,
    /// Rekey its IKE SA
    RekeyIke,
}

impl From<Verb> for TunnelVerb {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Down => Self::Down,
            Verb::Up => Self::Up,
            Verb::RekeyChild => Self::RekeyChild,
            Verb::RekeyIke => Self::RekeyIke,
        }
    }
}

/// Runs one subcommand. The exit code is 0, 1 (failed at run time) or 2 (configuration refused).
pub(crate) fn execute(role: Role, command: Command) -> ExitCode {
    let Err(error) = dispatch(role, command) else { return ExitCode::SUCCESS };
    if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        // Whoever read our output has seen enough.
        return ExitCode::SUCCESS;
    }
    eprintln!("{}: {error:#}", role.name());
    ExitCode::from(error.downcast_ref::<RunError>().map_or(1, RunError::exit_code))
}

fn dispatch(role: Role, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(file) => Ok(runtime::run(role, &file.config)?),
        Command::Check(file) => check(role, &file.config),
        Command::Status { file, json, watch } => status(role, &file.config, json, watch),
        Command::WireGuard(command) => wireguard::dispatch(role, command),
        Command::Reload(file) => done(role, &file.config, &Request::Reload),
        Command::Tunnel { connection, number, verb, file } => {
            let request = Request::Tunnel { connection, number, verb: verb.into() };
            done(role, &file.config, &request)
        }
    }
}

fn check(role: Role, path: &Path) -> anyhow::Result<()> {
    let (config, _) = runtime::load(role, path)?;
    let connections = config.connections.len() + config.wireguard.len();
    let tunnels = config.connections.len() * 2 + config.wireguard.len();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{}: fine: {} `{}`, {connections} connections, {tunnels} tunnels, all keys readable by their owner only",
        path.display(),
        role.name(),
        config.id,
    )?;
    for tunnel in config.connections.iter().flat_map(|c| &c.tunnels) {
        let any = || "any address".to_owned();
        let peer = tunnel.remote.map_or_else(any, |a| a.to_string());
        let remote_id =
            tunnel.remote_id.as_ref().map_or_else(|| "anyone".into(), ToString::to_string);
        writeln!(
            out,
            "{}: {} with {remote_id} at {peer}, inside {} and {}",
            tunnel.name, tunnel.local_id, tunnel.inside_v4.0, tunnel.inside_v4.1
        )?;
    }
    for connection in &config.wireguard {
        let peer = connection.endpoint.map_or_else(|| "any address".into(), |a| a.to_string());
        let key = connection.peer_public_key;
        writeln!(out, "{}: WireGuard with {key} at {peer}", connection.id)?;
    }
    Ok(())
}

fn status(role: Role, path: &Path, json: bool, watch: bool) -> anyhow::Result<()> {
    let socket = socket(role, path)?;
    loop {
        let Response::Status(status) = ask(&socket, &Request::Status)? else {
            return Err(anyhow!("the daemon did not answer with a status document"));
        };
        let mut out = io::stdout().lock();
        if watch && !json && out.is_terminal() {
            // Cursor home, and clear what stands below it.
            write!(out, "\x1b[H\x1b[2J")?;
        }
        if json {
            let text = if watch {
                serde_json::to_string(&status)?
            } else {
                serde_json::to_string_pretty(&status)?
            };
            writeln!(out, "{text}")?;
        } else {
            write!(out, "{}", status.table())?;
        }
        out.flush()?;
        if !watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn done(role: Role, path: &Path, request: &Request) -> anyhow::Result<()> {
    ask(&socket(role, path)?, request)?;
    Ok(())
}

/// The daemon's control socket. The file need not be right otherwise: it is often being mended, and
/// whoever may use the socket need not be able to read the keys.
fn socket(role: Role, path: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        RunError::Config(format!("{}: cannot be read: {error}", path.display()))
    })?;
    Ok(config::control_socket(role, &text).into())
}
