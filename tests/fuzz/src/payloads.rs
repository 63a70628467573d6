//! What an authenticated peer can put into its messages.

use std::time::Instant;

use ike::message::{ExchangeType, Payload, emit_chain, parse_chain};

use crate::input::Input;
use crate::peer::{Peer, pass_time};

fn exchange(octet: u8) -> ExchangeType {
    match octet & 3 {
        0 => ExchangeType::CREATE_CHILD_SA,
        1 => ExchangeType::INFORMATIONAL,
        2 => ExchangeType::IKE_AUTH,
        _ => ExchangeType(octet),
    }
}

/// First octet: bit 0 says whether the peer is authenticated already. Then messages: flags, type of
/// the first payload, length, payloads. Flags: exchange, whether it is a response, and whether the
/// endpoint has a request of its own in flight.
pub(crate) fn run(input: &[u8]) {
    let mut input = Input(input);
    let now = Instant::now();
    let up = input.octet() & 1 == 0;
    let Some(mut peer) = Peer::new(now, up) else { panic!("the target does not work") };
    for _ in 0..6 {
        if input.is_empty() {
            break;
        }
        let (flags, first) = (input.octet(), input.octet());
        let plain = input.part();
        // Selectors of types that nobody knows are left out, and none at all cannot be sent.
        let none = |p: &Payload| matches!(p, Payload::TsI(s) | Payload::TsR(s) if s.is_empty());
        if let Ok(payloads) = parse_chain(first, plain)
            && !payloads.iter().any(none)
        {
            let mut chain = Vec::new();
            let first = emit_chain(&payloads, &mut chain);
            assert_eq!(parse_chain(first, &chain).as_ref(), Ok(&payloads));
        }
        if flags & 0x40 != 0 {
            peer.command(first);
        }
        peer.send(exchange(flags), flags & 0x80 != 0, first, plain);
    }
    pass_time(&mut peer.endpoint, now);
}

/// The same in fragments: exchange, number, total, type of the first payload, length, octets.
pub(crate) fn run_fragments(input: &[u8]) {
    let mut input = Input(input);
    let now = Instant::now();
    let up = input.octet() & 1 == 0;
    let Some(mut peer) = Peer::new(now, up) else { panic!("the target does not work") };
    for _ in 0..80 {
        if input.is_empty() {
            break;
        }
        let kind = exchange(input.octet());
        let number = (u16::from(input.octet()), u16::from(input.octet()));
        let first = input.octet();
        let plain = input.part();
        peer.send_fragment(kind, number, first, plain);
    }
    pass_time(&mut peer.endpoint, now);
}
