//! ChaCha20 keys, and the rounds over the blocks of many packets at once.

pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod rows;

use zeroize::Zeroize;

/// "expand 32-byte k" (RFC 8439 section 2.3): the state's words 0 to 3.
pub(crate) const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// A key as the state's words 4 to 11. Wiped on drop.
#[derive(Zeroize)]
#[zeroize(drop)]
pub(crate) struct ChaChaKey(pub(crate) [u32; 8]);

impl ChaChaKey {
    /// `None` unless `key` has 32 octets.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        let mut words = [0; 8];
        if key.len() != 32 {
            return None;
        }
        for (word, octets) in words.iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_le_bytes(octets.try_into().ok()?);
        }
        Some(Self(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_key_leaves_zeros() {
        let key = Box::new(ChaChaKey::new(&[0x42; 32]).unwrap());
        assert_eq!(key.0, [0x4242_4242; 8]);
        let place = Box::into_raw(key);
        // SAFETY: dropped once; the memory stays allocated until the end, and integers may have any
        // value.
        unsafe {
            place.drop_in_place();
            assert_eq!((*place).0, [0; 8]);
            drop(Box::from_raw(place.cast::<std::mem::MaybeUninit<ChaChaKey>>()));
        }
    }
}
