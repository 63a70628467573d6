//! The four messages: their types, lengths and fields (whitepaper 5.4).

/// Octets of an initiation.
pub(super) const INITIATION: usize = 148;
/// Octets of a response.
pub(super) const RESPONSE: usize = 92;
/// Octets of a cookie reply.
pub(super) const COOKIE: usize = 64;
/// Octets of a data message before its ciphertext: type, receiver index and counter.
pub(super) const DATA_HEADER: usize = 16;
/// Octets that a data message is longer than its packet.
pub(super) const OVERHEAD: usize = DATA_HEADER + simd_aead::TAG;
/// Octets of the two MACs at the end of a handshake message.
pub(super) const MACS: usize = 32;

pub(super) const COOKIE_REPLY_TYPE: u8 = 3;
pub(super) const DATA_TYPE: u8 = 4;

/// Copies `octets` to `at`; `None` if there is no room.
pub(super) fn put(out: &mut [u8], at: usize, octets: &[u8]) -> Option<()> {
    out.get_mut(at..at.checked_add(octets.len())?)?.copy_from_slice(octets);
    Some(())
}

/// The `N` octets at `at`.
pub(super) fn array<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..)?.first_chunk::<N>().copied()
}

/// The index at `at`.
pub(super) fn word(message: &[u8], at: usize) -> Option<u32> {
    array(message, at).map(u32::from_le_bytes)
}

/// The counter of a data message.
pub(super) fn counter(message: &[u8]) -> Option<u64> {
    array(message, 8).map(u64::from_le_bytes)
}

/// Writes the header of a data message.
pub(super) fn put_data_header(out: &mut [u8], index: u32, counter: u64) -> Option<()> {
    put(out, 0, &[DATA_TYPE, 0, 0, 0])?;
    put(out, 4, &index.to_le_bytes())?;
    put(out, 8, &counter.to_le_bytes())
}

/// The nonce of a data message: its counter (whitepaper 5.4.6).
pub(super) fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}
