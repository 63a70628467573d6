//! Dead peers under each of AWS's options, in virtual time: when one is noticed, what happens then,
//! and who begins again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::time::Duration;

use harness::{AGENT, Pair, Side, VGW};

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(9);

/// A VGW that knows its peer's address and does `action` when it is dead, and an agent that waits
/// for it.
fn pair(action: &str, startup: &str) -> Pair {
    let vgw = VGW
        .replace("identity = \"branch.example\"", "ip_address = \"203.0.113.2\"\nidentity = \"branch.example\"")
        .replace(
            "dpd_timeout_seconds = 9",
            &format!(
                "dpd_timeout_seconds = 9\ndpd_timeout_action = \"{action}\"\nstartup_action = \"{startup}\""
            ),
        );
    let theirs = if action == "none" { "none" } else { "clear" };
    let agent = AGENT.replace(
        "dpd_timeout_action = \"restart\"",
        &format!("dpd_timeout_action = \"{theirs}\"\nstartup_action = \"add\""),
    );
    Pair::new(&vgw, &agent)
}

fn up(pair: &Pair) -> bool {
    [Side::Vgw, Side::Agent].iter().all(|side| pair.tunnels(*side).iter().all(|t| t.state == "UP"))
}

fn down(pair: &Pair) -> bool {
    pair.tunnels(Side::Vgw).iter().all(|t| t.state == "DOWN")
}

#[test]
fn who_begins_is_as_the_start_up_action_says() {
    let mut waiting = pair("clear", "add");
    waiting.run(60 * SECOND);
    assert!(down(&waiting), "both wait");
    assert_eq!(waiting.tunnels(Side::Vgw)[0].why, "waiting for the peer to begin");
    let mut begun = pair("clear", "start");
    assert!(begun.run_until(2 * SECOND, up));
}

#[test]
fn clear_notices_in_time_and_waits_for_the_peer() {
    let mut pair = pair("clear", "start");
    assert!(pair.run_until(2 * SECOND, up));
    pair.cut_all = true;
    let cut = pair.now;
    assert!(pair.run_until(20 * SECOND, down));
    let took = pair.now - cut;
    assert!(took >= TIMEOUT - SECOND && took <= TIMEOUT + SECOND, "{took:?}");
    let why = &pair.tunnels(Side::Agent)[0].why;
    assert!(pair.run_until(5 * SECOND, |p| p.tunnels(Side::Agent)[0].state == "DOWN"), "{why}");
    assert!(pair.tunnels(Side::Agent)[0].why.starts_with("the peer is dead: nothing heard for"));
}

#[test]
fn restart_begins_again_although_the_peer_would_wait() {
    let mut pair = pair("restart", "start");
    assert!(pair.run_until(2 * SECOND, up));
    pair.cut_all = true;
    assert!(pair.run_until(20 * SECOND, down));
    pair.run(30 * SECOND);
    pair.cut_all = false;
    assert!(pair.run_until(70 * SECOND, up), "{:?}", pair.tunnels(Side::Vgw)[0].why);
    assert!(pair.ping(Side::Vgw, "10.0.1.1", "192.168.1.1"));
}

#[test]
fn none_declares_nobody_dead() {
    let mut pair = pair("none", "start");
    assert!(pair.run_until(2 * SECOND, up));
    let spi = pair.tunnels(Side::Vgw)[0].spi_in.clone();
    pair.cut_all = true;
    pair.run(60 * SECOND);
    assert!(pair.tunnels(Side::Vgw).iter().all(|t| t.state == "UP"));
    pair.cut_all = false;
    pair.run(SECOND);
    assert!(pair.ping(Side::Vgw, "10.0.1.1", "192.168.1.1"));
    assert_eq!(pair.tunnels(Side::Vgw)[0].spi_in, spi);
}
