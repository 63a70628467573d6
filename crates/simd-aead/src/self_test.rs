//! The start-up test of a backend: a batch of awkward lengths, and each packet of it alone, must agree with
//! the portable one, and a tampered packet must fail alone.

use packet::checksum::{add, fold};

use crate::backend::Backend;
use crate::batch::{open_batch_on, seal_batch_on};
use crate::checksum::Checksum;
use crate::job::{Aad, BadJob, OpenJob, SealJob, TAG};
use crate::key::{Algorithm, Key};

/// Lengths around the block, group and lane borders of every kernel.
const LENGTHS: [usize; 20] =
    [0, 1, 15, 16, 17, 63, 64, 65, 128, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 1420, 1600];

/// Where the checksums stand.
const FIELD: usize = 16;

/// Whether `backend` computes what it should.
pub(crate) fn passes(backend: Backend) -> bool {
    Algorithm::ALL.into_iter().all(|algorithm| {
        let seal = |keys: &[&Key], src: &[u8], dst: &mut [u8], jobs: &[SealJob]| {
            seal_batch_on(backend, keys, src, dst, jobs)
        };
        let open = |keys: &[&Key], src: &[u8], dst: &mut [u8], jobs: &mut [OpenJob]| {
            open_batch_on(backend, keys, src, dst, jobs)
        };
        agrees(algorithm, seal, open).unwrap_or(false)
    })
}

/// `None` where a batch is refused, which is as bad as a wrong result.
fn agrees(
    algorithm: Algorithm,
    seal: impl Fn(&[&Key], &[u8], &mut [u8], &[SealJob]) -> Result<(), BadJob>,
    open: impl Fn(&[&Key], &[u8], &mut [u8], &mut [OpenJob]) -> Result<(), BadJob>,
) -> Option<bool> {
    let octets: Vec<u8> = (0..=255).map(|i: u8| i.wrapping_mul(0x9d) ^ 0x5a).collect();
    let key = Key::new(algorithm, octets.get(..algorithm.key_len())?).ok()?;
    let plain: Vec<u8> = octets.iter().copied().cycle().take(1600).collect();

    let mut sealing = Vec::new();
    let mut opening = Vec::new();
    let mut end = 0;
    for (index, &len) in LENGTHS.iter().enumerate() {
        let aad = Aad::new(octets.get(..if index % 2 == 0 { 8 } else { 12 })?)?;
        let nonce = [index as u8; 12];
        let (prefix, suffix) = if len > 40 { (33, 7) } else { (0, 0) };
        let body = 0..len - prefix - suffix;
        let sum = u64::from(u16::from_ne_bytes(*octets.get(index..)?.first_chunk::<2>()?));
        let checksum = (prefix > 0).then_some(Checksum { field: FIELD, sum, udp: false });
        sealing.push(SealJob { key: 0, nonce, aad, dst: end, prefix, body, suffix, checksum });
        let src = end..end + len + TAG;
        opening.push(OpenJob { key: 0, nonce, aad, src, dst: end, ok: false, sum: Some(0) });
        end += len + TAG;
    }

    let mut expected = vec![0x33; end];
    seal_batch_on(Backend::PORTABLE, &[&key], &plain, &mut expected, &sealing).ok()?;
    // One bit of one tag: that packet fails, the others open.
    let victim = opening.len() / 2;
    let mut tampered = expected.clone();
    *tampered.get_mut(opening.get(victim)?.src.end - 1)? ^= 0x80;

    for at_once in [sealing.len(), 1] {
        let mut sealed = vec![0x33; end];
        for jobs in sealing.chunks(at_once) {
            seal(&[&key], &plain, &mut sealed, jobs).ok()?;
        }
        if sealed != expected {
            return Some(false);
        }
        let mut opened = vec![0x44; end];
        for jobs in opening.chunks_mut(at_once) {
            open(&[&key], &tampered, &mut opened, jobs).ok()?;
        }
        if !is_opened(&opening, &opened, &sealing, &plain, victim)? {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether all but the `victim` are open, with the right sums and nothing else in their place.
fn is_opened(
    opening: &[OpenJob],
    opened: &[u8],
    sealing: &[SealJob],
    plain: &[u8],
    victim: usize,
) -> Option<bool> {
    for (index, (job, sealing)) in opening.iter().zip(sealing).enumerate() {
        let text = opened.get(job.dst..job.dst + job.plaintext_len())?;
        let good = if index == victim {
            !job.ok && text.iter().all(|&octet| octet == 0)
        } else {
            let (prefix, rest) = text.split_at(sealing.prefix);
            let (body, suffix) = rest.split_at(sealing.body.len());
            let mut expected = vec![0x33; prefix.len()];
            if let Some(checksum) = sealing.checksum {
                checksum.complete(&mut expected, body);
            }
            job.ok
                && job.sum == Some(u16::from_ne_bytes(fold(add(0, text))))
                && prefix == expected
                && suffix.iter().all(|&octet| octet == 0x33)
                && body == plain.get(sealing.body.clone())?
        };
        if !good {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    type Seal = fn(&[&Key], &[u8], &mut [u8], &[SealJob]) -> Result<(), BadJob>;
    type Open = fn(&[&Key], &[u8], &mut [u8], &mut [OpenJob]) -> Result<(), BadJob>;

    const SEAL: Seal =
        |keys, src, dst, jobs| seal_batch_on(Backend::PORTABLE, keys, src, dst, jobs);
    const OPEN: Open =
        |keys, src, dst, jobs| open_batch_on(Backend::PORTABLE, keys, src, dst, jobs);

    fn outcome(seal: Seal, open: Open) -> [Option<bool>; 3] {
        Algorithm::ALL.map(|algorithm| agrees(algorithm, seal, open))
    }

    #[test]
    fn a_backend_without_fault_passes() {
        assert_eq!(outcome(SEAL, OPEN), [Some(true); 3]);
    }

    #[test]
    fn one_wrong_bit_of_any_packet_is_a_fault() {
        let last_tag: Seal = |keys, src, dst, jobs| {
            SEAL(keys, src, dst, jobs)?;
            dst[dst.len() - 1] ^= 1;
            Ok(())
        };
        let text: Seal = |keys, src, dst, jobs| {
            SEAL(keys, src, dst, jobs)?;
            dst[jobs[5].dst + 40] ^= 0x10;
            Ok(())
        };
        let opened: Open = |keys, src, dst, jobs| {
            OPEN(keys, src, dst, jobs)?;
            dst[jobs[19].dst + 1599] ^= 4;
            Ok(())
        };
        let alone: Seal = |keys, src, dst, jobs| {
            SEAL(keys, src, dst, jobs)?;
            if let [SealJob { body: Range { start: 0, end: 1560 }, dst: at, .. }] = jobs {
                dst[*at] ^= 1;
            }
            Ok(())
        };
        assert_eq!(outcome(last_tag, OPEN), [Some(false); 3]);
        assert_eq!(outcome(alone, OPEN), [Some(false); 3]);
        assert_eq!(outcome(text, OPEN), [Some(false); 3]);
        assert_eq!(outcome(SEAL, opened), [Some(false); 3]);
    }

    #[test]
    fn accepting_or_exposing_a_tampered_packet_is_a_fault() {
        let accepts: Open = |keys, src, dst, jobs| {
            OPEN(keys, src, dst, jobs)?;
            jobs.iter_mut().for_each(|job| job.ok = true);
            Ok(())
        };
        let exposes: Open = |keys, src, dst, jobs| {
            OPEN(keys, src, dst, jobs)?;
            let refused = jobs.iter().find(|job| !job.ok).map_or(0, |job| job.dst);
            dst[refused] = 1;
            Ok(())
        };
        let refuses_too_much: Open = |keys, src, dst, jobs| {
            OPEN(keys, src, dst, jobs)?;
            jobs[0].ok = false;
            Ok(())
        };
        for open in [accepts, exposes, refuses_too_much] {
            assert_eq!(outcome(SEAL, open), [Some(false); 3]);
        }
    }

    #[test]
    fn refusing_the_batch_is_a_fault() {
        let refuses: Seal = |_, _, _, _| Err(BadJob::Key(0));
        assert_eq!(outcome(refuses, OPEN), [None; 3]);
    }
}
