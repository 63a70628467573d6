//! IPv4 fragmentation before encryption (RFC 791 section 2.3): for inner packets over the tunnel
//! MTU whose sender allows it.

use packet::{IpView, checksum};

use crate::DropReason;

const DONT_FRAGMENT_AND_RESERVED: u16 = 0xc000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
/// The bit of an option's type that says it stands in every fragment.
const OPTION_COPIED: u8 = 0x80;

/// Cuts `octets` into fragments of at most `mtu` octets and hands each to `emit`, up to its first
/// refusal. `piece` is scratch space.
///
/// # Errors
/// What `emit` says; [`DropReason::TooBig`] where the header leaves no room for eight octets;
/// [`DropReason::InnerMalformed`] for a fragment that reaches past the longest packet there is.
pub(crate) fn fragment(
    octets: &[u8],
    view: &IpView,
    mtu: u16,
    piece: &mut Vec<u8>,
    mut emit: impl FnMut(&[u8]) -> Result<(), DropReason>,
) -> Result<(), DropReason> {
    let malformed = DropReason::InnerMalformed;
    let header = octets.get(..view.upper).ok_or(malformed)?;
    let payload = octets.get(view.upper..view.length).ok_or(malformed)?;
    let &[_, _, _, _, _, _, high, low, ..] = header else { return Err(malformed) };
    let field = u16::from_be_bytes([high, low]);
    let (flags, offset) = (field & !OFFSET, usize::from(field & OFFSET) * 8);
    if header.len() + offset + payload.len() > usize::from(u16::MAX) {
        return Err(malformed);
    }
    let step = usize::from(mtu).saturating_sub(header.len()) / 8 * 8;
    if step == 0 {
        return Err(DropReason::TooBig);
    }
    for (i, part) in payload.chunks(step).enumerate() {
        let at = i * step;
        // The original may be a fragment itself: then its own "more fragments" stays on the last.
        let more = if at + part.len() == payload.len() { flags } else { MORE_FRAGMENTS };
        piece.clear();
        piece.extend_from_slice(header);
        let place = u16::try_from((offset + at) / 8).map_err(|_| malformed)?;
        let field = (flags & DONT_FRAGMENT_AND_RESERVED) | (more & MORE_FRAGMENTS) | place;
        let length = u16::try_from(header.len() + part.len()).map_err(|_| malformed)?;
        rewrite(piece, length, field, i > 0).ok_or(malformed)?;
        piece.extend_from_slice(part);
        emit(piece)?;
    }
    Ok(())
}

/// Makes `header` that of one fragment.
fn rewrite(header: &mut [u8], length: u16, field: u16, later: bool) -> Option<()> {
    header.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
    header.get_mut(6..8)?.copy_from_slice(&field.to_be_bytes());
    if later {
        blank_options(header.get_mut(20..)?);
    }
    header.get_mut(10..12)?.fill(0);
    let sum = checksum::of(&[header]);
    header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Blanks the options that stand in the first fragment only (RFC 791 section 3.1).
fn blank_options(mut options: &mut [u8]) {
    while let [kind, rest @ ..] = options {
        let length = match *kind {
            OPTION_END => return,
            OPTION_NOP => 1,
            _ => rest.first().map_or(0, |length| usize::from(*length)),
        };
        let copied = *kind & OPTION_COPIED != 0;
        let Some((option, rest)) = options.split_at_mut_checked(length) else { return };
        if option.is_empty() {
            return;
        }
        if !copied {
            option.fill(OPTION_NOP);
        }
        options = rest;
    }
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
            fragment(&packet, &view, 1400, &mut Vec::new(), |part| {
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
                Ok(())
            })
            .unwrap();
            assert_eq!(last, 1);
            let whole: Vec<u8> = payload.into_iter().map(Option::unwrap).collect();
            assert_eq!(whole, packet[20..]);
        }
    }

    #[test]
    fn a_fragment_is_fragmented_again_and_options_stand_where_they_belong() {
        // Record route (not copied), strict source route (copied), end of options.
        let options = [7, 3, 4, 0x89, 3, 4, 0, 0];
        let mut packet = vec![0x47, 0, 0, 128, 7, 7, 0x20, 10, 64, 17, 0, 0];
        packet.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend_from_slice(&options);
        packet.extend((0..100).map(|i: u8| i));
        let view = IpView::parse(&packet).unwrap();
        let mut parts = Vec::new();
        let mut emit = |part: &[u8]| {
            parts.push(part.to_vec());
            Ok(())
        };
        fragment(&packet, &view, 100, &mut Vec::new(), &mut emit).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0][20..28], options);
        assert_eq!(parts[1][20..28], [1, 1, 1, 0x89, 3, 4, 0, 0]);
        // Both say that more follow: the second because the original did.
        assert_eq!(parts[0][6..8], [0x20, 10]);
        assert_eq!(parts[1][6..8], [0x20, 10 + 9]);
        assert_eq!([&parts[0][28..], &parts[1][28..]].concat(), packet[28..]);
        assert!(parts.iter().all(|part| checksum::of(&[&part[..28]]) == 0));
    }

    #[test]
    fn what_cannot_be_fragmented_is_refused() {
        let mut packet = vec![0x45, 0, 0, 120, 7, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend_from_slice(&[0; 100]);
        let view = IpView::parse(&packet).unwrap();
        let cut = |packet: &[u8], view: &IpView, mtu| {
            fragment(packet, view, mtu, &mut Vec::new(), |_| Ok(()))
        };
        assert_eq!(cut(&packet, &view, 27), Err(DropReason::TooBig));
        assert_eq!(cut(&packet, &view, 28), Ok(()));
        packet[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
        assert_eq!(cut(&packet, &view, 60), Err(DropReason::InnerMalformed));
        let refusal = Err(DropReason::SequenceExhausted);
        packet[6..8].fill(0);
        assert_eq!(fragment(&packet, &view, 60, &mut Vec::new(), |_| refusal), refusal);
    }
}
