//! The WAN address of a customer gateway changes while a ping runs. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::thread::sleep;
use std::time::Duration;

use hostile::{Net, SCENARIO, Side, at_most, wait_until};
use lab::traffic::ping::Pinging;
use serde_json::Value;

const SECOND: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(10);
/// The branch has addresses 2 and 3 of its line, the internet is at address 1.
const HOME: &str = "203.0.113.2";
const OTHER: &str = "203.0.113.3";
const NEXT_HOP: &str = "203.0.113.1";

/// The branch without a NAT, with an agent that listens on all addresses.
fn scenario() -> String {
    let roams = SCENARIO.replacen("nat = \"source\"\n", "", 1).replacen(
        "cidrs = [\"192.168.0.0/16\"]\ngateway = { relaxed_limits = true }",
        &format!(
            "cidrs = [\"192.168.0.0/16\"]\n\
             gateway = {{ relaxed_limits = true, listen = [], identity = \"{HOME}\" }}"
        ),
        1,
    );
    assert!(roams.contains("listen") && !roams.contains("nat"), "{roams}");
    roams
}

/// What must not change: the SPIs of both tunnels, and how many IKE SAs were ever made.
fn identity(net: &mut Net) -> (Vec<Value>, [u64; 2]) {
    let tunnels = net.tunnels(Side::Vgw);
    let spis = tunnels.iter().flat_map(|t| [t["spi_in"].clone(), t["spi_out"].clone()]).collect();
    (spis, [Side::Vgw, Side::Agent].map(|side| net.ike(side, "established")))
}

fn ip(net: &Net, lines: &[String]) {
    net.world.sites[0].gateway.ip(&lines.join("\n")).unwrap();
}

fn lose(address: &str) -> String {
    format!("address del {address}/29 dev wan")
}

fn gain(address: &str) -> [String; 2] {
    [format!("address add {address}/29 dev wan"), format!("route replace default via {NEXT_HOP}")]
}

/// Waits until answers come again and both sides know the new address; the longest time without
/// an answer.
fn settled(net: &mut Net, ping: Pinging, address: &str) -> Duration {
    sleep(SECOND / 2);
    let before = ping.answered();
    wait_until("answers at the new address", || ping.answered() > before + 50);
    for (side, key) in [(Side::Vgw, "peer"), (Side::Agent, "local")] {
        net.await_tunnels(side, "the new address", |tunnels| {
            tunnels.iter().all(|t| t[key] == format!("{address}:4500"))
        });
    }
    let answers = ping.stop().unwrap();
    assert_eq!((answers.duplicates, answers.damaged), (0, 0));
    answers.longest_outage
}

#[test]
fn a_wan_address_that_changes_costs_less_than_a_second_and_no_sa() {
    let mut net = Net::up(&scenario());
    let before = identity(&mut net);
    // There and back again: each time the old address is gone at once.
    for (from, to) in [(HOME, OTHER), (OTHER, HOME)] {
        let ping = net.ping(EVERY);
        let lines: Vec<String> = std::iter::once(lose(from)).chain(gain(to)).collect();
        ip(&net, &lines);
        let outage = settled(&mut net, ping, to);
        at_most(&format!("WAN address {from} became {to}: outage"), outage, SECOND);
        assert_eq!(identity(&mut net), before, "the same SAs, and no new IKE SA");
    }
    assert!(net.ike(Side::Agent, "address_updates") >= 4, "both tunnels, both times");
    assert_eq!(net.ike(Side::Agent, "dead_peers") + net.ike(Side::Vgw, "dead_peers"), 0);
    net.await_up();
}

#[test]
fn a_wan_that_is_gone_for_a_while_and_comes_back_with_another_address() {
    let mut net = Net::up(&scenario());
    let before = identity(&mut net);
    let ping = net.ping(EVERY);
    ip(&net, &[lose(HOME)]);
    sleep(3 * SECOND);
    ip(&net, &gain(OTHER));
    let outage = settled(&mut net, ping, OTHER);
    at_most("WAN gone for 3 s: outage beyond it", outage.saturating_sub(3 * SECOND), SECOND);
    assert_eq!(identity(&mut net), before, "the same SAs, and no new IKE SA");
}
