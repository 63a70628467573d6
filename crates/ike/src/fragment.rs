//! Reassembly of fragmented messages (RFC 7383 section 2.6), bounded for each IKE SA.

/// More fragments than a message of 64 KiB has at the smallest sensible size.
pub(crate) const MAX_FRAGMENTS: u16 = 64;
/// The most octets of one message in pieces.
const MAX_OCTETS: usize = 65_536;
/// The same before the peer is authenticated: an IKE_AUTH with pre-shared keys has a tenth of it.
const STRANGER_OCTETS: usize = 16_384;

/// The pieces of the one message that is being put together. Pieces are authenticated one by one
/// before they come here, so a stranger can neither fill it nor spoil it.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    id: u32,
    response: bool,
    total: u16,
    inner: u8,
    octets: usize,
    pieces: Vec<Option<Vec<u8>>>,
    trusted: bool,
}

impl Reassembly {
    /// The peer is authenticated.
    pub(crate) fn trust(&mut self) {
        self.trusted = true;
    }

    /// Adds one decrypted piece; the whole chain with the type of its first payload once all are
    /// there. A piece of another message, or with a larger total (RFC 7383 2.6), begins anew.
    pub(crate) fn add(
        &mut self,
        (id, response): (u32, bool),
        (number, total): (u16, u16),
        inner: u8,
        piece: Vec<u8>,
    ) -> Option<(u8, Vec<u8>)> {
        if number == 0 || number > total || total > MAX_FRAGMENTS {
            return None;
        }
        if (self.id, self.response) != (id, response) || total > self.total {
            let pieces = vec![None; usize::from(total)];
            let trusted = self.trusted;
            *self = Self { id, response, total, pieces, trusted, ..Self::default() };
        } else if total < self.total {
            return None;
        }
        let slot = self.pieces.get_mut(usize::from(number - 1))?;
        let limit = if self.trusted { MAX_OCTETS } else { STRANGER_OCTETS };
        if slot.is_some() || self.octets + piece.len() > limit {
            return None;
        }
        self.octets += piece.len();
        *slot = Some(piece);
        if number == 1 {
            self.inner = inner;
        }
        if self.pieces.iter().any(Option::is_none) {
            return None;
        }
        let fresh = Self { trusted: self.trusted, ..Self::default() };
        let whole = std::mem::replace(self, fresh);
        Some((whole.inner, whole.pieces.into_iter().flatten().flatten().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_and_twice_make_the_message() {
        let mut all = Reassembly::default();
        let m = (7, false);
        assert_eq!(all.add(m, (3, 3), 0, vec![5]), None);
        assert_eq!(all.add(m, (1, 3), 41, vec![1, 2]), None);
        assert_eq!(all.add(m, (1, 3), 41, vec![1, 2]), None);
        assert_eq!(all.add(m, (2, 3), 0, vec![3, 4]), Some((41, vec![1, 2, 3, 4, 5])));
    }

    #[test]
    fn a_larger_total_begins_anew_and_a_smaller_one_is_left_out() {
        let mut all = Reassembly::default();
        let m = (7, true);
        assert_eq!(all.add(m, (1, 2), 41, vec![1]), None);
        assert_eq!(all.add(m, (1, 3), 41, vec![9]), None);
        assert_eq!(all.add(m, (2, 2), 0, vec![2]), None);
        assert_eq!(all.add(m, (2, 3), 0, vec![8]), None);
        assert_eq!(all.add(m, (3, 3), 0, vec![7]), Some((41, vec![9, 8, 7])));
    }

    #[test]
    fn numbers_that_cannot_be_and_too_many_octets_are_left_out() {
        let mut all = Reassembly::default();
        let m = (1, false);
        for bad in [(0, 1), (2, 1), (1, MAX_FRAGMENTS + 1), (u16::MAX, u16::MAX)] {
            assert_eq!(all.add(m, bad, 41, vec![1]), None, "{bad:?}");
        }
        for (trusted, limit) in [(false, STRANGER_OCTETS), (true, MAX_OCTETS)] {
            let mut all = Reassembly { trusted, ..Reassembly::default() };
            assert_eq!(all.add(m, (1, 2), 41, vec![0; limit]), None);
            assert_eq!(all.add(m, (2, 2), 0, vec![0]), None, "one octet too many");
        }
    }
}
