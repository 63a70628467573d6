//! AES-GCM (NIST SP 800-38D) with AES-NI and PCLMULQDQ or their wider forms.

pub(crate) mod avx2;
pub(crate) mod avx512;
mod key;

use std::mem::MaybeUninit;

use crate::job::{Aad, OpenJob, SealJob, TAG};
use crate::sum::Sum;
use crate::text::Text;
pub(crate) use key::GcmKey;

/// The most packets of a tile: their counter-1 blocks fill four registers.
const PACKETS: usize = 16;

/// One packet under the key of its tile.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    nonce: [u8; 12],
    aad: Aad,
    text: Text,
    /// The ciphertext, which the tag covers.
    cipher: *const u8,
}

/// Tags of the packets of a tile.
#[repr(C, align(64))]
pub(crate) struct Tags([u128; PACKETS]);

/// Encrypts or decrypts the texts of at most [`PACKETS`] packets and computes their tags.
///
/// # Safety
/// To be called only on a processor that has the kernel's instructions, with text and cipher
/// pointers that are good for their lengths, and a key of the kernel's size.
pub(crate) type Run = unsafe fn(&GcmKey, &[Packet], &mut Tags);

/// The kernels of one instruction set.
pub(crate) struct Kernels {
    /// Octets of plaintext up to which these are faster than aws-lc.
    pub(crate) longest: usize,
    pub(crate) sum: Sum,
    pub(crate) seal: Runs,
    pub(crate) open: Runs,
}

/// For AES-128 and AES-256.
pub(crate) struct Runs {
    /// For several packets under one key.
    pub(crate) many: [Run; 2],
    /// For one.
    pub(crate) one: [Run; 2],
}

impl Runs {
    fn choose(&self, packets: &[Packet], key: &GcmKey) -> Run {
        let runs = if packets.len() == 1 { &self.one } else { &self.many };
        runs[usize::from(key.last_round == 14)]
    }
}

/// Seals the jobs at `indexes`, all under `key`.
///
/// # Safety
/// The processor has the kernel's instructions, and the jobs passed the batch's check against buffers
/// that begin at `src` and `dst`.
pub(crate) unsafe fn seal(
    kernels: &Kernels,
    key: &GcmKey,
    src: *const u8,
    dst: *mut u8,
    jobs: &[SealJob],
    indexes: &[u8],
) {
    let mut places = [const { MaybeUninit::uninit() }; PACKETS];
    let mut tags = Tags([0; PACKETS]);
    for indexes in indexes.chunks(PACKETS) {
        for (place, &index) in places.iter_mut().zip(indexes) {
            let job = &jobs[usize::from(index)];
            // SAFETY: the caller's promise.
            let text = unsafe { Text::sealing(job, src, dst) };
            place.write(Packet { nonce: job.nonce, aad: job.aad, text, cipher: text.output(0) });
        }
        // SAFETY: as many places as indexes were just written.
        let packets = unsafe { places[..indexes.len()].assume_init_ref() };
        // SAFETY: the caller's promise about the processor and the jobs: each text lies in the
        // buffers with room for a tag behind it.
        unsafe {
            kernels.seal.choose(packets, key)(key, packets, &mut tags);
            for (packet, tag) in packets.iter().zip(tags.0) {
                let place = packet.text.output(packet.text.len);
                place.cast::<[u8; TAG]>().write(tag.to_ne_bytes());
            }
        }
    }
}

/// Opens the jobs at `indexes`, all under `key` and at least a tag long.
///
/// # Safety
/// As for [`seal`].
pub(crate) unsafe fn open(
    kernels: &Kernels,
    key: &GcmKey,
    src: *const u8,
    dst: *mut u8,
    jobs: &mut [OpenJob],
    indexes: &[u8],
) {
    let mut places = [const { MaybeUninit::uninit() }; PACKETS];
    let mut tags = Tags([0; PACKETS]);
    for indexes in indexes.chunks(PACKETS) {
        for (place, &index) in places.iter_mut().zip(indexes) {
            let job = &jobs[usize::from(index)];
            let text = Text::opening(job, src, dst);
            let cipher = src.wrapping_add(job.src.start);
            place.write(Packet { nonce: job.nonce, aad: job.aad, text, cipher });
        }
        // SAFETY: as many places as indexes were just written.
        let packets = unsafe { places[..indexes.len()].assume_init_ref() };
        // SAFETY: the caller's promise about the processor and the jobs: each ciphertext has its tag
        // behind it in `src`, each plaintext its room in `dst`.
        unsafe {
            kernels.open.choose(packets, key)(key, packets, &mut tags);
            for ((packet, tag), &index) in packets.iter().zip(tags.0).zip(indexes) {
                let received = packet.cipher.add(packet.text.len).cast::<[u8; TAG]>().read();
                // One comparison of the whole: constant time.
                let ok = u128::from_ne_bytes(received) ^ tag == 0;
                let job = &mut jobs[usize::from(index)];
                job.ok = ok;
                if ok {
                    if let Some(sum) = &mut job.sum {
                        *sum = (kernels.sum)(packet.text.output(0), packet.text.len);
                    }
                } else {
                    packet.text.output(0).write_bytes(0, packet.text.len);
                }
            }
        }
    }
}

/// The counter block of a packet, with a counter of zero.
#[inline(always)]
fn nonce(packet: &Packet) -> u128 {
    let mut block = [0; 16];
    block[..12].copy_from_slice(&packet.nonce);
    u128::from_le_bytes(block)
}

/// The associated data, zero-padded, as a block with its octets swapped. Without associated data
/// there is no such block; one of zeros has the same hash.
#[inline(always)]
fn aad_block(aad: Aad) -> u128 {
    let mut block = [0; 16];
    block[..12].copy_from_slice(&aad.bytes);
    let unused = 8 * (12 - u32::from(aad.len.min(12)));
    u128::from_be_bytes(block) >> 32 >> unused << unused << 32
}

/// The lengths in bits (SP 800-38D section 7.1, step 5) as a block with its octets swapped.
#[inline(always)]
fn lengths_block(packet: &Packet) -> u128 {
    ((8 * u128::from(packet.aad.len)) << 64) | (8 * packet.text.len as u128)
}

/// The power of the hash key that meets a block so far from the end.
#[inline(always)]
fn power(key: &GcmKey, weight: usize) -> u128 {
    // SAFETY: the pointer is to one of the key's powers.
    unsafe { *key.powers_from(weight) }
}
