//! Rekeys of the Child SA and of the IKE SA, alone and crossing.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::{A, B, Pair, TUNNEL, peers};
use ike::suite::KeGroup;
use ike::{Command, Event, PeerConfig};

fn with_pfs(groups: [Vec<KeGroup>; 2]) -> [PeerConfig; 2] {
    let mut config = peers();
    for (peer, groups) in config.iter_mut().zip(groups) {
        peer.esp.groups = groups;
    }
    config
}

fn inbound(pair: &Pair, host: usize) -> BTreeSet<sa::Spi> {
    pair.hosts[host].inbound.keys().copied().collect()
}

#[test]
fn each_side_rekeys_the_child_sa_with_and_without_pfs() {
    for groups in [vec![], vec![KeGroup::X25519]] {
        for who in [A, B] {
            let mut pair = Pair::up(with_pfs([groups.clone(), groups.clone()]), 1);
            let before = inbound(&pair, A);
            pair.command(who, Command::RekeyChild(TUNNEL));
            pair.run(Duration::from_millis(100));
            // Both may still receive on the old one; what is sent on either passes.
            pair.traffic();
            pair.run_secs(10);
            pair.assert_at_rest();
            assert!(inbound(&pair, A).is_disjoint(&before));
            assert!(pair.names(A).contains(&"ChildRekeyed"));
            assert!(pair.names(B).contains(&"ChildRekeyed"));
            assert!(!pair.names(A).contains(&"ChildDown"));
        }
    }
}

#[test]
fn a_wrong_guess_of_the_pfs_group_is_corrected() {
    let groups = [vec![KeGroup::X25519, KeGroup::Ecp256], vec![KeGroup::Ecp256]];
    let mut pair = Pair::up(with_pfs(groups), 2);
    pair.command(A, Command::RekeyChild(TUNNEL));
    pair.run_secs(10);
    pair.assert_at_rest();
    let info = pair.hosts[A].endpoint.child_info(TUNNEL).unwrap();
    assert_eq!(info.suite.group, Some(KeGroup::Ecp256));
}

#[test]
fn the_responder_sends_on_the_old_sa_until_the_new_one_is_seen() {
    let mut pair = Pair::up(peers(), 3);
    let old = pair.hosts[B].outbound.clone().unwrap().spi;
    pair.command(A, Command::RekeyChild(TUNNEL));
    // Deliver the request only; the answer is still on its way.
    pair.step(pair.now + Duration::from_secs(1));
    assert_eq!(pair.hosts[B].inbound.len(), 2, "it receives on the new one at once");
    assert_eq!(pair.hosts[B].outbound.as_ref().unwrap().spi, old);
    pair.run_secs(10);
    assert_ne!(pair.hosts[B].outbound.as_ref().unwrap().spi, old);
    pair.assert_at_rest();
}

#[test]
fn the_old_inbound_sa_receives_for_a_while_after_its_delete() {
    let mut pair = Pair::up(peers(), 4);
    pair.command(A, Command::RekeyChild(TUNNEL));
    pair.run_secs(1);
    assert_eq!([A, B].map(|h| pair.hosts[h].inbound.len()), [2, 2]);
    pair.run_secs(6);
    assert_eq!([A, B].map(|h| pair.hosts[h].inbound.len()), [1, 1]);
}

#[test]
fn each_side_rekeys_the_ike_sa_and_the_child_sa_stays() {
    for who in [A, B] {
        let mut pair = Pair::up(peers(), 5);
        let before = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap();
        let children = inbound(&pair, A);
        pair.command(who, Command::RekeyIke(TUNNEL));
        pair.run_secs(30);
        pair.assert_at_rest();
        let after = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap();
        assert_ne!(before.initiator_spi, after.initiator_spi);
        assert_eq!(after.initiator, who == A, "who rekeys is the initiator of the new one");
        assert_eq!(inbound(&pair, A), children);
        assert!(pair.names(B).contains(&"IkeRekeyed"));
        // The new one works both ways.
        for who in [A, B] {
            pair.command(who, Command::RekeyChild(TUNNEL));
            pair.run_secs(20);
            pair.assert_at_rest();
        }
        pair.command(B, Command::RekeyIke(TUNNEL));
        pair.run_secs(30);
        pair.assert_at_rest();
    }
}

#[test]
fn every_pair_of_exchanges_crosses_and_one_pair_of_sas_stays() {
    let commands: [fn(sa::TunnelId) -> Command; 3] =
        [Command::RekeyChild, Command::RekeyIke, Command::Liveness];
    for ours in commands {
        for theirs in commands {
            for seed in 0..12 {
                let mut pair =
                    Pair::up(with_pfs([vec![KeGroup::X25519], vec![KeGroup::X25519]]), seed);
                pair.command(A, ours(TUNNEL));
                pair.command(B, theirs(TUNNEL));
                pair.run_secs(100);
                pair.assert_at_rest();
                for host in [A, B] {
                    assert!(!pair.names(host).contains(&"ChildDown"));
                    assert!(!pair.names(host).contains(&"IkeDown"));
                    assert_eq!(pair.failures(host), Vec::<String>::new());
                }
            }
        }
    }
}

#[test]
fn crossing_rekeys_are_decided_by_the_nonces_both_ways() {
    for command in [Command::RekeyIke(TUNNEL), Command::RekeyChild(TUNNEL)] {
        let mut deleted_by = BTreeSet::new();
        for seed in 0..16 {
            let mut config = peers();
            config.iter_mut().for_each(|c| c.dpd.idle = Duration::ZERO);
            let mut pair = Pair::up(config, seed);
            let sent = [A, B].map(|h| pair.hosts[h].sent.len());
            pair.command(A, command.clone());
            pair.command(B, command.clone());
            pair.run_secs(30);
            pair.assert_at_rest();
            // Each side asked once, answered once, deleted one SA and answered one DELETE.
            for host in [A, B] {
                assert_eq!(pair.hosts[host].sent.len() - sent[host], 4, "host {host}");
            }
            let winner = match command {
                Command::RekeyIke(_) => pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().initiator,
                _ => {
                    let up = pair.hosts[A].endpoint.child_info(TUNNEL).unwrap().outbound;
                    pair.hosts[A].outbound.as_ref().is_some_and(|o| o.spi == up) && seed % 2 == 0
                }
            };
            deleted_by.insert(winner);
        }
        assert_eq!(deleted_by.len(), 2);
    }
}

#[test]
fn crossings_survive_loss_duplication_and_reordering() {
    let commands: [fn(sa::TunnelId) -> Command; 3] =
        [Command::RekeyChild, Command::RekeyIke, Command::Liveness];
    for seed in 0..300_u64 {
        let mut pair = Pair::up(peers(), seed);
        pair.loss = 200;
        pair.duplicates = 200;
        pair.jitter = Duration::from_millis(800);
        for round in 0..3 {
            let pick = (seed / 3_u64.pow(round)) as usize;
            pair.command(A, commands[pick % 3](TUNNEL));
            pair.run(Duration::from_millis(seed * 7 % 900));
            pair.command(B, commands[(pick / 3) % 3](TUNNEL));
            pair.run(Duration::from_millis(seed * 13 % 2500));
        }
        pair.loss = 0;
        pair.duplicates = 0;
        pair.jitter = Duration::ZERO;
        pair.run_secs(200);
        pair.assert_at_rest();
        for host in [A, B] {
            assert!(!pair.names(host).contains(&"IkeDown"), "seed {seed}: {:?}", pair.names(host));
            assert!(
                !pair.names(host).contains(&"ChildDown"),
                "seed {seed}: {:?}",
                pair.names(host)
            );
        }
    }
}

#[test]
fn short_lifetimes_are_kept_up_by_rekeys_alone() {
    let mut config = peers();
    for peer in &mut config {
        peer.ike_lifetime = Duration::from_secs(50);
        peer.child_lifetime.time = Duration::from_secs(20);
        peer.rekey_margin = Duration::from_secs(5);
        peer.rekey_fuzz_percent = 100;
    }
    let mut pair = Pair::up(config, 6);
    for _ in 0..200 {
        pair.run_secs(5);
        pair.traffic();
    }
    for host in [A, B] {
        let names = pair.names(host);
        assert!(names.iter().filter(|n| **n == "ChildRekeyed").count() > 40);
        assert!(names.iter().filter(|n| **n == "IkeRekeyed").count() > 15);
        assert!(!names.contains(&"ChildDown") && !names.contains(&"IkeDown"));
        assert!(pair.hosts[host].endpoint.ike_sas() <= 3);
        assert!(pair.hosts[host].inbound.len() <= 4);
    }
}

#[test]
fn a_deleted_child_sa_meets_a_rekey_of_it() {
    for seed in 0..8 {
        let mut pair = Pair::up(peers(), seed);
        pair.command(A, Command::RekeyChild(TUNNEL));
        pair.command(B, Command::DeleteChild(TUNNEL));
        pair.run_secs(30);
        for host in [A, B] {
            let down = |e: &&Event| matches!(e, Event::ChildDown { .. });
            assert_eq!(pair.hosts[host].events.iter().filter(down).count(), 1, "host {host}");
            assert!(pair.hosts[host].inbound.is_empty());
            assert_eq!(pair.hosts[host].endpoint.ike_sas(), 1);
        }
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run_secs(5);
        pair.assert_at_rest();
    }
}

#[test]
fn both_sides_make_a_child_sa_at_once_and_one_stays() {
    for seed in 0..12 {
        let mut pair = Pair::up(peers(), seed);
        pair.command(A, Command::DeleteChild(TUNNEL));
        pair.run_secs(10);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.command(B, Command::Initiate(TUNNEL));
        pair.run_secs(100);
        pair.assert_at_rest();
    }
}

/// A peer that answers IKE while nothing comes through the Child SA may have lost it.
#[test]
fn a_silent_path_renews_the_child_sa_once_and_only_if_the_peer_lives() {
    let rekeyed =
        |pair: &Pair| pair.names(B).iter().filter(|name| **name == "ChildRekeyed").count();
    let silent = |silent| Command::PathSilent { tunnel: TUNNEL, silent };
    let mut pair = Pair::up(peers(), 4);
    pair.command(B, silent(true));
    pair.run_secs(60);
    assert_eq!(rekeyed(&pair), 1);
    pair.assert_at_rest();
    // The path was down as a whole, and data came before anything of IKE.
    pair.deaf = [true, true];
    pair.command(B, silent(true));
    pair.run_secs(5);
    pair.command(B, silent(false));
    pair.deaf = [false, false];
    pair.run_secs(60);
    assert_eq!(rekeyed(&pair), 1);
    pair.assert_at_rest();
    // It is back, and IKE was faster than the next probe.
    pair.command(B, silent(true));
    pair.run_secs(3);
    pair.command(B, silent(false));
    pair.run_secs(60);
    assert_eq!(rekeyed(&pair), 1);
}
