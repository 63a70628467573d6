//! The IKE header (RFC 7296 section 3.1).

use super::{ParseError, Reader};

/// Octets of the IKE header.
pub const HEADER_LEN: usize = 28;

/// Exchange types (RFC 7296 3.1); open, so that unknown numbers survive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ExchangeType(pub u8);

#[expect(missing_docs, reason = "the RFC's names")]
impl ExchangeType {
    pub const IKE_SA_INIT: Self = Self(34);
    pub const IKE_AUTH: Self = Self(35);
    pub const CREATE_CHILD_SA: Self = Self(36);
    pub const INFORMATIONAL: Self = Self(37);
}

/// The IKE header without its length, which emission fills in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// SPI of the IKE SA's initiator; never zero.
    pub initiator_spi: u64,
    /// SPI of the IKE SA's responder; zero in the first request.
    pub responder_spi: u64,
    /// Type of the first payload.
    pub next_payload: u8,
    /// The exchange.
    pub exchange: ExchangeType,
    /// Set when the sender is the original initiator of the IKE SA.
    pub initiator: bool,
    /// Set in responses.
    pub response: bool,
    /// Message id.
    pub message_id: u32,
}

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;

impl Header {
    /// Reads the header of a whole datagram and checks its version and length.
    ///
    /// # Errors
    /// Fewer than 28 octets, a length other than the datagram's, or a major version other than 2.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(datagram);
        let initiator_spi = u64::from_be_bytes(reader.array()?);
        let responder_spi = u64::from_be_bytes(reader.array()?);
        let next_payload = reader.u8()?;
        let version = reader.u8()?;
        let exchange = ExchangeType(reader.u8()?);
        let flags = reader.u8()?;
        let message_id = reader.u32()?;
        let length = reader.u32()?;
        if length as usize != datagram.len() {
            return Err(ParseError::HeaderLength);
        }
        if version >> 4 != 2 {
            return Err(ParseError::MajorVersion(version >> 4));
        }
        if initiator_spi == 0 {
            return Err(ParseError::Malformed("initiator SPI"));
        }
        Ok(Self {
            initiator_spi,
            responder_spi,
            next_payload,
            exchange,
            initiator: flags & FLAG_INITIATOR != 0,
            response: flags & FLAG_RESPONSE != 0,
            message_id,
        })
    }

    /// Writes the header for a message of `length` octets in all.
    pub fn emit(&self, length: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.initiator_spi.to_be_bytes());
        out.extend_from_slice(&self.responder_spi.to_be_bytes());
        out.push(self.next_payload);
        out.push(0x20);
        out.push(self.exchange.0);
        let initiator = if self.initiator { FLAG_INITIATOR } else { 0 };
        out.push(initiator | if self.response { FLAG_RESPONSE } else { 0 });
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}
