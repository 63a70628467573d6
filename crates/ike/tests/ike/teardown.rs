//! DELETE, liveness, dead and restarted peers, NAT.

use std::time::Duration;

use crate::common::{A, B, Pair, TUNNEL, peers};
use ike::{Command, DownReason, Event, TransmitPayload};
use sa::Path;

fn down(pair: &Pair, host: usize) -> Vec<DownReason> {
    pair.hosts[host]
        .events
        .iter()
        .filter_map(|e| match e {
            Event::IkeDown { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .collect()
}

fn assert_nothing_left(pair: &Pair) {
    for host in [A, B] {
        assert_eq!(pair.hosts[host].endpoint.ike_sas(), 0, "host {host}");
        assert!(pair.hosts[host].inbound.is_empty());
        assert!(pair.hosts[host].outbound.is_none());
        assert_eq!(pair.hosts[host].endpoint.poll_timeout(), None);
    }
}

#[test]
fn each_side_deletes_and_nothing_is_left() {
    for who in [A, B] {
        let mut pair = Pair::up(peers(), 1);
        pair.command(who, Command::Delete(TUNNEL));
        pair.run_secs(60);
        assert_eq!(down(&pair, who), [DownReason::Requested]);
        assert_eq!(down(&pair, 1 - who), [DownReason::DeletedByPeer]);
        assert_nothing_left(&pair);
    }
}

#[test]
fn both_sides_delete_at_once() {
    let mut pair = Pair::up(peers(), 2);
    pair.command(A, Command::Delete(TUNNEL));
    pair.command(B, Command::Delete(TUNNEL));
    pair.run_secs(60);
    assert_eq!(
        [A, B].map(|h| down(&pair, h)),
        [vec![DownReason::Requested], vec![DownReason::Requested]]
    );
    assert_nothing_left(&pair);
}

#[test]
fn a_delete_meets_a_rekey_of_the_ike_sa() {
    for seed in 0..8 {
        let mut pair = Pair::up(peers(), seed);
        pair.command(A, Command::RekeyIke(TUNNEL));
        pair.command(B, Command::Delete(TUNNEL));
        pair.run_secs(120);
        assert_eq!(down(&pair, A).len(), 1);
        assert_eq!(down(&pair, B).len(), 1);
        assert_nothing_left(&pair);
    }
}

#[test]
fn a_lost_delete_is_sent_again_and_a_lost_answer_is_given_again() {
    let mut pair = Pair::up(peers(), 3);
    pair.command(A, Command::Delete(TUNNEL));
    pair.lose_all();
    pair.step(pair.now + Duration::from_secs(1));
    pair.step(pair.now + Duration::from_secs(1));
    pair.lose_all();
    pair.run_secs(60);
    assert!(pair.hosts[B].endpoint.counters().answered_again >= 1);
    assert_nothing_left(&pair);
}

#[test]
fn an_idle_tunnel_is_checked_and_stays() {
    let mut pair = Pair::up(peers(), 4);
    pair.run_secs(300);
    pair.assert_at_rest();
    assert!(pair.hosts[A].sent.len() > 10, "liveness exchanges");
}

#[test]
fn traffic_is_as_good_as_a_liveness_exchange() {
    let mut pair = Pair::up(peers(), 5);
    let before = [A, B].map(|h| pair.hosts[h].sent.len());
    for _ in 0..100 {
        pair.run_secs(3);
        for host in [A, B] {
            pair.command(host, Command::TrafficSeen { tunnel: TUNNEL });
        }
    }
    assert_eq!([A, B].map(|h| pair.hosts[h].sent.len()), before);
}

#[test]
fn a_dead_peer_is_noticed_within_the_timeout() {
    let mut pair = Pair::up(peers(), 6);
    pair.deaf = [true, true];
    let since = pair.now;
    while down(&pair, A).is_empty() {
        assert!(pair.now < since + Duration::from_secs(31), "30 s are configured");
        pair.run(Duration::from_millis(500));
    }
    assert!(matches!(down(&pair, A)[0], DownReason::PeerDead { .. }));
    assert!(pair.hosts[A].inbound.is_empty() && pair.hosts[A].outbound.is_none());
    assert_eq!(pair.hosts[A].endpoint.counters().dead_peers, 1);
}

#[test]
fn a_path_that_heals_during_a_long_wait_keeps_the_tunnel() {
    let mut peers = peers();
    for peer in &mut peers {
        peer.dpd.idle = Duration::ZERO;
    }
    let mut pair = Pair::up(peers, 6);
    pair.deaf = [true, true];
    pair.command(A, Command::Liveness(TUNNEL));
    // The sixth transmission is at 31.5 s, and the end of A's patience at 63.5 s.
    pair.run_secs(40);
    pair.deaf = [false, false];
    let sent = pair.hosts[A].sent.len();
    pair.command(A, Command::TrafficSeen { tunnel: TUNNEL });
    pair.run_secs(2);
    assert!(pair.hosts[A].sent.len() > sent, "asked again at once");
    pair.run_secs(60);
    assert!(down(&pair, A).is_empty() && down(&pair, B).is_empty());
}

#[test]
fn a_peer_that_restarts_takes_its_old_ike_sa_with_it() {
    let mut pair = Pair::up(peers(), 7);
    let old = pair.hosts[B].inbound.clone();
    // A restarts: a new endpoint that knows nothing.
    let fresh = Pair::new(peers(), 77);
    let [host, _] = fresh.hosts;
    pair.hosts[A] = host;
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run(Duration::from_millis(200));
    pair.assert_at_rest();
    assert!(pair.hosts[B].inbound.keys().all(|spi| !old.contains_key(spi)));
    assert!(!pair.names(B).contains(&"IkeDown"), "the tunnel was never without an IKE SA");
}

#[test]
fn a_new_ike_sa_beside_the_old_one_takes_its_place() {
    for who in [A, B] {
        let mut pair = Pair::up(peers(), 8);
        let before = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().initiator_spi;
        pair.command(who, Command::Reestablish(TUNNEL));
        pair.run_secs(30);
        pair.assert_at_rest();
        assert_ne!(pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().initiator_spi, before);
        for host in [A, B] {
            assert!(!pair.names(host).contains(&"ChildDown"), "host {host}");
            assert!(!pair.names(host).contains(&"IkeDown"), "host {host}");
        }
    }
}

#[test]
fn a_peer_that_restarted_is_back_at_once_if_we_may_begin() {
    for job in [Command::Liveness, Command::RekeyChild] {
        let mut pair = Pair::up(peers(), 9);
        let fresh = Pair::new(peers(), 78);
        let [_, host] = fresh.hosts;
        pair.hosts[B] = host;
        pair.command(A, job(TUNNEL));
        pair.run_secs(2);
        assert!(pair.hosts[A].endpoint.counters().hints >= 1);
        assert!(pair.hosts[B].endpoint.child_info(TUNNEL).is_some(), "it is back");
        // The old IKE SA goes when the peer says once more that it does not know it.
        pair.run_secs(10);
        pair.assert_at_rest();
        assert!(!pair.names(A).contains(&"ChildDown"), "{:?}", pair.names(A));
        assert!(!pair.names(A).contains(&"IkeDown"), "{:?}", pair.names(A));
    }
}

#[test]
fn a_peer_that_restarted_learns_from_esp_and_tells_its_sender() {
    let mut pair = Pair::up(peers(), 9);
    let spi = pair.hosts[A].outbound.as_ref().unwrap().spi;
    let path = Path {
        local: std::net::SocketAddr::new(crate::common::address(B), 4500),
        remote: std::net::SocketAddr::new(crate::common::address(A), 4500),
    };
    // One that was never ours makes nobody ask; nor does one too short for an answer.
    let sent = pair.hosts[A].sent.len();
    for (spi, octets) in [(sa::Spi(0x7777_7777), 100), (spi, 43)] {
        pair.command(B, Command::UnknownEsp { spi, path, octets });
        pair.run(Duration::from_millis(200));
    }
    assert_eq!(pair.hosts[A].sent.len(), sent);
    let fresh = Pair::new(peers(), 78);
    let [_, host] = fresh.hosts;
    pair.hosts[B] = host;
    pair.command(B, Command::UnknownEsp { spi, path, octets: 44 });
    pair.run_secs(12);
    pair.assert_at_rest();
    assert!(!pair.names(A).contains(&"ChildDown"), "{:?}", pair.names(A));
}

#[test]
fn an_ike_sa_that_could_have_followed_does_not_hide_the_end_of_the_tunnel() {
    let mut peers = peers();
    for peer in &mut peers {
        peer.dpd.idle = Duration::ZERO;
        peer.ike_lifetime = Duration::from_secs(30);
        peer.rekey_margin = Duration::ZERO;
    }
    let mut pair = Pair::up(peers, 10);
    // A has B's rekey while its own is in flight, and B hears nothing of either.
    pair.deaf[B] = true;
    pair.command(A, Command::RekeyIke(TUNNEL));
    pair.command(B, Command::RekeyIke(TUNNEL));
    pair.run_secs(1);
    assert_eq!(pair.hosts[A].endpoint.ike_sas(), 2);
    pair.run_secs(30);
    assert_eq!(down(&pair, A), [DownReason::Expired], "{:?}", pair.names(A));
    pair.run_secs(100);
    assert_nothing_left(&pair);
    assert_eq!(down(&pair, A).len(), 1, "{:?}", pair.names(A));
}

#[test]
fn a_child_sa_that_ends_with_its_lifetime_says_so() {
    let mut pair = Pair::up(peers(), 11);
    // The machines slept through the rekey.
    pair.now += Duration::from_secs(3_700);
    pair.run_secs(2);
    let reasons: Vec<&DownReason> = [A, B]
        .iter()
        .flat_map(|host| &pair.hosts[*host].events)
        .filter_map(|event| match event {
            Event::ChildDown { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [&DownReason::Expired; 2]);
}

#[test]
fn a_hint_alone_takes_nothing_down() {
    let mut pair = Pair::up(peers(), 9);
    let before = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().initiator_spi;
    let spi = pair.hosts[A].outbound.as_ref().unwrap().spi;
    let path = Path {
        local: std::net::SocketAddr::new(crate::common::address(B), 4500),
        remote: std::net::SocketAddr::new(crate::common::address(A), 4500),
    };
    for _ in 0..20 {
        pair.command(B, Command::UnknownEsp { spi, path, octets: 100 });
        pair.run_secs(1);
    }
    pair.assert_at_rest();
    let after = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().initiator_spi;
    assert_eq!(before, after, "the peer answered that it lives");
}

#[test]
fn keepalives_come_from_the_side_behind_the_nat_only_and_only_when_it_is_silent() {
    let mut config = peers();
    config[B].remote = None;
    for peer in &mut config {
        peer.force_encapsulation = false;
        peer.dpd.idle = Duration::from_secs(1000);
    }
    let mut pair = Pair::new(config, 10);
    pair.nat(A);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(2);
    pair.assert_at_rest();
    let count = |pair: &Pair, host: usize| {
        let keepalive = |t: &&ike::Transmit| t.payload == TransmitPayload::NatKeepalive;
        pair.hosts[host].sent.iter().filter(keepalive).count()
    };
    pair.run_secs(100);
    assert_eq!([A, B].map(|h| count(&pair, h)), [5, 0]);
    for _ in 0..20 {
        pair.run_secs(10);
        pair.command(A, Command::TrafficSent { tunnel: TUNNEL });
    }
    assert_eq!(count(&pair, A), 5);
}

#[test]
fn a_nat_that_rebinds_is_followed_on_authentic_packets_only() {
    let mut config = peers();
    config[B].remote = None;
    let mut pair = Pair::new(config, 11);
    pair.nat(A);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(2);
    let old = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap().path;
    // What is not authentic moves nothing.
    let mut forged = pair.delivered.last().unwrap().2.clone();
    *forged.last_mut().unwrap() ^= 1;
    let elsewhere = Path { local: old.local, remote: ([203, 0, 113, 66], 6666).into() };
    pair.inject(B, elsewhere, &forged);
    assert_eq!(pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap().path, old);
    pair.rebind(A);
    pair.run_secs(60);
    let new = pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap().path;
    assert_ne!(new.remote.port(), old.remote.port());
    assert!(pair.names(B).contains(&"PathChanged"));
    pair.assert_at_rest();
}

#[test]
fn a_removed_tunnel_is_deleted_at_the_peer_and_refused_afterwards() {
    let mut pair = Pair::up(peers(), 12);
    pair.hosts[B].endpoint.remove_peer(TUNNEL, pair.now);
    pair.drain(B);
    pair.run_secs(60);
    assert_eq!(down(&pair, A), [DownReason::DeletedByPeer]);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(5);
    assert_eq!(pair.hosts[B].endpoint.counters().unknown_peer, 1);
    assert_eq!(down(&pair, A).len(), 2);
}

#[test]
fn a_delete_wins_over_our_own_exchange_that_is_in_flight() {
    for command in [Command::RekeyIke, Command::RekeyChild, Command::Liveness, Command::Reestablish]
    {
        let mut pair = Pair::up(peers(), 13);
        pair.command(A, command(TUNNEL));
        pair.command(A, Command::Delete(TUNNEL));
        pair.run_secs(60);
        assert_eq!(down(&pair, A), [DownReason::Requested]);
        assert_eq!(down(&pair, B).len(), 1);
        assert_nothing_left(&pair);
    }
}
