//! CREATE_CHILD_SA for a second Child SA.

use std::time::Duration;

use crate::common::rogue::{ROGUE, Rogue, answers, beside_a_tunnel, error, esp_offer, inbound};
use crate::common::{B, Pair, nets};
use ike::message::{ExchangeType, NotifyType, Payload, ProtocolId};
use ike::{Command, Event};
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

/// The peer makes a Child SA that we asked for, and deletes it before its answer comes: that one must
/// not come up here alone. What it was for is tried again.
#[test]
fn a_child_sa_whose_delete_overtakes_its_answer_does_not_come_up() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let asked = |pair: &Pair, from: usize| {
        let create = |octets: &Vec<u8>| octets[18] == ExchangeType::CREATE_CHILD_SA.0;
        let request = answers(pair, from).into_iter().find(create);
        request.map(|octets| u32::from_be_bytes(octets[20..24].try_into().unwrap()))
    };
    let answer = |spi: Spi| {
        let [_, tsr, tsi] = Rogue::child(spi);
        let (Payload::TsI(theirs), Payload::TsR(ours)) = (tsr, tsi) else { unreachable!() };
        [
            esp_offer(spi, None),
            Payload::Nonce(vec![7; 32]),
            Payload::TsI(ours),
            Payload::TsR(theirs),
        ]
    };
    let old = pair.hosts[B].endpoint.child_info(ROGUE).unwrap();
    let before = pair.hosts[B].sent.len();
    pair.command(B, Command::RekeyChild(ROGUE));
    let id = asked(&pair, before).expect("a rekey");
    let gone = Spi(0x7777);
    let spis = vec![gone.to_be_bytes().to_vec()];
    let delete = Payload::Delete { protocol: ProtocolId::ESP, spis };
    let answered = rogue.ask(&mut pair, ExchangeType::INFORMATIONAL, &[delete]);
    assert_eq!(answered, Some(vec![]), "we do not know it yet");
    let late = rogue.response(ExchangeType::CREATE_CHILD_SA, id, &answer(gone));
    let before = pair.hosts[B].sent.len();
    pair.inject(B, rogue.path, &late);
    let now = pair.hosts[B].endpoint.child_info(ROGUE).unwrap();
    assert_eq!((now.inbound, now.outbound), (old.inbound, old.outbound), "the old one stays");
    assert_eq!(inbound(&pair), 1);
    pair.run_secs(3);
    let id = asked(&pair, before).expect("another try");
    let taken = rogue.response(ExchangeType::CREATE_CHILD_SA, id, &answer(Spi(0x7778)));
    pair.inject(B, rogue.path, &taken);
    let now = pair.hosts[B].endpoint.child_info(ROGUE).unwrap();
    assert_eq!(now.outbound, Spi(0x7778));
}

/// The peer opens a second Child SA and goes on sending on the first one. We delete the first one, but
/// only when the second one is known to stand at the peer, and carries what we send.
#[test]
fn what_a_second_child_sa_replaces_is_deleted_after_nothing_is_sent_on_it_any_more() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let old = pair.hosts[B].endpoint.child_info(ROGUE).unwrap();
    let second = Spi(0x5556);
    let [_, tsi, tsr] = Rogue::child(second);
    let payloads = [esp_offer(second, None), Payload::Nonce(vec![7; 32]), tsi, tsr];
    rogue.ask(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads).unwrap();
    // What we ask from now on, and whether the second one carried our packets then.
    let mut seen = pair.hosts[B].sent.len();
    let mut asked = Vec::new();
    for tenth in 0..200 {
        if tenth == 150 {
            // Its next request shows that it has our answer to the last one.
            rogue.ask(&mut pair, ExchangeType::INFORMATIONAL, &[]).unwrap();
        }
        pair.run(Duration::from_millis(100));
        let new = answers(&pair, seen);
        seen = pair.hosts[B].sent.len();
        let install = |e: &Event| matches!(e, Event::InstallOutbound(sa) if sa.spi == second);
        let carries = pair.hosts[B].events.iter().any(install);
        let ours = rogue.spis.0.to_be_bytes();
        for request in new.iter().filter(|o| o[..8] == ours && o[19] & 0x20 == 0) {
            let payloads = rogue.opened(request);
            let id = u32::from_be_bytes(request[20..24].try_into().unwrap());
            asked.push((payloads.clone(), carries));
            let deletes = payloads.iter().any(|p| matches!(p, Payload::Delete { .. }));
            let spis = vec![old.outbound.to_be_bytes().to_vec()];
            let delete = Payload::Delete { protocol: ProtocolId::ESP, spis };
            let answer = if deletes { vec![delete] } else { vec![] };
            let octets = rogue.response(ExchangeType::INFORMATIONAL, id, &answer);
            pair.inject(B, rogue.path, &octets);
        }
    }
    let spis = vec![old.inbound.to_be_bytes().to_vec()];
    let delete = Payload::Delete { protocol: ProtocolId::ESP, spis };
    assert_eq!(asked, [(vec![], false), (vec![delete], true)]);
    assert_eq!(pair.hosts[B].endpoint.child_info(ROGUE).unwrap().outbound, second);
}
