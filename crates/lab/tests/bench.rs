//! `vgw-lab bench` as somebody who wants figures runs it, only shorter.
//!
//! Needs root, and the binaries `vgw` and `cgw-agent`: in the folder that `VGW_BIN_DIR` names, or
//! beside `vgw-lab`. Where they are missing these tests fail.

#![allow(clippy::unwrap_used)] // A panic here is the report.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

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

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vgw-lab"));
    command.arg("bench").args(arguments).arg("--bin-dir").arg(binaries());
    command
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_quick_run_has_plausible_figures_in_the_shape_that_is_promised() {
    let folder = tempfile::tempdir().unwrap();
    let (json, plot) = (folder.path().join("bench.json"), folder.path().join("bench.svg"));
    let output = bench(&["--workload", "tcp1", "--contender", "plain,null,vgw-aes256gcm"])
        .args(["--rounds", "1", "--seconds", "1", "--json"])
        .arg(&json)
        .arg("--plot")
        .arg(&plot)
        .output()
        .unwrap();
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let mut medians = BTreeMap::new();
    for row in &rows {
        let row = row.as_object().unwrap();
        let mut keys: Vec<&str> = row.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let promised = ["contender", "cpu_s_per_gb", "max", "median", "min", "unit", "workload"];
        assert_eq!(keys, promised);
        assert_eq!(
            (row["workload"].as_str(), row["unit"].as_str()),
            (Some("tcp1"), Some("Gbit/s"))
        );
        let number = |key: &str| row[key].as_f64().unwrap();
        // Even a busy machine carries a hundredth of a Gbit/s, and none carries a thousand.
        assert!((0.01..1000.0).contains(&number("median")), "{row:?}");
        assert_eq!((number("min"), number("max")), (number("median"), number("median")));
        assert!((0.0..1000.0).contains(&number("cpu_s_per_gb")), "{row:?}");
        let contender = row["contender"].as_str().unwrap().to_owned();
        if contender != "plain" {
            assert!(number("cpu_s_per_gb") > 0.0, "{contender} works for nothing: {row:?}");
        }
        medians.insert(contender, number("median"));
    }
    let names: Vec<&str> = medians.keys().map(String::as_str).collect();
    assert_eq!(names, ["null", "plain", "vgw-aes256gcm"]);
    assert!(text.contains("tcp1, Gbit/s, veth as it is") && text.contains("vgw-aes256gcm is"));
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg") && names.iter().all(|name| svg.contains(name)), "{svg}");
}

#[test]
fn pings_and_datagrams_go_through_the_tunnel_over_a_wire_too() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("bench.json");
    let contenders = "null,vgw-chacha20poly1305,vgw-wireguard";
    let output = bench(&["--workload", "udp64,imix,ping-idle", "--contender", contenders])
        .args(["--rounds", "1", "--seconds", "0.3", "--link", "wire", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(rows.len(), 9);
    for row in &rows {
        assert_eq!(row["link"], "wire");
        let median = row["median"].as_f64().unwrap();
        if row["workload"] == "ping-idle" {
            assert!(median > 0.0 && row["p99_ms"].as_f64().unwrap() >= median, "{row}");
            assert_eq!((&row["unit"], row["cpu_s_per_gb"].is_null()), (&"ms".into(), true));
        } else {
            assert!((100.0..1e8).contains(&median), "{row}");
            assert!((0.0..=1.0).contains(&row["loss"].as_f64().unwrap()), "{row}");
            assert_eq!(row["unit"], "packets/s");
        }
    }
}

#[test]
fn a_peer_that_is_not_there_is_absent_and_has_no_figures() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("bench.json");
    let output = bench(&["--workload", "ping-idle", "--contender", "plain,gotatun"])
        .args(["--rounds", "1", "--seconds", "0.1", "--json"])
        .arg(&json)
        // Nothing is found there; the programs of the system are found without PATH.
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("absent: gotatun (cargo install gotatun-cli"), "{text}");
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
}

#[test]
fn names_that_do_not_exist_are_refused_with_those_that_do() {
    for (option, value, hint) in [
        ("--workload", "tcp2", "tcp64"),
        ("--contender", "kernel", "vgw-aes256gcm"),
        ("--peer", "null=/bin/true", "null is no peer"),
        ("--peer", "gotatun=/nowhere/at-all", "/nowhere/at-all is not a file"),
        ("--seconds", "0", "from 0.1 to 600"),
    ] {
        let output = bench(&[option, value]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{option} {value}");
        assert!(text_of(&output).contains(hint), "{}", text_of(&output));
    }
}

#[test]
fn an_interrupted_run_ends_soon_and_leaves_no_process() {
    let mut lab = bench(&["--workload", "tcp1", "--contender", "null", "--seconds", "60"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(lab.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("tcp1, round 1 of 3: null")));
    let children: Vec<PathBuf> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| parent_of(path) == Some(lab.id()))
        .collect();
    assert_eq!(children.len(), 2, "a relay on each gateway");
    let start = Instant::now();
    kill(Pid::from_raw(lab.id() as i32), Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(lab.wait().unwrap().code(), Some(1), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "it did not wait for the measurement");
    assert!(children.iter().all(|path| parent_of(path) != Some(lab.id())), "{children:?}");
    assert!(!children.iter().any(|path| path.exists()), "{children:?}");
}

fn parent_of(process: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}
