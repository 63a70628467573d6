//! The real daemons in every shipped scenario, and what is left of a lab however it ends.
//!
//! Needs root, and the binaries `vgw` and `cgw-agent`: in the folder that `VGW_BIN_DIR` names, or
//! beside `vgw-lab`. Where they are missing these tests fail.

#![allow(clippy::unwrap_used)] // A panic here is the report.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/lab").join(format!("{name}.toml"))
}

fn binaries() -> PathBuf {
    let beside = || Path::new(env!("CARGO_BIN_EXE_vgw-lab")).parent().unwrap().to_path_buf();
    let folder = std::env::var_os("VGW_BIN_DIR").map_or_else(beside, PathBuf::from);
    for binary in ["vgw", "cgw-agent"] {
        let path = folder.join(binary);
        assert!(
            path.is_file(),
            "{} is missing: `cargo build -p vgw -p cgw-agent` first",
            path.display()
        );
    }
    folder
}

fn up(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vgw-lab"));
    command.arg("up").arg(scenario(name)).arg("--bin-dir").arg(binaries());
    command
}

/// Runs a scenario to its verdict and returns its report.
fn passes(name: &str) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let output = up(name).arg("--json").arg(&json).output().unwrap();
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["verdict"], "PASS", "{text}");
    report
}

/// The names of the steps that added rows.
fn steps(report: &serde_json::Value) -> BTreeSet<String> {
    report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["step"].as_str().unwrap().to_owned())
        .collect()
}

macro_rules! scenarios {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                let all = ["connect", "failover", "integrity", "mtu", "ping", "stop", "throughput", "wan"];
                assert_eq!(steps(&passes($name)), all.map(str::to_owned).into());
            }
        )*

        #[test]
        fn no_shipped_scenario_is_left_out() {
            let tested: BTreeSet<String> = [$($name.to_owned()),*].into();
            let files = std::fs::read_dir(scenario("x").parent().unwrap()).unwrap();
            let shipped = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
            assert_eq!(tested, shipped.collect());
        }
    };
}

scenarios! {
    a_branch_behind_a_source_nat: "nat",
    a_branch_with_a_public_address: "nonat",
    ports_forwarded_to_the_vgw: "vgw-nat",
    ipv6_outside: "ipv6-outside",
    ipv4_and_ipv6_inside: "dual-stack",
    mtu_1400_outside: "mtu1400",
    a_line_that_loses_and_reorders: "lossy",
    chacha20_poly1305: "chacha",
    aes_cbc_with_hmac: "cbc",
    two_branches_on_one_vgw: "two-sites",
    an_ipsec_and_a_wireguard_branch_that_reach_each_other: "hub",
}

/// A lab that runs in the background, and what it has built.
struct Running {
    lab: Child,
    children: Vec<i32>,
    namespaces: BTreeSet<PathBuf>,
}

/// Processes by their parent.
fn children_of(parent: u32) -> Vec<i32> {
    let numbers = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// A line of a process's status.
fn field(pid: i32, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn parent_of(pid: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Network namespaces of all processes and threads but this one's own.
fn namespaces_of(pids: impl IntoIterator<Item = i32>) -> BTreeSet<PathBuf> {
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let tasks = pids
        .into_iter()
        .filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok())
        .flatten();
    let links = tasks.filter_map(|task| std::fs::read_link(task.ok()?.path().join("ns/net")).ok());
    links.filter(|namespace| *namespace != own).collect()
}

/// Starts a lab and waits until it says something.
fn start(command: &mut Command, until: &str, on_stderr: bool) -> Running {
    let mut lab = command
        .stdout(Stdio::piped())
        .stderr(if on_stderr { Stdio::piped() } else { Stdio::inherit() })
        .spawn()
        .unwrap();
    let pipe: Box<dyn Read + Send> = if on_stderr {
        Box::new(lab.stderr.take().unwrap())
    } else {
        Box::new(lab.stdout.take().unwrap())
    };
    let mut lines = BufReader::new(pipe).lines().map_while(Result::ok);
    let said = lines.by_ref().any(|line| line.contains(until));
    assert!(said, "it never said `{until}`");
    // Somebody has to read the rest.
    std::thread::spawn(move || lines.for_each(drop));
    let pid = lab.id();
    let children = children_of(pid);
    let namespaces = namespaces_of(children.iter().copied().chain([pid as i32]));
    assert!(namespaces.len() >= 6, "{} namespaces", namespaces.len());
    Running { lab, children, namespaces }
}

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.lab.id() as i32), signal).unwrap();
    }

    /// Waits for its end, and then for the end of everything that it built.
    fn leaves_nothing(mut self) -> (Option<i32>, String) {
        let status = self.lab.wait().unwrap();
        let mut text = String::new();
        if let Some(mut pipe) = self.lab.stdout.take() {
            pipe.read_to_string(&mut text).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let all = std::fs::read_dir("/proc")
                .unwrap()
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            let processes: Vec<i32> = self
                .children
                .iter()
                .copied()
                .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
                .collect();
            let namespaces: Vec<PathBuf> =
                namespaces_of(all).intersection(&self.namespaces).cloned().collect();
            if processes.is_empty() && namespaces.is_empty() {
                return (status.code(), text);
            }
            assert!(
                Instant::now() < deadline,
                "left behind: processes {processes:?}, namespaces {namespaces:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_lab_that_stays_up_has_daemons_with_two_capabilities_and_ends_with_ctrl_c() {
    let lab = start(up("nat").arg("--keep"), "Stop with ctrl-c", false);
    for name in ["vgw", "cgw-agent"] {
        let has_name = |pid: &&i32| field(**pid, "Name").as_deref() == Some(name);
        let pid = *lab.children.iter().find(has_name).unwrap_or_else(|| panic!("no {name} runs"));
        // CAP_NET_ADMIN is number 12, CAP_NET_BIND_SERVICE number 10.
        let capabilities = u64::from_str_radix(&field(pid, "CapEff").unwrap(), 16).unwrap();
        assert_eq!(capabilities, 1 << 12 | 1 << 10, "{name}");
    }
    lab.signal(Signal::SIGINT);
    let (code, _) = lab.leaves_nothing();
    assert_eq!(code, Some(0));
}

#[test]
fn a_lab_that_is_interrupted_in_the_middle_removes_everything_and_fails() {
    let lab = start(&mut up("nat"), "ping branch-desk", true);
    lab.signal(Signal::SIGTERM);
    let (code, text) = lab.leaves_nothing();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("FAIL: interrupted"), "{text}");
}

#[test]
fn a_lab_that_is_killed_leaves_nothing_either() {
    let lab = start(up("nat").arg("--keep"), "Stop with ctrl-c", false);
    lab.signal(Signal::SIGKILL);
    assert_eq!(lab.leaves_nothing().0, None);
}
