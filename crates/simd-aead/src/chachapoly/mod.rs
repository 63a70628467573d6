//! ChaCha20-Poly1305 (RFC 8439 section 2.8): of many packets side by side where there are enough, otherwise
//! of one after the other.

pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod lone;
mod tile;

use crate::job::{OpenJob, SealJob, TAG};
use crate::key::Key;
use crate::sum::Sum;
use crate::text::{CHUNK, Text};
use tile::{PACKETS, Tile};

/// A kernel for many: encrypts or decrypts the texts of a tile and computes its tags.
///
/// # Safety
/// To be called only on a processor that has the kernel's instructions, with text and cipher
/// pointers that are good for their lengths.
pub(crate) type Run = unsafe fn(&mut Tile);

/// The kernels of one instruction set and what they cost. Nanoseconds, measured on Zen 4; only ratios matter.
pub(crate) struct Kernel {
    pub(crate) seal: Run,
    pub(crate) open: Run,
    pub(crate) seal_one: lone::Run,
    pub(crate) open_one: lone::Run,
    pub(crate) sum: Sum,
    /// What a tile costs however short its packets are.
    pub(crate) fixed: usize,
    /// What a chunk of the tile's longest packet costs.
    pub(crate) pass: usize,
    /// The same of one packet.
    pub(crate) one_fixed: usize,
    pub(crate) one_pass: usize,
}

impl Kernel {
    /// Whether packets of these lengths, longest first, take less time side by side than one by one.
    /// A tile takes as long as its longest packet whatever its other lanes do.
    fn pays(&self, lens: impl Iterator<Item = usize> + Clone) -> bool {
        let longest = lens.clone().next().unwrap_or_default();
        let tile = self.fixed + self.pass * longest.div_ceil(CHUNK);
        let singles: usize = lens.map(|len| self.one_fixed + self.one_pass * len / CHUNK).sum();
        tile < singles
    }
}

/// Seals the jobs at `indexes`, which are sorted by length, longest first.
///
/// # Safety
/// The processor has the kernel's instructions, and the jobs passed the batch's check against `src`
/// and `dst`.
pub(crate) unsafe fn seal(
    kernel: &Kernel,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &[SealJob],
    mut indexes: &[u8],
) {
    // Until there is one that pays, nothing makes room for a tile.
    while let Some((first, rest)) = next_tile(indexes) {
        if kernel.pays(first.iter().map(|&index| jobs[usize::from(index)].plaintext_len())) {
            // SAFETY: the caller's promise.
            unsafe { seal_tiles(kernel, keys, src, dst, jobs, indexes) };
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { seal_singles(kernel, keys, src, dst, jobs, first) };
        indexes = rest;
    }
}

/// The packets of the next tile and those after, if there are any.
#[inline]
fn next_tile(indexes: &[u8]) -> Option<(&[u8], &[u8])> {
    (!indexes.is_empty()).then(|| indexes.split_at(indexes.len().min(PACKETS)))
}

/// Seals the jobs at `indexes` one by one.
///
/// # Safety
/// As for [`seal`].
unsafe fn seal_singles(
    kernel: &Kernel,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &[SealJob],
    indexes: &[u8],
) {
    for job in indexes.iter().map(|&index| &jobs[usize::from(index)]) {
        let Some(key) = keys[job.key as usize].chacha() else { continue };
        // SAFETY: the caller's promise about the processor and the jobs: the text lies in the buffers with
        // room for a tag behind it.
        unsafe {
            let text = Text::sealing(job, src.as_ptr(), dst.as_mut_ptr());
            let tag = (kernel.seal_one)(key, job.nonce, job.aad, &text, text.output(0));
            text.output(text.len).cast::<[u8; TAG]>().write(tag.to_le_bytes());
        }
    }
}

/// Seals the jobs at `indexes` tile by tile.
///
/// # Safety
/// As for [`seal`].
#[inline(never)]
unsafe fn seal_tiles(
    kernel: &Kernel,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &[SealJob],
    indexes: &[u8],
) {
    let mut tile = Tile::new();
    for indexes in indexes.chunks(PACKETS) {
        if !kernel.pays(indexes.iter().map(|&index| jobs[usize::from(index)].plaintext_len())) {
            // SAFETY: the caller's promise.
            unsafe { seal_singles(kernel, keys, src, dst, jobs, indexes) };
            continue;
        }
        tile.clear();
        let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
        for &index in indexes {
            let job = &jobs[usize::from(index)];
            let Some(key) = keys[job.key as usize].chacha() else { continue };
            // SAFETY: the caller's promise.
            let text = unsafe { Text::sealing(job, src, dst) };
            tile.push(key, job.nonce, job.aad, text, text.output(0));
        }
        tile.fill();
        // SAFETY: the caller's promise about the processor and the jobs: each text lies in the
        // buffers with room for a tag behind it.
        unsafe {
            (kernel.seal)(&mut tile);
            for lane in 0..tile.count {
                let text = &tile.text[lane];
                text.output(text.len).cast::<[u8; TAG]>().write(tile.tag(lane));
            }
        }
    }
}

/// Opens the jobs at `indexes`, which are sorted by length, longest first, and each at least a tag
/// long.
///
/// # Safety
/// As for [`seal`].
pub(crate) unsafe fn open(
    kernel: &Kernel,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &mut [OpenJob],
    mut indexes: &[u8],
) {
    // Until there is one that pays, nothing makes room for a tile.
    while let Some((first, rest)) = next_tile(indexes) {
        if kernel.pays(first.iter().map(|&index| jobs[usize::from(index)].plaintext_len())) {
            // SAFETY: the caller's promise.
            unsafe { open_tiles(kernel, keys, src, dst, jobs, indexes) };
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { open_singles(kernel, keys, src, dst, jobs, first) };
        indexes = rest;
    }
}

/// Opens the jobs at `indexes` one by one.
///
/// # Safety
/// As for [`open`].
unsafe fn open_singles(
    kernel: &Kernel,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &mut [OpenJob],
    indexes: &[u8],
) {
    let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
    for &index in indexes {
        let job = &mut jobs[usize::from(index)];
        let Some(key) = keys[job.key as usize].chacha() else { continue };
        let text = Text::opening(job, src, dst);
        let cipher = src.wrapping_add(job.src.start);
        // SAFETY: the caller's promise about the processor and the jobs: the ciphertext has its tag behind
        // it in `src`, the plaintext its room in `dst`.
        unsafe {
            let tag = (kernel.open_one)(key, job.nonce, job.aad, &text, cipher);
            let received = cipher.add(text.len).cast::<[u8; TAG]>().read();
            // One comparison of the whole: constant time.
            let ok = u128::from_le_bytes(received) ^ tag == 0;
            finish(kernel, job, &text, ok);
        }
    }
}

/// Says whether `job` is authentic; sums its text, or wipes it.
///
/// # Safety
/// The processor has the kernel's instructions, and the text has its room.
unsafe fn finish(kernel: &Kernel, job: &mut OpenJob, text: &Text, ok: bool) {
    job.ok = ok;
    // SAFETY: the caller's promise.
    unsafe {
        if !ok {
            text.output(0).write_bytes(0, text.len);
        } else if let Some(sum) = &mut job.sum {
            *sum = (kernel.sum)(text.output(0), text.len);
        }
    }
}

/// Opens the jobs at `indexes` tile by tile.
///
/// # Safety
/// As for [`open`].
#[inline(never)]
unsafe fn open_tiles(
    kernel: &Kernel,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &mut [OpenJob],
    indexes: &[u8],
) {
    let mut tile = Tile::new();
    for indexes in indexes.chunks(PACKETS) {
        if !kernel.pays(indexes.iter().map(|&index| jobs[usize::from(index)].plaintext_len())) {
            // SAFETY: the caller's promise.
            unsafe { open_singles(kernel, keys, src, dst, jobs, indexes) };
            continue;
        }
        tile.clear();
        let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
        for &index in indexes {
            let job = &jobs[usize::from(index)];
            let Some(key) = keys[job.key as usize].chacha() else { continue };
            let text = Text::opening(job, src, dst);
            tile.push(key, job.nonce, job.aad, text, src.wrapping_add(job.src.start));
        }
        tile.fill();
        // SAFETY: the caller's promise about the processor and the jobs: each ciphertext has its tag
        // behind it in `src`, each plaintext its room in `dst`.
        unsafe {
            (kernel.open)(&mut tile);
            for (lane, &index) in indexes.iter().enumerate() {
                let text = &tile.text[lane];
                let received = tile.cipher[lane].add(text.len).cast::<[u8; TAG]>().read();
                let ok = tile.tag_is(lane, received);
                finish(kernel, &mut jobs[usize::from(index)], text, ok);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{avx2, avx512};

    #[test]
    fn a_packet_is_alone_or_shares_its_rounds() {
        for kernel in [avx2::KERNELS.chacha, avx2::WITH_VAES.chacha, avx512::KERNELS.chacha] {
            for len in (0..=2048).chain([9000, 65_535, crate::MAX_PLAINTEXT]) {
                assert!(!kernel.pays([len].into_iter()), "{len}");
            }
            for len in [64, 1420, 8192] {
                assert!(kernel.pays([len; 8].into_iter()), "{len}");
            }
        }
    }
}
