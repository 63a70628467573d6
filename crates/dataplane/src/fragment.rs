//! IPv4 fragmentation before encryption (RFC 791 section 2.3): for inner packets over the tunnel
//! MTU whose sender allows it.

use packet::{IpView, checksum};

/// Cuts `octets` into fragments of at most `mtu` octets and hands each to `emit`. Returns whether
/// that could be done: the header must leave room for at least eight octets.
pub(crate) fn fragment(
    octets: &[u8],
    view: &IpView,
    mtu: u16,
    mut emit: impl FnMut(&[u8]),
) -> bool {
    let (Some(header), Some(payload)) =
        (octets.get(..view.upper), octets.get(view.upper..view.length))
    else {
        return false;
    };
    let step = usize::from(mtu).saturating_sub(header.len()) / 8 * 8;
    let Some(&[_, _, _, _, _, _, high, low]) = header.first_chunk::<8>() else { return false };
    if step == 0 {
        return false;
    }
    let field = u16::from_be_bytes([high, low]);
    let (flags, offset) = (field & 0xe000, usize::from(field & 0x1fff));
    let mut out = Vec::with_capacity(usize::from(mtu));
    for (i, part) in payload.chunks(step).enumerate() {
        let at = i * step;
        let last = at + part.len() == payload.len();
        // The original may be a fragment itself: then its own "more fragments" stays on the last.
        let more = if last { flags & 0x2000 } else { 0x2000 };
        let place = u16::try_from(offset + at / 8).unwrap_or(0x1fff) & 0x1fff;
        out.clear();
        out.extend_from_slice(header);
        let length = u16::try_from(header.len() + part.len()).unwrap_or(u16::MAX);
        out[2..4].copy_from_slice(&length.to_be_bytes());
        out[6..8].copy_from_slice(&((flags & 0xc000) | more | place).to_be_bytes());
        out[10..12].fill(0);
        let sum = checksum::of(&[&out]).to_be_bytes();
        out[10..12].copy_from_slice(&sum);
        out.extend_from_slice(part);
        emit(&out);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_put_together_are_the_packet_and_none_is_over_the_mtu() {
        for length in [1400, 1420, 3000, 9000_usize] {
            let mut packet =
                vec![0x45, 0, 0, 0, 7, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            packet.extend((20..length).map(|i| i as u8));
            packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            let view = IpView::parse(&packet).unwrap();
            let mut payload = vec![None; length - 20];
            let mut last = 0;
            assert!(fragment(&packet, &view, 1400, |part| {
                assert!(part.len() <= 1400);
                assert_eq!(checksum::of(&[&part[..20]]), 0);
                let view = IpView::parse(part).unwrap();
                assert_eq!(view.length, part.len());
                let field = u16::from_be_bytes([part[6], part[7]]);
                let at = usize::from(field & 0x1fff) * 8;
                for (i, octet) in part[20..].iter().enumerate() {
                    assert_eq!(payload[at + i].replace(*octet), None);
                }
                last += usize::from(field & 0x2000 == 0);
            }));
            assert_eq!(last, 1);
            let whole: Vec<u8> = payload.into_iter().map(Option::unwrap).collect();
            assert_eq!(whole, packet[20..]);
        }
    }
}
