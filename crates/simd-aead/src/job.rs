//! What a caller asks for, and the check that every offset in it is good.

use std::ops::Range;

use crate::checksum::Checksum;
use crate::key::Key;

/// Length of the tag of every algorithm here, in octets.
pub const TAG: usize = 16;

/// The longest plaintext of one packet, in octets. Far above any IP packet and far below what the
/// 32-bit block counters of the algorithms allow.
pub const MAX_PLAINTEXT: usize = 1 << 30;

/// Associated data of at most 12 octets: an ESP header is 8, or 12 with extended sequence numbers
/// (RFC 4106 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Aad {
    /// The octets; those past `len` are ignored.
    pub bytes: [u8; 12],
    /// How many of them count, 0 to 12.
    pub len: u8,
}

impl Aad {
    /// Associated data of `octets`, or `None` if there are more than 12.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<Self> {
        let mut bytes = [0; 12];
        bytes.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(Self { bytes, len: octets.len() as u8 })
    }

    /// The octets that count; all 12 if `len` is out of range, which a batch refuses before.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }
}

/// One packet to seal. Its plaintext is `prefix`, then `body`, then `suffix`; prefix and suffix
/// already stand in the destination with the room for the body between them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealJob {
    /// Index into the keys of the batch.
    pub key: u32,
    /// The whole nonce (salt and IV). Must never repeat under one key.
    pub nonce: [u8; 12],
    /// Associated data.
    pub aad: Aad,
    /// Offset in the destination of the first octet of plaintext.
    pub dst: usize,
    /// Octets of plaintext that already stand at `dst`.
    pub prefix: usize,
    /// Octets of plaintext taken from the source; their ciphertext goes after the prefix.
    pub body: Range<usize>,
    /// Octets of plaintext that already stand after the room for the body (the ESP trailer).
    pub suffix: usize,
    /// A checksum over the body that is completed first, in the prefix.
    pub checksum: Option<Checksum>,
}

impl SealJob {
    /// Octets of plaintext; saturates on an impossible job, which a batch refuses before.
    #[must_use]
    pub fn plaintext_len(&self) -> usize {
        self.prefix.saturating_add(self.body.len()).saturating_add(self.suffix)
    }
}

/// One packet to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenJob {
    /// Index into the keys of the batch.
    pub key: u32,
    /// The whole nonce (salt and IV).
    pub nonce: [u8; 12],
    /// Associated data.
    pub aad: Aad,
    /// Where in the source the ciphertext and behind it the tag are. Shorter than a tag: the packet
    /// fails, the batch goes on.
    pub src: Range<usize>,
    /// Offset in the destination where the plaintext goes.
    pub dst: usize,
    /// Out: the packet is authentic and its plaintext stands at `dst`. Otherwise those octets are
    /// zero.
    pub ok: bool,
    /// In: whether the sum of the plaintext is wanted. Out: that one's-complement sum, folded, in the
    /// host's byte order, for the checksums in the plaintext; 0 unless `ok`.
    pub sum: Option<u16>,
}

impl OpenJob {
    /// Octets of plaintext that this job writes at `dst`.
    #[must_use]
    pub fn plaintext_len(&self) -> usize {
        self.src.len().saturating_sub(TAG)
    }
}

/// A job that does not fit its buffers: an error of the caller, never of a packet's sender. The
/// number is the index of the job. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadJob {
    /// No such key in the batch.
    #[error("job {0} names a key that the batch does not have")]
    Key(usize),
    /// More than 12 octets of associated data.
    #[error("job {0} has more than 12 octets of associated data")]
    Aad(usize),
    /// The range does not lie in the source.
    #[error("job {0} reads outside the source")]
    Source(usize),
    /// The packet with its tag does not lie in the destination, or is longer than
    /// [`MAX_PLAINTEXT`].
    #[error("job {0} writes outside the destination")]
    Destination(usize),
    /// The field of the checksum does not lie in the prefix.
    #[error("job {0} has a checksum outside its prefix")]
    Checksum(usize),
    /// Two jobs write the same octets; the number is the later job's.
    #[error("job {0} writes where another job writes")]
    Overlap(usize),
}

/// Checks all of `jobs`. After `Ok`, each key index, each body, each
/// `dst .. dst + plaintext_len + TAG` and in its prefix each checksum is in range, and no two of the
/// written ranges overlap.
pub(crate) fn check_seal(
    keys: &[&Key],
    src: &[u8],
    dst: &[u8],
    jobs: &[SealJob],
) -> Result<(), BadJob> {
    let written = |job: &SealJob| job.dst..job.dst + job.plaintext_len() + TAG;
    for (index, job) in jobs.iter().enumerate() {
        check_common(keys, job.key, job.aad, index)?;
        if src.get(job.body.clone()).is_none() {
            return Err(BadJob::Source(index));
        }
        check_written(job.dst, job.plaintext_len(), TAG, dst.len(), index)?;
        if job.checksum.is_some_and(|c| c.field.checked_add(2).is_none_or(|end| end > job.prefix)) {
            return Err(BadJob::Checksum(index));
        }
    }
    check_overlap(jobs, written)
}

/// Checks all of `jobs`. After `Ok`, each key index, each `src` and each
/// `dst .. dst + plaintext_len` is in range, and no two of the latter overlap.
pub(crate) fn check_open(
    keys: &[&Key],
    src: &[u8],
    dst: &[u8],
    jobs: &[OpenJob],
) -> Result<(), BadJob> {
    let written = |job: &OpenJob| job.dst..job.dst + job.plaintext_len();
    for (index, job) in jobs.iter().enumerate() {
        check_common(keys, job.key, job.aad, index)?;
        if src.get(job.src.clone()).is_none() {
            return Err(BadJob::Source(index));
        }
        check_written(job.dst, job.plaintext_len(), 0, dst.len(), index)?;
    }
    check_overlap(jobs, written)
}

fn check_common(keys: &[&Key], key: u32, aad: Aad, index: usize) -> Result<(), BadJob> {
    if key as usize >= keys.len() {
        return Err(BadJob::Key(index));
    }
    if usize::from(aad.len) > aad.bytes.len() {
        return Err(BadJob::Aad(index));
    }
    Ok(())
}

fn check_written(
    start: usize,
    len: usize,
    tag: usize,
    room: usize,
    index: usize,
) -> Result<(), BadJob> {
    if len > MAX_PLAINTEXT {
        return Err(BadJob::Destination(index));
    }
    match start.checked_add(len + tag) {
        Some(end) if end <= room => Ok(()),
        _ => Err(BadJob::Destination(index)),
    }
}

/// Jobs in ascending order, the usual case, cost one comparison each.
fn check_overlap<J>(jobs: &[J], written: impl Fn(&J) -> Range<usize>) -> Result<(), BadJob> {
    let mut end = 0;
    for job in jobs {
        let range = written(job);
        if range.start < end {
            return check_overlap_unordered(jobs, written);
        }
        end = range.end;
    }
    Ok(())
}

fn check_overlap_unordered<J>(
    jobs: &[J],
    written: impl Fn(&J) -> Range<usize>,
) -> Result<(), BadJob> {
    for (index, job) in jobs.iter().enumerate() {
        let this = written(job);
        let meets = |other: &J| {
            let other = written(other);
            this.start < other.end && other.start < this.end
        };
        if !this.is_empty() && jobs[..index].iter().any(meets) {
            return Err(BadJob::Overlap(index));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Algorithm;

    fn job(dst: usize, len: usize) -> SealJob {
        SealJob {
            key: 0,
            nonce: [0; 12],
            aad: Aad::default(),
            dst,
            prefix: 0,
            body: 0..len,
            suffix: 0,
            checksum: None,
        }
    }

    fn check(jobs: &[SealJob]) -> Result<(), BadJob> {
        let key = Key::new(Algorithm::Aes128Gcm, &[0; 16]).unwrap();
        check_seal(&[&key], &[0; 100], &[0; 200], jobs)
    }

    #[test]
    fn every_bound_of_a_seal_job_is_checked() {
        assert_eq!(check(&[job(0, 100), job(116, 68)]), Ok(()));
        assert_eq!(check(&[job(0, 10), job(26, 101)]), Err(BadJob::Source(1)));
        assert_eq!(check(&[job(85, 100)]), Err(BadJob::Destination(0)));
        assert_eq!(check(&[job(usize::MAX, 1)]), Err(BadJob::Destination(0)));
        assert_eq!(
            check(&[SealJob { prefix: usize::MAX, ..job(0, 0) }]),
            Err(BadJob::Destination(0))
        );
        assert_eq!(check(&[SealJob { key: 1, ..job(0, 0) }]), Err(BadJob::Key(0)));
        let aad = Aad { bytes: [0; 12], len: 13 };
        assert_eq!(check(&[SealJob { aad, ..job(0, 0) }]), Err(BadJob::Aad(0)));
        let at = |field| Some(Checksum { field, sum: 0, udp: false });
        let with = |field| SealJob { prefix: 20, checksum: at(field), ..job(0, 10) };
        assert_eq!(check(&[with(18)]), Ok(()));
        assert_eq!(check(&[with(19)]), Err(BadJob::Checksum(0)));
        assert_eq!(check(&[with(usize::MAX)]), Err(BadJob::Checksum(0)));
    }

    #[test]
    fn a_tag_counts_as_written_when_jobs_overlap() {
        assert_eq!(check(&[job(0, 10), job(25, 10)]), Err(BadJob::Overlap(1)));
        assert_eq!(check(&[job(50, 10), job(24, 10)]), Ok(()));
        assert_eq!(check(&[job(50, 10), job(0, 10), job(76, 1)]), Ok(()));
        assert_eq!(check(&[job(50, 10), job(0, 10), job(75, 1)]), Err(BadJob::Overlap(2)));
    }

    #[test]
    fn associated_data_is_at_most_twelve_octets() {
        assert_eq!(Aad::new(&[7; 12]).unwrap().as_slice(), [7; 12]);
        assert_eq!(Aad::new(&[7; 8]).unwrap().as_slice(), [7; 8]);
        assert_eq!(Aad::new(&[7; 13]), None);
    }
}
