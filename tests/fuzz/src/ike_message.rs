//! Datagrams of strangers at the IKE endpoint.

use std::time::Instant;

use ike::message::{emit_chain, parse_chain, parse_message};

use crate::input::Input;
use crate::peer;

/// Messages with their lengths before them, or one alone. What parses is written back and parses to
/// the same; and an endpoint that gets them all answers none with more than it got.
pub(crate) fn run(input: &[u8]) {
    let now = Instant::now();
    let mut endpoint = peer::endpoint(now);
    let mut parts = Input(input);
    let mut messages = vec![input];
    while !parts.is_empty() && messages.len() < 8 {
        messages.push(parts.part());
    }
    for octets in messages {
        if let Ok(message) = parse_message(octets)
            && message.encrypted.is_none()
        {
            let mut chain = Vec::new();
            let first = emit_chain(&message.payloads, &mut chain);
            assert_eq!(parse_chain(first, &chain).as_ref(), Ok(&message.payloads));
        }
        endpoint.handle_datagram(peer::path(), octets, now);
        let sent: usize = peer::drain(&mut endpoint).iter().map(Vec::len).sum();
        assert!(sent <= octets.len(), "{sent} octets for {}", octets.len());
    }
    peer::pass_time(&mut endpoint, now);
    assert_eq!(endpoint.ike_sas(), 0, "strangers leave nothing behind");
}
