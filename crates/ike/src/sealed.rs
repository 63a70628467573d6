//! Messages under the keys of an IKE SA: the SK payload, or SKF payloads where the message is
//! larger than the peer and the path like (RFC 7383).

use rand_core::RngCore;
use sa::Secret;

use crate::crypto::{SaKeys, SkCipher};
use crate::fragment::{MAX_FRAGMENTS, Reassembly};
use crate::message::{HEADER_LEN, Header, Message, Payload, PayloadType, emit_chain};
use crate::suite::{ChosenIke, Hash};

/// The keys of an IKE SA in use.
#[derive(Debug)]
pub(crate) struct Protection {
    /// What was negotiated.
    pub(crate) suite: ChosenIke,
    /// Derives further keys.
    pub(crate) d: Secret,
    /// AUTH of the initiator and of the responder.
    pub(crate) p: (Secret, Secret),
    seal: SkCipher,
    open: SkCipher,
    reassembly: Reassembly,
}

/// What opening a datagram gives.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A whole chain: type of its first payload, and its octets.
    Whole(u8, Vec<u8>),
    /// An authentic piece; the rest is still missing, or it is a piece again. `first` for
    /// fragment number 1, which alone triggers a response from the cache (RFC 7383 2.6.1).
    Piece {
        /// Whether it is fragment number 1.
        first: bool,
    },
    /// Not authentic.
    Unauthentic,
}

impl Protection {
    /// Uses `keys` as the side that we are.
    pub(crate) fn new(suite: ChosenIke, keys: SaKeys, initiator: bool) -> Option<Self> {
        let to_responder = SkCipher::new(&suite, &keys.ei, &keys.ai)?;
        let to_initiator = SkCipher::new(&suite, &keys.er, &keys.ar)?;
        let (seal, open) =
            if initiator { (to_responder, to_initiator) } else { (to_initiator, to_responder) };
        let p = (keys.pi.clone(), keys.pr.clone());
        let reassembly = Reassembly::default();
        Some(Self { suite, d: keys.d.clone(), p, seal, open, reassembly })
    }

    /// The peer is authenticated: its messages may be larger.
    pub(crate) fn trust(&mut self) {
        self.reassembly.trust();
    }

    /// The PRF.
    pub(crate) fn prf(&self) -> Hash {
        self.suite.prf
    }

    /// Seals `payloads` as one datagram, or as several of at most `limit` octets each.
    pub(crate) fn seal(
        &mut self,
        header: Header,
        payloads: &[Payload],
        limit: Option<usize>,
        rng: &mut dyn RngCore,
    ) -> Vec<Vec<u8>> {
        let mut plain = Vec::new();
        let inner = emit_chain(payloads, &mut plain);
        let whole = HEADER_LEN + 4 + plain.len() + self.seal.overhead(plain.len());
        let Some(limit) = limit.filter(|limit| whole > *limit) else {
            return vec![self.seal_one(header, inner, None, &plain, rng)];
        };
        let room = self.seal.fits(limit.saturating_sub(HEADER_LEN + 8)).max(64);
        let pieces: Vec<&[u8]> = plain.chunks(room).collect();
        let total = u16::try_from(pieces.len()).unwrap_or(u16::MAX);
        if total > MAX_FRAGMENTS {
            return vec![self.seal_one(header, inner, None, &plain, rng)];
        }
        (1_u16..)
            .zip(pieces)
            .map(|(number, piece)| {
                let inner = if number == 1 { inner } else { 0 };
                self.seal_one(header, inner, Some((number, total)), piece, rng)
            })
            .collect()
    }

    fn seal_one(
        &mut self,
        mut header: Header,
        inner: u8,
        fragment: Option<(u16, u16)>,
        plain: &[u8],
        rng: &mut dyn RngCore,
    ) -> Vec<u8> {
        let head = if fragment.is_some() { 8 } else { 4 };
        let payload = head + plain.len() + self.seal.overhead(plain.len());
        let kind = if fragment.is_some() { PayloadType::SKF } else { PayloadType::SK };
        header.next_payload = kind.0;
        let mut out = Vec::with_capacity(HEADER_LEN + payload);
        header.emit(HEADER_LEN + payload, &mut out);
        out.extend_from_slice(&[inner, 0]);
        out.extend_from_slice(&u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes());
        if let Some((number, total)) = fragment {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&total.to_be_bytes());
        }
        self.seal.seal(&mut out, plain, rng);
        out
    }

    /// Opens the encrypted payload of `message`, which was parsed from `datagram`. `collect` is
    /// false for messages of which only authenticity matters (a request that comes again).
    pub(crate) fn open(&mut self, datagram: &[u8], message: &Message, collect: bool) -> Opened {
        let Some(encrypted) = message.encrypted else { return Opened::Unauthentic };
        let Ok(plain) = self.open.open(datagram, encrypted.body) else {
            return Opened::Unauthentic;
        };
        let Some(fragment) = encrypted.fragment else {
            return Opened::Whole(encrypted.inner, plain);
        };
        let piece = Opened::Piece { first: fragment.0 == 1 };
        if !collect {
            return piece;
        }
        let id = (message.header.message_id, message.header.response);
        match self.reassembly.add(id, fragment, encrypted.inner, plain) {
            Some((inner, chain)) => Opened::Whole(inner, chain),
            None => piece,
        }
    }
}
