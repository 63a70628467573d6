//! Two gateways and their data planes in memory, in virtual time: what a user sees when tunnels
//! come up, fail over, come back, cannot come up, stop, and are configured anew.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::collections::BTreeMap;
use std::time::Duration;

use control::TunnelVerb;
use harness::{AGENT, Pair, Side, VGW};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn both_tunnels_come_up_and_the_first_one_carries_packets_both_ways() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    for side in [Side::Vgw, Side::Agent] {
        let [first, second] = pair.tunnels(side);
        assert_eq!((first.state.as_str(), second.state.as_str()), ("UP", "UP"), "{first:?}");
        assert!(first.active && !second.active);
        assert_eq!(first.mtu, Some(1438));
        assert!(first.why.is_empty() && first.ike_suite.is_some());
    }
    let before = pair.tunnels(Side::Vgw).map(|t| (t.packets_in, t.packets_out));
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
    assert!(pair.ping(Side::Vgw, "10.0.1.1", "192.168.1.1"));
    let after = pair.tunnels(Side::Vgw).map(|t| (t.packets_in, t.packets_out));
    assert_eq!(after[0], (before[0].0 + 1, before[0].1 + 1));
    assert_eq!(after[1], before[1]);
}

#[test]
fn the_inside_address_of_the_standby_tunnel_is_reached_through_it() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    let before = pair.tunnels(Side::Vgw)[1].packets_in;
    assert!(pair.ping(Side::Agent, "169.254.11.2", "169.254.11.1"));
    assert_eq!(pair.tunnels(Side::Vgw)[1].packets_in, before + 1);
}

#[test]
fn a_tunnel_taken_down_hands_over_at_once_and_takes_back_after_a_hold_down() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    pair.vgw.gateway.handle_tunnel("vpn-branch", 1, TunnelVerb::Down, pair.now).unwrap();
    pair.run(SECOND / 10);
    for side in [Side::Vgw, Side::Agent] {
        let [first, second] = pair.tunnels(side);
        assert_eq!(first.state, "DOWN");
        assert!(second.active, "{side:?}");
    }
    assert_eq!(pair.tunnels(Side::Vgw)[0].why, "taken down by us");
    assert_eq!(pair.tunnels(Side::Agent)[0].why, "deleted by the peer");
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));

    // The agent tries again and again, is refused each time, and both sides say why.
    let lines = pair.log(Side::Agent).len();
    for _ in 0..200 {
        pair.run(SECOND / 10);
        for side in [Side::Vgw, Side::Agent] {
            assert_eq!(pair.tunnels(side)[0].state, "DOWN", "{side:?}");
        }
    }
    assert_eq!(pair.tunnels(Side::Vgw)[0].why, "taken down by us");
    let refused = "the peer refuses for now (TEMPORARY_FAILURE): was the tunnel taken down there?";
    assert_eq!(pair.tunnels(Side::Agent)[0].why, refused);
    let here = "branch.example asks for the tunnel, which was taken down here: refused";
    assert!(pair.log(Side::Vgw).iter().any(|line| line.ends_with(here)));
    let tries = pair.log(Side::Agent)[lines..].iter().filter(|l| l.contains(refused)).count();
    assert!((3..=5).contains(&tries), "1, 2, 4 and 8 seconds apart: {tries} tries in 20 s");

    pair.vgw.gateway.handle_tunnel("vpn-branch", 1, TunnelVerb::Up, pair.now).unwrap();
    assert!(pair.run_until(90 * SECOND, |pair| pair.tunnels(Side::Vgw)[0].state == "UP"));
    assert!(pair.tunnels(Side::Vgw)[1].active, "traffic stays until the tunnel proved steady");
    pair.run(5 * SECOND);
    assert!(pair.tunnels(Side::Vgw)[0].active && pair.tunnels(Side::Agent)[0].active);
}

#[test]
fn a_silent_tunnel_is_found_dead_and_the_other_takes_over() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    pair.cut = Some(harness::VGW_ADDRESSES[0].parse().unwrap());
    assert!(pair.run_until(60 * SECOND, |pair| pair.tunnels(Side::Agent)[1].active));
    let [first, _] = pair.tunnels(Side::Agent);
    assert_eq!(first.state, "DOWN");
    assert!(pair.run_until(60 * SECOND, |pair| pair.tunnels(Side::Vgw)[1].active));
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
    pair.cut = None;
    assert!(pair.run_until(180 * SECOND, |pair| pair.tunnels(Side::Agent)[0].active));
}

#[test]
fn a_wrong_key_is_named_on_both_sides() {
    let mut pair = Pair::with_keys(VGW, AGENT, ["one.key.of.ours", "the.same.key"], 1);
    pair.run(3 * SECOND);
    for side in [Side::Vgw, Side::Agent] {
        let [first, second] = pair.tunnels(side);
        assert_eq!(first.state, "DOWN");
        assert!(first.why.starts_with("pre-shared key"), "{side:?}: {}", first.why);
        assert!(second.state == "UP" && second.active);
    }
    assert!(pair.log(Side::Vgw).iter().any(|line| line.contains("tunnel 1: pre-shared key")));
    let text = serde_json::to_string(&pair.status(Side::Vgw)).unwrap();
    assert!(!text.contains("one.key.of.ours") && !text.contains("the.same.key"));
}

#[test]
fn a_clean_stop_deletes_the_sas_at_the_peer() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    pair.agent.gateway.handle_stop(pair.now);
    pair.run(SECOND / 2);
    assert!(pair.agent.stopped);
    for tunnel in pair.tunnels(Side::Vgw) {
        assert_eq!((tunnel.state.as_str(), tunnel.why.as_str()), ("DOWN", "deleted by the peer"));
        assert!(!tunnel.active);
    }
    assert!(!pair.ping(Side::Vgw, "10.0.1.1", "192.168.1.1"), "nothing leaves in clear");
}

#[test]
fn a_stop_without_an_answer_ends_after_two_seconds() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    pair.cut_all = true;
    pair.agent.gateway.handle_stop(pair.now);
    pair.run(SECOND * 19 / 10);
    assert!(!pair.agent.stopped, "it waits for the answers");
    pair.run(SECOND / 5);
    assert!(pair.agent.stopped);
}

#[test]
fn a_delete_that_is_lost_at_a_stop_is_sent_again() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    pair.cut = Some("198.51.100.10".parse().unwrap());
    pair.vgw.gateway.handle_stop(pair.now);
    pair.run(SECOND / 5);
    assert!(!pair.vgw.stopped, "one peer has not answered");
    pair.cut = None;
    pair.run(SECOND);
    assert!(pair.vgw.stopped);
    for tunnel in pair.tunnels(Side::Agent) {
        assert_eq!((tunnel.state.as_str(), tunnel.why.as_str()), ("DOWN", "deleted by the peer"));
    }
}

#[test]
fn a_peer_does_not_come_back_while_a_stop_waits_for_another() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    pair.cut = Some("198.51.100.10".parse().unwrap());
    pair.vgw.gateway.handle_stop(pair.now);
    pair.run(SECOND / 5);
    assert_eq!(pair.tunnels(Side::Agent)[1].state, "DOWN");
    pair.agent.gateway.handle_tunnel("vpn-branch", 2, TunnelVerb::Up, pair.now).unwrap();
    pair.run(SECOND);
    assert!(!pair.vgw.stopped);
    assert_eq!(pair.tunnels(Side::Agent)[1].state, "DOWN");
    assert_eq!(pair.tunnels(Side::Vgw)[1].state, "DOWN");
}

#[test]
fn a_reload_of_the_same_touches_nothing() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    let before = pair.tunnels(Side::Vgw);
    let text = pair.reload(Side::Vgw, VGW).unwrap();
    assert_eq!(text, "configuration reloaded: tunnels: 0 added, 0 changed, 0 removed, 2 untouched");
    pair.run(SECOND / 10);
    let after = pair.tunnels(Side::Vgw);
    assert_eq!(before[0].spi_in, after[0].spi_in);
    assert!(after[0].active && pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
}

#[test]
fn a_reload_changes_routes_under_a_standing_tunnel() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    let spi = pair.tunnels(Side::Vgw)[0].spi_in.clone();
    assert!(!pair.ping(Side::Vgw, "10.0.1.1", "172.20.0.1"));
    let more = VGW.replace("[\"192.168.0.0/16\"]", "[\"192.168.0.0/16\", \"172.20.0.0/16\"]");
    pair.reload(Side::Vgw, &more).unwrap();
    assert!(pair.ping(Side::Vgw, "10.0.1.1", "172.20.0.1"));
    assert_eq!(pair.tunnels(Side::Vgw)[0].spi_in, spi);
    assert!(pair.vgw.interfaces.last().unwrap().routes.contains(&"172.20.0.0/16".parse().unwrap()));
}

#[test]
fn a_connection_that_a_reload_removes_is_deleted_at_the_peer() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    let none = &VGW[..VGW.find("[[vpn_connection]]").unwrap()];
    let text = pair.reload(Side::Vgw, none).unwrap();
    assert_eq!(text, "configuration reloaded: tunnels: 0 added, 0 changed, 2 removed, 0 untouched");
    pair.run(SECOND / 2);
    for tunnel in pair.tunnels(Side::Agent) {
        assert_eq!((tunnel.state.as_str(), tunnel.active), ("DOWN", false));
    }
    // And a connection that comes back gets numbers of its own and comes up.
    pair.reload(Side::Vgw, VGW).unwrap();
    let up = |pair: &Pair| pair.tunnels(Side::Agent).iter().all(|t| t.state == "UP");
    assert!(pair.run_until(90 * SECOND, up));
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
}

#[test]
fn a_reload_that_needs_a_restart_changes_nothing_and_says_so() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    let other = VGW.replace("id = \"vgw-test\"", "id = \"vgw-test\"\nnat_t_port = 4501");
    let error = pair.reload(Side::Vgw, &other).unwrap_err();
    assert_eq!(error, "nat_t_port changed: this needs a restart; nothing changed");
    let other = VGW.replacen("vpc_cidrs", "low_latency = true\nvpc_cidrs", 1);
    let error = pair.reload(Side::Vgw, &other).unwrap_err();
    assert_eq!(error, "low_latency changed: this needs a restart; nothing changed");
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
}

#[test]
fn a_new_connection_comes_up_by_a_reload() {
    let mut pair = Pair::new(&VGW[..VGW.find("[[vpn_connection]]").unwrap()], AGENT);
    pair.run(5 * SECOND);
    assert!(pair.tunnels(Side::Agent).iter().all(|t| t.state == "DOWN" && !t.why.is_empty()));
    pair.reload(Side::Vgw, VGW).unwrap();
    let up = |pair: &Pair| pair.tunnels(Side::Agent).iter().all(|t| t.state == "UP");
    assert!(pair.run_until(90 * SECOND, up));
    assert!(pair.ping(Side::Vgw, "10.0.1.1", "192.168.1.1"));
}

#[test]
fn rekeys_by_a_users_word_lose_nothing() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    for verb in [TunnelVerb::RekeyChild, TunnelVerb::RekeyIke] {
        let before = pair.tunnels(Side::Vgw)[0].clone();
        pair.vgw.gateway.handle_tunnel("vpn-branch", 1, verb, pair.now).unwrap();
        for _ in 0..20 {
            pair.run(SECOND / 20);
            assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
            assert!(pair.ping(Side::Vgw, "10.0.1.1", "192.168.1.1"));
        }
        let after = pair.tunnels(Side::Vgw)[0].clone();
        assert!(after.last_rekey_seconds.is_some(), "{verb:?}");
        if verb == TunnelVerb::RekeyChild {
            assert_ne!(before.spi_in, after.spi_in);
        }
        assert!(after.since_seconds > before.since_seconds, "it never went down");
    }
}

#[test]
fn a_wish_for_what_does_not_exist_says_what_there_is() {
    let mut pair = Pair::new(VGW, AGENT);
    let gateway = &mut pair.vgw.gateway;
    assert_eq!(
        gateway.handle_tunnel("vpn-brunch", 1, TunnelVerb::Up, pair.now),
        Err("no connection `vpn-brunch`; there is vpn-branch".into())
    );
    assert_eq!(
        gateway.handle_tunnel("vpn-branch", 3, TunnelVerb::Up, pair.now),
        Err("no tunnel 3; a connection has 1 and 2".into())
    );
}

#[test]
fn ike_messages_fit_a_link_with_a_small_mtu() {
    let name = |letter: &str| format!("{}.example", letter.repeat(240));
    let build = |mtu: u16| {
        let (cgw, vgw) = (name("c"), name("v"));
        let line = format!("link_mtu = {mtu}\nrelaxed_limits = true");
        let agent = AGENT
            .replace("branch.example", &cgw)
            .replace("relaxed_limits = true", &line)
            .replace("tunnel_inside", &format!("remote_identity = \"{vgw}\"\ntunnel_inside"));
        let vgw_side = VGW
            .replace("branch.example", &cgw)
            .replace("relaxed_limits = true", &line)
            .replace("tunnel_inside", &format!("identity = \"{vgw}\"\ntunnel_inside"));
        let mut pair = Pair::new(&vgw_side, &agent);
        pair.run(2 * SECOND);
        assert_eq!(pair.tunnels(Side::Agent)[0].state, "UP", "{:?}", pair.log(Side::Agent));
        pair.largest
    };
    let whole = build(1500);
    assert!(whole > 576, "{whole} octets need no fragments");
    let cut = build(576);
    assert!(cut <= 576, "{cut} octets on a link that takes 576");
}

#[test]
fn status_says_everything_that_a_user_asks_about() {
    let mut pair = Pair::new(VGW, AGENT);
    pair.run(2 * SECOND);
    pair.vgw.gateway.handle_tunnel("vpn-branch", 1, TunnelVerb::RekeyChild, pair.now).unwrap();
    pair.run(3 * SECOND);
    assert!(!pair.ping(Side::Vgw, "10.0.1.1", "172.30.0.1"), "there is no route");
    let status = pair.status(Side::Vgw);
    assert_eq!(status.drops.get("no_route"), Some(&1));
    assert!(status.ike.get("established").is_some_and(|n| *n == 2));
    let tunnel = &status.connections[0].tunnels[0];
    assert_eq!((tunnel.state.as_str(), tunnel.why.as_str(), tunnel.active), ("UP", "", true));
    assert_eq!(tunnel.since_seconds, 4);
    assert_eq!(tunnel.local.as_deref(), Some("198.51.100.10:4500"));
    assert_eq!(tunnel.peer.as_deref(), Some("203.0.113.2:4500"));
    assert_eq!(tunnel.peer_identity.as_deref(), Some("branch.example"));
    // The peer forces encapsulation, which looks as if it were behind a NAT.
    assert_eq!(tunnel.nat.as_deref(), Some("remote"));
    let suite = "AES_GCM_16-256/PRF_HMAC_SHA2_512/CURVE_25519";
    assert_eq!(tunnel.ike_suite.as_deref(), Some(suite));
    assert!(tunnel.esp_suite.as_deref().unwrap().starts_with("AES256-GCM-16"));
    assert!(tunnel.spi_in.is_some() && tunnel.spi_out.is_some());
    assert_eq!(tunnel.local_selectors.as_deref(), Some("0.0.0.0/0"));
    assert_eq!((tunnel.mtu, tunnel.link_mtu), (Some(1438), Some(1500)));
    assert_eq!((tunnel.child_age_seconds, tunnel.last_rekey_seconds), (Some(2), Some(2)));
    assert_eq!(tunnel.path.as_deref(), Some("carries data"));
    let table = status.table();
    for part in [
        "vpn-branch tunnel 1: UP active for 4 s",
        "203.0.113.2:4500",
        "NAT remote",
        suite,
        "MTU 1438",
        "carries data",
        "rekeyed 2 s ago",
        "vpn-branch tunnel 2: UP standby",
        "dropped no_route: 1",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

/// The agent's outside address changes under both tunnels, and everything goes on. Returns the pair
/// with the SPIs of the Child SAs before and after.
fn renumbered(vgw: &str, agent: &str) -> (Pair, [[Option<String>; 2]; 2]) {
    let mut pair = Pair::new(vgw, agent);
    pair.run(2 * SECOND);
    let (old, new): (std::net::IpAddr, std::net::IpAddr) =
        ("203.0.113.2".parse().unwrap(), "203.0.113.77".parse().unwrap());
    let moved: BTreeMap<_, _> = pair
        .agent
        .gateway
        .outside_paths()
        .map(|(id, local, _)| {
            assert_eq!(local, old);
            (id, new)
        })
        .collect();
    assert_eq!(moved.len(), 2);
    let before = pair.tunnels(Side::Vgw).map(|tunnel| tunnel.spi_in);
    pair.cut = Some(old);
    let now = pair.now;
    pair.agent.gateway.handle_outside_addresses(&moved, now);
    pair.run(SECOND);
    for side in [Side::Vgw, Side::Agent] {
        for tunnel in pair.tunnels(side) {
            assert_eq!(tunnel.state, "UP");
            assert!(tunnel.since_seconds >= 2, "{side:?}: it never went down");
        }
    }
    let after = pair.tunnels(Side::Vgw).map(|tunnel| tunnel.spi_in);
    let peers = pair.tunnels(Side::Vgw).map(|tunnel| tunnel.peer.unwrap());
    assert_eq!(peers, ["203.0.113.77:4500", "203.0.113.77:4500"]);
    let locals = pair.tunnels(Side::Agent).map(|tunnel| tunnel.local.unwrap());
    assert_eq!(locals, ["203.0.113.77:4500", "203.0.113.77:4500"]);
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
    assert!(pair.ping(Side::Vgw, "10.0.1.1", "192.168.1.1"));
    let line = "our outside address is 203.0.113.77, was 203.0.113.2";
    assert!(pair.log(Side::Agent).iter().any(|l| l.ends_with(line)));
    (pair, [before, after])
}

#[test]
fn a_customer_gateway_whose_address_changes_keeps_its_tunnels_and_their_sas() {
    let (pair, [before, after]) = renumbered(VGW, AGENT);
    assert_eq!(before, after, "the same SAs");
    let said = |line: &String| line.ends_with("the peer is at 203.0.113.77:4500 now");
    assert_eq!(pair.log(Side::Vgw).iter().filter(|l| said(l)).count(), 2);
    assert!(!pair.log(Side::Agent).iter().any(|l| l.contains("the peer is at")), "it is not");
}

/// Whoever of both does without MOBIKE: what both have then is negotiated anew beside the old.
#[test]
fn without_mobike_it_keeps_its_tunnels_by_other_sas() {
    let off =
        |text: &str| text.replace("id = \"vpn-branch\"\n", "id = \"vpn-branch\"\nmobike = false\n");
    for (vgw, agent) in [(off(VGW), AGENT.to_owned()), (VGW.to_owned(), off(AGENT))] {
        assert_ne!((vgw.as_str(), agent.as_str()), (VGW, AGENT));
        let (_, [before, after]) = renumbered(&vgw, &agent);
        for (before, after) in before.iter().zip(&after) {
            assert_ne!(before, after);
        }
    }
}
