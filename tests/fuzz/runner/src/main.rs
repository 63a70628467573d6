//! libFuzzer around one of the targets: `FUZZ_TARGET=esp cargo run --release -- ../corpus/esp`.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some((_, run)) = fuzz::TARGETS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = fuzz::TARGETS.iter().map(|(known, _)| *known).collect();
        eprintln!("FUZZ_TARGET must be one of {}", known.join(", "));
        std::process::exit(2);
    };
    *run
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
