//! The dependency edges that ARCHITECTURE.md allows, checked against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every workspace package and the workspace packages that it may import. Test-only edges
/// (`[dev-dependencies]`) count too, because a test that reaches past a border hides a missing API.
const ALLOWED: &[(&str, &[&str])] = &[
    ("packet", &[]),
    ("sa", &[]),
    ("simd-aead", &["packet"]),
    ("ike", &["sa"]),
    ("dataplane", &["packet", "sa", "simd-aead"]),
    ("control", &["sa", "ike", "dataplane", "packet"]),
    ("netio", &["packet"]),
    ("runtime", &["netio", "dataplane", "control", "ike", "sa", "packet"]),
    ("lab", &["netio", "packet"]),
    ("vgw", &["runtime", "control"]),
    ("cgw-agent", &["runtime", "control"]),
    ("interop", &["lab"]),
    // It negotiates by hand, with the primitives of IKE.
    ("hostile", &["lab", "ike", "sa"]),
    ("fuzz", &["control", "dataplane", "ike", "lab", "packet", "sa", "simd-aead"]),
    ("sim", &["control", "dataplane", "ike", "packet", "sa"]),
    ("house", &[]),
];

/// Packages in which `unsafe` may stand; every other one forbids it at its root.
const UNSAFE: &[&str] = &["simd-aead", "netio"];

/// Crates that read clocks, sockets or threads, and so may not appear below a sans-IO core.
const NO_IO: &[&str] = &["packet", "sa", "ike", "dataplane", "control"];
const IO_CRATES: &[&str] = &["tokio", "nix", "libc", "socket2", "rtnetlink", "tun-tap"];

struct Package {
    edges: BTreeSet<String>,
    external: BTreeSet<String>,
    roots: Vec<String>,
}

fn workspace() -> BTreeMap<String, Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let names: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().expect("a name").to_owned();
            let all = package["dependencies"].as_array().expect("dependencies");
            let (mut edges, mut external) = (BTreeSet::new(), BTreeSet::new());
            for dependency in all {
                let to = dependency["name"].as_str().expect("a name").to_owned();
                let dev = dependency["kind"] == "dev";
                if names.contains(to.as_str()) {
                    edges.insert(to);
                } else if !dev {
                    external.insert(to);
                }
            }
            let roots = package["targets"]
                .as_array()
                .expect("targets")
                .iter()
                .filter(|t| {
                    t["kind"].as_array().is_some_and(|k| k.iter().any(|k| k == "lib" || k == "bin"))
                })
                .filter_map(|t| t["src_path"].as_str().map(str::to_owned))
                .collect();
            (name, Package { edges, external, roots })
        })
        .collect()
}

#[test]
fn every_edge_between_workspace_crates_is_one_that_the_design_allows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    for (from, package) in workspace() {
        let may = allowed.get(from.as_str()).unwrap_or_else(|| {
            panic!("{from} is new: say in tests/house which crates it may import")
        });
        for to in &package.edges {
            assert!(may.contains(to.as_str()), "{from} -> {to} is not an edge of ARCHITECTURE.md");
        }
    }
}

#[test]
fn sans_io_crates_import_nothing_that_does_io() {
    let packages = workspace();
    for name in NO_IO {
        for io in IO_CRATES {
            assert!(!packages[*name].external.contains(*io), "{name} is sans-IO and imports {io}");
        }
    }
}

#[test]
fn unsafe_is_forbidden_everywhere_but_in_two_crates() {
    for (name, package) in workspace() {
        if UNSAFE.contains(&name.as_str()) {
            continue;
        }
        for root in package.roots {
            let text = std::fs::read_to_string(&root).expect("a source file");
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "{name}: {root} does not forbid unsafe code"
            );
        }
    }
}

/// boringtun is what our own WireGuard is tested against: the daemons are built without it, and its
/// own sockets and stopped clock are out of every build.
#[test]
fn only_tests_know_boringtun_and_take_none_of_its_features() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let files = Command::new("git")
        .args(["grep", "-l", "boringtun::", "--", "*.rs"])
        .current_dir(root)
        .output()
        .expect("git grep runs");
    let files = String::from_utf8_lossy(&files.stdout).into_owned();
    let known: Vec<&str> = files.lines().filter(|file| !file.starts_with("tests/house/")).collect();
    let tests = ["src/wireguard/handshake_tests.rs", "tests/wireguard.rs"];
    assert_eq!(known, tests.map(|file| format!("crates/dataplane/{file}")));
    let manifest = std::fs::read_to_string(format!("{root}/crates/dataplane/Cargo.toml"));
    let manifest = manifest.expect("a manifest");
    let (shipped, _) = manifest.split_once("[dev-dependencies]").expect("both kinds");
    assert!(!shipped.contains("boringtun"));
    let text = std::fs::read_to_string(format!("{root}/Cargo.toml")).expect("a manifest");
    let line = text.lines().find(|line| line.starts_with("boringtun ")).expect("a version line");
    assert!(line.contains("default-features = false") && !line.contains("features = ["), "{line}");
}
