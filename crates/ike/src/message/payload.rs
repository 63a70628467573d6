//! Payload chains and whole messages (RFC 7296 sections 3.2 to 3.16, RFC 7383 section 2.5).

use sa::SelectorSet;

use super::{
    HEADER_LEN, Header, Identity, Notify, ParseError, Proposal, ProtocolId, Reader, emit_selectors,
    parse_selectors,
};

/// The most payloads that we read in one message.
pub const MAX_PAYLOADS: usize = 64;

/// Payload type numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadType(pub u8);

#[expect(missing_docs, reason = "the RFC's names")]
impl PayloadType {
    pub const NONE: Self = Self(0);
    pub const SA: Self = Self(33);
    pub const KE: Self = Self(34);
    pub const IDI: Self = Self(35);
    pub const IDR: Self = Self(36);
    pub const AUTH: Self = Self(39);
    pub const NONCE: Self = Self(40);
    pub const NOTIFY: Self = Self(41);
    pub const DELETE: Self = Self(42);
    pub const VENDOR_ID: Self = Self(43);
    pub const TSI: Self = Self(44);
    pub const TSR: Self = Self(45);
    pub const SK: Self = Self(46);
    pub const SKF: Self = Self(53);
}

/// One payload. Those that we carry but do not interpret are [`Payload::Other`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are those of the RFC's payload")]
pub enum Payload {
    Sa(Vec<Proposal>),
    Ke {
        group: u16,
        data: Vec<u8>,
    },
    IdI(Identity),
    IdR(Identity),
    Auth {
        method: u8,
        data: Vec<u8>,
    },
    Nonce(Vec<u8>),
    Notify(Notify),
    /// SPIs of one protocol; none for an IKE SA.
    Delete {
        protocol: ProtocolId,
        spis: Vec<Vec<u8>>,
    },
    TsI(SelectorSet),
    TsR(SelectorSet),
    VendorId(Vec<u8>),
    /// A known but uninterpreted payload, or an unknown one without the critical bit.
    Other {
        kind: u8,
        body: Vec<u8>,
    },
}

impl Payload {
    /// A status or error notification without SPI.
    #[must_use]
    pub fn notify(kind: super::NotifyType, data: Vec<u8>) -> Self {
        Self::Notify(Notify::new(kind, data))
    }

    fn kind(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::Ke { .. } => PayloadType::KE,
            Self::IdI(_) => PayloadType::IDI,
            Self::IdR(_) => PayloadType::IDR,
            Self::Auth { .. } => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete { .. } => PayloadType::DELETE,
            Self::TsI(_) => PayloadType::TSI,
            Self::TsR(_) => PayloadType::TSR,
            Self::VendorId(_) => PayloadType::VENDOR_ID,
            Self::Other { kind, .. } => PayloadType(*kind),
        }
    }

    fn parse(kind: PayloadType, critical: bool, body: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(body);
        Ok(match kind {
            PayloadType::SA => Self::Sa(Proposal::parse_all(body)?),
            PayloadType::KE => {
                let group = reader.u16()?;
                reader.u16()?;
                Self::Ke { group, data: reader.rest().to_vec() }
            }
            PayloadType::IDI => Self::IdI(Identity::parse(body)?),
            PayloadType::IDR => Self::IdR(Identity::parse(body)?),
            PayloadType::AUTH => {
                let [method, ..] = reader.array::<4>()?;
                Self::Auth { method, data: reader.rest().to_vec() }
            }
            PayloadType::NONCE if (16..=256).contains(&body.len()) => Self::Nonce(body.to_vec()),
            PayloadType::NONCE => return Err(ParseError::Malformed("nonce")),
            PayloadType::NOTIFY => Self::Notify(Notify::parse(body)?),
            PayloadType::DELETE => parse_delete(body)?,
            PayloadType::TSI => Self::TsI(parse_selectors(body)?),
            PayloadType::TSR => Self::TsR(parse_selectors(body)?),
            PayloadType::VENDOR_ID => Self::VendorId(body.to_vec()),
            // CERT, CERTREQ, SK, CP, EAP and SKF are known numbers: never "unsupported critical".
            PayloadType(other) if critical && !matches!(other, 37 | 38 | 46..=48 | 53) => {
                return Err(ParseError::UnsupportedCritical(other));
            }
            PayloadType(other) => Self::Other { kind: other, body: body.to_vec() },
        })
    }

    fn emit_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sa(proposals) => out.extend_from_slice(&Proposal::emit_all(proposals)),
            Self::Ke { group, data } => {
                out.extend_from_slice(&group.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(data);
            }
            Self::IdI(id) | Self::IdR(id) => out.extend_from_slice(&id.emit()),
            Self::Auth { method, data } => {
                out.extend_from_slice(&[*method, 0, 0, 0]);
                out.extend_from_slice(data);
            }
            Self::Nonce(data) | Self::VendorId(data) => out.extend_from_slice(data),
            Self::Notify(notify) => notify.emit(out),
            Self::Delete { protocol, spis } => {
                out.push(protocol.0);
                out.push(spis.first().map_or(0, |s| u8::try_from(s.len()).unwrap_or(0)));
                out.extend_from_slice(&u16::try_from(spis.len()).unwrap_or(0).to_be_bytes());
                spis.iter().for_each(|spi| out.extend_from_slice(spi));
            }
            Self::TsI(set) | Self::TsR(set) => out.extend_from_slice(&emit_selectors(set)),
            Self::Other { body, .. } => out.extend_from_slice(body),
        }
    }
}

fn parse_delete(body: &[u8]) -> Result<Payload, ParseError> {
    let bad = ParseError::Malformed("delete");
    let mut reader = Reader::new(body);
    let protocol = ProtocolId(reader.u8()?);
    let spi_len = usize::from(reader.u8()?);
    let count = usize::from(reader.u16()?);
    let expected = match protocol {
        ProtocolId::IKE => 0,
        ProtocolId::AH | ProtocolId::ESP => 4,
        _ => return Err(bad),
    };
    if spi_len != expected || count * spi_len != reader.len() {
        return Err(bad);
    }
    let spis = if spi_len == 0 {
        Vec::new()
    } else {
        reader.rest().chunks_exact(spi_len).map(<[u8]>::to_vec).collect()
    };
    Ok(Payload::Delete { protocol, spis })
}

/// What an SK or SKF payload carries; it is the last payload of its message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encrypted {
    /// Offset in the datagram of the payload's body: after the generic header, and for SKF after
    /// fragment number and total. Everything before it is authenticated, too.
    pub body: usize,
    /// Type of the first payload inside.
    pub inner: u8,
    /// Fragment number and total for SKF.
    pub fragment: Option<(u16, u16)>,
}

/// A parsed datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The header.
    pub header: Header,
    /// Payloads in clear.
    pub payloads: Vec<Payload>,
    /// The encrypted payload, if there is one.
    pub encrypted: Option<Encrypted>,
}

/// Parses a whole datagram.
///
/// # Errors
/// See [`ParseError`].
pub fn parse_message(datagram: &[u8]) -> Result<Message, ParseError> {
    let header = Header::parse(datagram)?;
    let mut payloads = Vec::new();
    let mut kind = header.next_payload;
    let mut reader = Reader::new(datagram.get(HEADER_LEN..).unwrap_or_default());
    while kind != 0 {
        if payloads.len() == MAX_PAYLOADS {
            return Err(ParseError::TooMany("payloads"));
        }
        let offset = datagram.len() - reader.len();
        let (next, critical, body) = parse_one(&mut reader)?;
        if kind == PayloadType::SK.0 || kind == PayloadType::SKF.0 {
            let encrypted = parse_encrypted(kind, next, offset, body)?;
            if !reader.is_empty() {
                return Err(ParseError::Malformed("encrypted payload that is not the last"));
            }
            return Ok(Message { header, payloads, encrypted: Some(encrypted) });
        }
        payloads.push(Payload::parse(PayloadType(kind), critical, body)?);
        kind = next;
    }
    if !reader.is_empty() {
        return Err(ParseError::Malformed("octets after the last payload"));
    }
    Ok(Message { header, payloads, encrypted: None })
}

fn parse_encrypted(
    kind: u8,
    next: u8,
    offset: usize,
    body: &[u8],
) -> Result<Encrypted, ParseError> {
    if kind == PayloadType::SK.0 {
        return Ok(Encrypted { body: offset + 4, inner: next, fragment: None });
    }
    let mut inner = Reader::new(body);
    let (number, total) = (inner.u16()?, inner.u16()?);
    if number == 0 || number > total || (number > 1 && next != 0) {
        return Err(ParseError::Malformed("fragment number"));
    }
    Ok(Encrypted { body: offset + 8, inner: next, fragment: Some((number, total)) })
}

/// Reads one generic payload header and its body: next payload, critical bit, body.
fn parse_one<'a>(reader: &mut Reader<'a>) -> Result<(u8, bool, &'a [u8]), ParseError> {
    let next = reader.u8()?;
    let critical = reader.u8()? & 0x80 != 0;
    let length = usize::from(reader.u16()?);
    let body = reader.take(length.checked_sub(4).ok_or(ParseError::Truncated)?)?;
    Ok((next, critical, body))
}

/// Parses the chain inside a decrypted SK payload.
///
/// # Errors
/// See [`ParseError`]; an SK payload inside another is malformed.
pub fn parse_chain(first: u8, octets: &[u8]) -> Result<Vec<Payload>, ParseError> {
    let mut payloads = Vec::new();
    let mut kind = first;
    let mut reader = Reader::new(octets);
    while kind != 0 {
        if payloads.len() == MAX_PAYLOADS {
            return Err(ParseError::TooMany("payloads"));
        }
        if kind == PayloadType::SK.0 || kind == PayloadType::SKF.0 {
            return Err(ParseError::Malformed("encrypted payload inside another"));
        }
        let (next, critical, body) = parse_one(&mut reader)?;
        payloads.push(Payload::parse(PayloadType(kind), critical, body)?);
        kind = next;
    }
    if !reader.is_empty() {
        return Err(ParseError::Malformed("octets after the last payload"));
    }
    Ok(payloads)
}

/// Emits a payload chain; returns the type of its first payload (0 if there is none).
pub fn emit_chain(payloads: &[Payload], out: &mut Vec<u8>) -> u8 {
    for (i, payload) in payloads.iter().enumerate() {
        let start = out.len();
        out.push(payloads.get(i + 1).map_or(0, |p| p.kind().0));
        out.extend_from_slice(&[0, 0, 0]);
        payload.emit_body(out);
        let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }
    payloads.first().map_or(0, |p| p.kind().0)
}
