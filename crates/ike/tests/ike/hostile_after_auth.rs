//! An authenticated peer that misbehaves harms its own tunnel only, and gets no further than an
//! error notification.

use crate::common::B;
use crate::common::rogue::{
    ROGUE, Rogue, answers, assert_untouched, beside_a_tunnel, error, esp_offer, ike_offer, raw,
};
use ike::crypto::KeyExchange;
use ike::message::{
    ExchangeType, Notify, NotifyType, Payload, ProtocolId, Transform, TransformType, emit_chain,
};
use ike::suite::KeGroup;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sa::Spi;

const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;

fn nonce() -> Payload {
    Payload::Nonce(vec![7; 32])
}

/// libreswan CVE-2023-38710: a REKEY_SA whose protocol and SPI are copied into the answer.
#[test]
fn a_rekey_sa_for_no_protocol_or_for_ike_is_not_echoed() {
    for protocol in [0, 1, 2, 3, 4, 255] {
        for length in 0..=8 {
            let mut pair = beside_a_tunnel();
            let mut rogue = Rogue::up(&mut pair, 1);
            let rekey = Payload::Notify(Notify {
                protocol: ProtocolId(protocol),
                spi: vec![0xa5; length],
                kind: NotifyType::REKEY_SA,
                data: vec![0xa6; 40],
            });
            let [sa, tsi, tsr] = Rogue::child(Spi(0x5555));
            let answer = rogue.ask(&mut pair, CREATE, &[rekey, sa, nonce(), tsi, tsr]).unwrap();
            let [Payload::Notify(n)] = &answer[..] else { panic!("{answer:?}") };
            assert_eq!(n.kind, NotifyType::CHILD_SA_NOT_FOUND);
            assert!(n.data.is_empty());
            // Only what was a well-formed ESP SPI is named in the answer (RFC 7296 3.10.1).
            let named = protocol == 3 && length == 4;
            assert_eq!(n.spi.len(), if named { 4 } else { 0 }, "{protocol} {length}");
            assert_eq!(n.protocol, if named { ProtocolId::ESP } else { ProtocolId::NONE });
            rogue.assert_alive(&mut pair);
            assert_untouched(&mut pair);
        }
    }
    // And as an IKE rekey: the offer decides, and the notification names no Child SA.
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let rekey = Payload::Notify(Notify {
        protocol: ProtocolId::IKE,
        spi: vec![1; 8],
        kind: NotifyType::REKEY_SA,
        data: vec![],
    });
    let sa = Payload::Sa(ike_offer(KeGroup::X25519, &[3; 8]));
    let ke = Payload::Ke { group: 31, data: vec![9; 32] };
    let answer = rogue.ask(&mut pair, CREATE, &[rekey, sa, nonce(), ke]);
    assert_eq!(error(answer), NotifyType::CHILD_SA_NOT_FOUND);
    rogue.assert_alive(&mut pair);
}

/// Libreswan CVE-2023-23009: malformed selectors after authentication, again and again.
#[test]
fn malformed_traffic_selectors_are_refused_and_the_ike_sa_lives() {
    let v4 = |proto: u8, length: u16, ports: [u16; 2], first: [u8; 4], last: [u8; 4]| {
        let mut out = vec![7, proto];
        out.extend(length.to_be_bytes());
        out.extend(ports.iter().flat_map(|p| p.to_be_bytes()));
        out.extend(first);
        out.extend(last);
        out
    };
    let good = v4(0, 16, [0, 65535], [10, 0, 0, 0], [10, 0, 255, 255]);
    let with = |count: u8, selectors: &[u8]| [&[count, 0, 0, 0], selectors].concat();
    let bad: Vec<Vec<u8>> = vec![
        vec![],
        vec![1],
        with(0, &[]),
        with(1, &[]),
        with(2, &good),
        with(255, &good),
        with(1, &[good.clone(), good.clone()].concat()),
        with(1, &v4(0, 0, [0, 65535], [10, 0, 0, 0], [10, 0, 0, 1])),
        with(1, &v4(0, 8, [0, 65535], [10, 0, 0, 0], [10, 0, 0, 1])),
        with(1, &v4(0, 15, [0, 65535], [10, 0, 0, 0], [10, 0, 0, 1])),
        with(1, &v4(0, 17, [0, 65535], [10, 0, 0, 0], [10, 0, 0, 1])),
        with(1, &v4(0, 40, [0, 65535], [10, 0, 0, 0], [10, 0, 0, 1])),
        with(1, &v4(0, 65535, [0, 65535], [10, 0, 0, 0], [10, 0, 0, 1])),
        with(1, &v4(0, 16, [0, 65535], [10, 0, 0, 9], [10, 0, 0, 1])),
        with(1, &[&[8][..], &good[1..]].concat()),
        with(1, &[&[9][..], &good[1..]].concat()),
        with(1, &[&[0][..], &good[1..]].concat()),
        with(1, &[&[255][..], &good[1..]].concat()),
    ];
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let events = pair.hosts[B].events.len();
    let [_, tsi, tsr] = Rogue::child(Spi(0x5555));
    for body in &bad {
        for (i, r) in [
            (raw(44, body), tsr.clone()),
            (tsi.clone(), raw(45, body)),
            (raw(44, body), raw(45, body)),
        ] {
            for _ in 0..3 {
                let offer = esp_offer(Spi(0x5555), None);
                let payloads = [offer, nonce(), i.clone(), r.clone()];
                let kind = error(rogue.ask(&mut pair, CREATE, &payloads));
                let fine = [NotifyType::INVALID_SYNTAX, NotifyType::TS_UNACCEPTABLE];
                assert!(fine.contains(&kind), "{kind:?} for {body:?}");
            }
        }
        rogue.assert_alive(&mut pair);
        assert_untouched(&mut pair);
    }
    let names = pair.names(B);
    let made = names[events..].iter().any(|n| n.starts_with("Install") || n.starts_with("Remove"));
    assert!(!made, "{:?}", &names[events..]);
    // It could still do better.
    let payloads = [esp_offer(Spi(0x5555), None), nonce(), tsi, tsr];
    let answer = rogue.ask(&mut pair, CREATE, &payloads).unwrap();
    assert!(answer.iter().any(|p| matches!(p, Payload::TsI(_))), "{answer:?}");
}

/// CVE-2015-3240, strongSwan CVE-2014-9221, in CREATE_CHILD_SA: zero, one, p - 1, p and all ones,
/// wrong lengths, private-use groups.
#[test]
fn key_exchange_values_that_cannot_be_make_no_sa() {
    for group in KeGroup::ALL {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let length = KeyExchange::generate(group, &mut rng).unwrap().public().len();
        let mut one = vec![0; length];
        one[length - 1] = 1;
        if group == KeGroup::X25519 {
            // Little-endian there.
            one.reverse();
        }
        let mut values =
            vec![vec![0; length], one, vec![], vec![9; length - 1], vec![9; length + 1]];
        values.push(vec![9; 9000]);
        if group != KeGroup::X25519 {
            // Every string of 32 octets that is not of small order is a value of X25519.
            values.push(vec![0xff; length]);
        }
        if matches!(group, KeGroup::Modp2048 | KeGroup::Modp3072 | KeGroup::Modp4096) {
            // All three primes end in 64 ones; what is below them by one or more ends otherwise.
            values.extend(primes(group));
        }
        let mut config = crate::common::rogue::config();
        config.ike.groups = vec![KeGroup::X25519, group];
        config.esp.groups = vec![group];
        let mut pair = beside_a_tunnel();
        pair.hosts[B].endpoint.add_peer(config);
        let mut rogue = Rogue::up(&mut pair, 1);
        let sas = pair.hosts[B].endpoint.ike_sas();
        for data in values {
            for id in [group.id(), 0, 1024, 1025, 0xffff] {
                let ke = || Payload::Ke { group: id, data: data.clone() };
                let [_, tsi, tsr] = Rogue::child(Spi(0x5555));
                let offer = esp_offer(Spi(0x5555), Some(group));
                let child = rogue.ask(&mut pair, CREATE, &[offer, nonce(), ke(), tsi, tsr]);
                let offer = Payload::Sa(ike_offer(group, &[4; 8]));
                let ike = rogue.ask(&mut pair, CREATE, &[offer, nonce(), ke()]);
                let expected = if id == group.id() {
                    NotifyType::INVALID_SYNTAX
                } else {
                    NotifyType::INVALID_KE_PAYLOAD
                };
                for answer in [child, ike] {
                    assert_eq!(error(answer), expected, "{group} {id} {} octets", data.len());
                }
            }
        }
        assert_eq!(pair.hosts[B].endpoint.ike_sas(), sas);
        rogue.assert_alive(&mut pair);
        assert_untouched(&mut pair);
    }
}

/// p and p - 1 of a MODP group; the digits of p are those of RFC 3526.
fn primes(group: KeGroup) -> Vec<Vec<u8>> {
    let digits = match group {
        KeGroup::Modp2048 => include_str!("data/modp2048.txt"),
        KeGroup::Modp3072 => include_str!("data/modp3072.txt"),
        _ => include_str!("data/modp4096.txt"),
    };
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let p: Vec<u8> = digits.chunks(2).map(octet).collect();
    let mut less = p.clone();
    *less.last_mut().unwrap() -= 1;
    vec![p, less]
}

/// CVE-2016-5391, CVE-2016-3071: a proposal without a key exchange, and transforms that nobody
/// implements.
#[test]
fn proposals_without_a_key_exchange_or_with_unknown_transforms_make_no_ike_sa() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let ke = || Payload::Ke { group: 31, data: vec![9; 32] };
    let sas = pair.hosts[B].endpoint.ike_sas();
    let change = |work: &dyn Fn(&mut Vec<Transform>)| {
        let mut offer = ike_offer(KeGroup::X25519, &[4; 8]);
        offer.iter_mut().for_each(|p| work(&mut p.transforms));
        offer
    };
    let t = |kind, id, key_length| Transform { kind, id, key_length };
    let offers = [
        change(&|all| all.retain(|t| t.kind != TransformType::KE)),
        change(&|all| all.retain(|t| t.kind != TransformType::PRF)),
        change(&|all| all.retain(|t| t.kind != TransformType::ENCR)),
        change(&|all| all.clear()),
        change(&|all| all.iter_mut().for_each(|t| t.id = t.id.wrapping_add(100))),
        change(&|all| all.iter_mut().for_each(|t| t.key_length = Some(1))),
        // The hash of AUTH_HMAC_SHA1 in front of a cipher that needs one, Blowfish, CAST, NULL.
        change(&|all| all[0] = t(TransformType::ENCR, 11, None)),
        change(&|all| all[0] = t(TransformType::ENCR, 7, Some(448))),
        change(&|all| all.push(t(TransformType(6), 36, None))),
        change(&|all| all.push(t(TransformType(241), 1, None))),
        vec![],
    ];
    for offer in offers {
        for with_ke in [true, false] {
            let mut payloads = vec![Payload::Sa(offer.clone()), nonce()];
            payloads.extend(with_ke.then(ke));
            let kind = error(rogue.ask(&mut pair, CREATE, &payloads));
            let fine = [NotifyType::NO_PROPOSAL_CHOSEN, NotifyType::INVALID_SYNTAX];
            assert!(fine.contains(&kind), "{kind:?} for {offer:?}");
        }
    }
    // An SPI that no IKE SA has.
    for spi in [&[][..], &[0; 8], &[1; 4], &[1; 7]] {
        let payloads = [Payload::Sa(ike_offer(KeGroup::X25519, spi)), nonce(), ke()];
        assert_eq!(error(rogue.ask(&mut pair, CREATE, &payloads)), NotifyType::INVALID_SYNTAX);
    }
    assert_eq!(pair.hosts[B].endpoint.ike_sas(), sas);
    rogue.assert_alive(&mut pair);
    assert_untouched(&mut pair);
}

#[test]
fn esp_offers_with_an_spi_that_cannot_be_make_no_child_sa() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    for spi in [vec![], vec![0; 4], vec![0, 0, 0, 255], vec![1; 3], vec![1; 8]] {
        let [offer, tsi, tsr] = Rogue::child(Spi(0x5555));
        let Payload::Sa(mut proposals) = offer else { panic!() };
        proposals[0].spi.clone_from(&spi);
        let payloads = [Payload::Sa(proposals), nonce(), tsi, tsr];
        let kind = error(rogue.ask(&mut pair, CREATE, &payloads));
        // A length that no ESP SPI has makes the proposal unacceptable; a value makes it wrong.
        let fine = [NotifyType::INVALID_SYNTAX, NotifyType::NO_PROPOSAL_CHOSEN];
        assert!(fine.contains(&kind), "{kind:?} for {spi:?}");
    }
    rogue.assert_alive(&mut pair);
    assert_untouched(&mut pair);
}

/// Zyxel CVE-2023-28771: text of the peer that reaches a shell, a log or a terminal.
#[test]
fn text_in_notifications_and_identities_is_never_passed_on() {
    let text = b"\x1b[2J`reboot`;$(id)|\n\0%s%n\xff\xfe".repeat(60);
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    for kind in [1, 7, 9, 11, 14, 24, 43, 44, 8191, 16384, 16389, 16390, 16396, 16401, 40959, 65535]
    {
        if kind == 24 {
            // AUTHENTICATION_FAILED ends the IKE SA; that is the peer's right.
            continue;
        }
        let notify = Payload::notify(NotifyType(kind), text.clone());
        let answer = rogue.ask(&mut pair, ExchangeType::INFORMATIONAL, &[notify]).unwrap();
        let echoed = answer.iter().any(|p| {
            matches!(p, Payload::Notify(n)
            if n.kind != NotifyType::COOKIE2 && !n.data.is_empty())
        });
        assert!(!echoed, "{kind}: {answer:?}");
    }
    rogue.assert_alive(&mut pair);
    for id in [2_u8, 3, 11, 9] {
        let mut other = Rogue::init(&mut pair, 50 + u64::from(id));
        let body = [&[id, 0, 0, 0], &b"\x1b[2J`reboot`;$(id)|\n%s\x7f"[..]].concat();
        let [_, auth] = other.identity(b"?");
        other.ask(&mut pair, ExchangeType::IKE_AUTH, &[raw(35, &body), auth]);
    }
    let failures = pair.failures(B);
    assert_eq!(failures.len(), 4, "{failures:?}");
    for line in failures {
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        assert!(line.len() < 400, "{line:?}");
    }
    assert_untouched(&mut pair);
}

#[test]
fn deletes_of_what_is_not_there_delete_nothing() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let theirs = pair.hosts[B].endpoint.child_info(crate::common::TUNNEL).unwrap();
    let of_others = [theirs.inbound, theirs.outbound].map(|spi| spi.to_be_bytes().to_vec());
    for (protocol, spis) in [
        (ProtocolId::ESP, of_others.to_vec()),
        (ProtocolId::ESP, vec![vec![0; 4]; 5000]),
        (ProtocolId::AH, of_others.to_vec()),
        (ProtocolId(77), of_others.to_vec()),
    ] {
        let delete = Payload::Delete { protocol, spis };
        let kind = rogue.ask(&mut pair, ExchangeType::INFORMATIONAL, &[delete]).unwrap();
        let refused = |p: &Payload| matches!(p, Payload::Notify(n) if n.kind.is_error());
        assert!(kind.is_empty() || kind.iter().all(refused), "{kind:?}");
        rogue.assert_alive(&mut pair);
        assert_untouched(&mut pair);
    }
    assert!(pair.hosts[B].endpoint.child_info(ROGUE).is_some());
}

#[test]
fn unknown_exchanges_and_ids_outside_the_window_do_nothing() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    for exchange in [34, 35, 38, 43, 240, 255] {
        let answer = rogue.ask(&mut pair, ExchangeType(exchange), &[]);
        assert_eq!(error(answer), NotifyType::INVALID_SYNTAX, "{exchange}");
    }
    for id in [0, 1, 100, u32::MAX] {
        let octets = rogue.sealed(ExchangeType::INFORMATIONAL, id, 0, &[]);
        let before = pair.hosts[B].sent.len();
        pair.inject(B, rogue.path, &octets);
        assert!(answers(&pair, before).is_empty(), "{id}");
    }
    // Answers to nothing.
    for id in [0, 1, rogue.id, u32::MAX] {
        let octets = rogue.response(ExchangeType::CREATE_CHILD_SA, id, &[nonce()]);
        let before = pair.hosts[B].sent.len();
        pair.inject(B, rogue.path, &octets);
        assert!(answers(&pair, before).is_empty(), "{id}");
    }
    rogue.assert_alive(&mut pair);
    assert_untouched(&mut pair);
}

/// Fragments after authentication: a table filled to its limit, begun anew, and never finished.
#[test]
fn fragments_of_an_authenticated_peer_are_bounded() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let exchange = ExchangeType::INFORMATIONAL;
    for total in [2_u16, 64, 65, 1000, u16::MAX, 3, 64] {
        for number in 2..=total.min(80) {
            let octets = rogue.fragment(exchange, (number, total), 0, &[0; 1100]);
            pair.inject(B, rogue.path, &octets);
        }
    }
    // The request is still the one that is expected, whole.
    rogue.assert_alive(&mut pair);
    // And in as many pieces as there may be, with unknown payloads inside.
    let mut chain = Vec::new();
    let payloads: Vec<Payload> = (0..64).map(|_| raw(201, &[0; 500])).collect();
    let inner = emit_chain(&payloads, &mut chain);
    let before = pair.hosts[B].sent.len();
    let size = chain.len().div_ceil(64);
    for (number, piece) in (1..).zip(chain.chunks(size)) {
        let first = if number == 1 { inner } else { 0 };
        let octets = rogue.fragment(exchange, (number, 64), first, piece);
        pair.inject(B, rogue.path, &octets);
    }
    assert_eq!(answers(&pair, before).len(), 1);
    rogue.id += 1;
    rogue.assert_alive(&mut pair);
    assert_untouched(&mut pair);
}

/// A peer that asks without end costs one answer each, and nothing that stays.
#[test]
fn endless_requests_leave_nothing_behind() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let [_, tsi, tsr] = Rogue::child(Spi(1));
    for i in 0..500 {
        let payloads = [esp_offer(Spi(0x10_0000 + i), None), nonce(), tsi.clone(), tsr.clone()];
        rogue.ask(&mut pair, CREATE, &payloads).unwrap();
    }
    let installed = pair.hosts[B]
        .events
        .iter()
        .filter(|e| matches!(e, ike::Event::InstallInbound(sa) if sa.tunnel == ROGUE));
    let removed = pair.hosts[B]
        .events
        .iter()
        .filter(|e| matches!(e, ike::Event::RemoveInbound { tunnel, .. } if *tunnel == ROGUE));
    let held = installed.count() - removed.count();
    assert!(held <= 8, "{held} inbound SAs of one tunnel");
    assert_untouched(&mut pair);
}

/// Two Child SAs by one SPI: the DELETE of the old one would take the new one with it.
#[test]
fn an_spi_that_the_peer_uses_already_makes_no_second_child_sa() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let first = pair.hosts[B].endpoint.child_info(ROGUE).unwrap();
    let [_, tsi, tsr] = Rogue::child(first.outbound);
    let rekey = Payload::Notify(Notify::esp(NotifyType::REKEY_SA, first.outbound));
    for with_rekey in [false, true] {
        let mut payloads = vec![esp_offer(first.outbound, None), nonce(), tsi.clone(), tsr.clone()];
        if with_rekey {
            payloads.insert(0, rekey.clone());
        }
        let kind = error(rogue.ask(&mut pair, CREATE, &payloads));
        assert_eq!(kind, NotifyType::INVALID_SYNTAX);
    }
    assert_eq!(pair.hosts[B].endpoint.child_info(ROGUE), Some(first));
    rogue.assert_alive(&mut pair);
    assert_untouched(&mut pair);
}

/// Payloads that may stand once, twice: the first counts, whatever the second says.
#[test]
fn of_payloads_that_stand_twice_the_first_counts() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let [sa, tsi, tsr] = Rogue::child(Spi(0x5555));
    let wrong = [
        esp_offer(Spi(0x7777), None),
        Payload::Nonce(vec![9; 16]),
        Payload::TsI(crate::common::nets(&["1.0.0.0/8"])),
        Payload::TsR(crate::common::nets(&["2.0.0.0/8"])),
    ];
    let mut payloads = vec![sa, nonce(), tsi, tsr];
    payloads.extend(wrong.iter().cloned());
    payloads.extend(wrong);
    let answer = rogue.ask(&mut pair, CREATE, &payloads).unwrap();
    let selectors = answer.iter().find_map(|p| match p {
        Payload::TsI(set) => Some(set.clone()),
        _ => None,
    });
    assert_eq!(selectors, Some(crate::common::nets(&["172.16.0.0/12"])));
    assert_eq!(crate::common::rogue::inbound(&pair), 2);
    // And a Delete payload with the same SPI a thousand times.
    let spis = vec![0x5555_u32.to_be_bytes().to_vec(); 1000];
    let deletes = vec![Payload::Delete { protocol: ProtocolId::ESP, spis }; 15];
    let answer = rogue.ask(&mut pair, ExchangeType::INFORMATIONAL, &deletes).unwrap();
    let [Payload::Delete { spis, .. }] = &answer[..] else { panic!("{answer:?}") };
    assert_eq!(spis.len(), 1);
    rogue.assert_alive(&mut pair);
    assert_untouched(&mut pair);
}

/// The IKE SA itself is deleted without SPIs; with them the payload is malformed and deletes nothing.
#[test]
fn a_delete_of_the_ike_sa_with_spis_deletes_nothing() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    for body in [
        &[1, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8][..],
        &[1, 0, 0, 1, 1, 2, 3, 4],
        &[1, 4, 0, 1, 1, 2, 3, 4],
        &[3, 0, 0, 0],
        &[3, 4, 0xff, 0xff, 1, 2, 3, 4],
        &[3, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8],
        &[3, 4, 0, 0, 1, 2, 3, 4],
        &[0, 0, 0, 0],
        &[],
    ] {
        let answer = rogue.ask(&mut pair, ExchangeType::INFORMATIONAL, &[raw(42, body)]);
        assert_eq!(error(answer), NotifyType::INVALID_SYNTAX, "{body:?}");
    }
    rogue.assert_alive(&mut pair);
    assert!(pair.hosts[B].endpoint.child_info(ROGUE).is_some());
    assert_untouched(&mut pair);
}

/// SK and SKF payloads where they may not be, and fragments that disagree about their message.
#[test]
fn encrypted_payloads_inside_others_and_fragments_that_disagree_do_nothing() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    for kind in [46, 53] {
        let inside = [raw(kind, &[0, 1, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9])];
        let answer = rogue.ask(&mut pair, ExchangeType::INFORMATIONAL, &inside);
        assert_eq!(error(answer), NotifyType::INVALID_SYNTAX, "{kind}");
    }
    // Pieces of one message id that say 2, 3, 64 and 2 in all, the first one again and again.
    let mut plain = Vec::new();
    let inner = emit_chain(&[Payload::VendorId(vec![1; 200])], &mut plain);
    let info = ExchangeType::INFORMATIONAL;
    for (number, total) in [(1, 2), (1, 2), (2, 3), (1, 64), (63, 64), (2, 2), (1, 3), (1, 65)] {
        let octets = rogue.fragment(info, (number, total), inner * u8::from(number == 1), &plain);
        let before = pair.hosts[B].sent.len();
        pair.inject(B, rogue.path, &octets);
        assert!(answers(&pair, before).is_empty(), "{number} of {total}");
    }
    // The same id as one whole message: that is the request, and what comes after it is not.
    assert_eq!(rogue.ask(&mut pair, info, &[]), Some(vec![]));
    rogue.id -= 1;
    let octets = rogue.fragment(info, (2, 2), 0, &plain);
    rogue.id += 1;
    let before = pair.hosts[B].sent.len();
    pair.inject(B, rogue.path, &octets);
    assert!(answers(&pair, before).is_empty());
    rogue.assert_alive(&mut pair);
    assert_untouched(&mut pair);
}

/// UPDATE_SA_ADDRESSES from a thousand places at which nobody is: each is answered where it came from,
/// with no more octets than it had, ESP stays where it is, and one check is under way.
#[test]
fn moves_without_end_send_nobody_more_than_they_cost() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::init(&mut pair, 1);
    let mut payloads = rogue.identity(crate::common::rogue::KEY).to_vec();
    payloads.extend(Rogue::child(Spi(0x9001)));
    payloads.push(Payload::notify(NotifyType::MOBIKE_SUPPORTED, vec![]));
    rogue.ask(&mut pair, ExchangeType::IKE_AUTH, &payloads).unwrap();
    let home = rogue.path;
    let (before, events) = (pair.hosts[B].sent.len(), pair.hosts[B].events.len());
    let mut asked = 0;
    for n in 1..=1000_u32 {
        rogue.path.remote = ([(n >> 8) as u8 + 11, n as u8, 7, 7], 4500).into();
        let update = Payload::notify(NotifyType::UPDATE_SA_ADDRESSES, vec![]);
        let mut plain = Vec::new();
        let inner = emit_chain(&[update], &mut plain);
        let id = rogue.id;
        let request = rogue.sealed(ExchangeType::INFORMATIONAL, id, inner, &plain);
        asked += request.len();
        assert_eq!(rogue.send(&mut pair, &request), Some(vec![]));
        rogue.id += 1;
        pair.now += std::time::Duration::from_micros(100);
    }
    let sent = answers(&pair, before);
    let octets: usize = sent.iter().map(Vec::len).sum();
    assert!(octets <= asked, "{octets} for {asked}");
    assert_eq!(sent.len(), 1001, "the answers and one check");
    let moved = pair.names(B)[events..].iter().filter(|n| **n == "PathChanged").count();
    assert_eq!(moved, 0);
    // The checks that follow are few, too, and end with the IKE SA of whoever does this.
    let before = pair.hosts[B].sent.len();
    pair.run_secs(120);
    let to_nobody = pair.hosts[B].sent[before..].iter();
    let to_nobody = to_nobody.filter(|t| t.path.remote.ip() != home.remote.ip()).count();
    assert!(to_nobody < 60, "{to_nobody}");
    assert_eq!(pair.hosts[B].endpoint.ike_sas_of(ROGUE), 0);
    assert_untouched(&mut pair);
}
