//! The committed corpus, which fuzzing found and minimised, and every input that once failed.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::fs;
use std::path::Path;

/// The corpus stays small: this many files a target, each of this many octets.
const MOST_FILES: usize = 500;
const MOST_OCTETS: u64 = 16_384;

#[test]
fn every_input_of_the_corpus_passes_its_target() {
    for (name, target) in fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "no corpus for {name}");
        assert!(files.len() <= MOST_FILES, "{name} has {} files", files.len());
        for file in files {
            assert!(fs::metadata(&file).unwrap().len() <= MOST_OCTETS, "{}", file.display());
            let octets = fs::read(&file).unwrap();
            let passed = std::panic::catch_unwind(|| target(&octets));
            assert!(passed.is_ok(), "{name} fails with {}", file.display());
        }
    }
}

#[test]
fn every_target_takes_nothing_and_noise() {
    for (_, target) in fuzz::TARGETS {
        target(&[]);
        for octet in [0, 1, 0x2e, 0x80, 0xff] {
            for length in [1, 28, 40, 300] {
                target(&vec![octet; length]);
            }
        }
    }
}

#[test]
fn the_corpus_holds_no_folder_without_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(corpus).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(fuzz::TARGETS.iter().any(|(known, _)| *known == name), "{name}");
    }
}
