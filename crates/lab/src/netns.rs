//! A host: a network, mount and UTS namespace, held by one thread that runs what is handed to it.
//!
//! The namespaces have no name in the file system. They end with the thread, so a lab that is
//! killed leaves nothing behind: the kernel removes the namespaces, their interfaces and the
//! private `/run`, and every process that was started in them ([`crate::process`]).

use crate::error::{LabError, Result};
use crate::process::{Output, Process, Program};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

type Task = Box<dyn FnOnce() + Send>;

/// The flags of a socket that takes connections, in `/proc/net/unix`.
const ACCEPTING: &str = "00010000";

/// A host of the lab. Dropping it ends its processes and removes its namespaces.
#[derive(Debug)]
pub struct Host {
    name: String,
    tid: i32,
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// A host with a loopback interface that is up, a private `/run` and nothing else.
    pub fn new(name: &str) -> Result<Host> {
        let (tasks, inbox) = mpsc::channel::<Task>();
        let (ready, started) = mpsc::channel();
        let hostname = name.to_owned();
        let thread = thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || {
                let entered = enter_new_namespaces(&hostname);
                let failed = entered.is_err();
                // The other end waits for exactly this message.
                let _ = ready.send(entered);
                if !failed {
                    inbox.iter().for_each(|task| task());
                }
            })
            .map_err(LabError::io(format!("a thread for the host {name}")))?;
        let tid = started
            .recv()
            .map_err(|_| LabError::Unexpected(format!("the host {name} did not start")))??;
        let host = Host { name: name.into(), tid, tasks: Some(tasks), thread: Some(thread) };
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the thread that holds the namespaces, which `nsenter --target` takes.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// A path that names the network namespace, for programs that take one.
    pub fn netns_path(&self) -> PathBuf {
        format!("/proc/{}/task/{}/ns/net", std::process::id(), self.tid).into()
    }

    /// Runs a short closure on the host's own thread and returns what it returns. Whatever socket
    /// it opens stays in this host's namespace, wherever it is used later.
    pub fn run<T: Send + 'static>(&self, closure: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = mpsc::channel();
        let task: Task = Box::new(move || {
            // The receiver only goes away when the caller panicked.
            let _ = reply.send(closure());
        });
        let sent = self.tasks.as_ref().is_some_and(|tasks| tasks.send(task).is_ok());
        assert!(sent, "the thread of host {} is gone", self.name);
        answer.recv().unwrap_or_else(|_| panic!("a closure panicked in host {}", self.name))
    }

    /// Starts a thread inside the host, for what takes long.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        closure: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let builder = thread::Builder::new().name(name.chars().take(15).collect());
        self.run(move || builder.spawn(closure))
            .map_err(LabError::io(format!("a thread in {}", self.name)))
    }

    /// Runs a program in the host to its end. An exit status other than 0 is not an error here.
    pub fn output(&self, program: Program) -> Result<Output> {
        let host = self.name.clone();
        let thread = self.thread("output", move || program.output(&host))?;
        thread.join().map_err(|_| {
            LabError::Unexpected(format!("running a program in {} panicked", self.name))
        })?
    }

    /// Runs a program in the host to its end; an exit status other than 0 is an error.
    pub fn command(&self, program: Program) -> Result<Output> {
        let line = program.line();
        let output = self.output(program)?;
        if output.success() {
            return Ok(output);
        }
        Err(LabError::Command {
            host: self.name.clone(),
            command: line,
            status: output.status.to_string(),
            stderr: output.text_of_failure(),
        })
    }

    /// Starts a program that stays; it is killed when the returned value or the host is dropped.
    pub fn spawn(&self, program: Program) -> Result<Process> {
        let host = self.name.clone();
        self.run(move || program.spawn(&host))
    }

    /// Runs commands of `ip` (iproute2), one in each line, without the leading `ip`.
    pub fn ip(&self, commands: &str) -> Result<()> {
        let text: String = commands.lines().map(|line| format!("{}\n", line.trim())).collect();
        let output = self.output(Program::new("ip").args(["-batch", "-"]).stdin(text.clone()))?;
        if output.success() {
            return Ok(());
        }
        Err(LabError::Command {
            host: self.name.clone(),
            command: failed_line(&text, &output.stderr),
            status: output.status.to_string(),
            stderr: output.text_of_failure(),
        })
    }

    /// Loads a ruleset of `nft` (nftables).
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.command(Program::new("nft").args(["-f", "-"]).stdin(ruleset)).map(drop)
    }

    /// Sets a value of `/proc/sys`, named as `sysctl` names it with slashes: `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        let (text, what) =
            (value.to_owned(), format!("{}: writing {value} to {}", self.name, path.display()));
        self.run(move || fs::write(path, text)).map_err(LabError::io(what))
    }

    /// Whether a program of this host takes connections at a Unix socket. Asking is not seen by it, and
    /// what is bound already but does not listen yet is left alone: `wg` takes such a socket for one that
    /// was left behind, and removes it. `socket` is its path below `/run`.
    pub fn listens(&self, socket: &str) -> Result<bool> {
        // The host's thread has the host's network namespace.
        let sockets = self.read("/proc/thread-self/net/unix")?;
        Ok(sockets.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // `/var/run` is another name of `/run`.
            let path = words.get(7).map(|path| path.strip_prefix("/var").unwrap_or(path));
            words.get(3) == Some(&ACCEPTING) && path == Some(socket)
        }))
    }

    /// Writes a file as this host sees it; below `/run` it is private to the host and gone with it.
    pub fn write(&self, path: impl Into<PathBuf>, text: &str, mode: u32) -> Result<()> {
        let (path, text) = (path.into(), text.to_owned());
        let what = format!("{}: writing {}", self.name, path.display());
        self.run(move || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(mode)
                .open(&path)?;
            file.write_all(text.as_bytes())
        })
        .map_err(LabError::io(what))
    }

    /// Reads a file as this host sees it.
    pub fn read(&self, path: impl Into<PathBuf>) -> Result<String> {
        let path = path.into();
        let what = format!("{}: reading {}", self.name, path.display());
        self.run(move || fs::read_to_string(path)).map_err(LabError::io(what))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) =
            self.thread.take().filter(|thread| thread.thread().id() != thread::current().id())
        {
            // A panic inside was already reported by `run`.
            let _ = thread.join();
        }
    }
}

/// `ip -batch` names the line that failed as `Command failed -:3`.
fn failed_line(script: &str, stderr: &str) -> String {
    let number = stderr
        .rsplit("Command failed -:")
        .next()
        .and_then(|tail| tail.trim().parse::<usize>().ok());
    let line = number.and_then(|number| script.lines().nth(number.saturating_sub(1)));
    format!("ip {}", line.unwrap_or("-batch -"))
}

/// Moves the calling thread into namespaces of its own and returns its id.
fn enter_new_namespaces(hostname: &str) -> Result<i32> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).map_err(|errno| {
        LabError::Privilege(format!(
            "making a network namespace was refused ({errno}): run as root, or call privilege::acquire first"
        ))
    })?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(LabError::errno("making the mounts of a host private"))?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0755"),
    )
    .map_err(LabError::errno("mounting a private /run"))?;
    // A sysfs of this namespace lists its own interfaces. Some containers forbid the mount, and
    // nothing in the lab depends on it.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), flags, none);
    // Only the prompt of somebody who enters the host shows it.
    let _ = fs::write("/proc/sys/kernel/hostname", hostname);
    Ok(gettid().as_raw())
}
