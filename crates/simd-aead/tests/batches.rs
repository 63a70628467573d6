//! Every backend that the machine has against the libraries, over all lengths and shapes of batches.

// Helpers of tests panic like the tests themselves.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Batch, Dice, Shape, TestKey, key_refs, ones_complement_sum};
use simd_aead::{
    Aad, Algorithm, Backend, BadJob, Key, OpenJob, SealJob, TAG, backend, open_batch,
    open_batch_on, seal_batch, seal_batch_on,
};

/// Seals `batch` and opens it again on every backend.
fn check(batch: &Batch, keys: &[TestKey], what: &str) {
    let keys = key_refs(keys);
    for backend in Backend::available() {
        let mut sealed = batch.dst.clone();
        seal_batch_on(backend, &keys, &batch.src, &mut sealed, &batch.jobs).unwrap();
        assert!(sealed == batch.sealed, "{backend} seals {what}");
        let mut opened = vec![0xA5; sealed.len()];
        let mut jobs = batch.open_jobs();
        open_batch_on(backend, &keys, &sealed, &mut opened, &mut jobs).unwrap();
        check_opened(batch, &jobs, &opened, None, &format!("{backend} opens {what}"));
    }
}

/// Every packet but `victim` is open, the victim's octets are zero, and nothing else was written.
fn check_opened(batch: &Batch, jobs: &[OpenJob], opened: &[u8], victim: Option<usize>, what: &str) {
    let mut expected = vec![0xA5; opened.len()];
    for (index, (job, plain)) in jobs.iter().zip(&batch.plain).enumerate() {
        let authentic = victim != Some(index);
        assert_eq!(job.ok, authentic, "{what}: packet {index}");
        let sum = if authentic { ones_complement_sum(plain) } else { 0 };
        let told = job.sum.map(u16::to_ne_bytes);
        assert!(told.is_none_or(|told| told == sum.to_be_bytes()), "{what}: the sum of {index}");
        assert_eq!(
            told.is_some(),
            job.dst.is_multiple_of(2),
            "{what}: the sum is given to who asks"
        );
        let room = &mut expected[job.dst..job.dst + plain.len()];
        if authentic { room.copy_from_slice(plain) } else { room.fill(0) }
    }
    assert!(opened == expected, "{what}");
}

fn one_key_each(dice: &mut Dice) -> Vec<TestKey> {
    Algorithm::ALL.map(|algorithm| TestKey::new(algorithm, dice)).into()
}

#[test]
fn all_lengths_to_2048_in_batches_of_one_length() {
    let mut dice = Dice::new(1);
    let keys = one_key_each(&mut dice);
    for body in 0..=2048 {
        for key in 0..keys.len() {
            let count = 1 + (body + key) % 11;
            let shape = Shape { key, aad: [8, 12][body % 2], prefix: 0, body, suffix: 0 };
            let batch = Batch::new(&keys, &vec![shape; count], &mut dice);
            check(&batch, &keys, &format!("{count} packets of {body}, key {key}"));
        }
    }
}

#[test]
fn all_lengths_to_2048_alone() {
    let mut dice = Dice::new(10);
    let keys = one_key_each(&mut dice);
    for len in 0..=2048 {
        for key in 0..keys.len() {
            let (prefix, suffix) = (dice.below(len.min(150) + 1), dice.below(20));
            let suffix = suffix.min(len - prefix);
            let split = Shape { key, aad: len % 13, prefix, body: len - prefix - suffix, suffix };
            for shape in [Shape { key, aad: 8, prefix: 0, body: len, suffix: 0 }, split] {
                let batch = Batch::new(&keys, &[shape], &mut dice);
                check(&batch, &keys, &format!("{len} octets alone, key {key}, {prefix} before"));
            }
        }
    }
}

#[test]
fn all_lengths_to_2048_side_by_side() {
    let mut dice = Dice::new(2);
    let keys = one_key_each(&mut dice);
    for key in 0..keys.len() {
        for start in (0..=2048).step_by(64) {
            let shape = |body| Shape { key, aad: 8 + body % 5, prefix: 0, body, suffix: 0 };
            let shapes: Vec<Shape> = (start..(start + 64).min(2049)).map(shape).collect();
            let batch = Batch::new(&keys, &shapes, &mut dice);
            check(&batch, &keys, &format!("lengths from {start}, key {key}"));
        }
    }
}

#[test]
fn all_lengths_of_associated_data() {
    let mut dice = Dice::new(3);
    let keys = one_key_each(&mut dice);
    for key in 0..keys.len() {
        let shape = |aad| Shape { key, aad, prefix: 3, body: 70 + 5 * aad, suffix: 2 };
        let shapes: Vec<Shape> = (0..=12).map(shape).collect();
        check(&Batch::new(&keys, &shapes, &mut dice), &keys, "0 to 12 octets");
    }
}

#[test]
fn batches_of_random_shape() {
    let mut dice = Dice::new(4);
    for round in 0..400 {
        let mut keys = one_key_each(&mut dice);
        keys.extend(one_key_each(&mut dice));
        let mixed = round % 2 == 0;
        let (key, longest) = (dice.below(keys.len()), 1 << dice.below(13));
        let shapes: Vec<Shape> = (0..dice.below(90))
            .map(|_| Shape {
                key: if mixed { dice.below(keys.len()) } else { key },
                aad: if dice.below(4) == 0 { dice.below(13) } else { 8 },
                prefix: [0, 0, 20, 40, 52, dice.below(200)][dice.below(6)],
                body: dice.below(longest),
                suffix: [0, 2, 3, 4, 5, dice.below(100)][dice.below(6)],
            })
            .collect();
        check(&Batch::new(&keys, &shapes, &mut dice), &keys, &format!("round {round}"));
    }
}

#[test]
fn long_packets() {
    let mut dice = Dice::new(5);
    let keys = one_key_each(&mut dice);
    for key in 0..keys.len() {
        for len in [4000, 8191, 8192, 8193, 65_535] {
            let alone = Shape { key, aad: 8, prefix: 0, body: len, suffix: 0 };
            check(&Batch::new(&keys, &[alone], &mut dice), &keys, "a long packet alone");
        }
        for count in [1, 3, 8, 9] {
            let shape =
                |n: usize| Shape { key, aad: 8, prefix: 40, body: 8000 + 61 * n, suffix: 6 };
            let mut shapes: Vec<Shape> = (0..count).map(shape).collect();
            shapes.push(Shape { key, aad: 12, prefix: 0, body: 70_000, suffix: 0 });
            check(&Batch::new(&keys, &shapes, &mut dice), &keys, "long packets");
        }
    }
}

/// Where to flip a bit: every octet of the ciphertext and the tag of a short packet, every 29th of
/// a long one.
fn places(job: &OpenJob) -> impl Iterator<Item = usize> + use<> {
    let step = if job.src.len() < 100 { 1 } else { 29 };
    job.src.clone().step_by(step).chain([job.src.end - 1])
}

#[test]
fn a_flipped_bit_fails_exactly_its_packet() {
    let lens = [1420, 0, 64, 1, 300, 1420, 17, 1024, 48, 700, 1420, 8];
    flipped_bits_fail(&lens, &mut Dice::new(6));
}

#[test]
fn a_flipped_bit_fails_a_packet_alone() {
    for len in [0, 1, 48, 64, 65, 192, 193, 256, 300, 448, 449, 512, 1024, 1420] {
        flipped_bits_fail(&[len], &mut Dice::new(11));
    }
}

/// Flips bits of each packet of a batch of these lengths, under a key of each algorithm.
fn flipped_bits_fail(lens: &[usize], dice: &mut Dice) {
    let keys = one_key_each(dice);
    for key in 0..keys.len() {
        let shapes: Vec<Shape> =
            lens.iter().map(|&body| Shape { key, aad: 8, prefix: 0, body, suffix: 0 }).collect();
        let batch = Batch::new(&keys, &shapes, dice);
        let refs = key_refs(&keys);
        for backend in Backend::available() {
            let fails = |sealed: &[u8], jobs: &mut Vec<OpenJob>, victim, what: &str| {
                let mut opened = vec![0xA5; sealed.len()];
                open_batch_on(backend, &refs, sealed, &mut opened, jobs).unwrap();
                let what = format!("{backend}: {what} of packet {victim}");
                check_opened(&batch, jobs, &opened, Some(victim), &what);
            };
            for victim in 0..shapes.len() {
                for place in places(&batch.open_jobs()[victim]) {
                    let mut sealed = batch.sealed.clone();
                    sealed[place] ^= 1 << dice.below(8);
                    fails(&sealed, &mut batch.open_jobs(), victim, "ciphertext or tag");
                }
                for bit in 0..96 {
                    let mut jobs = batch.open_jobs();
                    jobs[victim].nonce[bit / 8] ^= 1 << (bit % 8);
                    fails(&batch.sealed, &mut jobs, victim, "nonce");
                }
                for bit in 0..64 {
                    let mut jobs = batch.open_jobs();
                    jobs[victim].aad.bytes[bit / 8] ^= 1 << (bit % 8);
                    fails(&batch.sealed, &mut jobs, victim, "associated data");
                }
                let mut jobs = batch.open_jobs();
                jobs[victim].aad.len = 9;
                fails(&batch.sealed, &mut jobs, victim, "length of associated data");
            }
        }
    }
}

#[test]
fn every_bit_of_every_tag_counts() {
    let mut dice = Dice::new(7);
    let keys = one_key_each(&mut dice);
    let refs = key_refs(&keys);
    for key in 0..keys.len() {
        let shape = |body| Shape { key, aad: 8, prefix: 0, body, suffix: 0 };
        let shapes: Vec<Shape> = (60..70).map(shape).collect();
        let together = Batch::new(&keys, &shapes, &mut dice);
        let alone = shapes.iter().map(|&shape| Batch::new(&keys, &[shape], &mut dice));
        let batches: Vec<Batch> = alone.chain([together]).collect();
        let pairs = batches
            .iter()
            .flat_map(|batch| Backend::available().map(move |backend| (batch, backend)));
        for (batch, backend) in pairs {
            for victim in 0..batch.jobs.len() {
                for bit in 0..128 {
                    let mut jobs = batch.open_jobs();
                    let mut sealed = batch.sealed.clone();
                    sealed[jobs[victim].src.end - TAG + bit / 8] ^= 1 << (bit % 8);
                    let mut opened = vec![0xA5; sealed.len()];
                    open_batch_on(backend, &refs, &sealed, &mut opened, &mut jobs).unwrap();
                    let what = format!("{backend}: bit {bit} of tag {victim}");
                    check_opened(batch, &jobs, &opened, Some(victim), &what);
                }
            }
        }
    }
}

#[test]
fn a_packet_too_short_for_a_tag_fails_alone() {
    let mut dice = Dice::new(8);
    let keys = one_key_each(&mut dice);
    let refs = key_refs(&keys);
    for key in 0..keys.len() {
        let shape = Shape { key, aad: 8, prefix: 0, body: 100, suffix: 0 };
        let batch = Batch::new(&keys, &[shape; 9], &mut dice);
        for backend in Backend::available() {
            for len in 0..TAG {
                let mut jobs = batch.open_jobs();
                jobs[4].src.end = jobs[4].src.start + len;
                let mut opened = vec![0xA5; batch.sealed.len()];
                open_batch_on(backend, &refs, &batch.sealed, &mut opened, &mut jobs).unwrap();
                let open: Vec<bool> = jobs.iter().map(|job| job.ok).collect();
                let expected = [true, true, true, true, false, true, true, true, true];
                assert_eq!(open, expected, "{backend}, {len} octets");
                let untouched = &opened[jobs[4].dst..jobs[4].dst + 100];
                assert!(untouched.iter().all(|&octet| octet == 0xA5), "{backend}, {len} octets");
            }
        }
    }
}

#[test]
fn a_bad_job_stops_the_batch_before_anything_is_written() {
    let key = Key::new(Algorithm::Aes256Gcm, &[1; 32]).unwrap();
    let seal = |dst, body| SealJob {
        key: 0,
        nonce: [2; 12],
        aad: Aad::default(),
        dst,
        prefix: 0,
        body,
        suffix: 0,
        checksum: None,
    };
    let mut dst = [7; 100];
    let jobs = [seal(0, 0..10), seal(26, 95..101)];
    assert_eq!(seal_batch(&[&key], &[0; 100], &mut dst, &jobs), Err(BadJob::Source(1)));
    let jobs = [seal(0, 0..10), seal(25, 0..10)];
    assert_eq!(seal_batch(&[&key], &[0; 100], &mut dst, &jobs), Err(BadJob::Overlap(1)));
    let open = |src, dst| OpenJob {
        key: 0,
        nonce: [2; 12],
        aad: Aad::default(),
        src,
        dst,
        ok: true,
        sum: None,
    };
    let mut jobs = [open(0..50, 0), open(50..101, 50)];
    assert_eq!(open_batch(&[&key], &[0; 100], &mut dst, &mut jobs), Err(BadJob::Source(1)));
    let mut jobs = [open(0..50, 0), open(50..100, 67)];
    assert_eq!(open_batch(&[&key], &[0; 100], &mut dst, &mut jobs), Err(BadJob::Destination(1)));
    let mut jobs = [open(0..50, 0), open(50..100, 33)];
    assert_eq!(open_batch(&[&key], &[0; 100], &mut dst, &mut jobs), Err(BadJob::Overlap(1)));
    assert_eq!(dst, [7; 100]);
}

/// With `VGW_AEAD_BACKEND` the whole suite runs on that backend; a wrong name must not pass for one.
#[test]
fn the_environment_forces_the_backend() {
    match std::env::var("VGW_AEAD_BACKEND") {
        Ok(name) => assert_eq!(backend().name(), name),
        Err(_) => assert_eq!(Some(backend()), Backend::available().next()),
    }
}
