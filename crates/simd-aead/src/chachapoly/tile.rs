//! What the lanes of one run work on: up to eight packets, their values side by side.

use std::ops::Range;

use zeroize::Zeroize;

use crate::chacha::ChaChaKey;
use crate::job::{Aad, TAG};
use crate::poly1305::chains::Chains;
use crate::text::{CHUNK, Text};

/// The most packets of a tile.
pub(crate) const PACKETS: usize = 8;

/// Packets that are done together, longest first.
#[repr(C, align(64))]
pub(crate) struct Tile {
    /// Words 4 to 11 of each packet's ChaCha20 state.
    pub(crate) key: [[u32; PACKETS]; 8],
    /// Words 13 to 15.
    pub(crate) nonce: [[u32; PACKETS]; 3],
    /// The associated data, zero-padded, in two little-endian halves.
    pub(crate) aad: [[u64; PACKETS]; 2],
    pub(crate) aad_len: [u64; PACKETS],
    /// Octets of text; 0 in idle lanes.
    pub(crate) len: [u64; PACKETS],
    pub(crate) text: [Text; PACKETS],
    /// The ciphertext, which the tag covers.
    pub(crate) cipher: [*const u8; PACKETS],
    /// Out: the tags in two little-endian halves.
    pub(crate) tag: [[u64; PACKETS]; 2],
    /// How many lanes hold a packet.
    pub(crate) count: usize,
    /// Where the tags are made while the rounds go on.
    pub(crate) chains: Chains,
}

impl Tile {
    pub(crate) fn new() -> Self {
        Self {
            key: [[0; PACKETS]; 8],
            nonce: [[0; PACKETS]; 3],
            aad: [[0; PACKETS]; 2],
            aad_len: [0; PACKETS],
            len: [0; PACKETS],
            text: [Text::EMPTY; PACKETS],
            cipher: [std::ptr::null(); PACKETS],
            tag: [[0; PACKETS]; 2],
            count: 0,
            chains: Chains::new(),
        }
    }

    /// Forgets the packets.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds a packet; there must be room.
    #[inline]
    pub(crate) fn push(
        &mut self,
        key: &ChaChaKey,
        nonce: [u8; 12],
        aad: Aad,
        text: Text,
        cipher: *const u8,
    ) {
        let lane = self.count;
        let (words, _) = nonce.as_chunks::<4>();
        for (row, word) in self.key.iter_mut().zip(key.0) {
            row[lane] = word;
        }
        for (row, word) in self.nonce.iter_mut().zip(words) {
            row[lane] = u32::from_le_bytes(*word);
        }
        let mut block = [0; TAG];
        block[..12].copy_from_slice(&aad.bytes);
        let bits = 8 * u32::from(aad.len.min(12));
        let block = u128::from_le_bytes(block) & ((1 << bits) - 1);
        self.aad[0][lane] = block as u64;
        self.aad[1][lane] = (block >> 64) as u64;
        self.aad_len[lane] = u64::from(aad.len);
        self.len[lane] = text.len as u64;
        self.text[lane] = text;
        self.cipher[lane] = cipher;
        self.count += 1;
    }

    /// After the last packet: idle lanes have no octets, and do what the first does where nobody
    /// counts octets: they write the same there.
    pub(crate) fn fill(&mut self) {
        let idle = self.count..PACKETS;
        if idle.is_empty() {
            return;
        }
        for row in self.key.iter_mut().chain(&mut self.nonce) {
            let first = row[0];
            row[idle.clone()].fill(first);
        }
        let (first, cipher) = (self.text[0].emptied(), self.cipher[0]);
        self.len[idle.clone()].fill(0);
        self.text[idle.clone()].fill(first);
        self.cipher[idle].fill(cipher);
    }

    /// The length of the longest text, which is the first.
    pub(crate) fn longest(&self) -> usize {
        self.text[0].len
    }

    /// The length of the shortest text, 0 if there are idle lanes.
    pub(crate) fn shortest(&self) -> usize {
        self.len.iter().fold(usize::MAX, |least, &len| least.min(len as usize))
    }

    /// The length of the shortest text but for idle lanes.
    pub(crate) fn shortest_of_all(&self) -> usize {
        self.len[..self.count].iter().fold(usize::MAX, |least, &len| least.min(len as usize))
    }

    /// Offsets of the chunks that are whole in every lane and read from the source.
    pub(crate) fn whole_from_source(&self) -> Range<usize> {
        self.text.iter().fold(0..usize::MAX, |all, text| {
            let whole = text.whole_from_source();
            all.start.max(whole.start)..all.end.min(whole.end)
        })
    }

    /// Up to here the chunks are whole in every lane, and idle lanes may do what the first one does.
    pub(crate) fn whole_in_every_lane(&self) -> usize {
        let whole = self.shortest_of_all() / CHUNK * CHUNK;
        match self.whole_from_source() {
            _ if self.count == PACKETS => whole,
            // Reading from the source, they write the same.
            Range { start: 0, end } => end.min(whole),
            _ => 0,
        }
    }

    /// The tag of the packet in `lane`.
    pub(crate) fn tag(&self, lane: usize) -> [u8; TAG] {
        (u128::from(self.tag[0][lane]) | u128::from(self.tag[1][lane]) << 64).to_le_bytes()
    }

    /// Whether `received` is the tag of the packet in `lane`, in constant time.
    pub(crate) fn tag_is(&self, lane: usize, received: [u8; TAG]) -> bool {
        let received = u128::from_le_bytes(received);
        let lo = self.tag[0][lane] ^ received as u64;
        let hi = self.tag[1][lane] ^ (received >> 64) as u64;
        lo | hi == 0
    }
}

impl Drop for Tile {
    fn drop(&mut self) {
        self.key.zeroize();
        self.chains.zeroize();
    }
}
