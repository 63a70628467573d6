//! What a path does to its tunnel, in virtual time: it carries no data although IKE lives, it
//! flaps, it takes smaller packets than before, or larger ones again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::time::Duration;

use harness::{AGENT, Pair, Side, VGW, VGW_ADDRESSES};

const SECOND: Duration = Duration::from_secs(1);

/// Both configurations with one more line in each tunnel.
fn with(line: &str) -> (String, String) {
    let add = |text: &str| {
        text.replace("dpd_timeout_seconds = 9", &format!("dpd_timeout_seconds = 9\n{line}"))
    };
    (add(VGW), add(AGENT))
}

fn pair(line: &str) -> Pair {
    let (vgw, agent) = with(line);
    let mut pair = Pair::new(&vgw, &agent);
    pair.run(2 * SECOND);
    for side in [Side::Vgw, Side::Agent] {
        assert!(pair.tunnels(side)[0].active, "{side:?}");
    }
    pair
}

fn first() -> std::net::IpAddr {
    VGW_ADDRESSES[0].parse().unwrap()
}

#[test]
fn a_path_that_carries_data_says_so() {
    let pair = pair("path_probe_timeout_seconds = 4");
    for side in [Side::Vgw, Side::Agent] {
        for tunnel in pair.tunnels(side) {
            assert_eq!(tunnel.path.as_deref(), Some("carries data"));
            assert_eq!(tunnel.path_rtt_us, Some(10_000), "twice the latency of the wire");
        }
    }
}

#[test]
fn traffic_leaves_a_path_that_loses_esp_and_comes_back_when_it_has_carried_data_for_a_while() {
    let mut pair = pair("path_probe_timeout_seconds = 4");
    let cut = pair.now;
    pair.cut_esp = Some(first());
    for side in [Side::Vgw, Side::Agent] {
        assert!(pair.run_until(5 * SECOND, |pair| pair.tunnels(side)[1].active), "{side:?}");
    }
    let noticed = pair.now - cut;
    assert!(noticed <= 4 * SECOND + SECOND / 10, "{noticed:?}");
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"), "at once on the other tunnel");
    assert!(pair.ping(Side::Vgw, "10.0.1.1", "192.168.1.1"));
    let [silent, _] = pair.tunnels(Side::Agent);
    assert_eq!(silent.state, "UP", "IKE lives");
    assert!(silent.path.as_deref().unwrap().starts_with("silent for "), "{:?}", silent.path);
    let line = "the path carries no data: the peer's inside address has not answered for 4 s";
    assert!(pair.log(Side::Agent).iter().any(|l| l.ends_with(line)));

    pair.run(30 * SECOND);
    assert!(pair.tunnels(Side::Agent)[1].active, "it stays there");
    let renewed = pair.log(Side::Agent).iter().filter(|l| l.contains("Child SA rekeyed")).count();
    assert!(
        (1..=2).contains(&renewed),
        "by each side at most once, in case it was lost: {renewed}"
    );
    let back = pair.now;
    pair.cut_esp = None;
    assert!(pair.run_until(10 * SECOND, |pair| pair.tunnels(Side::Agent)[0].active));
    assert!(pair.now - back >= 3 * SECOND, "only after the hold-down");
    assert!(pair.run_until(3 * SECOND, |pair| pair.tunnels(Side::Vgw)[0].active));
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
}

#[test]
fn a_path_that_flaps_is_trusted_later_each_time() {
    let mut pair = pair("path_probe_timeout_seconds = 4");
    let mut waits = Vec::new();
    for _ in 0..4 {
        pair.cut_esp = Some(first());
        assert!(pair.run_until(6 * SECOND, |pair| pair.tunnels(Side::Agent)[1].active));
        pair.cut_esp = None;
        let back = pair.now;
        assert!(pair.run_until(60 * SECOND, |pair| pair.tunnels(Side::Agent)[0].active));
        waits.push((pair.now - back).as_secs());
    }
    assert!(waits.windows(2).all(|w| w[1] >= w[0] * 3 / 2), "3, 6, 12, 24 and a little: {waits:?}");
}

#[test]
fn both_paths_silent_and_the_traffic_stays_where_it_is() {
    let mut pair = pair("path_probe_timeout_seconds = 4");
    let before = pair.log(Side::Agent).len();
    pair.answers = false;
    pair.run(60 * SECOND);
    assert!(pair.tunnels(Side::Agent)[0].active);
    let moved = pair.log(Side::Agent)[before..].iter().filter(|l| l.contains("traffic goes"));
    assert_eq!(moved.count(), 0);
}

#[test]
fn a_peer_that_never_answers_is_not_held_against_its_paths() {
    let (vgw, agent) = with("path_probe_timeout_seconds = 2");
    let mut pair = Pair::new(&vgw, &agent);
    pair.answers = false;
    pair.run(60 * SECOND);
    let [one, two] = pair.tunnels(Side::Agent);
    assert!(one.active && one.state == "UP" && two.state == "UP");
    assert_eq!(one.path.as_deref(), Some("the peer's inside address never answered"));
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
}

#[test]
fn a_path_that_never_carried_data_is_left_if_the_other_one_does() {
    let (vgw, agent) = with("path_probe_timeout_seconds = 2");
    let mut pair = Pair::new(&vgw, &agent);
    pair.cut_esp = Some(first());
    assert!(pair.run_until(4 * SECOND, |pair| pair.tunnels(Side::Agent)[1].active));
    assert!(pair.ping(Side::Agent, "192.168.1.1", "10.0.1.1"));
}

#[test]
fn zero_switches_probes_off() {
    let (vgw, agent) = with("path_probe_timeout_seconds = 0");
    let mut pair = Pair::new(&vgw, &agent);
    pair.run(30 * SECOND);
    assert_eq!(pair.echoes, 0);
    assert_eq!(pair.tunnels(Side::Vgw)[0].path.as_deref(), Some("not probed"));
    pair.cut_esp = Some(first());
    pair.run(SECOND);
    assert!(pair.tunnels(Side::Agent)[0].active);
}

#[test]
fn a_smaller_path_mtu_is_taken_from_icmp_at_once() {
    let mut pair = pair("path_probe_timeout_seconds = 4");
    assert_eq!(pair.tunnels(Side::Agent)[0].mtu, Some(1438));
    pair.path_mtu = 1400;
    // The next full-sized probe meets it, and so would any full-sized packet.
    assert!(pair.run_until(2 * SECOND, |pair| pair.tunnels(Side::Agent)[0].link_mtu == Some(1400)));
    assert_eq!(pair.tunnels(Side::Agent)[0].mtu, Some(1338));
    pair.run(SECOND / 10);
    let line = "the outer path takes 1400 octets: tunnel MTU 1338";
    assert!(pair.log(Side::Agent).iter().any(|l| l.ends_with(line)));
    assert_eq!(pair.agent.tun_mtu, Some(1338));
}

#[test]
fn a_smaller_path_mtu_is_found_by_probes_where_icmp_is_filtered_and_a_rise_too() {
    let mut pair = pair("path_probe_timeout_seconds = 4\npath_mtu_raise_seconds = 60");
    pair.icmp = false;
    pair.path_mtu = 1337;
    let sides = [Side::Vgw, Side::Agent];
    let found = |pair: &Pair| {
        sides.iter().all(|side| pair.tunnels(*side)[0].link_mtu.is_some_and(|mtu| mtu < 1400))
    };
    let cut = pair.now;
    assert!(pair.run_until(20 * SECOND, found));
    let took = pair.now - cut;
    assert!(took < 10 * SECOND, "{took:?}");
    for side in sides {
        for tunnel in pair.tunnels(side) {
            let link = tunnel.link_mtu.unwrap();
            assert!((1333..=1337).contains(&link), "{side:?}: {link}");
            assert_eq!(
                (tunnel.state.as_str(), tunnel.path.as_deref()),
                ("UP", Some("carries data"))
            );
        }
    }
    pair.run(120 * SECOND);
    assert!(pair.tunnels(Side::Vgw)[0].link_mtu.unwrap() <= 1337, "it was asked for, and failed");
    pair.path_mtu = 1500;
    let whole = |pair: &Pair| pair.tunnels(Side::Vgw)[0].link_mtu == Some(1500);
    assert!(pair.run_until(130 * SECOND, whole));
    assert!(pair.run_until(130 * SECOND, |pair| pair.tunnels(Side::Agent)[0].mtu == Some(1438)));
}

#[test]
fn a_path_that_answers_nothing_at_all_keeps_its_mtu() {
    let mut pair = pair("path_probe_timeout_seconds = 4");
    pair.icmp = false;
    pair.cut_esp = Some(first());
    pair.run(60 * SECOND);
    assert_eq!(pair.tunnels(Side::Agent)[0].link_mtu, Some(1500));
}

/// Anybody can send "fragmentation needed". What it says counts at once, and not for long: probes ask
/// whether the path takes more, and then nothing is too large any more for what ICMP said.
#[test]
fn a_path_mtu_that_is_not_true_costs_a_moment() {
    let mut pair = pair("path_probe_timeout_seconds = 4");
    let path = sa::Path {
        local: "203.0.113.2:4500".parse().unwrap(),
        remote: "198.51.100.10:4500".parse().unwrap(),
    };
    let told = |pair: &mut Pair, mtu: u16| {
        let now = pair.now;
        pair.agent.gateway.handle_path_mtu(path, mtu, now);
        assert_eq!(pair.tunnels(Side::Agent)[0].link_mtu, Some(mtu));
        let whole = |pair: &Pair| pair.tunnels(Side::Agent)[0].link_mtu == Some(1500);
        assert!(pair.run_until(SECOND, whole), "{:?}", pair.tunnels(Side::Agent)[0].link_mtu);
        pair.now - now
    };
    let took = told(&mut pair, 552);
    assert!(took < SECOND / 10, "one round trip: {took:?}");
    pair.run(SECOND / 10);
    assert!(!pair.agent.believes_icmp && pair.vgw.believes_icmp);
    let line = "ICMP said that the outer path takes 552 octets, and it takes more";
    assert!(pair.log(Side::Agent).iter().any(|l| l.ends_with(line)));
    // Ten minutes after the last time it has another chance.
    pair.run(500 * SECOND);
    told(&mut pair, 1400);
    pair.run(599 * SECOND);
    assert!(!pair.agent.believes_icmp);
    pair.run(3 * SECOND);
    assert!(pair.agent.believes_icmp);
}
