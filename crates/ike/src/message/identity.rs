//! Identities (RFC 7296 section 3.5) and their text form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use super::ParseError;

/// Who a peer says it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    Rfc822(String),
    /// ID_KEY_ID.
    KeyId(Vec<u8>),
    /// A type that we carry but do not interpret (ID_DER_ASN1_DN and others).
    Other(u8, Vec<u8>),
}

/// Longest identity that we accept, in octets.
const MAX_IDENTITY: usize = 256;

impl Identity {
    /// Parses the body of an IDi or IDr payload (type, three reserved octets, data).
    ///
    /// # Errors
    /// A length that the type cannot have, or over 256 octets.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let bad = ParseError::Malformed("identity");
        let (head, data) = body.split_first_chunk::<4>().ok_or(ParseError::Truncated)?;
        if data.len() > MAX_IDENTITY {
            return Err(bad);
        }
        let text = || String::from_utf8(data.to_vec()).map_err(|_| bad);
        Ok(match head[0] {
            1 => Self::Ipv4(Ipv4Addr::from(<[u8; 4]>::try_from(data).map_err(|_| bad)?)),
            2 => Self::Fqdn(text()?),
            3 => Self::Rfc822(text()?),
            5 => Self::Ipv6(Ipv6Addr::from(<[u8; 16]>::try_from(data).map_err(|_| bad)?)),
            11 => Self::KeyId(data.to_vec()),
            other => Self::Other(other, data.to_vec()),
        })
    }

    /// The body of an IDi or IDr payload, which AUTH covers too (RFC 7296 2.15).
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let (kind, data) = match self {
            Self::Ipv4(a) => (1, a.octets().to_vec()),
            Self::Fqdn(s) => (2, s.as_bytes().to_vec()),
            Self::Rfc822(s) => (3, s.as_bytes().to_vec()),
            Self::Ipv6(a) => (5, a.octets().to_vec()),
            Self::KeyId(k) => (11, k.clone()),
            Self::Other(kind, data) => (*kind, data.clone()),
        };
        let mut out = vec![kind, 0, 0, 0];
        out.extend_from_slice(&data);
        out
    }
}

impl Identity {
    /// Whether this is the same identity as `other`: host names, also those of mail addresses, do
    /// not differ by case (RFC 4343, RFC 5321 2.4); everything else does. AUTH covers the octets
    /// that were sent, so that no case is lost there.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(a), Self::Fqdn(b)) => a.eq_ignore_ascii_case(b),
            (Self::Rfc822(a), Self::Rfc822(b)) => match (a.rsplit_once('@'), b.rsplit_once('@')) {
                (Some((user_a, host_a)), Some((user_b, host_b))) => {
                    user_a == user_b && host_a.eq_ignore_ascii_case(host_b)
                }
                _ => a == b,
            },
            _ => self == other,
        }
    }

    /// The same for all identities that [match](Self::matches) each other, and for no others: a
    /// key for maps.
    #[must_use]
    pub fn folded(&self) -> Self {
        match self {
            Self::Fqdn(name) => Self::Fqdn(name.to_ascii_lowercase()),
            Self::Rfc822(mail) => Self::Rfc822(match mail.rsplit_once('@') {
                Some((user, host)) => format!("{user}@{}", host.to_ascii_lowercase()),
                None => mail.clone(),
            }),
            other => other.clone(),
        }
    }
}

impl From<IpAddr> for Identity {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self::Ipv4(a),
            IpAddr::V6(a) => Self::Ipv6(a),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, data: &[u8]| {
            data.iter().try_for_each(|b| write!(f, "{b:02x}"))
        };
        match self {
            Self::Ipv4(a) => write!(f, "{a}"),
            Self::Ipv6(a) => write!(f, "{a}"),
            Self::Fqdn(s) | Self::Rfc822(s) => write!(f, "{}", s.escape_debug()),
            Self::KeyId(k) => {
                write!(f, "keyid:")?;
                hex(f, k)
            }
            Self::Other(kind, data) => {
                write!(f, "type{kind}:")?;
                hex(f, data)
            }
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text is not an identity.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum IdentityError {
    /// Nothing, or too much.
    #[error("an identity has 1 to 256 characters")]
    Length,
    /// What follows `keyid:` is not hexadecimal.
    #[error("`keyid:` is followed by an even number of hexadecimal digits")]
    KeyId,
    /// A name with characters that no host or mail name has.
    #[error("`{0}` is neither an address, a host name, a mail address nor `keyid:HEX`")]
    Name(String),
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text.is_empty() || text.len() > MAX_IDENTITY {
            return Err(IdentityError::Length);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        if let Some(hex) = text.strip_prefix("keyid:") {
            let digits = hex.as_bytes();
            let hexadecimal = digits.iter().all(u8::is_ascii_hexdigit);
            if digits.is_empty() || digits.len() % 2 != 0 || !hexadecimal {
                return Err(IdentityError::KeyId);
            }
            let octets: Option<Vec<u8>> = digits
                .chunks(2)
                .map(|pair| {
                    let text = std::str::from_utf8(pair).ok()?;
                    u8::from_str_radix(text, 16).ok()
                })
                .collect();
            return octets.map(Self::KeyId).ok_or(IdentityError::KeyId);
        }
        let plain = |s: &str| {
            !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "-._+".contains(c))
        };
        match text.split_once('@') {
            Some((user, host)) if plain(user) && plain(host) => Ok(Self::Rfc822(text.into())),
            None if plain(text) => Ok(Self::Fqdn(text.into())),
            _ => Err(IdentityError::Name(text.into())),
        }
    }
}
