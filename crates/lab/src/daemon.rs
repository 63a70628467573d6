//! The two real daemons, run in their hosts and asked by their own command lines.

use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::process::{Process, Program};
use crate::settings::{FOLDER, File};
use crate::status::{Status, Tunnel};
use crate::stop::Stop;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a daemon may take to stop before it is killed.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What the daemons are run with: the capabilities that they ask their users for, and no other, so
/// that every lab shows that these are enough.
const CAPABILITIES: &str = "--bounding-set=-all,+net_admin,+net_bind_service";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The cloud side.
    Vgw,
    /// The customer's side.
    Agent,
}

impl Kind {
    /// The name of its binary, and of its configuration file without the ending.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Vgw => "vgw",
            Kind::Agent => "cgw-agent",
        }
    }
}

/// A daemon in its host.
#[derive(Debug)]
pub struct Daemon {
    host: Arc<Host>,
    binary: PathBuf,
    kind: Kind,
    process: Option<Process>,
    may_be_realtime: bool,
}

impl Daemon {
    /// Writes the files; nothing runs yet.
    pub fn new(host: &Arc<Host>, kind: Kind, folder: &Path, files: &[File]) -> Result<Daemon> {
        let binary = folder.join(kind.name());
        if !binary.is_file() {
            return Err(LabError::MissingProgram {
                program: binary.display().to_string(),
                hint: "build it with `cargo build --release -p vgw -p cgw-agent`, or name its folder with --bin-dir".into(),
            });
        }
        for file in files {
            host.write(&file.path, &file.text, if file.secret { 0o600 } else { 0o644 })?;
        }
        Ok(Daemon { host: host.clone(), binary, kind, process: None, may_be_realtime: false })
    }

    /// Runs it with CAP_SYS_NICE, too, as `low_latency` wants.
    pub fn with_realtime(mut self) -> Daemon {
        self.may_be_realtime = true;
        self
    }

    /// Where it runs.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its configuration file as its host sees it.
    pub fn config(&self) -> String {
        format!("{FOLDER}/{}.toml", self.kind.name())
    }

    /// The command line of one of its subcommands.
    pub fn line(&self, words: &[&str]) -> Program {
        Program::new(&self.binary).args(words).arg("--config").arg(self.config())
    }

    /// Checks its configuration and starts it.
    pub fn start(&mut self) -> Result<()> {
        self.host.command(self.line(&["check"]))?;
        let log = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into());
        let run = Program::new("setpriv")
            .arg(format!("{CAPABILITIES}{}", if self.may_be_realtime { ",+sys_nice" } else { "" }))
            .arg("--inh-caps=-all")
            .arg(&self.binary)
            .args(["run", "--config"])
            .arg(self.config());
        self.process = Some(self.host.spawn(run.env("RUST_LOG", log))?);
        Ok(())
    }

    /// The running process.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// The last lines of its log.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.process.as_ref().map(|process| process.log().last(count)).unwrap_or_default()
    }

    /// An error when it has ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        let (host, name) = (self.host.name().to_owned(), self.kind.name());
        match self.process.as_mut().map(Process::ended) {
            Some(None) => Ok(()),
            Some(Some(status)) => {
                Err(LabError::Unexpected(format!("{host}: {name} ended by itself ({status})")))
            }
            None => Err(LabError::Unexpected(format!("{host}: {name} was not started"))),
        }
    }

    /// Asks for its status.
    pub fn status(&self) -> Result<Status> {
        let output =
            self.host.command(self.line(&["status", "--json"]).limit(Duration::from_secs(5)))?;
        Status::parse(&output.stdout).map_err(|error| {
            LabError::Unexpected(format!("{}: status --json: {error}", self.host.name()))
        })
    }

    /// `tunnel CONNECTION NUMBER VERB`.
    pub fn tunnel(&self, connection: &str, number: usize, verb: &str) -> Result<()> {
        self.host.command(self.line(&["tunnel", connection, &number.to_string(), verb])).map(drop)
    }

    /// Asks for the status until it is as wanted. The error says what it was last.
    pub fn await_status(
        &mut self,
        what: &str,
        limit: Duration,
        stop: &Stop,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<(Status, Duration)> {
        let start = Instant::now();
        loop {
            self.check_running()?;
            let last = match self.status() {
                Ok(status) if wanted(&status) => return Ok((status, start.elapsed())),
                Ok(status) => {
                    status.tunnels.iter().map(Tunnel::line).collect::<Vec<_>>().join("; ")
                }
                // The control socket may not be there yet.
                Err(error) => error.to_string(),
            };
            if start.elapsed() > limit {
                let (host, seconds) = (self.host.name(), limit.as_secs_f32());
                return Err(LabError::Unexpected(format!(
                    "{host}: not {what} within {seconds} s: {last}"
                )));
            }
            stop.sleep(Duration::from_millis(20))?;
        }
    }

    /// A clean stop: SIGTERM and its exit status. None when it did not run.
    pub fn stop(&mut self) -> Result<Option<ExitStatus>> {
        match self.process.as_mut() {
            Some(process) => process.stop(STOP_LIMIT).map(Some),
            None => Ok(None),
        }
    }
}
