//! Nanoseconds a packet and GB/s of every backend of ours, beside the libraries, in one run.
//!
//! `cargo bench -p simd-aead` runs everything, `-- --quick` two sizes in short runs, and
//! `-- FILTER` the benchmarks whose name contains it (`ALGORITHM/seal|open/SIZE B x BATCH/WHO`).
//!
//! `-- --avx2` compares as if the processor had no AVX-512: aws-lc-rs is kept from it, and our backend for
//! it is left out. ring and RustCrypto do not use it anyway.
//!
//! A shared machine changes its speed from one second to the next. So each contender runs in short
//! slices of processor time with aws-lc-rs in between, and the ratio in the closing table is the
//! median over pairs of neighbouring slices.

// A benchmark panics like a test.
#![allow(clippy::unwrap_used)]

mod contenders;
mod table;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use simd_aead::Algorithm;

use contenders::{Cell, Operation};
use table::{Row, Table};

/// The contender that the others are compared with.
const REFERENCE: &str = "aws-lc-rs";
/// Octets of plaintext, and packets in a batch.
const SIZES: [usize; 6] = [64, 256, 512, 1024, 1420, 8192];
const BATCHES: [usize; 3] = [1, 8, 32];
/// How long a contender runs before the reference has its turn: far above the clock's resolution,
/// far below the scheduler's.
const SLICE: Duration = Duration::from_micros(100);

/// Where aws-lc reads what to do without: here the bits of AVX-512 in EBX of CPUID leaf 7.
const MASK: (&str, &str) = ("OPENSSL_ia32cap", ":~0xd0230000");

/// Whether aws-lc-rs is kept from AVX-512.
fn without_avx512() -> bool {
    std::env::var(MASK.0).is_ok_and(|mask| mask == MASK.1)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--avx2") {
        // aws-lc reads the variable before `main`.
        let rest = arguments.into_iter().filter(|argument| argument != "--avx2");
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let status = again.args(rest).env(MASK.0, MASK.1).status().unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let sizes = if quick { &[64, 1420][..] } else { &SIZES };
    let batches = if quick { &[1, 32][..] } else { &BATCHES };
    let (warm_up, measurement) = if quick { (5, 20) } else { (20, 100) };
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .nresamples(1000)
        .warm_up_time(Duration::from_millis(warm_up))
        .measurement_time(Duration::from_millis(measurement))
        .configure_from_args();
    let mut table = Table::default();
    for algorithm in [Algorithm::ChaCha20Poly1305, Algorithm::Aes256Gcm, Algorithm::Aes128Gcm] {
        for operation in [Operation::Seal, Operation::Open] {
            for &size in sizes {
                for &batch in batches {
                    run(&mut criterion, &mut table, Cell { algorithm, operation, size, batch });
                }
            }
        }
    }
    criterion.final_summary();
    table.print(&SIZES);
}

/// Every contender on one combination of algorithm, operation, size and batch.
fn run(criterion: &mut Criterion, table: &mut Table, cell: Cell) {
    let mut group = criterion.benchmark_group(cell.to_string());
    group.throughput(Throughput::Bytes(cell.size as u64));
    let mut reference = contenders::reference(cell);
    for (name, mut contender) in contenders::all(cell) {
        let mut pairs = Vec::new();
        group.bench_function(&name, |bencher| {
            bencher.iter_custom(|packets| {
                let (time, measured) =
                    in_turns(packets, cell.batch, &mut contender, &mut reference);
                pairs.extend(measured);
                time
            });
        });
        if !pairs.is_empty() {
            table.push(Row::new(cell, name, pairs));
        }
    }
    group.finish();
}

/// Nanoseconds a packet of neighbouring slices: the contender's and the reference's.
type Pair = (f64, f64);

/// Runs at least `packets` packets of the contender, slice by slice in turns with the reference.
/// Returns the time of that many packets of the contender.
fn in_turns(
    packets: u64,
    batch: usize,
    contender: &mut dyn FnMut(),
    reference: &mut dyn FnMut(),
) -> (Duration, Vec<Pair>) {
    let mut pairs = Vec::new();
    let (mut total, mut done) = (0.0, 0);
    while done < packets {
        let (time, own) = slice(batch, contender);
        let (other_time, other) = slice(batch, reference);
        pairs.push((time / own as f64, other_time / other as f64));
        total += time;
        done += own;
    }
    (Duration::from_nanos((total / done as f64 * packets as f64) as u64), pairs)
}

/// Runs batches for a slice; returns nanoseconds and packets.
fn slice(batch: usize, contender: &mut dyn FnMut()) -> (f64, u64) {
    // Reading the clock is a system call: a few hundred packets hide it.
    let batches = (512 / batch).max(8);
    let start = thread_time();
    let mut packets = 0;
    loop {
        for _ in 0..batches {
            contender();
        }
        packets += (batches * batch) as u64;
        let time = thread_time() - start;
        if time >= SLICE {
            return (time.as_nanos() as f64, packets);
        }
    }
}

/// The processor time of this thread: what others do on the machine meanwhile does not count.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec`, and the clock is one that Linux always has.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
