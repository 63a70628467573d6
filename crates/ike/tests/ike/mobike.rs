//! MOBIKE (RFC 4555): addresses that change under an IKE SA.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::common::rogue::{KEY, Rogue, assert_untouched, beside_a_tunnel, error};
use crate::common::{A, B, Fault, Pair, TUNNEL, peers};
use ike::message::{ExchangeType, NotifyType as N, Payload};
use ike::{Command, DownReason, Event};
use sa::{Path, Spi};

const INFO: ExchangeType = ExchangeType::INFORMATIONAL;

fn elsewhere() -> IpAddr {
    [192, 0, 2, 77].into()
}

/// Where host B sends ESP, as the events say.
fn esp_remote(pair: &Pair, host: usize) -> SocketAddr {
    let events = pair.hosts[host].events.iter().rev();
    let path = events.filter_map(|e| match e {
        Event::PathChanged { path, .. } => Some(*path),
        Event::InstallOutbound(sa) if sa.tunnel == TUNNEL => Some(sa.path),
        _ => None,
    });
    path.take(1).next().unwrap().remote
}

fn moved(pair: &Pair, host: usize) -> usize {
    pair.names(host).iter().filter(|n| **n == "PathChanged").count()
}

fn without_force() -> [ike::PeerConfig; 2] {
    let mut config = peers();
    config.iter_mut().for_each(|c| c.force_encapsulation = false);
    config
}

fn move_to(pair: &mut Pair, host: usize, local: IpAddr) {
    pair.renumber(host, local);
    pair.command(host, Command::LocalAddressChanged { tunnel: TUNNEL, local });
}

#[test]
fn both_sides_say_that_they_can_and_either_may_decline() {
    for [a, b] in [[true, true], [true, false], [false, true], [false, false]] {
        let mut config = peers();
        (config[A].mobike, config[B].mobike) = (a, b);
        let mut pair = Pair::up(config, 1);
        for host in [A, B] {
            let info = pair.hosts[host].endpoint.ike_info(TUNNEL).unwrap();
            assert_eq!(info.mobike, a && b);
        }
        // A rekey does not lose it.
        pair.command(B, Command::RekeyIke(TUNNEL));
        pair.run_secs(30);
        assert_eq!(pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().mobike, a && b);
    }
}

/// RFC 4555 3.3: from port 500 it goes to 4500 although there is no NAT.
#[test]
fn it_goes_to_4500_without_a_nat() {
    let mut config = without_force();
    config[A].remote_port = 500;
    let pair = Pair::up(config, 1);
    assert_eq!(pair.ports(A).into_iter().collect::<Vec<_>>(), [(500, 500), (4500, 4500)]);
}

#[test]
fn the_initiator_moves_and_the_tunnel_follows() {
    for rekeyed in [false, true] {
        let mut pair = Pair::up(without_force(), 1);
        if rekeyed {
            // Who began the first IKE SA is the one that decides, whoever rekeyed it.
            pair.command(B, Command::RekeyIke(TUNNEL));
            pair.run_secs(30);
        }
        let before = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap();
        move_to(&mut pair, A, elsewhere());
        pair.run_secs(1);
        for host in [A, B] {
            assert_eq!(moved(&pair, host), 1, "{:?}", pair.names(host));
        }
        assert_eq!(esp_remote(&pair, B), SocketAddr::new(elsewhere(), 4500));
        let info = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap();
        assert_eq!(info.initiator_spi, before.initiator_spi, "the same IKE SA");
        assert_eq!(info.path.remote.ip(), elsewhere());
        assert!(!info.nat.remote && !info.nat.local);
        let counters = *pair.hosts[B].endpoint.counters();
        assert_eq!((counters.address_updates, counters.path_checks), (1, 1));
        // Everything goes on from there, both ways.
        for command in [Command::RekeyChild(TUNNEL), Command::RekeyIke(TUNNEL)] {
            for who in [A, B] {
                pair.command(who, command.clone());
                pair.run_secs(30);
                pair.assert_at_rest();
            }
        }
        assert_eq!(esp_remote(&pair, B).ip(), elsewhere());
    }
}

#[test]
fn esp_waits_for_the_return_routability_check() {
    let mut pair = Pair::up(without_force(), 1);
    let old = esp_remote(&pair, B);
    pair.hold = true;
    move_to(&mut pair, A, elsewhere());
    assert_eq!(moved(&pair, A), 1, "A's packets leave from where it is");
    pair.deliver(0);
    // The answer and the check are on their way to the new address; ESP is not.
    let info = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap();
    assert_eq!(info.path.remote.ip(), elsewhere());
    assert_eq!((moved(&pair, B), esp_remote(&pair, B)), (0, old));
    assert_eq!(pair.wire(), [(A, 37, true), (A, 37, false)]);
    // A Child SA that is made meanwhile does not go there either.
    pair.deliver(0);
    pair.command(A, Command::RekeyChild(TUNNEL));
    let request = pair.wire().iter().position(|m| *m == (B, 36, false)).unwrap();
    pair.deliver(request);
    pair.run_secs(6);
    assert_eq!((moved(&pair, B), esp_remote(&pair, B)), (0, old));
    pair.hold = false;
    pair.run_secs(10);
    // The old Child SA first, and then the new one, which was made before the check was answered.
    assert_eq!((moved(&pair, B), esp_remote(&pair, B).ip()), (2, elsewhere()));
    pair.assert_at_rest();
}

#[test]
fn each_message_of_a_move_may_be_lost_doubled_or_late() {
    let ms = Duration::from_millis;
    for at in 0..4 {
        for fault in [
            Fault::Lose,
            Fault::Again(ms(0)),
            Fault::Again(ms(700)),
            Fault::Late(ms(15)),
            Fault::Late(ms(700)),
        ] {
            let mut pair = Pair::up(without_force(), 1);
            pair.fault([(at, fault)]);
            move_to(&mut pair, A, elsewhere());
            pair.run_secs(20);
            assert_eq!(esp_remote(&pair, B).ip(), elsewhere(), "{at} {fault:?}");
            assert_eq!(moved(&pair, B), 1, "{at} {fault:?}");
            pair.assert_at_rest();
        }
    }
}

#[test]
fn a_move_in_the_middle_of_another_exchange_lets_it_end_first() {
    let commands: [fn(sa::TunnelId) -> Command; 4] =
        [Command::RekeyChild, Command::RekeyIke, Command::Liveness, Command::Reestablish];
    for command in commands {
        for who in [A, B] {
            if who == B && matches!(command(TUNNEL), Command::Reestablish(_)) {
                // B knows the old address only.
                continue;
            }
            let mut pair = Pair::up(without_force(), 1);
            pair.command(who, command(TUNNEL));
            move_to(&mut pair, A, elsewhere());
            pair.run_secs(60);
            let path = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap().path;
            assert_eq!(path.remote.ip(), elsewhere(), "{:?} by {who}", command(TUNNEL));
            assert_eq!(esp_remote(&pair, B).ip(), elsewhere(), "{:?} by {who}", command(TUNNEL));
            pair.assert_at_rest();
            for host in [A, B] {
                assert!(!pair.names(host).contains(&"IkeDown"));
            }
        }
    }
}

#[test]
fn many_moves_in_a_row_end_at_the_last_place() {
    let mut pair = Pair::up(without_force(), 1);
    for last in [70, 71, 72, 1, 73] {
        move_to(&mut pair, A, [192, 0, 2, last].into());
        pair.run(Duration::from_millis(15));
    }
    pair.run_secs(20);
    assert_eq!(esp_remote(&pair, B).ip(), IpAddr::from([192, 0, 2, 73]));
    pair.assert_at_rest();
}

#[test]
fn a_move_behind_a_nat_is_seen() {
    let mut config = without_force();
    config[B].remote = None;
    let mut pair = Pair::up(config, 1);
    assert!(!pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().nat.local);
    pair.nat(A);
    move_to(&mut pair, A, [10, 9, 9, 9].into());
    pair.run_secs(2);
    let info = [A, B].map(|h| pair.hosts[h].endpoint.ike_info(TUNNEL).unwrap());
    assert!(info[A].nat.local && !info[A].nat.remote);
    assert!(info[B].nat.remote && !info[B].nat.local);
    assert_eq!(esp_remote(&pair, B).ip(), crate::common::outside(A));
    pair.assert_at_rest();
}

#[test]
fn without_mobike_the_peer_learns_from_the_next_authentic_message() {
    let mut config = peers();
    config.iter_mut().for_each(|c| c.mobike = false);
    let mut pair = Pair::up(config, 1);
    move_to(&mut pair, A, elsewhere());
    pair.run_secs(2);
    assert_eq!(esp_remote(&pair, B).ip(), elsewhere());
    assert_eq!(pair.hosts[B].endpoint.counters().path_checks, 0);
    pair.assert_at_rest();
}

#[test]
fn a_responder_that_moves_is_followed_after_a_check() {
    let mut pair = Pair::up(without_force(), 1);
    let local = [198, 51, 100, 44].into();
    move_to(&mut pair, B, local);
    pair.run_secs(5);
    assert_eq!(esp_remote(&pair, A).ip(), local);
    assert_eq!(pair.hosts[A].endpoint.counters().path_checks, 1);
    pair.assert_at_rest();
}

/// ESP seen from somewhere else moves nothing by itself.
#[test]
fn an_observed_path_is_used_only_after_it_proved_itself() {
    let mut pair = Pair::up(without_force(), 1);
    let info = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap();
    // Somebody sends captured ESP from an address of a third party: the peer answers from where
    // it is.
    let third = SocketAddr::from(([203, 0, 113, 200], 4500));
    for _ in 0..20 {
        let path = Path { local: info.path.local, remote: third };
        pair.command(B, Command::PathObserved { tunnel: TUNNEL, path });
        pair.run(Duration::from_millis(300));
    }
    pair.run_secs(30);
    assert_eq!(pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap().path, info.path);
    assert_eq!(moved(&pair, B), 0);
    let to_third = pair.hosts[B].sent.iter().filter(|t| t.path.remote == third).count();
    assert!((1..=18).contains(&to_third), "{to_third} datagrams to a third party");
    let checks = pair.hosts[B].endpoint.counters().path_checks;
    assert!((1..=8).contains(&checks), "{checks} checks in six seconds");
    pair.assert_at_rest();
    assert!(!pair.names(B).contains(&"IkeDown"));
}

#[test]
fn addresses_where_no_peer_can_be_are_unacceptable() {
    for remote in [
        ([0, 0, 0, 0], 4500),
        ([224, 0, 0, 1], 4500),
        ([255, 255, 255, 255], 4500),
        ([198, 51, 100, 10], 4500),
        ([203, 0, 113, 5], 0),
    ] {
        let mut pair = beside_a_tunnel();
        let mut rogue = mobile(&mut pair);
        rogue.path.remote = remote.into();
        let update = Payload::notify(N::UPDATE_SA_ADDRESSES, vec![]);
        let answer = rogue.ask(&mut pair, INFO, &[update]);
        assert_eq!(error(answer), N::UNACCEPTABLE_ADDRESSES, "{remote:?}");
        assert_eq!(moved(&pair, B), 0);
        assert_untouched(&mut pair);
    }
}

/// The rogue as a peer that does MOBIKE.
fn mobile(pair: &mut Pair) -> Rogue {
    let mut rogue = Rogue::init(pair, 1);
    let mut payloads = rogue.identity(KEY).to_vec();
    payloads.extend(Rogue::child(Spi(0x9001)));
    payloads.push(Payload::notify(N::MOBIKE_SUPPORTED, vec![]));
    let answer = rogue.ask(pair, ExchangeType::IKE_AUTH, &payloads).unwrap();
    let has = |p: &Payload| matches!(p, Payload::Notify(n) if n.kind == N::MOBIKE_SUPPORTED);
    assert!(answer.iter().any(has), "{answer:?}");
    rogue
}

/// What NO_NATS_ALLOWED says about a message from `from` to `to` (RFC 4555 4.2.6).
fn no_nats(from: SocketAddr, to: SocketAddr) -> Payload {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { panic!() };
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let data = [&source.octets()[..], &destination.octets(), &ports].concat();
    Payload::notify(N::NO_NATS_ALLOWED, data)
}

#[test]
fn a_nat_that_the_peer_does_not_allow_is_reported_and_moves_nothing() {
    let mut pair = beside_a_tunnel();
    let mut rogue = mobile(&mut pair);
    let update = || Payload::notify(N::UPDATE_SA_ADDRESSES, vec![]);
    let (home, local) = (rogue.path.remote, rogue.path.local);
    rogue.path.remote = ([203, 0, 113, 50], 4500).into();
    let answer = rogue.ask(&mut pair, INFO, &[update(), no_nats(home, local)]);
    assert_eq!(error(answer), N::UNEXPECTED_NAT_DETECTED);
    let info = pair.hosts[B].endpoint.ike_info(crate::common::rogue::ROGUE).unwrap();
    assert_eq!(info.path.remote, home);
    // Without a NAT in between it is followed.
    let from = rogue.path.remote;
    let answer = rogue.ask(&mut pair, INFO, &[update(), no_nats(from, local)]);
    assert_eq!(answer, Some(vec![]));
    let info = pair.hosts[B].endpoint.ike_info(crate::common::rogue::ROGUE).unwrap();
    assert_eq!(info.path.remote, from);
    assert_untouched(&mut pair);
}

#[test]
fn a_nat_that_the_peer_does_not_allow_ends_ike_auth() {
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::init(&mut pair, 1);
    let mut payloads = rogue.identity(KEY).to_vec();
    payloads.extend(Rogue::child(Spi(0x9001)));
    payloads.push(Payload::notify(N::MOBIKE_SUPPORTED, vec![]));
    payloads.push(no_nats(([10, 0, 0, 1], 4500).into(), rogue.path.local));
    let answer = rogue.ask(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(error(answer), N::UNEXPECTED_NAT_DETECTED);
    assert_untouched(&mut pair);
}

#[test]
fn a_cookie2_comes_back_as_it_was_and_nat_detection_is_answered() {
    let mut pair = beside_a_tunnel();
    let mut rogue = mobile(&mut pair);
    for (octets, back) in [(7, false), (8, true), (64, true), (65, false)] {
        let cookie = Payload::notify(N::COOKIE2, vec![0xc0; octets]);
        let answer = rogue.ask(&mut pair, INFO, std::slice::from_ref(&cookie)).unwrap();
        assert_eq!(answer, if back { vec![cookie] } else { vec![] }, "{octets}");
    }
    let asked = [N::NAT_DETECTION_SOURCE_IP, N::NAT_DETECTION_DESTINATION_IP];
    let answer = rogue.ask(&mut pair, INFO, &asked.map(|k| Payload::notify(k, vec![1; 20])));
    let kinds = answer.unwrap().into_iter().map(|p| match p {
        Payload::Notify(n) => n.kind,
        other => panic!("{other:?}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), asked);
    // A peer that does not do MOBIKE gets none of it.
    let mut pair = beside_a_tunnel();
    let mut rogue = Rogue::up(&mut pair, 1);
    let cookie = Payload::notify(N::COOKIE2, vec![0xc0; 8]);
    assert_eq!(rogue.ask(&mut pair, INFO, &[cookie]), Some(vec![]));
}

/// RFC 4555 3.6: each time all that it has now; as many as are kept, and none that cannot be.
#[test]
fn additional_addresses_are_kept_within_bounds() {
    let (v4, v6) = (N::ADDITIONAL_IP4_ADDRESS, N::ADDITIONAL_IP6_ADDRESS);
    let mut pair = beside_a_tunnel();
    let mut rogue = mobile(&mut pair);
    let known = |pair: &Pair| {
        let info = pair.hosts[B].endpoint.ike_info(crate::common::rogue::ROGUE).unwrap();
        let texts = info.additional_addresses.iter().map(ToString::to_string);
        texts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(known(&pair), "");
    let mut say = |pair: &mut Pair, said: &[(N, Vec<u8>)]| {
        let said: Vec<_> = said.iter().map(|(k, d)| Payload::notify(*k, d.clone())).collect();
        assert_eq!(rogue.ask(pair, INFO, &said), Some(vec![]));
    };
    let sixteen = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7]].concat();
    say(&mut pair, &[(v4, vec![192, 0, 2, 7]), (v6, sixteen)]);
    assert_eq!(known(&pair), "192.0.2.7 2001:db8::7");
    say(&mut pair, &[]);
    assert_eq!(known(&pair), "192.0.2.7 2001:db8::7", "it said nothing of them");
    // Of the wrong length, or nobody's.
    let wrong =
        [vec![], vec![192, 0, 2], vec![0; 4], vec![255; 4], vec![224, 0, 0, 1], vec![1; 16]];
    let wrong: Vec<_> = wrong.into_iter().map(|data| (v4, data)).collect();
    say(&mut pair, &wrong);
    assert_eq!(known(&pair), "");
    let many: Vec<_> = (1..=30).map(|last| (v4, vec![192, 0, 2, last])).collect();
    say(&mut pair, &many);
    assert_eq!(known(&pair).split(' ').count(), 8);
    say(&mut pair, &[(N::NO_ADDITIONAL_ADDRESSES, vec![])]);
    assert_eq!(known(&pair), "");
    let info = pair.hosts[B].endpoint.ike_info(crate::common::rogue::ROGUE).unwrap();
    assert_eq!(info.path.remote, rogue.path.remote, "nothing moved");
    assert_untouched(&mut pair);
}

/// RFC 4555 3.7: whoever answers the check with another COOKIE2 is not to be trusted any more.
#[test]
fn a_wrong_cookie2_closes_the_ike_sa() {
    for wrong in [Some(vec![0; 16]), Some(vec![]), None] {
        let mut pair = beside_a_tunnel();
        let mut rogue = mobile(&mut pair);
        rogue.path.remote = ([203, 0, 113, 50], 4500).into();
        let update = Payload::notify(N::UPDATE_SA_ADDRESSES, vec![]);
        assert_eq!(rogue.ask(&mut pair, INFO, &[update]), Some(vec![]));
        let payloads: Vec<Payload> =
            wrong.into_iter().map(|data| Payload::notify(N::COOKIE2, data)).collect();
        // B's first request on this IKE SA has the message id 0.
        let answer = rogue.response(INFO, 0, &payloads);
        pair.inject(B, rogue.path, &answer);
        let down = pair.hosts[B]
            .events
            .iter()
            .any(|e| matches!(e, Event::IkeDown { reason: DownReason::Protocol(_), .. }));
        assert!(down, "{:?}", pair.names(B));
        assert_untouched(&mut pair);
    }
}

#[test]
fn a_refused_move_is_reported_and_tried_again() {
    let mut pair = Pair::up(without_force(), 1);
    // The responder takes A for somebody at its own address, which cannot be.
    let local = crate::common::address(B);
    pair.hold = true;
    pair.command(A, Command::LocalAddressChanged { tunnel: TUNNEL, local });
    let request = pair.hosts[A].sent.last().unwrap().clone();
    let ike::TransmitPayload::Ike(octets) = request.payload else { panic!("not IKE") };
    let path = Path { local: request.path.remote, remote: request.path.local };
    pair.inject(B, path, &octets);
    let answer = pair.hosts[B].sent.last().unwrap().clone();
    let ike::TransmitPayload::Ike(octets) = answer.payload else { panic!("not IKE") };
    let path = Path { local: answer.path.remote, remote: answer.path.local };
    pair.inject(A, path, &octets);
    assert_eq!(pair.failures(A), ["the peer answered UNACCEPTABLE_ADDRESSES"]);
    // It comes home.
    pair.hold = false;
    move_to(&mut pair, A, crate::common::address(A));
    pair.run_secs(20);
    assert_eq!(esp_remote(&pair, B).ip(), crate::common::address(A));
    pair.assert_at_rest();
}

/// The data plane tells of a path once; two that come in a row are both checked.
#[test]
fn a_nat_that_rebinds_twice_is_followed_to_the_last_place() {
    let mut config = without_force();
    config[B].remote = None;
    let mut pair = Pair::new(config, 1);
    pair.nat(A);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(2);
    for _ in 0..2 {
        pair.rebind(A);
        let port = *pair.hosts[A].nat.as_ref().unwrap().values().next().unwrap();
        let local = SocketAddr::new(crate::common::address(B), 4500);
        let path = Path { local, remote: SocketAddr::new(crate::common::outside(A), port) };
        pair.command(B, Command::PathObserved { tunnel: TUNNEL, path });
        pair.run(Duration::from_millis(100));
    }
    pair.run_secs(2);
    let port = *pair.hosts[A].nat.as_ref().unwrap().values().next().unwrap();
    assert_eq!(esp_remote(&pair, B), SocketAddr::new(crate::common::outside(A), port));
    assert_eq!(pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap().path.remote.port(), port);
    pair.assert_at_rest();
}
