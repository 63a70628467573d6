//! What people read when a tunnel does not come up: exact lines.

use std::time::Duration;

use crate::common::{A, B, Pair, TUNNEL, nets, peers};
use ike::suite::{EspEncryption, Hash, IkeEncryption, KeGroup};
use ike::{Command, DownReason, Event, PeerConfig};
use sa::{Bits, Secret};

fn attempt(config: [PeerConfig; 2]) -> Pair {
    let mut pair = Pair::new(config, 1);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(3);
    pair
}

/// The IKE SA never came up: both sides say why, and nothing is left behind.
fn assert_refused(mut pair: Pair, initiator: &str, responder: &str) {
    assert_eq!(pair.failures(A), [initiator]);
    assert_eq!(pair.failures(B), [responder]);
    assert!(matches!(
        pair.hosts[A].events.last(),
        Some(Event::IkeDown { reason: DownReason::Failed, .. })
    ));
    pair.run_secs(60);
    for host in [A, B] {
        assert_eq!(pair.hosts[host].endpoint.ike_sas(), 0);
        assert_eq!(pair.hosts[host].endpoint.half_open(), 0);
        assert!(pair.hosts[host].inbound.is_empty());
    }
}

#[test]
fn another_pre_shared_key() {
    let mut config = peers();
    config[A].psk = Secret::new(b"something else".to_vec());
    assert_refused(
        attempt(config),
        "pre-shared key or identity: the peer refuses us as branch.example, asked for as \
         vgw.example",
        "pre-shared key: the peer's AUTH as branch.example does not match our key for it (we are \
         vgw.example)",
    );
}

#[test]
fn another_identity_of_the_initiator() {
    let mut config = peers();
    config[A].local_id = "intruder.example".parse().unwrap();
    assert_refused(
        attempt(config),
        "pre-shared key or identity: the peer refuses us as intruder.example, asked for as \
         vgw.example",
        "identity: the peer is intruder.example, we expect branch.example",
    );
}

#[test]
fn another_identity_asked_of_the_responder() {
    let mut config = peers();
    config[A].remote_id = Some("other.example".parse().unwrap());
    assert_refused(
        attempt(config),
        "pre-shared key or identity: the peer refuses us as branch.example, asked for as \
         other.example",
        "identity: the peer asks for other.example, we are vgw.example",
    );
}

#[test]
fn each_transform_of_the_ike_sa() {
    let mut config = peers();
    for peer in &mut config {
        peer.ike.encryption = vec![IkeEncryption::AesCbc(Bits::B128)];
        peer.ike.integrity = vec![Hash::Sha256];
        peer.ike.prf = vec![Hash::Sha256];
        peer.ike.groups = vec![KeGroup::X25519];
    }
    let offer = "AES_CBC-128 / HMAC_SHA2_256_128 / PRF_HMAC_SHA2_256 / CURVE_25519";
    let refused = format!(
        "the peer accepts none of our IKE proposals: we offer {offer}, and it does not say what \
         it accepts"
    );
    let mut other = config.clone();
    other[B].ike.encryption = vec![IkeEncryption::AesGcm16(Bits::B256)];
    assert_refused(
        attempt(other),
        &refused,
        "no common IKE proposal: encryption: they offer AES_CBC-128, we accept AES_GCM_16-256",
    );
    let mut other = config.clone();
    other[B].ike.integrity = vec![Hash::Sha512];
    assert_refused(
        attempt(other),
        &refused,
        "no common IKE proposal: integrity: they offer HMAC_SHA2_256_128, we accept \
         HMAC_SHA2_512_256",
    );
    let mut other = config.clone();
    other[B].ike.prf = vec![Hash::Sha384];
    assert_refused(
        attempt(other),
        &refused,
        "no common IKE proposal: PRF: they offer PRF_HMAC_SHA2_256, we accept PRF_HMAC_SHA2_384",
    );
    let mut other = config.clone();
    other[B].ike.groups = vec![KeGroup::Ecp256, KeGroup::Modp2048];
    assert_refused(
        attempt(other),
        &refused,
        "no common IKE proposal: key exchange group: they offer CURVE_25519, we accept ECP_256, \
         MODP_2048",
    );
}

/// The IKE SA stands without a Child SA, which is tried again until it fits.
fn assert_child_refused(mut pair: Pair, fit: PeerConfig, initiator: &str, responder: &str) {
    assert_eq!(pair.failures(A), [initiator]);
    assert_eq!(pair.failures(B), [responder]);
    assert!(pair.names(A).contains(&"IkeUp") && !pair.names(A).contains(&"IkeDown"));
    pair.run_secs(60);
    let tries = pair.failures(A).len();
    assert!((3..=6).contains(&tries), "backing off: {tries} tries in a minute");
    pair.command(B, Command::ReplacePeer(Box::new(fit)));
    pair.run_secs(600);
    pair.assert_at_rest();
}

#[test]
fn no_common_esp_suite_keeps_the_ike_sa_and_is_tried_again() {
    let mut config = peers();
    let fit = config[B].clone();
    config[A].esp.encryption = vec![EspEncryption::AesGcm16(Bits::B128)];
    config[B].esp.encryption = vec![EspEncryption::ChaCha20Poly1305];
    assert_child_refused(
        attempt(config),
        fit,
        "the peer accepts none of our ESP proposals: we offer AES_GCM_16-128 / ESN, NO_ESN, and \
         it does not say what it accepts",
        "no common ESP proposal: encryption: they offer AES_GCM_16-128, we accept \
         CHACHA20_POLY1305",
    );
}

#[test]
fn no_common_selectors_keep_the_ike_sa_and_are_tried_again() {
    let mut config = peers();
    let fit = config[B].clone();
    config[B].remote_selectors = nets(&["172.16.0.0/12"]);
    assert_child_refused(
        attempt(config),
        fit,
        "traffic selectors: the peer accepts none of ours: we offer 192.168.0.0/16 for our side \
         and 10.0.0.0/16 for theirs",
        "traffic selectors: they offer 10.0.0.0/16 for our side and 192.168.0.0/16 for theirs, we \
         accept 10.0.0.0/16 and 172.16.0.0/12",
    );
}

#[test]
fn a_peer_that_is_not_there() {
    let mut pair = Pair::new(peers(), 2);
    pair.deaf = [true, true];
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(100);
    assert_eq!(pair.failures(A), ["no answer from 198.51.100.10:4500: 7 tries in 63.5 s"]);
}

#[test]
fn an_answer_from_elsewhere_is_a_hint() {
    let mut pair = Pair::new(peers(), 3);
    pair.hold = true;
    pair.command(A, Command::Initiate(TUNNEL));
    pair.deaf = [true, false];
    pair.hold = false;
    pair.run(Duration::from_millis(20));
    let answer = pair.hosts[B].sent[0].clone();
    let ike::TransmitPayload::Ike(octets) = answer.payload else { panic!("not IKE") };
    let mut path = sa::Path { local: answer.path.remote, remote: answer.path.local };
    path.remote.set_port(31_000);
    pair.inject(A, path, &octets);
    pair.deaf = [true, true];
    pair.run_secs(100);
    assert_eq!(
        pair.failures(A),
        ["no answer from 198.51.100.10:4500: 7 tries in 63.5 s; an answer came from \
          198.51.100.10:31000 instead"]
    );
}

#[test]
fn port_500_answers_and_4500_does_not() {
    let mut config = peers();
    config[A].remote_port = 500;
    let mut pair = Pair::new(config, 4);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run(Duration::from_millis(15));
    // From here on a firewall lets nothing through.
    pair.step(pair.now + Duration::from_millis(20));
    pair.lose_all();
    pair.deaf = [true, true];
    pair.run_secs(100);
    assert_eq!(
        pair.failures(A),
        ["wrong port: port 500 answers, 198.51.100.10:4500 does not (7 tries): is UDP 4500 open \
          on the way?"]
    );
}

#[test]
fn a_peer_that_nobody_configured() {
    let mut config = peers();
    config[B].remote = Some([192, 0, 2, 77].into());
    let pair = attempt(config);
    assert_eq!(pair.failures(B), ["no tunnel is configured for a peer at this address"]);
    assert_eq!(pair.hosts[B].endpoint.counters().unknown_peer, 1);
    assert_eq!(pair.failures(A).len(), 1);
}
