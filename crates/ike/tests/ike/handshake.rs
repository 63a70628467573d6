//! IKE_SA_INIT and IKE_AUTH between two endpoints in memory.

use std::time::Duration;

use crate::common::{A, B, Pair, TUNNEL, nets, outside, peers};
use ike::suite::{IkeEncryption, KeGroup};
use ike::{Command, EndpointConfig, Event, Identity};
use sa::{Bits, Secret};

#[test]
fn a_tunnel_comes_up_and_both_sides_hold_the_same_keys() {
    let pair = Pair::up(peers(), 1);
    for host in [A, B] {
        assert_eq!(
            pair.names(host),
            ["InstallInbound", "IkeUp", "InstallOutbound", "ChildUp"],
            "host {host}"
        );
    }
    assert_eq!(pair.hosts[A].sent.len(), 2, "four messages in all");
    assert_eq!(pair.hosts[B].sent.len(), 2);
}

#[test]
fn it_starts_on_4500_and_stays_there() {
    let pair = Pair::up(peers(), 2);
    assert_eq!(pair.ports(A).into_iter().collect::<Vec<_>>(), [(4500, 4500)]);
}

#[test]
fn it_starts_on_500_and_floats_to_4500() {
    let mut config = peers();
    config[A].remote_port = 500;
    let pair = Pair::up(config, 3);
    assert_eq!(pair.ports(A).into_iter().collect::<Vec<_>>(), [(500, 500), (4500, 4500)]);
    let path = pair.hosts[B].outbound.as_ref().unwrap().path;
    assert_eq!((path.local.port(), path.remote.port()), (4500, 4500));
}

#[test]
fn without_nat_and_without_force_it_stays_on_500_and_esp_uses_4500() {
    let mut config = peers();
    config[A].remote_port = 500;
    config[A].force_encapsulation = false;
    config[B].force_encapsulation = false;
    config.iter_mut().for_each(|c| c.mobike = false);
    let pair = Pair::up(config, 4);
    assert_eq!(pair.ports(A).into_iter().collect::<Vec<_>>(), [(500, 500)]);
    let path = pair.hosts[A].outbound.as_ref().unwrap().path;
    assert_eq!((path.local.port(), path.remote.port()), (4500, 4500));
    let info = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap();
    assert!(!info.nat.local && !info.nat.remote);
}

#[test]
fn a_nat_before_the_initiator_is_seen_by_both() {
    for port in [500, 4500] {
        let mut config = peers();
        config[A].remote_port = port;
        config[B].remote = None;
        config.iter_mut().for_each(|c| c.force_encapsulation = false);
        let mut pair = Pair::new(config, 5);
        pair.nat(A);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run_secs(2);
        pair.assert_at_rest();
        let nat = [A, B].map(|me| pair.hosts[me].endpoint.ike_info(TUNNEL).unwrap().nat);
        assert!(nat[A].local && !nat[A].remote, "from port {port}: {:?}", nat[A]);
        assert!(!nat[B].local && nat[B].remote, "from port {port}: {:?}", nat[B]);
        let path = pair.hosts[B].outbound.as_ref().unwrap().path;
        assert_eq!(path.remote.ip(), outside(A));
        assert_eq!(path.local.port(), 4500);
    }
}

#[test]
fn the_responder_follows_its_own_order() {
    let mut config = peers();
    config[A].ike.encryption =
        vec![IkeEncryption::AesCbc(Bits::B128), IkeEncryption::ChaCha20Poly1305];
    config[B].ike.encryption =
        vec![IkeEncryption::ChaCha20Poly1305, IkeEncryption::AesCbc(Bits::B128)];
    let pair = Pair::up(config, 6);
    let suite = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().suite;
    assert_eq!(suite.encryption, IkeEncryption::ChaCha20Poly1305);
}

#[test]
fn a_wrong_guess_of_the_group_costs_one_round_trip() {
    let mut config = peers();
    config[A].ike.groups = vec![KeGroup::X25519, KeGroup::Ecp384];
    config[B].ike.groups = vec![KeGroup::Ecp384];
    let pair = Pair::up(config, 7);
    assert_eq!(pair.hosts[A].sent.len(), 3, "IKE_SA_INIT twice, IKE_AUTH once");
    let suite = pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().suite;
    assert_eq!(suite.group, KeGroup::Ecp384);
}

#[test]
fn above_the_threshold_a_cookie_is_asked_for_and_brought() {
    let busy = EndpointConfig { cookie_threshold: 0, ..EndpointConfig::default() };
    let mut config = peers();
    // With a wrong group as well: both repetitions in one attempt.
    config[A].ike.groups = vec![KeGroup::X25519, KeGroup::Ecp256];
    config[B].ike.groups = vec![KeGroup::Ecp256];
    let mut pair = Pair::with(config, [EndpointConfig::default(), busy], 8);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(2);
    pair.assert_at_rest();
    assert!(pair.hosts[B].endpoint.counters().cookies_sent >= 1);
    assert_eq!(pair.hosts[B].endpoint.counters().cookies_bad, 0);
}

#[test]
fn selectors_are_narrowed_to_what_both_accept() {
    let mut config = peers();
    config[A].local_selectors = nets(&["192.168.0.0/16", "172.16.0.0/12"]);
    config[A].remote_selectors = nets(&["0.0.0.0/0"]);
    config[B].remote_selectors = nets(&["192.168.7.0/24"]);
    let pair = Pair::up(config, 9);
    let info = pair.hosts[A].endpoint.child_info(TUNNEL).unwrap();
    assert_eq!(info.local_selectors, nets(&["192.168.7.0/24"]));
    assert_eq!(info.remote_selectors, nets(&["10.0.0.0/16"]));
    assert!(!info.additional_ts_possible);
}

#[test]
fn more_selectors_than_fit_are_left_for_another_child_sa() {
    let many: Vec<String> = (0..40).map(|i| format!("10.{i}.0.0/17")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut config = peers();
    config[A].remote_selectors = nets(&many);
    config[B].local_selectors = nets(&many);
    let pair = Pair::up(config, 10);
    let info = pair.hosts[A].endpoint.child_info(TUNNEL).unwrap();
    assert_eq!(info.remote_selectors.0.len(), 32);
    assert!(info.additional_ts_possible);
}

#[test]
fn a_lossy_network_only_delays_it() {
    for seed in 0..40 {
        let mut pair = Pair::new(peers(), seed);
        pair.loss = 300;
        pair.duplicates = 300;
        pair.jitter = Duration::from_millis(400);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run_secs(60);
        pair.loss = 0;
        pair.run_secs(60);
        if pair.hosts[A].outbound.is_none() {
            // Seven losses in a row: the owner tries again, as it would.
            pair.command(A, Command::Initiate(TUNNEL));
            pair.run_secs(60);
        }
        pair.assert_at_rest();
    }
}

#[test]
fn both_sides_begin_at_once_and_one_ike_sa_stays() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let mut pair = Pair::new(peers(), seed);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.command(B, Command::Initiate(TUNNEL));
        pair.run_secs(100);
        pair.assert_at_rest();
        outcomes.insert(pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().initiator);
    }
    assert_eq!(outcomes.len(), 2, "the nonces decided both ways");
}

#[test]
fn small_fragments_carry_ike_auth() {
    let mut config = peers();
    config.iter_mut().for_each(|c| c.fragment_size = 200);
    let mut pair = Pair::new(config, 11);
    pair.duplicates = 500;
    pair.jitter = Duration::from_millis(50);
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(10);
    pair.assert_at_rest();
    let largest = pair.hosts[A]
        .sent
        .iter()
        .filter_map(|t| match &t.payload {
            ike::TransmitPayload::Ike(octets) if octets[18] == 35 => Some(octets.len()),
            _ => None,
        })
        .max();
    assert!(largest.is_some_and(|l| l <= 200 - 32), "{largest:?}");
}

#[test]
fn without_fragmentation_on_one_side_messages_are_whole() {
    let mut config = peers();
    config.iter_mut().for_each(|c| c.fragment_size = 200);
    config[B].fragmentation = false;
    let pair = Pair::up(config, 12);
    assert_eq!(pair.hosts[A].sent.len(), 2);
    assert!(!pair.hosts[A].endpoint.ike_info(TUNNEL).unwrap().fragmentation);
}

#[test]
fn every_kind_of_identity() {
    let ids = ["192.0.2.7", "2001:db8::7", "gw.example", "ops@gw.example", "keyid:00ff"];
    for (seed, id) in (0..).zip(ids) {
        let mut config = peers();
        let id: Identity = id.parse().unwrap();
        config[A].local_id = id.clone();
        config[B].remote_id = Some(id.clone());
        let pair = Pair::up(config, seed);
        assert_eq!(pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap().remote_id, id);
    }
}

#[test]
fn the_tunnel_is_chosen_by_identity_and_key() {
    let mut config = peers();
    config[B].remote = None;
    let mut pair = Pair::new(config.clone(), 13);
    // Same identities, another key; and same key, another identity: neither is it.
    for (tunnel, psk, id) in [(2, "other", "branch.example"), (3, "a key that both know", "x")] {
        let mut other = config[B].clone();
        other.tunnel = sa::TunnelId(tunnel);
        other.psk = Secret::new(psk.as_bytes().to_vec());
        other.remote_id = Some(id.parse().unwrap());
        pair.hosts[B].endpoint.add_peer(other);
    }
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(2);
    pair.assert_at_rest();
    assert!(pair.hosts[B].events.iter().all(|e| !matches!(e, Event::Failed { .. })));
}

#[test]
fn host_names_do_not_differ_by_case_and_other_identities_do() {
    for (ours, expected, same) in [
        ("GW.Example", "gw.example", true),
        ("ops@GW.example", "ops@gw.EXAMPLE", true),
        ("Ops@gw.example", "ops@gw.example", false),
        ("keyid:aa", "keyid:ab", false),
        ("gw.example", "gw.example.", false),
    ] {
        let mut config = peers();
        config[A].local_id = ours.parse().unwrap();
        config[B].remote_id = Some(expected.parse().unwrap());
        let mut pair = Pair::new(config, 1);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run_secs(2);
        assert_eq!(pair.hosts[B].outbound.is_some(), same, "{ours} {expected}");
        // And asked for by the initiator in the other direction.
        let mut config = peers();
        config[B].local_id = ours.parse().unwrap();
        config[A].remote_id = Some(expected.parse().unwrap());
        let mut pair = Pair::new(config, 1);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run_secs(2);
        assert_eq!(pair.hosts[A].outbound.is_some(), same, "{ours} {expected}");
    }
}
