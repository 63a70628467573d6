//! ICMP errors that no router sent: anybody can send them, and the kernel believes most of them. Needs
//! root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::sleep;
use std::time::Duration;

use hostile::raw::RawSender;
use hostile::{Net, SCENARIO, Side, wait_until};
use lab::stop::Stop;
use lab::traffic::tcp;

const SECOND: Duration = Duration::from_secs(1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(11, 3, 2, 1);

/// The ends of both tunnels' outer paths, as the VGW sees them.
fn paths(net: &mut Net) -> Vec<(SocketAddrV4, SocketAddrV4)> {
    let end = |end: &serde_json::Value| end.as_str().unwrap().parse().unwrap();
    net.tunnels(Side::Vgw).iter().map(|t| (end(&t["local"]), end(&t["peer"]))).collect()
}

/// TCP both ways through the tunnel.
fn tcp_moves(net: &Net) {
    let (desk, app) = (&net.world.sites[0].hosts[0], &net.world.vpc.hosts[0]);
    for (client, server) in [(desk, app), (app, desk)] {
        let pair = tcp::Pair {
            client: &client.host,
            source: Some(client.addresses[0]),
            server: &server.host,
            address: server.addresses[0],
        };
        let moved = tcp::transfer(pair, 1 << 20, 1, &Stop::new()).unwrap();
        assert_eq!(moved.octets, 1 << 20);
    }
}

/// A path MTU smaller than any: the kernel takes it for 552 octets and refuses what is larger, for ten
/// minutes. Our probes say better, and then it counts no more, however often it comes.
#[test]
fn a_forged_path_mtu_counts_for_a_moment() {
    let mut net = Net::up(SCENARIO);
    let sender = RawSender::new(&net.attacker);
    let ping = net.ping(Duration::from_millis(10));
    let paths = paths(&mut net);
    let forge = |mtu: u32| {
        for (own, peer) in &paths {
            sender.send_icmp_error(ROUTER, (3, 4, mtu), (*own, *peer));
        }
    };
    for mtu in [68, 0, 296, 552, 1, 65_535] {
        forge(mtu);
        sleep(SECOND / 10);
    }
    tcp_moves(&net);
    let line = "ICMP said that the outer path takes 552 octets, and it takes more";
    wait_until("the forged path MTU is found out", || {
        net.vgw.last_lines(1000).iter().any(|l| l.contains(line))
    });
    let mut too_big = None;
    for _ in 0..3 {
        let whole = |t: &serde_json::Value| t["link_mtu"] == 1500;
        net.await_tunnels(Side::Vgw, "the whole path MTU", |tunnels| tunnels.iter().all(whole));
        forge(68);
        tcp_moves(&net);
        let lost = net.dropped(Side::Vgw, "udp_send_too_big");
        assert_eq!(*too_big.get_or_insert(lost), lost, "none is too large any more");
    }
    let answers = ping.stop().unwrap();
    assert_eq!((answers.lost(), answers.duplicates, answers.damaged), (0, 0, 0));
    for side in [Side::Vgw, Side::Agent] {
        assert_eq!(net.ike(side, "dead_peers"), 0);
    }
}

/// Without probes, or with a peer that answers none.
#[test]
fn a_forged_path_mtu_that_nobody_contradicts_makes_packets_smaller() {
    let quiet =
        SCENARIO.replace("path_probe_timeout_seconds = 2", "path_probe_timeout_seconds = 0");
    let mut net = Net::build(&quiet);
    net.vgw.start().unwrap();
    net.agent.start().unwrap();
    for side in [Side::Vgw, Side::Agent] {
        net.await_tunnels(side, "up", |tunnels| tunnels.iter().all(|t| t["state"] == "UP"));
    }
    let sender = RawSender::new(&net.attacker);
    for (own, peer) in paths(&mut net) {
        sender.send_icmp_error(ROUTER, (3, 4, 68), (own, peer));
    }
    tcp_moves(&net);
    let link = net.tunnels(Side::Vgw)[0]["link_mtu"].as_u64().unwrap();
    assert_eq!(link, 552, "what the kernel made of it");
}

/// "Unreachable" of every kind, for what tunnels and IKE sent and for what they did not.
#[test]
fn forged_errors_of_every_other_kind_change_nothing() {
    let mut net = Net::up(SCENARIO);
    let sender = RawSender::new(&net.attacker);
    let before = net.tunnels(Side::Vgw);
    let ping = net.ping(Duration::from_millis(10));
    let paths = paths(&mut net);
    for (own, peer) in &paths {
        for code in (0..16).filter(|code| *code != 4) {
            for kind in [3, 11, 12, 4, 5] {
                for port in [500, 4500] {
                    let from = SocketAddrV4::new(*own.ip(), port);
                    sender.send_icmp_error(ROUTER, (kind, code, 0), (from, *peer));
                    sender.send_icmp_error(*peer.ip(), (kind, code, 0), (from, *peer));
                }
            }
        }
    }
    sleep(SECOND);
    tcp_moves(&net);
    let answers = ping.stop().unwrap();
    assert_eq!((answers.lost(), answers.duplicates, answers.damaged), (0, 0, 0));
    let after = net.tunnels(Side::Vgw);
    for (old, new) in before.iter().zip(&after) {
        for field in ["spi_in", "spi_out", "link_mtu", "peer", "state"] {
            assert_eq!(old[field], new[field]);
        }
    }
}
