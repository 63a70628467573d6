//! Traffic Selector payloads (RFC 7296 section 3.13).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sa::{SelectorSet, TrafficSelector};

use super::{ParseError, Reader};

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;
/// More selectors than any gateway sends.
const MAX_SELECTORS: usize = 64;

/// Parses the body of a TSi or TSr payload. Selectors of types that we do not know are left out.
///
/// # Errors
/// A count that disagrees with the body, a reversed range, over 64 selectors.
pub fn parse_selectors(body: &[u8]) -> Result<SelectorSet, ParseError> {
    let bad = ParseError::Malformed("traffic selector");
    let mut reader = Reader::new(body);
    let count = usize::from(reader.u8()?);
    reader.take(3)?;
    if count > MAX_SELECTORS {
        return Err(ParseError::TooMany("traffic selectors"));
    }
    let mut set = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = reader.u8()?;
        let protocol = reader.u8()?;
        let length = usize::from(reader.u16()?);
        let mut inner = Reader::new(reader.take(length.checked_sub(4).ok_or(bad)?)?);
        let (first, last) = match kind {
            TS_IPV4_ADDR_RANGE | TS_IPV6_ADDR_RANGE => (inner.u16()?, inner.u16()?),
            _ => continue,
        };
        let (start, end): (IpAddr, IpAddr) = if kind == TS_IPV4_ADDR_RANGE {
            (Ipv4Addr::from(inner.array::<4>()?).into(), Ipv4Addr::from(inner.array::<4>()?).into())
        } else {
            (
                Ipv6Addr::from(inner.array::<16>()?).into(),
                Ipv6Addr::from(inner.array::<16>()?).into(),
            )
        };
        if !inner.is_empty() {
            return Err(bad);
        }
        set.push(TrafficSelector::new(start..=end, protocol, first..=last).map_err(|_| bad)?);
    }
    if !reader.is_empty() || count == 0 {
        return Err(bad);
    }
    Ok(SelectorSet(set))
}

/// The body of a TSi or TSr payload.
#[must_use]
pub fn emit_selectors(set: &SelectorSet) -> Vec<u8> {
    let mut out = vec![u8::try_from(set.0.len()).unwrap_or(u8::MAX), 0, 0, 0];
    for ts in set.0.iter().take(usize::from(u8::MAX)) {
        let (kind, length) = if ts.is_ipv4() { (7, 16_u16) } else { (8, 40) };
        out.push(kind);
        out.push(ts.protocol());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&ts.ports().start().to_be_bytes());
        out.extend_from_slice(&ts.ports().end().to_be_bytes());
        for address in [*ts.addresses().start(), *ts.addresses().end()] {
            match address {
                IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
                IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
            }
        }
    }
    out
}
