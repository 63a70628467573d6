//! The handshake, the MACs and data messages against boringtun, which shares no line with us.

use super::*;
use crate::wireguard::cookie::{Guard, Refused, Stamper, Verified};
use crate::wireguard::message::{DATA_HEADER, OVERHEAD, counter, nonce, put_data_header};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use simd_aead::{Aad, Algorithm, Key, OpenJob, SealJob, open_batch, seal_batch};
use std::time::{Duration, Instant};

const OURS: [u8; 32] = [0x11; 32];
const THEIRS: [u8; 32] = [0x22; 32];

fn public(private: [u8; 32]) -> [u8; 32] {
    public_key(&Secret::new(private.to_vec())).unwrap()
}

fn statics(own: [u8; 32], peer: [u8; 32], preshared: Option<[u8; 32]>) -> Statics {
    Statics::new(Own::new(own), public(peer), preshared)
}

fn boringtun(preshared: Option<[u8; 32]>) -> Tunn {
    let peer = PublicKey::from(public(OURS));
    Tunn::new(StaticSecret::from(THEIRS), peer, preshared, None, 7, None)
}

/// What boringtun answers.
fn answer(tunn: &mut Tunn, message: &[u8]) -> Option<Vec<u8>> {
    let mut room = [0; 2048];
    match tunn.decapsulate(None, message, &mut room) {
        TunnResult::WriteToNetwork(reply) => Some(reply.to_vec()),
        _ => None,
    }
}

fn packet() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend_from_slice(&[9; 8]);
    packet
}

fn seal(keys: &SessionKeys, remote: u32, number: u64, plain: &[u8]) -> Vec<u8> {
    let key = Key::new(Algorithm::ChaCha20Poly1305, &*keys.send).unwrap();
    let mut out = vec![0; plain.len() + OVERHEAD];
    put_data_header(&mut out, remote, number).unwrap();
    let job = SealJob {
        key: 0,
        nonce: nonce(number),
        aad: Aad::default(),
        dst: DATA_HEADER,
        prefix: 0,
        body: 0..plain.len(),
        suffix: 0,
        checksum: None,
    };
    seal_batch(&[&key], plain, &mut out, &[job]).unwrap();
    out
}

fn open(keys: &SessionKeys, message: &[u8]) -> Option<Vec<u8>> {
    let key = Key::new(Algorithm::ChaCha20Poly1305, &*keys.receive).unwrap();
    let mut out = vec![0; message.len() - OVERHEAD];
    let mut jobs = [OpenJob {
        key: 0,
        nonce: nonce(counter(message).unwrap()),
        aad: Aad::default(),
        src: DATA_HEADER..message.len(),
        dst: 0,
        ok: false,
        sum: None,
    }];
    open_batch(&[&key], message, &mut out, &mut jobs).unwrap();
    jobs[0].ok.then_some(out)
}

/// Packets both ways between us and boringtun, whoever began.
fn traffic(keys: &SessionKeys, remote: u32, tunn: &mut Tunn, first: u64) {
    let mut room = [0; 2048];
    for number in first..first + 20 {
        let message = seal(keys, remote, number, &packet());
        let TunnResult::WriteToTunnelV4(inside, _) = tunn.decapsulate(None, &message, &mut room)
        else {
            panic!("boringtun refuses our message {number}")
        };
        assert_eq!(inside, packet());
        let TunnResult::WriteToNetwork(message) = tunn.encapsulate(&packet(), &mut room) else {
            panic!("boringtun has no session")
        };
        assert_eq!(open(keys, message).unwrap(), packet());
    }
}

#[test]
fn we_begin_with_boringtun_with_and_without_a_preshared_key() {
    for preshared in [None, Some([5; 32])] {
        let (us, mut tunn) = (statics(OURS, THEIRS, preshared), boringtun(preshared));
        let mut message = [0; INITIATION];
        let ephemeral = StaticSecret::from([3; 32]);
        let begun = Initiated::begin(&us, ephemeral, 0x1234, &[1; 12], &mut message).unwrap();
        let mut stamper = Stamper::new(us.peer.as_bytes());
        stamper.stamp(0x1234, &mut message, None);
        let response = answer(&mut tunn, &message).expect("a response");
        assert_eq!(word(&response, 8), Some(0x1234));
        let guard = Guard::new(OURS);
        let source = "192.0.2.1".parse().unwrap();
        let verified = guard.verify(source, &response, Instant::now(), || true);
        let Ok(Verified::Response(response)) = verified else { panic!("its MAC is wrong") };
        let (remote, keys) = begun.finish(&us, &response).expect("keys");
        // boringtun sends nothing before it has a message of ours.
        let mut room = [0; 2048];
        assert!(matches!(
            tunn.decapsulate(None, &seal(&keys, remote, 0, &[]), &mut room),
            TunnResult::Done
        ));
        traffic(&keys, remote, &mut tunn, 1);
        // The same initiation again is refused, and so is one with the same time.
        assert!(answer(&mut tunn, &message).is_none());
    }
}

#[test]
fn boringtun_begins_with_us_with_and_without_a_preshared_key() {
    for preshared in [None, Some([5; 32])] {
        let (us, mut tunn) = (statics(OURS, THEIRS, preshared), boringtun(preshared));
        let mut room = [0; 2048];
        let TunnResult::WriteToNetwork(initiation) =
            tunn.format_handshake_initiation(&mut room, false)
        else {
            panic!("no initiation")
        };
        let guard = Guard::new(OURS);
        let source = "192.0.2.1".parse().unwrap();
        let verified = guard.verify(source, initiation, Instant::now(), || true);
        let Ok(Verified::Initiation(mut received)) = verified else { panic!("refused") };
        assert_eq!(received.claimed, public(THEIRS));
        assert!(received.authenticate(&us).unwrap() > [0; 12]);
        let mut response = [0; RESPONSE];
        let ephemeral = StaticSecret::from([4; 32]);
        let (remote, keys) = received.respond(&us, ephemeral, 0x77, &mut response).unwrap();
        Stamper::new(us.peer.as_bytes()).stamp(0x77, &mut response, None);
        let confirmation = answer(&mut tunn, &response).expect("a keepalive");
        assert_eq!(word(&confirmation, 4), Some(0x77));
        assert_eq!(open(&keys, &confirmation).unwrap(), []);
        traffic(&keys, remote, &mut tunn, 0);
    }
}

#[test]
fn preshared_keys_that_differ_make_no_session_with_boringtun() {
    let (us, mut tunn) = (statics(OURS, THEIRS, Some([5; 32])), boringtun(Some([6; 32])));
    let mut message = [0; INITIATION];
    let ephemeral = StaticSecret::from([3; 32]);
    let begun = Initiated::begin(&us, ephemeral, 1, &[1; 12], &mut message).unwrap();
    Stamper::new(us.peer.as_bytes()).stamp(1, &mut message, None);
    let response = answer(&mut tunn, &message).unwrap();
    assert!(begun.finish(&us, &response.try_into().unwrap()).is_none());
}

#[test]
fn a_cookie_of_boringtun_is_shown_to_it_and_ours_to_us() {
    let source = "192.0.2.1".parse().unwrap();
    let us = statics(OURS, THEIRS, None);
    let initiation = |stamper: &mut Stamper| {
        let mut message = [0; INITIATION];
        let ephemeral = StaticSecret::from([3; 32]);
        Initiated::begin(&us, ephemeral, 0x99, &[1; 12], &mut message).unwrap();
        stamper.stamp(0x99, &mut message, None);
        message
    };
    // A limit of none: every message needs a cookie.
    let theirs = RateLimiter::new(&PublicKey::from(public(THEIRS)), 0);
    let mut stamper = Stamper::new(&public(THEIRS));
    let message = initiation(&mut stamper);
    let mut room = [0; 148];
    let Err(TunnResult::WriteToNetwork(cookie)) =
        theirs.verify_packet(Some(source), &message, &mut room)
    else {
        panic!("no cookie")
    };
    let now = Instant::now();
    let mut wrong = cookie.to_vec();
    wrong[40] ^= 1;
    assert_eq!(stamper.take(&wrong, now), None);
    wrong[40] ^= 1;
    wrong[4] ^= 1;
    assert_eq!(stamper.take(&wrong, now), None, "for another message");
    assert_eq!(stamper.take(cookie, now), Some(()));
    assert_eq!(stamper.take(cookie, now), None, "once is enough");
    let message = initiation(&mut stamper);
    let mut room = [0; 148];
    let verified = theirs.verify_packet(Some(source), &message, &mut room);
    assert!(matches!(verified, Ok(Packet::HandshakeInit(_))));
    let other = theirs.verify_packet(Some("192.0.2.2".parse().unwrap()), &message, &mut room);
    assert!(other.is_err(), "a cookie is for one address");
    stamper.expire(now + Duration::from_secs(120));
    assert_eq!(initiation(&mut stamper)[132..], [0; 16], "it was forgotten");

    let guard = Guard::new(THEIRS);
    let mut stamper = Stamper::new(&public(THEIRS));
    let message = initiation(&mut stamper);
    let verify = |message: &[u8], source, now| guard.verify(source, message, now, || true);
    for _ in 0..crate::wireguard::flood::WITHOUT_COOKIE {
        assert!(verify(&message, source, now).is_ok());
    }
    let Err(Refused::Cookie(cookie)) = verify(&message, source, now) else { panic!("no cookie") };
    assert_eq!(stamper.take(&cookie, now), Some(()));
    let message = initiation(&mut stamper);
    assert!(verify(&message, source, now).is_ok());
    let elsewhere = verify(&message, "192.0.2.2".parse().unwrap(), now);
    assert!(matches!(elsewhere, Err(Refused::Cookie(_))));
    let old = verify(&message, source, now + Duration::from_secs(120));
    assert!(matches!(old, Err(Refused::Cookie(_))), "the secret behind it changed");
    guard.begin_second();
    assert!(verify(&message, source, now + Duration::from_secs(120)).is_ok());
}

#[test]
fn a_point_of_low_order_makes_no_handshake() {
    let us = Statics::new(Own::new(OURS), [0; 32], None);
    let mut message = [0; INITIATION];
    let ephemeral = StaticSecret::from([3; 32]);
    assert!(Initiated::begin(&us, ephemeral, 1, &[1; 12], &mut message).is_none());
    let us = statics(OURS, THEIRS, None);
    Initiated::begin(&us, StaticSecret::from([3; 32]), 1, &[1; 12], &mut message).unwrap();
    message[8..40].fill(0);
    assert!(Received::read(&Own::new(THEIRS), &message).is_none());
}

#[test]
fn the_hashes_of_the_protocol_have_the_values_that_all_others_have() {
    // The constants that implementations precompute (boringtun's `INITIAL_CHAIN_KEY` and
    // `INITIAL_CHAIN_HASH`, wireguard-go's `InitialChainKey` and `InitialHash`).
    let chain = [
        96, 226, 109, 174, 243, 39, 239, 192, 46, 195, 53, 226, 160, 37, 210, 208, 22, 235, 66, 6,
        248, 114, 119, 245, 45, 56, 209, 152, 139, 120, 205, 54,
    ];
    assert_eq!(hash(&[CONSTRUCTION]), chain);
    let named = [
        34, 17, 179, 97, 8, 26, 197, 102, 105, 18, 67, 219, 69, 138, 213, 50, 45, 156, 108, 102,
        34, 147, 232, 183, 14, 225, 156, 101, 186, 7, 158, 243,
    ];
    assert_eq!(hash(&[&chain, IDENTIFIER]), named);
}
