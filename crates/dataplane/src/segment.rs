//! Cutting a TSO or USO super-packet into packets of the tunnel, and completing checksums that the
//! kernel left to us (`virtio_net_hdr` with NEEDS_CSUM).

use std::net::IpAddr;
use std::ops::Range;

use packet::ip::{TCP, UDP};
use packet::{Gso, GsoKind, IpView, checksum};
use simd_aead::Checksum;

use crate::DropReason;

const TCP_CWR: u8 = 0x80;
const TCP_FIN_PSH: u8 = 0x09;

/// The headers of one segment, ready to be sealed in front of `body` but for the transport checksum.
pub(crate) struct Segment<'a> {
    pub(crate) headers: &'a [u8],
    pub(crate) checksum: Checksum,
    /// Where in the super-packet the segment's payload is.
    pub(crate) body: Range<usize>,
}

/// Octets of IP and transport headers of a super-packet; `None` if it is not what `gso` says.
pub(crate) fn header_len(octets: &[u8], view: &IpView, gso: Gso) -> Option<usize> {
    let transport = match (gso.kind, view.protocol) {
        (GsoKind::Tcp, TCP) => usize::from(octets.get(view.upper + 12)? >> 4) * 4,
        (GsoKind::Udp, UDP) => 8,
        _ => return None,
    };
    let length = view.upper + transport;
    let smallest = if gso.kind == GsoKind::Tcp { 20 } else { 8 };
    (transport >= smallest && length <= view.length && gso.segment > 0 && !view.fragment)
        .then_some(length)
}

/// Hands each segment of the super-packet `octets` to `emit`, up to its first refusal. `headers` is
/// scratch space.
///
/// # Errors
/// What `emit` says, or that the super-packet is not what `gso` says.
pub(crate) fn split(
    octets: &[u8],
    view: &IpView,
    gso: Gso,
    headers: &mut Vec<u8>,
    mut emit: impl FnMut(Segment<'_>) -> Result<(), DropReason>,
) -> Result<(), DropReason> {
    let malformed = DropReason::InnerMalformed;
    let length = header_len(octets, view, gso).ok_or(malformed)?;
    let original = octets.get(..length).ok_or(malformed)?;
    let template = Template::new(original, view, gso.kind).ok_or(malformed)?;
    let step = usize::from(gso.segment);
    let mut start = length;
    let mut index: u16 = 0;
    if octets.len() < view.length {
        return Err(malformed);
    }
    while start < view.length {
        let end = (start + step).min(view.length);
        headers.clear();
        headers.extend_from_slice(original);
        let place = Place {
            index,
            offset: start - length,
            first: start == length,
            last: end == view.length,
        };
        let checksum = template.rewrite(headers, &place, end - start).ok_or(malformed)?;
        emit(Segment { headers, checksum, body: start..end })?;
        start = end;
        index = index.wrapping_add(1);
    }
    Ok(())
}

struct Place {
    index: u16,
    offset: usize,
    first: bool,
    last: bool,
}

/// What all segments have in common: the sums of those header words that are the same in each.
struct Template {
    kind: GsoKind,
    upper: usize,
    /// Of the IPv4 header.
    ip: Option<u64>,
    /// Of the pseudo-header and the transport header.
    transport: u64,
}

impl Template {
    fn new(headers: &[u8], view: &IpView, kind: GsoKind) -> Option<Self> {
        let (ip, transport) = headers.split_at_checked(view.upper)?;
        let of = |octets: &[u8], parts: &[Range<usize>]| {
            parts
                .iter()
                .try_fold(0, |sum, part| Some(checksum::add(sum, octets.get(part.clone())?)))
        };
        let (ip, addresses) = match view.source {
            // Without the length, the identification and the checksum.
            IpAddr::V4(_) => (Some(of(ip, &[0..2, 6..10, 12..ip.len()])?), ip.get(12..20)?),
            IpAddr::V6(_) => (None, ip.get(8..40)?),
        };
        let same = match kind {
            // Without the sequence number, the word of the flags, and the checksum.
            GsoKind::Tcp => of(transport, &[0..4, 8..12, 14..16, 18..transport.len()])?,
            // Without the length and the checksum.
            GsoKind::Udp => checksum::add(0, transport.get(0..4)?),
        };
        let transport = checksum::pseudo_header(addresses, view.protocol, 0) + same;
        Some(Self { kind, upper: view.upper, ip, transport })
    }

    /// Makes `headers`, a copy of the super-packet's, those of one segment of `body` octets. The
    /// transport checksum is left to the pass that seals it.
    fn rewrite(&self, headers: &mut [u8], place: &Place, body: usize) -> Option<Checksum> {
        let total = u16::try_from(headers.len() + body).ok()?;
        let (ip, transport) = headers.split_at_mut_checked(self.upper)?;
        if let Some(same) = self.ip {
            let id = u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]).wrapping_add(place.index);
            ip.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
            ip.get_mut(4..6)?.copy_from_slice(&id.to_be_bytes());
            let sum = checksum::fold(same + word(total) + word(id));
            ip.get_mut(10..12)?.copy_from_slice(&sum.map(|octet| !octet));
        } else {
            let length = total.checked_sub(40)?;
            ip.get_mut(4..6)?.copy_from_slice(&length.to_be_bytes());
        }
        let length = u16::try_from(transport.len() + body).ok()?;
        let (at, own) = match self.kind {
            GsoKind::Tcp => {
                let sequence = u32::from_be_bytes(*transport.get(4..8)?.first_chunk::<4>()?);
                let sequence = sequence.wrapping_add(u32::try_from(place.offset).ok()?);
                transport.get_mut(4..8)?.copy_from_slice(&sequence.to_be_bytes());
                let flags = transport.get_mut(13)?;
                if !place.last {
                    *flags &= !TCP_FIN_PSH;
                }
                if !place.first {
                    *flags &= !TCP_CWR;
                }
                let flags = u16::from_be_bytes([*transport.get(12)?, *transport.get(13)?]);
                let sequence = u64::from(u32::from_ne_bytes(sequence.to_be_bytes()));
                (16, sequence + word(flags))
            }
            GsoKind::Udp => {
                transport.get_mut(4..6)?.copy_from_slice(&length.to_be_bytes());
                (6, word(length))
            }
        };
        transport.get_mut(at..at + 2)?.fill(0);
        let sum = self.transport + word(length) + own;
        Some(Checksum { field: self.upper + at, sum, udp: self.kind == GsoKind::Udp })
    }
}

/// A word of a header, as [`checksum::add`] takes it.
fn word(value: u16) -> u64 {
    u64::from(u16::from_ne_bytes(value.to_be_bytes()))
}

/// What completes a partial checksum, whose field holds the sum of the pseudo-header: the packet up to
/// the end of the field is the prefix, the rest the body. `None` if the field is not in `octets`.
pub(crate) fn partial(octets: &[u8], start: u16, offset: u16, udp: bool) -> Option<Checksum> {
    let field = usize::from(start) + usize::from(offset);
    // An odd offset would take the body's octets for each other.
    let covered = octets.get(usize::from(start)..field + 2).filter(|_| offset.is_multiple_of(2))?;
    Some(Checksum { field, sum: checksum::add(0, covered), udp })
}
