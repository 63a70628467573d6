//! What has broken other daemons, sent to an endpoint.

use std::net::SocketAddr;

use crate::common::rogue::plain;
use crate::common::{A, B, Pair, TUNNEL, peers};
use ike::crypto::KeyExchange;
use ike::message::{ExchangeType, NotifyType, Payload, Proposal, Transform, TransformType};
use ike::suite::{IkeProposals, KeGroup};
use ike::{Command, EndpointConfig, TransmitPayload};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sa::Path;

fn from(remote: SocketAddr) -> Path {
    Path { local: SocketAddr::new(crate::common::address(B), 4500), remote }
}

fn from_a() -> Path {
    from(SocketAddr::new(crate::common::address(A), 4500))
}

fn init(spi: u64, offer: Vec<Proposal>, group: u16, public: Vec<u8>) -> Vec<u8> {
    let ke = Payload::Ke { group, data: public };
    let payloads = [Payload::Sa(offer), ke, Payload::Nonce(vec![7; 32])];
    plain((spi, 0), ExchangeType::IKE_SA_INIT, 0, &payloads)
}

fn offer(group: KeGroup) -> Vec<Proposal> {
    IkeProposals { groups: vec![group], ..IkeProposals::default() }.offer(&[])
}

/// libreswan CVE-2019-12312, strongSwan CVE-2014-2338: protected exchanges before IKE_AUTH.
#[test]
fn nothing_but_ike_auth_passes_before_authentication() {
    for exchange in [36, 37, 38, 200] {
        let mut pair = Pair::new(peers(), 1);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run(std::time::Duration::from_millis(25));
        // A's IKE_AUTH is on the wire: an SK payload that does not authenticate comes first.
        let TransmitPayload::Ike(mut octets) = pair.hosts[A].sent[1].payload.clone() else {
            panic!("not IKE")
        };
        octets[18] = exchange;
        pair.inject(B, from_a(), &octets);
        assert_eq!(pair.hosts[B].sent.len(), 1, "only the IKE_SA_INIT response");
        assert_eq!(pair.hosts[B].endpoint.counters().unauthentic, 1);
        pair.run_secs(5);
        pair.assert_at_rest();
    }
}

/// CVE-2016-5391, CVE-2016-3071.
#[test]
fn proposals_without_or_with_unknown_key_exchange_are_refused() {
    for ids in [vec![], vec![1, 22, 1024]] {
        let mut pair = Pair::new(peers(), 1);
        let mut offer = IkeProposals::default().offer(&[]);
        for proposal in &mut offer {
            proposal.transforms.retain(|t| t.kind != TransformType::KE);
            let kind = TransformType::KE;
            let unknown = ids.iter().map(|id| Transform { kind, id: *id, key_length: None });
            proposal.transforms.extend(unknown);
        }
        pair.inject(B, from_a(), &init(5, offer, 22, vec![1; 256]));
        assert_eq!(pair.hosts[B].endpoint.counters().no_proposal, 1);
        assert_eq!(pair.hosts[B].endpoint.ike_sas(), 0);
    }
}

/// CVE-2015-3240, strongSwan CVE-2014-9221.
#[test]
fn key_exchange_values_that_cannot_be_are_refused() {
    for group in KeGroup::ALL {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let length = KeyExchange::generate(group, &mut rng).unwrap().public().len();
        let wrong = [0, length - 1, length + 1, 2000].map(|l| vec![9; l]);
        for public in wrong.into_iter().chain([vec![0; length]]) {
            for id in [group.id(), 1024, 0xffff] {
                let mut config = peers();
                config[B].ike.groups = vec![group];
                let mut pair = Pair::new(config, 1);
                let request = init(5, offer(group), id, public.clone());
                pair.inject(B, from_a(), &request);
                assert_eq!(pair.hosts[B].endpoint.ike_sas(), 0, "{group}, {}", public.len());
                for sent in &pair.hosts[B].sent {
                    let TransmitPayload::Ike(answer) = &sent.payload else { panic!("not IKE") };
                    assert!(answer.len() <= request.len(), "an answer larger than its request");
                }
            }
        }
    }
}

#[test]
fn datagrams_that_are_no_ike_messages_are_counted_and_not_answered() {
    let mut pair = Pair::up(peers(), 1);
    let good = pair.delivered.last().unwrap().2.clone();
    let sent = pair.hosts[B].sent.len();
    for cut in 0..good.len() {
        pair.inject(B, from_a(), &good[..cut]);
    }
    pair.inject(B, from_a(), &[good.as_slice(), &[0]].concat());
    assert_eq!(pair.hosts[B].sent.len(), sent);
    assert_eq!(pair.hosts[B].endpoint.counters().malformed, good.len() as u64 + 1);
    pair.assert_at_rest();
}

#[test]
fn another_major_version_and_an_unknown_spi_are_answered_rarely_and_never_with_more() {
    let mut pair = Pair::up(peers(), 1);
    let sent = pair.hosts[B].sent.len();
    let small = plain((9, 9), ExchangeType::INFORMATIONAL, 3, &[]);
    pair.inject(B, from_a(), &small);
    assert_eq!(pair.hosts[B].sent.len(), sent, "the answer would be larger");
    let vendor = [Payload::VendorId(vec![0; 40])];
    let mut request = plain((9, 9), ExchangeType::INFORMATIONAL, 3, &vendor);
    (0..1000).for_each(|_| pair.inject(B, from_a(), &request));
    request[17] = 0x30;
    (0..1000).for_each(|_| pair.inject(B, from_a(), &request));
    let answers = pair.hosts[B].sent.len() - sent;
    assert!((1..=10).contains(&answers), "{answers} in one second");
    let counters = pair.hosts[B].endpoint.counters();
    assert_eq!((counters.unknown_spi, counters.bad_version), (1001, 1000));
}

#[test]
fn spoofed_requests_are_bounded_and_a_true_peer_still_connects() {
    let mut config = peers();
    config[B].remote = None;
    let limits = EndpointConfig { cookie_threshold: 50, ..EndpointConfig::default() };
    let mut pair = Pair::with(config, [EndpointConfig::default(), limits], 1);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let public = KeyExchange::generate(KeGroup::X25519, &mut rng).unwrap().public().to_vec();
    for _ in 0..5_000 {
        let request = init(rng.next_u64(), offer(KeGroup::X25519), 31, public.clone());
        let source = SocketAddr::from((rng.next_u32().to_be_bytes(), rng.next_u32() as u16));
        let before = pair.hosts[B].sent.len();
        pair.inject(B, from(source), &request);
        for sent in pair.hosts[B].sent.split_off(before) {
            let TransmitPayload::Ike(answer) = sent.payload else { panic!("not IKE") };
            assert!(answer.len() <= request.len());
        }
    }
    assert!(pair.hosts[B].endpoint.half_open() <= 50);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(5);
    assert!(pair.hosts[A].outbound.is_some(), "the true peer brings its cookie");
    pair.run_secs(60);
    pair.assert_at_rest();
}

#[test]
fn one_source_has_a_budget() {
    let mut pair = Pair::new(peers(), 1);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let public = KeyExchange::generate(KeGroup::X25519, &mut rng).unwrap().public().to_vec();
    for i in 0..100_u16 {
        let request = init(u64::from(i) + 1, offer(KeGroup::X25519), 31, public.clone());
        pair.inject(B, from(SocketAddr::new(crate::common::address(A), 1000 + i)), &request);
    }
    assert_eq!(pair.hosts[B].endpoint.half_open(), 16);
    assert_eq!(pair.hosts[B].endpoint.counters().cookies_sent, 84);
}

#[test]
fn unauthenticated_errors_do_not_take_a_tunnel_down() {
    let mut pair = Pair::up(peers(), 1);
    let info = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap();
    let spis = (info.initiator_spi, info.responder_spi);
    for kind in [
        NotifyType::INVALID_IKE_SPI,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::NO_PROPOSAL_CHOSEN,
    ] {
        for flags in [0x08, 0x28] {
            let error = [Payload::notify(kind, Vec::new())];
            let mut octets = plain(spis, ExchangeType::INFORMATIONAL, 2, &error);
            octets[19] = flags;
            pair.inject(B, info.path, &octets);
        }
    }
    pair.run_secs(30);
    pair.assert_at_rest();
    assert!(!pair.names(B).contains(&"IkeDown"));
}

#[test]
fn replayed_messages_change_nothing() {
    let mut pair = Pair::up(peers(), 1);
    pair.command(A, Command::RekeyChild(TUNNEL));
    pair.command(B, Command::RekeyIke(TUNNEL));
    pair.run_secs(60);
    let events = [A, B].map(|h| pair.hosts[h].events.len());
    for (to, path, octets) in pair.delivered.clone() {
        pair.inject(to, path, &octets);
    }
    assert_eq!([A, B].map(|h| pair.hosts[h].events.len()), events);
    pair.run_secs(60);
    pair.assert_at_rest();
}

#[test]
fn changed_octets_of_true_messages_change_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut pair = Pair::up(peers(), 1);
    for (to, path, octets) in pair.delivered.clone() {
        for _ in 0..300 {
            let mut changed = octets.clone();
            let at = rng.next_u32() as usize % changed.len();
            changed[at] ^= (rng.next_u32() % 255 + 1) as u8;
            pair.inject(to, path, &changed);
        }
    }
    pair.run_secs(120);
    pair.assert_at_rest();
}
