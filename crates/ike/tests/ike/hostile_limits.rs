//! What strangers can cost: memory, computation, and the place of the true peer.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::rogue::{
    self, ROGUE, Rogue, answers, assert_untouched, beside_a_tunnel, error, ike_offer, plain,
};
use crate::common::{A, B, Pair, TUNNEL, peers};
use ike::crypto::KeyExchange;
use ike::message::{
    ExchangeType, NotifyType, Payload, Proposal, ProtocolId, Transform, TransformType,
    parse_message,
};
use ike::suite::KeGroup;
use ike::{Command, EndpointConfig};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sa::Path;

fn from(remote: SocketAddr) -> Path {
    Path { local: SocketAddr::new(crate::common::address(B), 4500), remote }
}

fn init(spi: u64, group: KeGroup, public: Vec<u8>, padding: usize) -> Vec<u8> {
    let mut payloads = vec![
        Payload::Sa(ike_offer(group, &[])),
        Payload::Ke { group: group.id(), data: public },
        Payload::Nonce(vec![7; 16]),
    ];
    payloads.extend((padding > 0).then(|| Payload::VendorId(vec![0; padding])));
    plain((spi, 0), ExchangeType::IKE_SA_INIT, 0, &payloads)
}

fn public(group: KeGroup) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    KeyExchange::generate(group, &mut rng).unwrap().public().to_vec()
}

/// Requests in the name of the true peer, at 16 for each half minute, would keep it out if they took
/// the place that it needs.
#[test]
fn requests_in_the_name_of_the_peer_do_not_keep_it_out() {
    let mut pair = Pair::new(peers(), 1);
    let value = public(KeGroup::X25519);
    for spi in 1..=100 {
        let request = init(spi, KeGroup::X25519, value.clone(), 60);
        let source = SocketAddr::new(crate::common::address(A), 1000 + spi as u16);
        pair.inject(B, from(source), &request);
    }
    assert_eq!(pair.hosts[B].endpoint.half_open(), 16, "the others were asked for a cookie");
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(2);
    assert!(pair.hosts[A].outbound.is_some(), "the true peer brings its cookie");
    pair.run_secs(60);
    pair.assert_at_rest();
}

/// Whoever proves its address has no more than its share, either.
#[test]
fn a_source_with_cookies_has_a_share_of_its_own() {
    let mut pair = Pair::new(peers(), 1);
    let value = public(KeGroup::X25519);
    let path = from(SocketAddr::new(crate::common::address(A), 999));
    for spi in 1..=200 {
        let request = init(spi, KeGroup::X25519, value.clone(), 60);
        let before = pair.hosts[B].sent.len();
        pair.inject(B, path, &request);
        let answer = answers(&pair, before).pop();
        let cookie = answer.and_then(|octets| {
            parse_message(&octets).unwrap().payloads.into_iter().find_map(|payload| match payload {
                Payload::Notify(n) if n.kind == NotifyType::COOKIE => Some(n),
                _ => None,
            })
        });
        if let Some(cookie) = cookie {
            let mut payloads = vec![Payload::Notify(cookie)];
            payloads.extend(parse_message(&request).unwrap().payloads);
            let again = plain((spi, 0), ExchangeType::IKE_SA_INIT, 0, &payloads);
            pair.inject(B, path, &again);
        }
    }
    assert_eq!(pair.hosts[B].endpoint.half_open(), 32, "16 without a cookie and 16 with one");
    assert_eq!(pair.hosts[B].endpoint.counters().half_open_refused, 200 - 32);
}

/// The largest group, for which a private value costs milliseconds: without a proved address nobody
/// makes us compute more than a few.
#[test]
fn key_exchanges_are_not_computed_for_whoever_asks() {
    let mut config = peers();
    config[B].ike.groups = vec![KeGroup::Modp4096];
    config[B].remote = None;
    let length = public(KeGroup::Modp4096).len();
    for (value, padding, computed) in [
        // Too short, so that the answer would be larger.
        (vec![9; length], 0, 0),
        // Not of the group's length.
        (vec![9; 8], 0, 0),
        (vec![9; length + 1], 1000, 0),
        // Of the right length and size, but no value of the group.
        (vec![0; length], 1000, 64),
    ] {
        let mut pair =
            Pair::with(config.clone(), [EndpointConfig::default(), EndpointConfig::default()], 1);
        for spi in 1..=500_u64 {
            // Another source each time: the limit is not that of one address.
            let source = SocketAddr::from((((spi as u32) << 8).to_be_bytes(), 4500));
            let request = init(spi, KeGroup::Modp4096, value.clone(), padding);
            pair.inject(B, from(source), &request);
        }
        let counters = pair.hosts[B].endpoint.counters();
        let asked = counters.cookies_sent;
        let (wrong, half_open) = (counters.invalid_ke, pair.hosts[B].endpoint.half_open());
        assert_eq!(half_open, 0);
        let of_length = if value.len() == length { wrong } else { 0 };
        assert_eq!(of_length, computed, "{} octets, {asked} cookies", value.len());
        if value.len() == length {
            assert_eq!(wrong + asked, 500, "each was refused or asked for a cookie");
        }
        // Half a minute later nothing of it is left.
        pair.run_secs(31);
        assert_eq!(pair.hosts[B].endpoint.poll_timeout(), None);
    }
}

/// Peers that begin, fail and begin again, from addresses that are truly theirs.
#[test]
fn what_failed_attempts_leave_behind_is_bounded() {
    let mut pair = beside_a_tunnel();
    for seed in 0..1500 {
        let mut rogue = Rogue::init(&mut pair, 100 + seed);
        let payloads = rogue.identity(b"another key");
        let answer = rogue.ask(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        assert!(answer.is_some(), "refused, but not forgotten at once: {seed}");
        pair.now += Duration::from_millis(5);
    }
    assert!(pair.hosts[B].endpoint.ike_sas() <= 1025, "{}", pair.hosts[B].endpoint.ike_sas());
    pair.run_secs(20);
    assert_eq!(pair.hosts[B].endpoint.ike_sas(), 1);
    assert_untouched(&mut pair);
}

/// As many transforms as a request may have, all of which differ.
fn offer_of_thousands(transforms: u16) -> Vec<Proposal> {
    let kind = TransformType::ENCR;
    let all: Vec<Transform> =
        (1000..1000 + transforms).map(|id| Transform { kind, id, key_length: None }).collect();
    let proposal = |(number, transforms): (u8, &[Transform])| Proposal {
        number,
        protocol: ProtocolId::IKE,
        spi: vec![],
        transforms: transforms.to_vec(),
    };
    (1..).zip(all.chunks(255)).map(proposal).collect()
}

/// Whoever offers thousands of transforms gets its refusal, and the line about it stays short. To put
/// all their names into it took 200 ms of the control thread for each message.
#[test]
fn an_offer_of_thousands_of_transforms_costs_no_more_than_another() {
    let begin = std::time::Instant::now();
    let mut pair = beside_a_tunnel();
    let path = Rogue::init(&mut pair, 3).path;
    let ke = Payload::Ke { group: 31, data: vec![9; 32] };
    for spi in 1..=200 {
        let payloads = [Payload::Sa(offer_of_thousands(1000)), ke.clone(), nonce()];
        let request = plain((spi, 0), ExchangeType::IKE_SA_INIT, 0, &payloads);
        assert!(request.len() < 8192, "{}", request.len());
        pair.inject(B, path, &request);
    }
    let mut rogue = Rogue::up(&mut pair, 1);
    for _ in 0..50 {
        let payloads = [Payload::Sa(offer_of_thousands(8000)), ke.clone(), nonce()];
        let answer = rogue.ask(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
        assert_eq!(error(answer), NotifyType::NO_PROPOSAL_CHOSEN);
    }
    let failures = pair.failures(B);
    assert_eq!(failures.len(), 10 + 50, "strangers are told of ten times a second");
    for line in failures {
        assert!(line.len() < 400 && line.contains("T1_1015, and more, we accept"), "{line}");
    }
    // 11 s before, 0.2 s now.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_untouched(&mut pair);
}

fn nonce() -> Payload {
    Payload::Nonce(vec![7; 32])
}

/// An authenticated peer that begins anew again and again, and neither answers nor deletes anything.
#[test]
fn a_peer_that_authenticates_without_end_has_few_ike_sas() {
    let mut pair = beside_a_tunnel();
    for seed in 0..100 {
        Rogue::up(&mut pair, 100 + seed);
        pair.now += Duration::from_millis(20);
        let has = pair.hosts[B].endpoint.ike_sas_of(ROGUE);
        assert!(has <= 8, "{has} after {seed}");
    }
    // The last one stands, and what the others had is gone.
    let inbound = rogue::inbound(&pair);
    assert!((1..=16).contains(&inbound), "{inbound} inbound SAs");
    assert!(pair.hosts[B].endpoint.child_info(ROGUE).is_some());
    assert_untouched(&mut pair);
    // It answers no liveness request either.
    pair.run_secs(120);
    assert_eq!(pair.hosts[B].endpoint.ike_sas_of(ROGUE), 0);
    pair.assert_at_rest();
}

/// The same with a DELETE at the end of each.
#[test]
fn a_peer_that_comes_and_goes_without_end_leaves_little() {
    let mut pair = beside_a_tunnel();
    for seed in 0..1200 {
        let mut rogue = Rogue::up(&mut pair, 100 + seed);
        let delete = [rogue::ike_delete()];
        assert_eq!(rogue.ask(&mut pair, ExchangeType::INFORMATIONAL, &delete), Some(vec![]));
        pair.now += Duration::from_millis(2);
    }
    assert!(pair.hosts[B].endpoint.ike_sas() <= 1025, "{}", pair.hosts[B].endpoint.ike_sas());
    pair.run_secs(30);
    pair.assert_at_rest();
}

/// Port 0 can stand in a datagram, and nothing can be sent there.
#[test]
fn requests_to_which_no_answer_can_go_get_none() {
    let mut pair = beside_a_tunnel();
    let before = pair.hosts[B].sent.len();
    let path = from(SocketAddr::new(crate::common::address(A), 0));
    pair.inject(B, path, &init(5, KeGroup::X25519, public(KeGroup::X25519), 60));
    pair.inject(B, path, &plain((9, 9), ExchangeType::INFORMATIONAL, 3, &[nonce()]));
    assert_eq!(pair.hosts[B].sent.len(), before);
    assert_eq!(pair.hosts[B].endpoint.half_open(), 0);
}
