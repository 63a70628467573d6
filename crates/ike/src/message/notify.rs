//! The Notify payload (RFC 7296 section 3.10).

use super::{ParseError, ProtocolId, Reader};

/// Notify message types; open, so that unknown numbers survive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NotifyType(pub u16);

macro_rules! notify_types {
    ($($name:ident = $value:expr;)*) => {
        #[expect(missing_docs, reason = "the RFC's names")]
        impl NotifyType {
            $(pub const $name: Self = Self($value);)*
        }
        impl std::fmt::Debug for NotifyType {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match *self {
                    $(Self::$name => f.write_str(stringify!($name)),)*
                    Self(other) => write!(f, "NOTIFY_{other}"),
                }
            }
        }
    };
}

notify_types! {
    UNSUPPORTED_CRITICAL_PAYLOAD = 1;
    INVALID_IKE_SPI = 4;
    INVALID_MAJOR_VERSION = 5;
    INVALID_SYNTAX = 7;
    INVALID_MESSAGE_ID = 9;
    INVALID_SPI = 11;
    NO_PROPOSAL_CHOSEN = 14;
    INVALID_KE_PAYLOAD = 17;
    AUTHENTICATION_FAILED = 24;
    SINGLE_PAIR_REQUIRED = 34;
    NO_ADDITIONAL_SAS = 35;
    INTERNAL_ADDRESS_FAILURE = 36;
    FAILED_CP_REQUIRED = 37;
    TS_UNACCEPTABLE = 38;
    INVALID_SELECTORS = 39;
    UNACCEPTABLE_ADDRESSES = 40;
    UNEXPECTED_NAT_DETECTED = 41;
    TEMPORARY_FAILURE = 43;
    CHILD_SA_NOT_FOUND = 44;
    INITIAL_CONTACT = 16384;
    SET_WINDOW_SIZE = 16385;
    ADDITIONAL_TS_POSSIBLE = 16386;
    NAT_DETECTION_SOURCE_IP = 16388;
    NAT_DETECTION_DESTINATION_IP = 16389;
    COOKIE = 16390;
    USE_TRANSPORT_MODE = 16391;
    REKEY_SA = 16393;
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394;
    NON_FIRST_FRAGMENTS_ALSO = 16395;
    MOBIKE_SUPPORTED = 16396;
    ADDITIONAL_IP4_ADDRESS = 16397;
    ADDITIONAL_IP6_ADDRESS = 16398;
    NO_ADDITIONAL_ADDRESSES = 16399;
    UPDATE_SA_ADDRESSES = 16400;
    COOKIE2 = 16401;
    NO_NATS_ALLOWED = 16402;
    IKEV2_FRAGMENTATION_SUPPORTED = 16430;
    SIGNATURE_HASH_ALGORITHMS = 16431;
}

impl NotifyType {
    /// Error types are below 16384 (RFC 7296 3.10.1); the rest are status types.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.0 < 16384
    }
}

/// One Notify payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify {
    /// The protocol of `spi`, [`ProtocolId::NONE`] without one.
    pub protocol: ProtocolId,
    /// The SPI that it speaks of, or nothing.
    pub spi: Vec<u8>,
    /// What it says.
    pub kind: NotifyType,
    /// Its data.
    pub data: Vec<u8>,
}

impl Notify {
    /// A notification that names no SPI.
    #[must_use]
    pub fn new(kind: NotifyType, data: Vec<u8>) -> Self {
        Self { protocol: ProtocolId::NONE, spi: Vec::new(), kind, data }
    }

    /// A notification about the ESP SA that `spi` names.
    #[must_use]
    pub fn esp(kind: NotifyType, spi: sa::Spi) -> Self {
        Self { protocol: ProtocolId::ESP, spi: spi.to_be_bytes().to_vec(), kind, data: Vec::new() }
    }

    /// The ESP SPI, if this speaks of one.
    #[must_use]
    pub fn esp_spi(&self) -> Option<sa::Spi> {
        let spi = <[u8; 4]>::try_from(self.spi.as_slice()).ok()?;
        (self.protocol == ProtocolId::ESP).then(|| sa::Spi::from_be_bytes(spi))
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(body);
        let protocol = ProtocolId(reader.u8()?);
        let spi_len = usize::from(reader.u8()?);
        let kind = NotifyType(reader.u16()?);
        if spi_len > 8 {
            return Err(ParseError::Malformed("notify"));
        }
        let spi = reader.take(spi_len)?.to_vec();
        Ok(Self { protocol, spi, kind, data: reader.rest().to_vec() })
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.protocol.0);
        out.push(u8::try_from(self.spi.len()).unwrap_or(0));
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(&self.spi);
        out.extend_from_slice(&self.data);
    }
}
