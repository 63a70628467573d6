//! The start-up test of a backend: a batch of awkward lengths must agree with the portable one, and
//! a tampered packet must fail alone.

use crate::backend::Backend;
use crate::batch::{open_batch_on, seal_batch_on};
use crate::job::{Aad, OpenJob, SealJob, TAG};
use crate::key::{Algorithm, Key};

/// Lengths around the block, group and lane borders of every kernel.
const LENGTHS: [usize; 20] =
    [0, 1, 15, 16, 17, 63, 64, 65, 128, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 1420, 1600];

/// Whether `backend` computes what it should.
pub(crate) fn passes(backend: Backend) -> bool {
    Algorithm::ALL.into_iter().all(|algorithm| agrees(backend, algorithm).unwrap_or(false))
}

/// `None` where a batch is refused, which is as bad as a wrong result.
fn agrees(backend: Backend, algorithm: Algorithm) -> Option<bool> {
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
        sealing.push(SealJob { key: 0, nonce, aad, dst: end, prefix, body, suffix });
        let src = end..end + len + TAG;
        opening.push(OpenJob { key: 0, nonce, aad, src, dst: end, ok: false });
        end += len + TAG;
    }

    let mut sealed = vec![0x33; end];
    let mut expected = sealed.clone();
    seal_batch_on(backend, &[&key], &plain, &mut sealed, &sealing).ok()?;
    seal_batch_on(Backend::PORTABLE, &[&key], &plain, &mut expected, &sealing).ok()?;
    if sealed != expected {
        return Some(false);
    }

    // One bit of one tag: that packet fails, the others open.
    let victim = opening.len() / 2;
    *sealed.get_mut(opening.get(victim)?.src.end - 1)? ^= 0x80;
    let mut opened = vec![0x44; end];
    open_batch_on(backend, &[&key], &sealed, &mut opened, &mut opening).ok()?;
    for (index, (job, sealing)) in opening.iter().zip(&sealing).enumerate() {
        let text = opened.get(job.dst..job.dst + job.plaintext_len())?;
        let good = if index == victim {
            !job.ok && text.iter().all(|&octet| octet == 0)
        } else {
            let (prefix, rest) = text.split_at(sealing.prefix);
            let (body, suffix) = rest.split_at(sealing.body.len());
            job.ok
                && prefix.iter().chain(suffix).all(|&octet| octet == 0x33)
                && body == plain.get(sealing.body.clone())?
        };
        if !good {
            return Some(false);
        }
    }
    Some(true)
}
