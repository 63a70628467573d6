//! What `vgw-lab` says before anything is built.

#![allow(clippy::unwrap_used)] // A panic here is the report.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vgw-lab")).args(arguments).output().unwrap()
}

fn default_scenario() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/lab/nat.toml")
}

#[test]
fn a_good_scenario_is_described_and_its_configuration_shown_without_keys() {
    let output = lab(&["check", "--show", default_scenario().to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text.contains("two tunnels to a VPC") && text.contains("# /run/lab/cgw-agent.toml"),
        "{text}"
    );
    assert!(
        text.contains("pre_shared_key_file = \"psk-1-2\"") && !text.contains("pre_shared_key ="),
        "{text}"
    );
}

#[test]
fn a_bad_scenario_is_refused_with_status_2_and_where_it_is_bad() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, "description = \"x\"\nseed = \"y\"\n").unwrap();
    for command in ["check", "up"] {
        let output = lab(&[command, path.to_str().unwrap()]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_eq!(
            text,
            format!(
                "vgw-lab: {}:2: `seed`: invalid type: string \"y\", expected u64\n",
                path.display()
            )
        );
    }
}

#[test]
fn missing_daemons_are_a_failure_that_says_how_to_build_them() {
    let folder = tempfile::tempdir().unwrap();
    let output = lab(&[
        "up",
        default_scenario().to_str().unwrap(),
        "--bin-dir",
        folder.path().to_str().unwrap(),
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("FAIL: ") && text.contains("cargo build --release -p vgw -p cgw-agent"),
        "{text}"
    );
}
