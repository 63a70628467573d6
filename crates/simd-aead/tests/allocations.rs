//! The calls of the fast path allocate nothing.

// Helpers of tests panic like the tests themselves.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Batch, Dice, Shape, TestKey, key_refs};
use simd_aead::{Algorithm, Backend, open_batch_on, seal_batch_on};

#[test]
fn batches_of_every_algorithm_and_several_keys_and_lone_packets_allocate_nothing() {
    let mut dice = Dice::new(9);
    let keys: Vec<TestKey> =
        Algorithm::ALL.iter().chain(&Algorithm::ALL).map(|&a| TestKey::new(a, &mut dice)).collect();
    let shapes: Vec<Shape> = (0..70)
        .map(|n| Shape { key: n % keys.len(), aad: 8, prefix: n % 3, body: 20 * n, suffix: n % 5 })
        .collect();
    let batch = Batch::new(&keys, &shapes, &mut dice);
    let keys = key_refs(&keys);
    for backend in Backend::available() {
        let mut sealed = batch.dst.clone();
        let mut opened = vec![0; sealed.len()];
        let mut jobs = batch.open_jobs();
        let counted = allocation_counter::measure(|| {
            seal_batch_on(backend, &keys, &batch.src, &mut sealed, &batch.jobs).unwrap();
            for job in &batch.jobs[..3] {
                let job = std::slice::from_ref(job);
                seal_batch_on(backend, &keys, &batch.src, &mut sealed, job).unwrap();
            }
            sealed.copy_from_slice(&batch.sealed);
            for job in &mut jobs[..3] {
                let job = std::slice::from_mut(job);
                open_batch_on(backend, &keys, &sealed, &mut opened, job).unwrap();
            }
            open_batch_on(backend, &keys, &sealed, &mut opened, &mut jobs).unwrap();
        });
        assert!(jobs.iter().all(|job| job.ok), "{backend}");
        assert_eq!(counted.count_total, 0, "{backend}");
    }
}
