//! One packet's octets as the kernels see them: where to read the input, where to write the output.

use crate::job::{OpenJob, SealJob};
use crate::sum;

/// The unit in which kernels read: one ChaCha20 block, four AES blocks.
pub(crate) const CHUNK: usize = 64;

/// The input and output of one packet. Both are cut into chunks of [`CHUNK`] octets from the first
/// octet of plaintext on; the last chunk may be short.
///
/// A seal job's plaintext stands in two buffers. Chunks that lie wholly in the body are read from
/// the source, all others from the destination: the few octets of the body that share a chunk with
/// the prefix or the suffix were copied there by [`Text::sealing`].
#[derive(Clone, Copy)]
pub(crate) struct Text {
    /// Octet `i` of the input is at `src + i` for every `i` in `from..to`.
    src: *const u8,
    /// Octet `i` of the output is at `dst + i`; of the input too for `i` outside `from..to`.
    dst: *mut u8,
    from: usize,
    to: usize,
    /// Octets of plaintext, the same as of ciphertext.
    pub(crate) len: usize,
}

impl Text {
    /// The text of an idle lane.
    pub(crate) const EMPTY: Self =
        Self { src: std::ptr::null(), dst: std::ptr::null_mut(), from: 0, to: 0, len: 0 };

    /// The text of a checked seal job, its checksum complete.
    ///
    /// # Safety
    /// The processor has AVX2. `job` passed the batch's check against buffers that begin at `src` and `dst` and do not
    /// overlap. The text's pointers are good as long as the buffers.
    pub(crate) unsafe fn sealing(job: &SealJob, src: *const u8, dst: *mut u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { sum::complete(job, src, dst) };
        let len = job.plaintext_len();
        let body_end = job.prefix + job.body.len();
        let from = job.prefix.next_multiple_of(CHUNK);
        // The last, short chunk may be read from the source if the body is all of its octets.
        let to = if job.suffix == 0 { len } else { body_end / CHUNK * CHUNK };
        let (head, tail) = if from < to { (from, to) } else { (body_end, body_end) };
        for shared in [job.prefix..head, tail..body_end] {
            if shared.is_empty() {
                continue;
            }
            let start = job.body.start + (shared.start - job.prefix);
            // SAFETY: `shared` lies in the body's part of the plaintext, so that by the check both
            // ranges are in their buffers, which do not overlap.
            unsafe {
                let room = dst.add(job.dst + shared.start);
                room.copy_from_nonoverlapping(src.add(start), shared.len());
            }
        }
        Self {
            src: src.wrapping_add(job.body.start).wrapping_sub(job.prefix),
            dst: dst.wrapping_add(job.dst),
            from,
            to,
            len,
        }
    }

    /// The text of an open job over buffers that begin at `src` and `dst`. If the job passed the
    /// batch's check against them, the pointers are good as long as the buffers.
    pub(crate) fn opening(job: &OpenJob, src: *const u8, dst: *mut u8) -> Self {
        let len = job.plaintext_len();
        Self {
            src: src.wrapping_add(job.src.start),
            dst: dst.wrapping_add(job.dst),
            from: 0,
            to: len,
            len,
        }
    }

    /// Where the chunk at `offset`, a multiple of [`CHUNK`] below `len`, is read.
    #[inline(always)]
    pub(crate) fn input(&self, offset: usize) -> *const u8 {
        if (self.from..self.to).contains(&offset) {
            self.src.wrapping_add(offset)
        } else {
            self.dst.wrapping_add(offset)
        }
    }

    /// No octets, at the same place.
    pub(crate) fn emptied(self) -> Self {
        Self { len: 0, ..self }
    }

    /// Where the chunk at `offset` is read and written, and a bit for each octet of it. There need be
    /// no chunk there: then no bit is set and the pointers are still to mapped memory if those of
    /// the text are, because masked accesses to unmapped memory trap into slow microcode.
    #[inline(always)]
    pub(crate) fn chunk(&self, offset: usize) -> (*const u8, *mut u8, u64) {
        let rest = self.len.saturating_sub(offset);
        let offset = if rest == 0 { 0 } else { offset };
        (self.input(offset), self.output(offset), mask(rest))
    }

    /// Offsets of the whole chunks that are read from the source.
    #[inline(always)]
    pub(crate) fn whole_from_source(&self) -> std::ops::Range<usize> {
        self.from..self.to / CHUNK * CHUNK
    }

    /// The source: [`Text::input`] of a chunk in [`Text::whole_from_source`] is this plus its offset.
    #[inline(always)]
    pub(crate) fn source(&self) -> *const u8 {
        self.src
    }

    /// Where the octet at `offset` is written. At `len` a sealed packet's tag begins.
    #[inline(always)]
    pub(crate) fn output(&self, offset: usize) -> *mut u8 {
        self.dst.wrapping_add(offset)
    }
}

/// A bit for each of the first `len` octets of a chunk.
#[inline(always)]
pub(crate) fn mask(len: usize) -> u64 {
    if len >= CHUNK { u64::MAX } else { (1 << len) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Aad;

    /// Reads the input chunk by chunk, as a kernel does.
    fn gather(text: &Text) -> Vec<u8> {
        let mut all = Vec::new();
        for offset in (0..text.len).step_by(CHUNK) {
            let len = CHUNK.min(text.len - offset);
            // SAFETY: the buffers of the test outlive the text, and `input` gives the chunk's octets.
            all.extend_from_slice(unsafe { std::slice::from_raw_parts(text.input(offset), len) });
        }
        all
    }

    #[test]
    fn every_split_reads_prefix_then_body_then_suffix() {
        let src: Vec<u8> = (0..255).collect();
        for prefix in 0..130 {
            for body in (0..200).step_by(3) {
                for suffix in [0, 1, 2, 17, 63, 64, 65] {
                    let mut dst = vec![0xEE; 5 + prefix + body + suffix + 16];
                    dst[5..5 + prefix].fill(1);
                    dst[5 + prefix + body..5 + prefix + body + suffix].fill(2);
                    let (nonce, aad, body) = ([0; 12], Aad::default(), 9..9 + body);
                    let checksum = None;
                    let job =
                        SealJob { key: 0, nonce, aad, dst: 5, prefix, body, suffix, checksum };
                    // SAFETY: the job fits the two buffers above.
                    let text = unsafe { Text::sealing(&job, src.as_ptr(), dst.as_mut_ptr()) };
                    let mut expected = vec![1; prefix];
                    expected.extend_from_slice(&src[job.body.clone()]);
                    expected.resize(expected.len() + suffix, 2);
                    assert_eq!(gather(&text), expected, "{prefix} {:?} {suffix}", job.body);
                }
            }
        }
    }
}
