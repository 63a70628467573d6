//! What the running `vgw` answers when a peer gives up an SA that carried a tunnel. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::time::{Duration, Instant};

use hostile::client::Client;
use hostile::{Net, SCENARIO};
use ike::crypto::KeyExchange;
use ike::message::{ExchangeType, Notify, NotifyType, Payload, ProtocolId};
use ike::suite::{EspProposals, KeGroup};
use rand_core::OsRng;
use sa::{SelectorSet, Spi};

/// How long a message waits that may make the peer forget an SA which packets are under way with:
/// `DRAIN` of `runtime::outbox`.
const DRAIN: Duration = Duration::from_millis(20);

/// The answer to an INFORMATIONAL request, and the time to it.
fn informational(client: &mut Client, payloads: &[Payload]) -> (Vec<Payload>, Duration) {
    let begin = Instant::now();
    let answer = client.request(ExchangeType::INFORMATIONAL, payloads);
    (answer.unwrap_or_else(|| panic!("no answer to {payloads:?}")), begin.elapsed())
}

/// The SPI of the ESP proposal of a message.
fn spi(payloads: &[Payload]) -> Vec<u8> {
    let offered = |p: &Payload| match p {
        Payload::Sa(proposals) => Some(proposals[0].spi.clone()),
        _ => None,
    };
    payloads.iter().find_map(offered).unwrap_or_else(|| panic!("no SA: {payloads:?}"))
}

#[test]
fn a_delete_is_answered_when_the_packets_of_the_old_sa_had_time_to_arrive() {
    let mut net = Net::build(SCENARIO);
    net.vgw.start().unwrap();
    let (mut client, own, peer) = net.stranger(0);
    assert!(client.init());
    let payloads = client.auth_payloads(&own, &peer);
    let mut ours = spi(&payloads);
    let answer = client.request(ExchangeType::IKE_AUTH, &payloads).unwrap();
    let mut theirs = spi(&answer);

    let everything = SelectorSet::nets(&["0.0.0.0/0".parse().unwrap()]);
    let mut quickest = Duration::MAX;
    for round in 0..5 {
        // Nothing changes the SA that carries the tunnel: the answers come as soon as they can.
        for _ in 0..5 {
            quickest = quickest.min(informational(&mut client, &[]).1);
        }
        let rekey = Notify {
            protocol: ProtocolId::ESP,
            spi: ours.clone(),
            kind: NotifyType::REKEY_SA,
            data: Vec::new(),
        };
        let key = KeyExchange::generate(KeGroup::X25519, &mut OsRng).unwrap();
        let offer = EspProposals { groups: vec![KeGroup::X25519], ..EspProposals::default() };
        let request = [
            Payload::Notify(rekey),
            Payload::Sa(offer.offer(Spi(0x8000_0000 | round), true)),
            Payload::Nonce(vec![0x55; 32]),
            Payload::Ke { group: KeGroup::X25519.id(), data: key.public().to_vec() },
            Payload::TsI(everything.clone()),
            Payload::TsR(everything.clone()),
        ];
        let answer = client.request(ExchangeType::CREATE_CHILD_SA, &request).unwrap();
        let delete = |spi| Payload::Delete { protocol: ProtocolId::ESP, spis: vec![spi] };
        let (deleted, took) = informational(&mut client, &[delete(ours)]);
        assert_eq!(deleted, [delete(theirs)]);
        assert!(took >= DRAIN, "the DELETE was answered after {took:?}");
        (ours, theirs) = (spi(&request), spi(&answer));
    }
    assert!(quickest < DRAIN, "nothing was answered before {quickest:?}");
}
