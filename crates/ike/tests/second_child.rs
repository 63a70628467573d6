//! CREATE_CHILD_SA for a second Child SA.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use common::rogue::{ROGUE, Rogue, beside_a_tunnel, error, esp_offer};
use common::{B, nets};
use ike::Event;
use ike::message::{ExchangeType, NotifyType, Payload};
use sa::Spi;

/// A tunnel has one Child SA: a second one may take its place if it carries at least as much, and is
/// refused if networks would be lost with it.
#[test]
fn a_second_child_sa_takes_no_network_away_from_the_tunnel() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let nonce = || Payload::Nonce(vec![7; 32]);
    for (theirs, ours) in [
        (&["172.16.0.0/16"][..], &["10.0.0.0/16"][..]),
        (&["172.16.0.0/12"], &["10.0.7.0/24"]),
        (&["172.17.0.0/16", "172.18.0.0/16"], &["10.0.0.0/16"]),
    ] {
        let offer = esp_offer(Spi(0x5555), None);
        let payloads = [offer, nonce(), Payload::TsI(nets(theirs)), Payload::TsR(nets(ours))];
        let kind = error(rogue.ask(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads));
        assert_eq!(kind, NotifyType::NO_ADDITIONAL_SAS, "{theirs:?} {ours:?}");
    }
    let mut lines = pair.hosts[B].events.iter().filter_map(|event| match event {
        Event::Failed { tunnel: Some(ROGUE), diagnosis, .. } => Some(diagnosis.to_string()),
        _ => None,
    });
    assert_eq!(
        lines.next_back().as_deref(),
        Some(
            "the peer wants a second Child SA, 10.0.0.0/16 === 172.17.0.0/16, 172.18.0.0/16, and a \
             tunnel has one, 10.0.0.0/16 === 172.16.0.0/12: put all networks into one"
        )
    );
    // The same again, and more than that, which is narrowed to the same.
    for (wider, spi) in [("172.16.0.0/12", 0x5556), ("0.0.0.0/0", 0x5557)] {
        let offer = esp_offer(Spi(spi), None);
        let payloads =
            [offer, nonce(), Payload::TsI(nets(&[wider])), Payload::TsR(nets(&["10.0.0.0/16"]))];
        let answer = rogue.ask(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads).unwrap();
        assert!(answer.iter().any(|p| matches!(p, Payload::TsI(_))), "{answer:?}");
    }
    rogue.assert_alive(&mut pair);
}
