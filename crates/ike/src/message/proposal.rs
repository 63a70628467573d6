//! The Security Association payload: proposals and transforms (RFC 7296 section 3.3).

use std::collections::BTreeSet;

use super::{ParseError, Reader};

/// Security protocol identifiers (RFC 7296 3.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ProtocolId(pub u8);

#[expect(missing_docs, reason = "the RFC's names")]
impl ProtocolId {
    pub const NONE: Self = Self(0);
    pub const IKE: Self = Self(1);
    pub const AH: Self = Self(2);
    pub const ESP: Self = Self(3);
}

/// Transform types (RFC 7296 3.3.2); open, so that unknown numbers survive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct TransformType(pub u8);

#[expect(missing_docs, reason = "the RFC's names")]
impl TransformType {
    pub const ENCR: Self = Self(1);
    pub const PRF: Self = Self(2);
    pub const INTEG: Self = Self(3);
    pub const KE: Self = Self(4);
    pub const ESN: Self = Self(5);
}

/// One transform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transform {
    /// Its type.
    pub kind: TransformType,
    /// Its id within the type.
    pub id: u16,
    /// The Key Length attribute in bits; 0 where an attribute was not understood.
    pub key_length: Option<u16>,
}

/// One proposal: a choice of one transform of each type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Its number, from 1.
    pub number: u8,
    /// What it is for.
    pub protocol: ProtocolId,
    /// The sender's SPI: empty for a first IKE SA, 8 octets for its rekey, 4 for ESP.
    pub spi: Vec<u8>,
    /// Its transforms.
    pub transforms: Vec<Transform>,
}

const MAX_PROPOSALS: usize = 64;
const MAX_TRANSFORMS: usize = 255;
/// Key Length attribute in the short form (RFC 7296 3.3.5): AF bit and type 14.
const KEY_LENGTH: u16 = 0x8000 | 14;

/// Stands for attributes that we do not understand. RFC 7296 3.3.6 makes such a transform
/// unacceptable: no transform of ours has a key of no bits, so it equals none of them.
const NOT_UNDERSTOOD: u16 = 0;

impl Proposal {
    /// Whether no transform type stands here twice, as in the one proposal of an answer
    /// (RFC 7296 2.7).
    #[must_use]
    pub fn is_single(&self) -> bool {
        let kinds = self.transforms.iter().map(|t| t.kind);
        kinds.clone().collect::<BTreeSet<_>>().len() == kinds.count()
    }

    /// The ids of `kind`, with their key lengths, in order.
    pub fn of(&self, kind: TransformType) -> impl Iterator<Item = &Transform> {
        self.transforms.iter().filter(move |t| t.kind == kind)
    }

    /// Parses the body of an SA payload.
    ///
    /// # Errors
    /// Lengths or counts that disagree, SPI lengths that no protocol has, too many of anything.
    pub fn parse_all(body: &[u8]) -> Result<Vec<Self>, ParseError> {
        let bad = ParseError::Malformed("SA payload");
        let mut reader = Reader::new(body);
        let mut proposals = Vec::new();
        loop {
            let more = reader.u8()?;
            reader.u8()?;
            let length = usize::from(reader.u16()?);
            let inner = reader.take(length.checked_sub(4).ok_or(bad)?)?;
            proposals.push(Self::parse(inner)?);
            match more {
                0 if reader.is_empty() => return Ok(proposals),
                2 if proposals.len() < MAX_PROPOSALS => {}
                2 => return Err(ParseError::TooMany("proposals")),
                _ => return Err(bad),
            }
        }
    }

    fn parse(octets: &[u8]) -> Result<Self, ParseError> {
        let bad = ParseError::Malformed("proposal");
        let mut reader = Reader::new(octets);
        let number = reader.u8()?;
        let protocol = ProtocolId(reader.u8()?);
        let spi_len = usize::from(reader.u8()?);
        let count = usize::from(reader.u8()?);
        if spi_len > 8 {
            return Err(bad);
        }
        let spi = reader.take(spi_len)?.to_vec();
        let mut transforms = Vec::with_capacity(count.min(reader.len() / 8));
        for i in 0..count.min(MAX_TRANSFORMS) {
            let more = reader.u8()?;
            reader.u8()?;
            let length = usize::from(reader.u16()?);
            let mut inner = Reader::new(reader.take(length.checked_sub(4).ok_or(bad)?)?);
            let kind = TransformType(inner.u8()?);
            inner.u8()?;
            let id = inner.u16()?;
            let key_length = parse_attributes(&mut inner)?;
            transforms.push(Transform { kind, id, key_length });
            if (more == 3) == (i + 1 == count) {
                return Err(bad);
            }
        }
        if !reader.is_empty() {
            return Err(bad);
        }
        Ok(Self { number, protocol, spi, transforms })
    }

    /// Writes the body of an SA payload.
    #[must_use]
    pub fn emit_all(proposals: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, proposal) in proposals.iter().enumerate() {
            let start = out.len();
            out.extend_from_slice(&[if i + 1 == proposals.len() { 0 } else { 2 }, 0, 0, 0]);
            out.push(proposal.number);
            out.push(proposal.protocol.0);
            out.push(u8::try_from(proposal.spi.len()).unwrap_or(0));
            out.push(u8::try_from(proposal.transforms.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(&proposal.spi);
            for (j, t) in proposal.transforms.iter().enumerate() {
                let more = if j + 1 == proposal.transforms.len() { 0 } else { 3 };
                let length: u16 = if t.key_length.is_some() { 12 } else { 8 };
                out.extend_from_slice(&[more, 0]);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&[t.kind.0, 0]);
                out.extend_from_slice(&t.id.to_be_bytes());
                if let Some(bits) = t.key_length {
                    out.extend_from_slice(&KEY_LENGTH.to_be_bytes());
                    out.extend_from_slice(&bits.to_be_bytes());
                }
            }
            let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
            out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        }
        out
    }
}

/// Reads transform attributes: the Key Length, once, is the only one that we understand.
fn parse_attributes(reader: &mut Reader<'_>) -> Result<Option<u16>, ParseError> {
    let mut key_length = None;
    while !reader.is_empty() {
        let kind = reader.u16()?;
        let value = reader.u16()?;
        if kind & 0x8000 == 0 {
            reader.take(usize::from(value))?;
        }
        let understood = kind == KEY_LENGTH && key_length.is_none();
        key_length = Some(if understood { value } else { NOT_UNDERSTOOD });
    }
    Ok(key_length)
}
