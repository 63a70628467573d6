//! A stranger who has done IKE_SA_INIT and so has keys: whatever it sends under them opens no
//! door, costs bounded memory, and leaves the tunnel beside it alone.

use std::time::Duration;

use crate::common::rogue::{
    KEY, Rogue, answers, assert_untouched, beside_a_tunnel, error, esp_offer, ike_delete,
    ike_offer, plain, raw,
};
use crate::common::{A, B, Pair, TUNNEL, peers};
use ike::message::{ExchangeType, Notify, NotifyType, Payload, ProtocolId, emit_chain};
use ike::suite::KeGroup;
use ike::{Command, Event};
use sa::{Secret, Spi};

/// libreswan CVE-2019-12312, strongSwan CVE-2014-2338: exchanges that need an authenticated peer,
/// under valid keys, before IKE_AUTH.
#[test]
fn protected_exchanges_before_ike_auth_are_not_answered_and_change_nothing() {
    let ke = Payload::Ke { group: 31, data: vec![9; 32] };
    let nonce = Payload::Nonce(vec![7; 32]);
    let rekey = Payload::Notify(Notify::esp(NotifyType::REKEY_SA, Spi(0x1234_5678)));
    let [sa, tsi, tsr] = Rogue::child(Spi(0x5555));
    let delete_child = Payload::Delete { protocol: ProtocolId::ESP, spis: vec![vec![1, 2, 3, 4]] };
    let contents: Vec<(ExchangeType, Vec<Payload>)> = vec![
        (ExchangeType::INFORMATIONAL, vec![]),
        (ExchangeType::INFORMATIONAL, vec![ike_delete()]),
        (ExchangeType::INFORMATIONAL, vec![delete_child]),
        (
            ExchangeType::INFORMATIONAL,
            vec![Payload::notify(NotifyType::AUTHENTICATION_FAILED, vec![])],
        ),
        (ExchangeType::CREATE_CHILD_SA, vec![sa.clone(), nonce.clone(), tsi.clone(), tsr.clone()]),
        (ExchangeType::CREATE_CHILD_SA, vec![rekey, sa, nonce.clone(), tsi, tsr]),
        (
            ExchangeType::CREATE_CHILD_SA,
            vec![Payload::Sa(ike_offer(KeGroup::X25519, &[1; 8])), nonce, ke],
        ),
        (ExchangeType::IKE_SA_INIT, vec![]),
        (ExchangeType(240), vec![]),
    ];
    for (exchange, payloads) in contents {
        for id in [0, 1, 2, u32::MAX] {
            let mut pair = beside_a_tunnel();
            let mut rogue = Rogue::init(&mut pair, 1);
            let events = pair.hosts[B].events.len();
            let mut chain = Vec::new();
            let inner = emit_chain(&payloads, &mut chain);
            let octets = rogue.sealed(exchange, id, inner, &chain);
            let before = pair.hosts[B].sent.len();
            pair.inject(B, rogue.path, &octets);
            // Message id 0 was IKE_SA_INIT: that is what may come again, in whatever form.
            let response = answers(&pair, before);
            assert!(response.is_empty() || id == 0, "{exchange:?} {id}");
            for again in response {
                assert_eq!(again[18], 34, "IKE_SA_INIT again, in clear");
            }
            assert_eq!(pair.hosts[B].events.len(), events, "{exchange:?} {id}");
            assert_eq!(pair.hosts[B].endpoint.half_open(), 1, "{exchange:?} {id}");
            assert_untouched(&mut pair);
            // Authentication is still possible, and still needed.
            let mut payloads = rogue.identity(KEY).to_vec();
            payloads.extend(Rogue::child(Spi(0x5556)));
            let answer = rogue.ask(&mut pair, ExchangeType::IKE_AUTH, &payloads).unwrap();
            assert!(answer.iter().any(|p| matches!(p, Payload::Auth { .. })));
        }
    }
}

/// WatchGuard CVE-2025-9242: an identity longer than the buffer that it is copied to.
#[test]
fn identities_of_every_length_and_type_are_refused_or_unknown() {
    for kind in [0_u8, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 200, 255] {
        for length in [0, 1, 3, 4, 5, 15, 16, 17, 255, 256, 257, 512, 520, 1024, 4096, 60_000] {
            for payload in [35, 36] {
                let mut pair = beside_a_tunnel();
                let mut rogue = Rogue::init(&mut pair, 1);
                let mut body = vec![kind, 0, 0, 0];
                body.resize(4 + length, b'A');
                let [id, auth] = rogue.identity(KEY);
                let mut payloads = vec![raw(payload, &body)];
                payloads.extend((payload == 36).then_some(id));
                payloads.push(auth);
                payloads.extend(Rogue::child(Spi(0x5555)));
                let answer = rogue.ask(&mut pair, ExchangeType::IKE_AUTH, &payloads);
                let kind = error(answer);
                assert!(
                    [NotifyType::INVALID_SYNTAX, NotifyType::AUTHENTICATION_FAILED].contains(&kind),
                    "{kind:?}"
                );
                assert_eq!(pair.hosts[B].endpoint.half_open(), 0);
                assert_untouched(&mut pair);
            }
        }
    }
}

/// CVE-2024-2357: AUTH left out, and the retransmission meets what the first one left.
#[test]
fn incomplete_requests_are_refused_once_and_answered_alike_again() {
    for left_out in
        [vec![35_u8], vec![39], vec![35, 39], vec![33], vec![44], vec![45], vec![33, 44, 45]]
    {
        let mut pair = beside_a_tunnel();
        let mut rogue = Rogue::init(&mut pair, 1);
        let mut payloads = rogue.identity(KEY).to_vec();
        payloads.extend(Rogue::child(Spi(0x5555)));
        payloads.retain(|p| {
            let kind = match p {
                Payload::IdI(_) => 35,
                Payload::Auth { .. } => 39,
                Payload::Sa(_) => 33,
                Payload::TsI(_) => 44,
                _ => 45,
            };
            !left_out.contains(&kind)
        });
        let mut chain = Vec::new();
        let inner = emit_chain(&payloads, &mut chain);
        let request = rogue.sealed(ExchangeType::IKE_AUTH, 1, inner, &chain);
        let before = pair.hosts[B].sent.len();
        for _ in 0..5 {
            pair.inject(B, rogue.path, &request);
        }
        let all = answers(&pair, before);
        assert_eq!(all.len(), 5);
        assert!(all.iter().all(|a| *a == all[0]), "the same octets each time");
        let answer = rogue.opened(&all[0]);
        let child = left_out.iter().any(|k| [33, 44, 45].contains(k));
        let has = |kind| answer.iter().any(|p| matches!(p, Payload::Notify(n) if n.kind == kind));
        if child {
            assert!(has(NotifyType::INVALID_SYNTAX), "{left_out:?}: {answer:?}");
            assert!(answer.iter().any(|p| matches!(p, Payload::Auth { .. })));
        } else {
            assert!(answer.len() == 1, "{answer:?}");
            // It is over: nothing but the same answer comes from this IKE SA.
            for exchange in [ExchangeType::IKE_AUTH, ExchangeType::INFORMATIONAL] {
                rogue.id = 2;
                assert_eq!(rogue.ask(&mut pair, exchange, &[]), None);
            }
        }
        assert_untouched(&mut pair);
    }
}

#[test]
fn wrong_auth_of_every_shape_is_refused_with_one_line() {
    for (method, data) in [
        (2, vec![]),
        (2, vec![0; 31]),
        (2, vec![0; 32]),
        (2, vec![0; 33]),
        (2, vec![0; 20_000]),
        (0, vec![0; 32]),
        (1, vec![0; 256]),
        (9, vec![0; 64]),
        (14, vec![0; 80]),
        (255, vec![]),
    ] {
        let mut pair = beside_a_tunnel();
        let mut rogue = Rogue::init(&mut pair, 1);
        let [id, _] = rogue.identity(KEY);
        let mut payloads = vec![id, Payload::Auth { method, data }];
        payloads.extend(Rogue::child(Spi(0x5555)));
        let answer = rogue.ask(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(error(answer), NotifyType::AUTHENTICATION_FAILED);
        assert_eq!(pair.failures(B).len(), 1, "{:?}", pair.failures(B));
        assert_untouched(&mut pair);
    }
}

/// A configuration without a key must not be one that an empty key opens.
#[test]
fn an_empty_key_of_ours_authenticates_nobody_and_begins_nothing() {
    let mut pair = Pair::up(peers(), 1);
    let mut config = crate::common::rogue::config();
    config.psk = Secret::default();
    config.remote = Some([203, 0, 113, 99].into());
    pair.hosts[B].endpoint.add_peer(config);
    let mut rogue = Rogue::init(&mut pair, 1);
    let mut payloads = rogue.identity(b"").to_vec();
    payloads.extend(Rogue::child(Spi(0x5555)));
    let answer = rogue.ask(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(error(answer), NotifyType::AUTHENTICATION_FAILED);
    let sent = pair.hosts[B].sent.len();
    pair.command(B, Command::Initiate(crate::common::rogue::ROGUE));
    assert_eq!(pair.hosts[B].sent.len(), sent);
    let [.., Event::Failed { diagnosis, .. }, Event::IkeDown { .. }] = &pair.hosts[B].events[..]
    else {
        panic!("{:?}", pair.names(B))
    };
    assert_eq!(diagnosis.to_string(), "no pre-shared key is configured for this tunnel");
    assert_untouched(&mut pair);
}

/// CVE-2026-12413: unknown payloads and fragments that fill a table to exactly its limit.
#[test]
fn fragments_and_unknown_payloads_up_to_and_over_the_limits() {
    // Payloads of one message: 64 are read.
    for (unknown, fits) in [(58, true), (59, true), (60, false), (300, false)] {
        let mut pair = beside_a_tunnel();
        let mut rogue = Rogue::init(&mut pair, 1);
        let mut payloads = rogue.identity(KEY).to_vec();
        payloads.extend(Rogue::child(Spi(0x5555)));
        payloads.extend((0..unknown).map(|_| raw(200, &[])));
        let answer = rogue.ask(&mut pair, ExchangeType::IKE_AUTH, &payloads).unwrap();
        assert_eq!(answer.iter().any(|p| matches!(p, Payload::Auth { .. })), fits, "{unknown}");
        assert_untouched(&mut pair);
    }
    // Fragments of one message: 64 are put together.
    for (total, fits) in [(2, true), (63, true), (64, true), (65, false), (u16::MAX, false)] {
        let mut pair = beside_a_tunnel();
        let mut rogue = Rogue::init(&mut pair, 1);
        let mut payloads = rogue.identity(KEY).to_vec();
        payloads.extend(Rogue::child(Spi(0x5555)));
        let mut chain = Vec::new();
        let inner = emit_chain(&payloads, &mut chain);
        let before = pair.hosts[B].sent.len();
        let many = usize::from(total.min(200));
        for number in 1..=many {
            let share = chain.len() * (number - 1) / many..chain.len() * number / many;
            let first = if number == 1 { inner } else { 0 };
            let at = (number as u16, total);
            let octets = rogue.fragment(ExchangeType::IKE_AUTH, at, first, &chain[share]);
            pair.inject(B, rogue.path, &octets);
        }
        assert_eq!(answers(&pair, before).len(), usize::from(fits), "{total}");
        assert_untouched(&mut pair);
    }
}

/// Before authentication the pieces of one message are worth less memory than afterwards.
#[test]
fn a_strangers_fragments_are_bounded() {
    for (octets, fits) in [(200, true), (400, false)] {
        let mut pair = beside_a_tunnel();
        let mut rogue = Rogue::init(&mut pair, 1);
        let mut payloads = rogue.identity(KEY).to_vec();
        payloads.extend(Rogue::child(Spi(0x5555)));
        payloads.push(Payload::VendorId(vec![0; 64 * octets]));
        let mut chain = Vec::new();
        let inner = emit_chain(&payloads, &mut chain);
        let before = pair.hosts[B].sent.len();
        let size = chain.len().div_ceil(64);
        let total = chain.chunks(size).count() as u16;
        for (number, piece) in (1..).zip(chain.chunks(size)) {
            let first = if number == 1 { inner } else { 0 };
            let octets = rogue.fragment(ExchangeType::IKE_AUTH, (number, total), first, piece);
            pair.inject(B, rogue.path, &octets);
        }
        assert_eq!(answers(&pair, before).len(), usize::from(fits), "{octets}");
        assert_untouched(&mut pair);
    }
}

/// What a half-open IKE SA keeps of a request is bounded, too.
#[test]
fn a_huge_first_request_is_not_kept() {
    for (padding, answered) in [(60, true), (4000, true), (9000, false), (60_000, false)] {
        let mut pair = beside_a_tunnel();
        let payloads = [
            Payload::Sa(ike_offer(KeGroup::X25519, &[])),
            Payload::Ke { group: 31, data: vec![9; 32] },
            Payload::Nonce(vec![7; 32]),
            Payload::VendorId(vec![0; padding]),
        ];
        let request = plain((77, 0), ExchangeType::IKE_SA_INIT, 0, &payloads);
        let path = Rogue::init(&mut pair, 3).path;
        let before = pair.hosts[B].sent.len();
        pair.inject(B, path, &request);
        assert_eq!(answers(&pair, before).len(), usize::from(answered), "{padding}");
        assert_eq!(pair.hosts[B].endpoint.half_open(), 1 + usize::from(answered));
        assert_untouched(&mut pair);
    }
}

#[test]
fn critical_payloads_that_nobody_knows_end_the_attempt() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::init(&mut pair, 1);
    // Critical bit, no body.
    let answer = rogue.ask_raw(&mut pair, ExchangeType::IKE_AUTH, 222, &[0, 0x80, 0, 4]).unwrap();
    let [Payload::Notify(n)] = &answer[..] else { panic!("{answer:?}") };
    assert_eq!((n.kind, &n.data[..]), (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[222][..]));
    assert_eq!(pair.hosts[B].endpoint.half_open(), 0);
    assert_untouched(&mut pair);
}

/// A malformed chain of every kind, and every truncation of a good one.
#[test]
fn malformed_requests_under_valid_keys_are_refused_and_leave_nothing() {
    let mut pair = beside_a_tunnel();
    let rogue = Rogue::init(&mut pair, 1);
    let mut payloads = rogue.identity(KEY).to_vec();
    payloads.extend(Rogue::child(Spi(0x5555)));
    let mut chain = Vec::new();
    let inner = emit_chain(&payloads, &mut chain);
    for cut in 0..chain.len() {
        let mut pair = beside_a_tunnel();
        let mut rogue = Rogue::init(&mut pair, 1);
        let answer = rogue.ask_raw(&mut pair, ExchangeType::IKE_AUTH, inner, &chain[..cut]);
        assert_eq!(error(answer), NotifyType::INVALID_SYNTAX, "{cut}");
        assert_eq!(pair.hosts[B].endpoint.half_open(), 0, "{cut}");
        pair.run(Duration::from_secs(40));
        assert_eq!(pair.hosts[B].endpoint.ike_sas(), 1, "{cut}");
        assert_untouched(&mut pair);
    }
}

/// Half-open IKE SAs in any number, each filled with all that it may keep: they go by themselves.
#[test]
fn what_strangers_leave_behind_is_gone_after_the_time_limit() {
    let mut pair = beside_a_tunnel();
    for seed in 0..16 {
        let mut rogue = Rogue::init(&mut pair, 100 + seed);
        for number in 1..64 {
            let octets = rogue.fragment(ExchangeType::IKE_AUTH, (number, 64), 35, &[0; 1000]);
            pair.inject(B, rogue.path, &octets);
        }
    }
    assert_eq!(pair.hosts[B].endpoint.half_open(), 16);
    pair.run_secs(31);
    assert_eq!(pair.hosts[B].endpoint.half_open(), 0);
    assert_eq!(pair.hosts[B].endpoint.counters().half_open_expired, 16);
    assert_eq!(pair.hosts[B].endpoint.ike_sas(), 1);
    assert_untouched(&mut pair);
}

/// Amplification: whatever one unauthenticated datagram is, no answer is larger.
#[test]
fn no_answer_to_an_unproved_address_is_larger_than_its_request() {
    let mut pair = beside_a_tunnel();
    let path = Rogue::init(&mut pair, 3).path;
    let offers = [ike_offer(KeGroup::X25519, &[]), ike_offer(KeGroup::Modp4096, &[]), vec![]];
    let mut largest = 0;
    for offer in offers {
        for (group, length) in [(31, 32), (16, 512), (31, 0), (31, 512), (1024, 3)] {
            for nonce in [0, 16, 256] {
                for padding in [0, 20, 60, 120, 300] {
                    for major in [1, 2, 3, 15] {
                        let payloads = [
                            Payload::Sa(offer.clone()),
                            Payload::Ke { group, data: vec![9; length] },
                            raw(40, &vec![5; nonce]),
                            Payload::VendorId(vec![0; padding]),
                        ];
                        largest += 1;
                        let spis = (largest, 0);
                        let mut request = plain(spis, ExchangeType::IKE_SA_INIT, 0, &payloads);
                        request[17] = major << 4;
                        let before = pair.hosts[B].sent.len();
                        pair.inject(B, path, &request);
                        let answers = answers(&pair, before);
                        assert!(answers.len() <= 1);
                        assert!(answers.iter().all(|a| a.len() <= request.len()));
                    }
                }
            }
        }
    }
    assert_untouched(&mut pair);
}

#[test]
fn two_endpoints_with_the_tunnel_up_ignore_a_half_open_flood_from_the_peers_own_address() {
    let mut pair = Pair::up(peers(), 1);
    let path = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap().path;
    for spi in 1..200 {
        let payloads = [
            Payload::Sa(ike_offer(KeGroup::X25519, &[])),
            Payload::Ke { group: 31, data: vec![9; 32] },
            Payload::Nonce(vec![7; 32]),
            esp_offer(Spi(5000), None),
        ];
        pair.inject(B, path, &plain((spi, 0), ExchangeType::IKE_SA_INIT, 0, &payloads));
    }
    assert!(pair.hosts[B].endpoint.half_open() <= 16);
    pair.command(A, Command::RekeyIke(TUNNEL));
    pair.run_secs(40);
    pair.assert_at_rest();
}
