//! Programs that run in a host: to their end, or as a daemon whose lines are kept.
//!
//! Each child runs under `setpriv --pdeathsig KILL`, so that the kernel ends it with the thread
//! that started it, also when the lab itself is killed. Each child is a process group of its own:
//! ctrl-c reaches the lab alone, and the lab stops its children in order.

use crate::error::{LabError, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How many lines of a daemon are kept.
const KEPT_LINES: usize = 4000;

/// How long a program may take that runs to its end, unless it says otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_secs(20);

/// A program to run, with its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    stdin: Option<String>,
    limit: Duration,
}

impl Program {
    /// A program by name (looked up in `PATH` and the folders of system programs) or by path.
    pub fn new(program: impl Into<PathBuf>) -> Program {
        Program {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            stdin: None,
            limit: DEFAULT_LIMIT,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Program {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Program {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Program {
        self.envs.push((key.into(), value.into()));
        self
    }

    /// Text for its standard input, which is empty otherwise.
    pub fn stdin(mut self, text: impl Into<String>) -> Program {
        self.stdin = Some(text.into());
        self
    }

    /// How long it may run when it is run to its end.
    pub fn limit(mut self, limit: Duration) -> Program {
        self.limit = limit;
        self
    }

    /// The command line, for messages.
    pub fn line(&self) -> String {
        let args = self.args.iter().map(|arg| format!(" {}", arg.to_string_lossy()));
        std::iter::once(self.program.display().to_string()).chain(args).collect()
    }

    fn start(&self, host: &str) -> Result<Child> {
        let mut command = Command::new(find_program(Path::new("setpriv"))?);
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(find_program(&self.program)?)
            .args(&self.args);
        command.envs(self.envs.iter().map(|(key, value)| (key, value)));
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child =
            command.spawn().map_err(LabError::io(format!("{host}: starting `{}`", self.line())))?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), &self.stdin) {
            // A program that does not read all of its input says so by its exit status.
            let _ = pipe.write_all(text.as_bytes());
        }
        Ok(child)
    }

    /// Runs it to its end in the namespaces of the calling thread.
    pub(crate) fn output(self, host: &str) -> Result<Output> {
        let mut child = self.start(host)?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let deadline = Instant::now() + self.limit;
        let status = loop {
            let ended =
                child.try_wait().map_err(LabError::io(format!("waiting for `{}`", self.line())))?;
            if let Some(status) = ended {
                break status;
            }
            if Instant::now() >= deadline {
                // It is our child and not reaped yet, so this cannot reach another process.
                let _ = child.kill();
                let _ = child.wait();
                return Err(LabError::Timeout {
                    what: format!("{host}: `{}`", self.line()),
                    limit: self.limit,
                });
            }
            thread::sleep(Duration::from_millis(1));
        };
        let text = |thread: JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
        };
        Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
    }

    /// Starts it in the namespaces of the calling thread, which must outlive it.
    pub(crate) fn spawn(self, host: &str) -> Result<Process> {
        let mut child = self.start(host)?;
        await_exec(&mut child, &find_program(&self.program)?)?;
        let log = Log::default();
        let readers = vec![log.follow(child.stdout.take()), log.follow(child.stderr.take())];
        Ok(Process { host: host.into(), line: self.line(), child, log, readers, status: None })
    }
}

/// What a program left that ran to its end.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with status 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// What to show when it failed: standard error, or else standard output.
    pub fn text_of_failure(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        text.trim().to_owned()
    }
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    host: String,
    line: String,
    child: Child,
    log: Log,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its lines so far, standard output and standard error in the order in which they were read.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its exit status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Sends it a signal. Nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid()).unwrap_or(i32::MAX);
        kill(Pid::from_raw(pid), signal)
            .map_err(LabError::errno(format!("{}: {signal} to `{}`", self.host, self.line)))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                for reader in self.readers.drain(..) {
                    // A reader only ends early when it panicked, and then its lines are lost.
                    let _ = reader.join();
                }
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(LabError::Timeout {
                    what: format!("{}: the end of `{}`", self.host, self.line),
                    limit,
                });
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// SIGTERM, and SIGKILL when it has not ended within the limit (which is then an error).
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let ended = self.wait(limit);
        if ended.is_err() {
            self.kill();
        }
        ended
    }

    /// SIGKILL, and waits.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            // It is our child and not reaped yet, so this cannot reach another process.
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// Processor time used so far, user and system.
    pub fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(&path).map_err(LabError::io(path))?;
        // The second field is a name in parentheses that may hold spaces; fields 14 and 15 are
        // user and system time in clock ticks (proc(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: u64 =
            fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).max(1);
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a daemon, shared with the threads that read them.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    /// All lines that are kept.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The last `count` lines.
    pub fn last(&self, count: usize) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }

    /// Whether a line holds this text.
    pub fn contains(&self, text: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|line| line.contains(text))
    }

    fn follow<R: Read + Send + 'static>(&self, pipe: Option<R>) -> JoinHandle<()> {
        let lines = self.0.clone();
        thread::spawn(move || {
            let Some(pipe) = pipe else { return };
            for line in BufReader::new(pipe).split(b'\n').map_while(|line| line.ok()) {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == KEPT_LINES {
                    lines.pop_front();
                }
                lines.push_back(String::from_utf8_lossy(&line).into_owned());
            }
        })
    }
}

/// Waits until `setpriv` has become the program: from then on it ends with the thread that started
/// it. A thread that ended earlier would leave it running.
fn await_exec(child: &mut Child, program: &Path) -> Result<()> {
    let helper =
        find_program(Path::new("setpriv"))?.canonicalize().map_err(LabError::io("setpriv"))?;
    let link = format!("/proc/{}/exe", child.id());
    let deadline = Instant::now() + Duration::from_secs(2);
    // Between fork and exec it is still this program, unless this program is what is started.
    let expected = program.canonicalize().map_err(LabError::io(program.display().to_string()))?;
    let this = std::env::current_exe().ok().filter(|this| *this != expected);
    while let Ok(program) = std::fs::read_link(&link) {
        if (program != helper && Some(&program) != this.as_ref()) || Instant::now() > deadline {
            break;
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// The Debian package of each program that the lab and its tests call.
const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("setpriv", "util-linux"),
    ("nsenter", "util-linux"),
    ("swanctl", "strongswan-swanctl"),
    ("charon", "strongswan-charon"),
    ("wireguard-go", "wireguard-go"),
    ("wg", "wireguard-tools"),
    ("ethtool", "ethtool"),
    ("openvpn", "openvpn"),
    ("openssl", "openssl"),
];

/// Finds a program by name, or says which Debian package brings it.
pub fn find_program(program: &Path) -> Result<PathBuf> {
    let name = program.display().to_string();
    if name.contains('/') {
        if program.is_file() {
            return Ok(program.into());
        }
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let system =
            ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/lib/ipsec"].map(PathBuf::from);
        let found = std::env::split_paths(&path)
            .chain(system)
            .map(|folder| folder.join(program))
            .find(|f| f.is_file());
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let package = PACKAGES
        .iter()
        .find(|(known, _)| Some(*known) == program.file_name().and_then(|n| n.to_str()));
    let hint = match package {
        Some((_, package)) => {
            format!("install the Debian package {package} (`apt-get install {package}`)")
        }
        None => "it was not found in PATH".into(),
    };
    Err(LabError::MissingProgram { program: name, hint })
}
