//! MOBIKE behind a NAT that forgets (RFC 4555 3.8), and on a path whose owner changes addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::common::rogue::{KEY, Rogue, answers, assert_untouched, beside_a_tunnel};
use crate::common::{A, B, Fault, Pair, TUNNEL, address, outside, peers};
use ike::message::{ExchangeType, NotifyType as N, Payload};
use ike::{Command, Event, PeerConfig, TransmitPayload};
use sa::{Path, Spi};

const INFO: ExchangeType = ExchangeType::INFORMATIONAL;
/// Longer than the silence after which A asks whether B lives, and the answer.
const ASKED: u64 = 11;

/// Only A asks whether the other lives, so that nothing of B's finds the way to A for it.
fn only_a_asks() -> [PeerConfig; 2] {
    let mut config = peers();
    config.iter_mut().for_each(|c| c.force_encapsulation = false);
    config[B].remote = None;
    config[B].dpd.idle = Duration::ZERO;
    config
}

fn behind_a_nat() -> Pair {
    let mut pair = Pair::new(only_a_asks(), 1);
    pair.nat(A);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(2);
    pair.assert_at_rest();
    let info = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap();
    assert!(info.mobike && info.began && info.nat.local);
    pair
}

/// Where the NAT has A now.
fn mapped(pair: &Pair) -> SocketAddr {
    let nat = pair.hosts[A].nat.as_ref().unwrap();
    let port = nat.iter().find(|(inner, _)| inner.port() == 4500).map(|(_, port)| *port);
    SocketAddr::new(outside(A), port.unwrap())
}

/// Where B has sent ESP, in order.
fn esp_remotes(pair: &Pair) -> Vec<SocketAddr> {
    let events = pair.hosts[B].events.iter();
    let path = events.filter_map(|e| match e {
        Event::PathChanged { path, .. } => Some(path.remote),
        Event::InstallOutbound(sa) if sa.tunnel == TUNNEL => Some(sa.path.remote),
        _ => None,
    });
    path.collect()
}

fn assert_follows(pair: &mut Pair, story: &str) {
    assert_eq!(esp_remotes(pair).last(), Some(&mapped(pair)), "{story}");
    let info = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap();
    assert_eq!(info.path.remote, mapped(pair), "{story}");
    for host in [A, B] {
        assert!(!pair.names(host).contains(&"IkeDown"), "{story}");
    }
    pair.assert_at_rest();
}

fn updates(pair: &Pair, host: usize) -> u64 {
    pair.hosts[host].endpoint.counters().address_updates
}

#[test]
fn a_nat_that_forgets_is_noticed_by_the_next_liveness_request() {
    let mut pair = behind_a_nat();
    let before = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap();
    for times in 1..=3 {
        pair.run_secs(ASKED);
        assert_eq!(updates(&pair, A), times - 1, "nothing changed");
        pair.rebind(A);
        pair.run_secs(ASKED);
        assert_eq!((updates(&pair, A), updates(&pair, B)), (times, times));
        assert_follows(&mut pair, "forgot");
    }
    let after = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap();
    assert_eq!(after.initiator_spi, before.initiator_spi, "the same IKE SA");
}

/// Every message of the liveness exchange, of the check, and of the update.
#[test]
fn each_message_may_be_lost_doubled_or_late() {
    let ms = Duration::from_millis;
    for at in 0..7 {
        for fault in [Fault::Lose, Fault::Again(ms(0)), Fault::Again(ms(700)), Fault::Late(ms(700))]
        {
            let mut pair = behind_a_nat();
            pair.rebind(A);
            pair.fault([(at, fault)]);
            pair.run_secs(2 * ASKED);
            assert!((1..=2).contains(&updates(&pair, A)), "{at} {fault:?}");
            assert_follows(&mut pair, &format!("{at} {fault:?}"));
        }
    }
}

#[test]
fn a_nat_that_forgets_again_and_again_on_a_lossy_path() {
    for seed in 0..20 {
        let mut pair = Pair::new(only_a_asks(), seed);
        pair.nat(A);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run_secs(2);
        (pair.loss, pair.duplicates) = (250, 100);
        pair.jitter = Duration::from_millis(300);
        for _ in 0..8 {
            pair.rebind(A);
            pair.run_secs(3);
        }
        (pair.loss, pair.duplicates) = (0, 0);
        pair.run_secs(40);
        assert_follows(&mut pair, &format!("seed {seed}"));
    }
}

/// The answer to the first copy says where A was. It is asked again.
#[test]
fn an_answer_from_before_the_nat_forgot_is_not_the_last_word() {
    let mut pair = behind_a_nat();
    // The answer to A's request is lost, and the NAT forgets before A sends it again.
    pair.fault([(1, Fault::Lose)]);
    while pair.count < 2 {
        pair.run(Duration::from_millis(1));
    }
    pair.rebind(A);
    pair.run_secs(2);
    assert_eq!(updates(&pair, A), 1);
    assert_follows(&mut pair, "answered from the cache");
}

/// Where an answer takes longer than the first retransmission, each request is sent twice. That is
/// no reason to ask without end.
#[test]
fn a_slow_path_is_asked_twice_and_not_again_and_again() {
    let mut pair = behind_a_nat();
    pair.delay = Duration::from_millis(400);
    let before = pair.hosts[A].sent.len();
    pair.run_secs(100);
    let sent = pair.hosts[A].sent[before..].iter();
    let requests =
        sent.filter(|t| matches!(&t.payload, TransmitPayload::Ike(o) if o[19] & 0x20 == 0));
    let count = requests.count();
    assert!((18..=44).contains(&count), "{count} datagrams in 100 seconds");
    pair.rebind(A);
    pair.run_secs(ASKED);
    assert_follows(&mut pair, "slow");
}

/// The hash is over the SPIs: after a rekey A cannot compare, and says where it is.
#[test]
fn a_rekey_behind_a_nat_costs_one_update() {
    let mut pair = behind_a_nat();
    for (times, who) in (1..).zip([A, B]) {
        pair.command(who, Command::RekeyIke(TUNNEL));
        pair.run_secs(60);
        assert_eq!(updates(&pair, A), times);
        assert_follows(&mut pair, "rekeyed");
        assert_eq!(pair.hosts[B].endpoint.counters().path_checks, 0, "it did not move");
    }
}

#[test]
fn without_a_nat_liveness_and_rekeys_cost_no_update() {
    let mut config = only_a_asks();
    config[A].remote_port = 500;
    let mut pair = Pair::up(config, 1);
    pair.run_secs(60);
    pair.command(A, Command::RekeyIke(TUNNEL));
    pair.run_secs(60);
    assert_eq!(updates(&pair, A), 0);
    pair.assert_at_rest();
}

/// A route to B may begin to lead through a NAT.
#[test]
fn a_nat_that_appears_is_noticed() {
    let mut pair = Pair::up(only_a_asks(), 1);
    pair.nat(A);
    pair.run_secs(ASKED);
    assert_eq!(updates(&pair, A), 1);
    assert_follows(&mut pair, "a NAT appeared");
    assert!(pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().nat.local);
}

#[test]
fn only_with_mobike_and_only_the_side_that_began_asks_where_it_is_seen() {
    for mobike in [true, false] {
        let mut config = peers();
        config[B].mobike = mobike;
        let mut pair = Pair::up(config, 1);
        let lengths = [A, B].map(|host| {
            pair.command(host, Command::Liveness(TUNNEL));
            pair.run_secs(1);
            let (_, _, request) = pair.delivered.iter().rev().nth(1).unwrap();
            request.len()
        });
        let hashes = if mobike { 2 * 28 } else { 0 };
        assert_eq!(lengths[A], lengths[B] + hashes, "{mobike}");
    }
}

/// Somebody else's address, from which nothing ever answers.
fn nowhere() -> SocketAddr {
    ([203, 0, 113, 200], 4500).into()
}

/// Hands the last datagram that A sent to B as if it came from nowhere; B answers there.
fn redirect(pair: &mut Pair) {
    let sent = pair.hosts[A].sent.last().unwrap().clone();
    let TransmitPayload::Ike(octets) = sent.payload else { panic!("not IKE") };
    pair.inject(B, Path { local: sent.path.remote, remote: nowhere() }, &octets);
}

/// Who stands on the path of one datagram and changes its source moves nothing: what is authentic
/// makes B ask, and only who answers there is followed.
#[test]
fn a_changed_source_address_moves_nothing_for_long() {
    for update in [false, true] {
        let mut pair = Pair::up(only_a_asks(), 1);
        let mut home = SocketAddr::new(address(A), 4500);
        pair.hold = true;
        if update {
            let local: IpAddr = [192, 0, 2, 77].into();
            home.set_ip(local);
            pair.renumber(A, local);
            pair.command(A, Command::LocalAddressChanged { tunnel: TUNNEL, local });
        } else {
            pair.command(A, Command::Liveness(TUNNEL));
        }
        redirect(&mut pair);
        pair.lose_all();
        pair.hold = false;
        pair.run_secs(30);
        let info = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap();
        assert_eq!(info.path.remote, home, "update {update}");
        assert_eq!(esp_remotes(&pair).last(), Some(&home), "update {update}");
        assert!(!esp_remotes(&pair).contains(&nowhere()), "ESP never went there");
        assert!(!info.nat.remote, "it is not there any more");
        let there = pair.hosts[B].sent.iter().filter(|t| t.path.remote == nowhere()).count();
        assert!(there <= 8, "{there} datagrams to a third party");
        for host in [A, B] {
            assert!(!pair.names(host).contains(&"IkeDown"), "update {update}");
        }
        pair.assert_at_rest();
    }
}

/// The rogue as a peer that does MOBIKE, and what it must have said for that.
fn mobile(pair: &mut Pair) -> Rogue {
    let mut rogue = Rogue::init(pair, 1);
    let mut payloads = rogue.identity(KEY).to_vec();
    payloads.extend(Rogue::child(Spi(0x9001)));
    payloads.push(Payload::notify(N::MOBIKE_SUPPORTED, vec![]));
    rogue.ask(pair, ExchangeType::IKE_AUTH, &payloads).unwrap();
    rogue
}

/// A peer that says that it moved and answers where it was: after some checks it is taken at its
/// deeds, and does not die of it.
#[test]
fn a_peer_that_answers_every_check_from_its_old_place_stays_there() {
    let mut pair = beside_a_tunnel();
    let mut rogue = mobile(&mut pair);
    let home = rogue.path;
    rogue.path.remote = nowhere();
    let update = Payload::notify(N::UPDATE_SA_ADDRESSES, vec![]);
    assert_eq!(rogue.ask(&mut pair, INFO, &[update]), Some(vec![]));
    let begun = pair.hosts[B].sent.len();
    let mut checks = 0;
    loop {
        // The check goes to the new place only, its copies to both.
        let before = pair.hosts[B].sent.len();
        pair.run(Duration::from_millis(600));
        let copies = pair.hosts[B].sent[before..].iter();
        let copies: Vec<_> = copies
            .filter(|t| t.path.remote == home.remote)
            .filter(|t| matches!(&t.payload, TransmitPayload::Ike(o) if o[19] & 0x20 == 0))
            .collect();
        let Some(TransmitPayload::Ike(octets)) = copies.first().map(|t| &t.payload) else { break };
        let (question, id) =
            (rogue.opened(octets), u32::from_be_bytes(octets[20..24].try_into().unwrap()));
        assert!(matches!(&question[..], [Payload::Notify(n)] if n.kind == N::COOKIE2));
        let answer = rogue.response(INFO, id, &question);
        pair.inject(B, home, &answer);
        checks += 1;
        assert!(checks < 20, "it asks for ever");
    }
    assert_eq!(checks, 4);
    let there = answers(&pair, begun).len();
    assert!(there <= 16, "{there} datagrams");
    let info = pair.hosts[B].endpoint.ike_info(crate::common::rogue::ROGUE).unwrap();
    assert_eq!(info.path.remote, home.remote);
    rogue.path = home;
    rogue.assert_alive(&mut pair);
    assert_untouched(&mut pair);
}
