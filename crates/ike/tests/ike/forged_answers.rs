//! Answers to an initiator that somebody else sends: whoever sees the request knows all that it takes.

use std::time::Duration;

use crate::common::rogue::ike_offer;
use crate::common::{A, B, Pair, TUNNEL, peers};
use ike::crypto::KeyExchange;
use ike::message::{HEADER_LEN, Header, NotifyType, Payload, emit_chain, parse_message};
use ike::suite::KeGroup;
use ike::{Command, EndpointConfig, TransmitPayload};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sa::Path;

/// A began, and its request is on the way.
fn asked() -> (Pair, Vec<u8>, Path) {
    let mut config = peers();
    config[A].ike.groups = vec![KeGroup::X25519, KeGroup::Ecp256, KeGroup::Ecp384];
    // A peer that answers nothing that it does not know.
    let quiet = EndpointConfig { stranger_rate: 0, ..EndpointConfig::default() };
    let mut pair = Pair::with(config, [EndpointConfig::default(), quiet], 1);
    pair.command(A, Command::Initiate(TUNNEL));
    let sent = pair.hosts[A].sent[0].clone();
    let TransmitPayload::Ike(request) = sent.payload else { panic!("not IKE") };
    (pair, request, sent.path)
}

fn answer(request: &[u8], responder_spi: u64, payloads: &[Payload]) -> Vec<u8> {
    let mut chain = Vec::new();
    let header = Header {
        responder_spi,
        next_payload: emit_chain(payloads, &mut chain),
        initiator: false,
        response: true,
        ..Header::parse(request).unwrap()
    };
    let mut out = Vec::new();
    header.emit(HEADER_LEN + chain.len(), &mut out);
    out.extend(chain);
    out
}

/// RFC 7296 2.21.1: nothing protects these, so that the true answer, which comes next, counts.
#[test]
fn a_refusal_that_nothing_protects_does_not_end_an_attempt() {
    let refusals = [
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_SYNTAX,
        NotifyType::INVALID_IKE_SPI,
        NotifyType::TEMPORARY_FAILURE,
        NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
        NotifyType(40),
        NotifyType(8192),
    ];
    for kind in refusals {
        let (mut pair, request, path) = asked();
        for _ in 0..3 {
            let error = [Payload::notify(kind, vec![1, 2, 3])];
            pair.inject(A, path, &answer(&request, 0, &error));
        }
        pair.run_secs(5);
        assert_eq!(pair.failures(A), [""; 0], "{kind:?}");
        pair.assert_at_rest();
    }
    // A choice that we did not offer.
    let (mut pair, request, path) = asked();
    let mut chosen = ike_offer(KeGroup::X25519, &[]);
    chosen[0].transforms[0].key_length = Some(512);
    let ke = Payload::Ke { group: 31, data: vec![9; 32] };
    let wrong = [Payload::Sa(chosen), ke, Payload::Nonce(vec![7; 32])];
    pair.inject(A, path, &answer(&request, 77, &wrong));
    pair.run_secs(5);
    pair.assert_at_rest();
}

/// If it is the only answer, people read it, half a second later.
#[test]
fn a_refusal_that_stays_the_only_answer_is_the_reason() {
    let (mut pair, request, path) = asked();
    pair.lose_all();
    pair.deaf = [true, true];
    let error = [Payload::notify(NotifyType::NO_PROPOSAL_CHOSEN, vec![])];
    for _ in 0..10 {
        pair.inject(A, path, &answer(&request, 0, &error));
        pair.run(Duration::from_millis(40));
    }
    assert_eq!(pair.failures(A), [""; 0]);
    let sent = pair.hosts[A].sent.len();
    pair.run(Duration::from_millis(101));
    let failures = pair.failures(A);
    assert_eq!(failures.len(), 1);
    assert!(failures[0].starts_with("the peer accepts none of our IKE proposals"), "{failures:?}");
    assert_eq!(pair.hosts[A].endpoint.ike_sas(), 0);
    assert_eq!(pair.hosts[A].sent.len(), sent, "a request that was refused is not sent again");
}

/// COOKIEs and groups that nobody asked for, in a loop: the attempt ends, and so does the loop.
#[test]
fn challenges_in_a_loop_end_the_attempt_and_nothing_else() {
    for group in [false, true] {
        let (mut pair, request, path) = asked();
        pair.lose_all();
        pair.deaf = [false, true];
        let groups = [KeGroup::Ecp256, KeGroup::Ecp384, KeGroup::X25519];
        for turn in 0..100_u8 {
            let wanted = groups[usize::from(turn) % 3].id().to_be_bytes().to_vec();
            let notify = match group {
                true => Payload::notify(NotifyType::INVALID_KE_PAYLOAD, wanted),
                false => Payload::notify(NotifyType::COOKIE, vec![turn; 32]),
            };
            pair.inject(A, path, &answer(&request, 0, &[notify]));
        }
        assert!(pair.hosts[A].sent.len() <= 7, "{} requests", pair.hosts[A].sent.len());
        pair.run_secs(2);
        let failures = pair.failures(A);
        assert_eq!(
            failures,
            ["the peer broke the protocol: it asks again and again for another COOKIE or group"]
        );
        assert_eq!(pair.hosts[A].endpoint.ike_sas(), 0);
        // The next attempt succeeds.
        pair.deaf = [false, false];
        pair.run_secs(40);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run_secs(5);
        pair.assert_at_rest();
    }
}

/// Somebody on the path is faster than the peer: IKE_AUTH under its keys is answered by nobody. That
/// another answer came makes the attempt end within seconds instead of after a minute.
#[test]
fn an_answer_of_somebody_else_costs_seconds() {
    let (mut pair, request, path) = asked();
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let offered = parse_message(&request).unwrap().payloads;
    let group = offered.iter().find_map(|payload| match payload {
        Payload::Ke { group, .. } => KeGroup::from_id(*group),
        _ => None,
    });
    let key = KeyExchange::generate(group.unwrap(), &mut rng).unwrap();
    let forged = [
        Payload::Sa(ike_offer(key.group(), &[])),
        Payload::Ke { group: key.group().id(), data: key.public().to_vec() },
        Payload::Nonce(vec![6; 32]),
    ];
    pair.inject(A, path, &answer(&request, 77, &forged));
    pair.run_secs(5);
    let failures = pair.failures(A);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures[0].ends_with("two different answers to the first request came"),
        "{failures:?}"
    );
    assert_eq!(pair.hosts[A].endpoint.ike_sas(), 0);
    assert!(pair.hosts[B].endpoint.counters().unknown_spi > 0, "IKE_AUTH for an SPI of nobody");
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(40);
    pair.assert_at_rest();
}

/// The same after the true answer: it is contradicted by the peer's own IKE_AUTH.
#[test]
fn an_answer_of_somebody_else_that_comes_late_changes_nothing() {
    let (mut pair, request, path) = asked();
    pair.run(Duration::from_millis(25));
    assert_eq!(pair.hosts[A].sent.len(), 2, "IKE_AUTH is on the way");
    let ke = Payload::Ke { group: 31, data: vec![9; 32] };
    let forged = [Payload::Sa(ike_offer(KeGroup::X25519, &[])), ke, Payload::Nonce(vec![6; 32])];
    (78..90).for_each(|spi| pair.inject(A, path, &answer(&request, spi, &forged)));
    pair.run_secs(5);
    assert_eq!(pair.failures(A), [""; 0]);
    pair.assert_at_rest();
}

/// A request is known by all of it (RFC 7296 2.1): another one with the same SPI in the same name, which
/// anybody can send who saw the first, gets an answer of its own.
#[test]
fn a_request_with_the_same_spi_in_the_same_name_is_another() {
    let (mut pair, request, path) = asked();
    pair.lose_all();
    let mut other = request.clone();
    let at = other.len() - 1;
    other[at] ^= 1;
    let from_a = Path { local: path.remote, remote: path.local };
    for (request, half_open) in [(&other, 1), (&request, 2), (&request, 2), (&other, 2)] {
        let before = pair.hosts[B].sent.len();
        pair.inject(B, from_a, request);
        assert_eq!(pair.hosts[B].endpoint.half_open(), half_open);
        assert_eq!(pair.hosts[B].sent.len(), before + 1);
    }
    let answers: Vec<_> = pair.hosts[B].sent.iter().map(|t| t.payload.clone()).collect();
    assert_ne!(answers[0], answers[1]);
    assert_eq!((&answers[1], &answers[0]), (&answers[2], &answers[3]), "the same again");
}

/// A group that nobody asked for: the peer is asked with it, too, and leads back to the one that it likes
/// best of those that both have.
#[test]
fn a_group_that_nobody_asked_for_does_not_end_an_attempt() {
    let (mut pair, request, path) = asked();
    let wanted = KeGroup::Ecp384.id().to_be_bytes().to_vec();
    let notify = Payload::notify(NotifyType::INVALID_KE_PAYLOAD, wanted);
    pair.inject(A, path, &answer(&request, 0, &[notify]));
    pair.run_secs(2);
    assert_eq!(pair.failures(A), [""; 0]);
    assert_eq!(pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().suite.group, KeGroup::X25519);
    pair.run_secs(40);
    pair.assert_at_rest();
}
