//! Octets that must not leak.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Secret octets: wiped on drop, compared in constant time, printed as their length only.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes ownership of `octets`.
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Self {
        Self(octets)
    }

    /// The octets themselves. The caller must not copy them into anything that is logged.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in octets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no octets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Secret {
    fn from(octets: &[u8]) -> Self {
        Self(octets.to_vec())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} octets)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_length_and_nothing_else() {
        let text = format!("{:?}", Secret::from(&b"hunter2"[..]));
        assert_eq!(text, "Secret(7 octets)");
    }

    #[test]
    fn equality_compares_all_octets() {
        assert_eq!(Secret::from(&b"abc"[..]), Secret::from(&b"abc"[..]));
        assert_ne!(Secret::from(&b"abc"[..]), Secret::from(&b"abd"[..]));
        assert_ne!(Secret::from(&b"abc"[..]), Secret::from(&b"abcd"[..]));
    }
}
