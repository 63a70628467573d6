//! What is done to the daemons and to the network while a ping runs, and for how long no answer
//! comes. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use hostile::{Net, SCENARIO, Side, at_most, wait_until};
use lab::process::Program;
use lab::topology::end;
use lab::traffic::ping::{Answers, Pinging};
use lab::{nat, stop::Stop, traffic::tcp};
use nix::sys::signal::Signal;

const SECOND: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(10);

/// Waits until answers come again, and a little longer.
fn again(ping: &Pinging, what: &str) {
    sleep(SECOND / 2);
    let before = ping.answered();
    wait_until(what, || ping.answered() > before + 20);
}

fn stop(ping: Pinging) -> Answers {
    let answers = ping.stop().unwrap();
    assert_eq!((answers.duplicates, answers.damaged), (0, 0));
    answers
}

/// Kills a side, lets it be dead for a while, and starts it again. Returns the outage after the
/// start.
fn killed(net: &mut Net, side: Side, dead: Duration) -> Duration {
    let ping = net.ping(EVERY);
    net.daemon(side).process().unwrap().kill();
    sleep(dead);
    net.daemon(side).start().unwrap();
    let started = Instant::now();
    again(&ping, "answers after the restart");
    println!("{side:?}: answers again {:.2} s after its start", started.elapsed().as_secs_f64());
    stop(ping).longest_outage.saturating_sub(dead)
}

#[test]
fn either_side_killed_is_back_within_seconds_of_its_return() {
    let mut net = Net::up(SCENARIO);
    let outage = killed(&mut net, Side::Agent, SECOND);
    at_most("agent killed: outage after its start", outage, 3 * SECOND);
    net.await_up();
    let outage = killed(&mut net, Side::Vgw, SECOND);
    at_most("vgw killed: outage after its start", outage, 6 * SECOND);
    net.await_up();
    for side in [Side::Vgw, Side::Agent] {
        assert_eq!(net.ike(side, "dead_peers"), 0, "nobody waited for a timeout");
    }
}

#[test]
fn a_nat_that_forgets_costs_less_than_a_second() {
    let mut net = Net::up(SCENARIO);
    let before = net.tunnels(Side::Vgw);
    let ping = net.ping(EVERY);
    let router = net.world.sites[0].nat.clone().unwrap();
    let next = net.layout.sites[0].place.line;
    nat::forget(end(&router, "wan"), lab::layout::nth(&next, 1)).unwrap();
    again(&ping, "answers after the NAT forgot");
    at_most("NAT flushed: outage", stop(ping).longest_outage, SECOND);
    net.await_tunnels(Side::Vgw, "the peer has another port", |tunnels| {
        tunnels[0]["peer"] != before[0]["peer"]
    });
    let after = net.tunnels(Side::Vgw);
    assert_eq!(after[0]["spi_in"], before[0]["spi_in"], "the same SAs");
    assert!(net.logged(Side::Vgw, "the peer is at 203.0.113.2:"));
}

/// Drops what passes the router of the internet to or from an address.
fn cut(net: &Net, address: &str) {
    net.world
        .internet
        .nft(&format!(
            "add table ip cut\n\
             add chain ip cut forward {{ type filter hook forward priority 0 ; }}\n\
             add rule ip cut forward ip saddr {address} drop\n\
             add rule ip cut forward ip daddr {address} drop\n"
        ))
        .unwrap();
}

fn mend(net: &Net) {
    net.world.internet.nft("delete table ip cut\n").unwrap();
}

#[test]
fn a_path_that_is_cut_is_left_within_the_configured_time_and_taken_back_without_loss() {
    let mut net = Net::up(SCENARIO);
    let ping = net.ping(EVERY);
    let address = net.outside(0).to_string();
    cut(&net, &address);
    for side in [Side::Vgw, Side::Agent] {
        net.await_tunnels(side, "tunnel 2 is active", |t| t[1]["active"] == true);
    }
    again(&ping, "answers through the other tunnel");
    // Two seconds of silence, then at once; the rest is for a busy machine.
    at_most("path of tunnel 1 cut: outage", stop(ping).longest_outage, 3 * SECOND + SECOND / 2);
    sleep(SECOND);

    let ping = net.ping(EVERY);
    mend(&net);
    net.await_up();
    again(&ping, "answers");
    let answers = stop(ping);
    assert_eq!(answers.lost(), 0, "the way back costs nothing");
}

#[test]
fn a_cut_of_everything_ends_when_the_cut_ends() {
    let net = Net::up(SCENARIO);
    let ping = net.ping(EVERY);
    cut(&net, "203.0.113.2");
    sleep(4 * SECOND);
    mend(&net);
    let mended = Instant::now();
    again(&ping, "answers after the cut");
    println!("WAN cut for 4 s: answers {:.2} s later", mended.elapsed().as_secs_f64());
    let outage = stop(ping).longest_outage.saturating_sub(4 * SECOND);
    at_most("WAN cut for 4 s: outage beyond it", outage, SECOND);
}

#[test]
fn a_reload_loses_no_packet_and_a_bad_file_changes_nothing() {
    let mut net = Net::up(SCENARIO);
    let file = net.vgw.config();
    let host = net.vgw.host().clone();
    let text = host.read(&*file).unwrap();
    let spis = |net: &mut Net| {
        let tunnels = net.tunnels(Side::Vgw);
        [0, 1].map(|i| tunnels[i]["spi_in"].as_str().unwrap_or("").to_owned())
    };
    let before = spis(&mut net);
    let ping = net.ping(EVERY);
    let reload = |net: &Net| host.output(net.vgw.line(&["reload"])).unwrap();

    // Nothing changed.
    assert!(reload(&net).success());
    assert_eq!(spis(&mut net), before);

    // A bad file: it says why, and changes nothing.
    host.write(&*file, &text.replace("172.20.0.0/16", "172.20.0.0/99"), 0o644).unwrap();
    let refused = reload(&net);
    assert!(!refused.success());
    let why = "static_routes = \"172.20.0.0/99\": must be a prefix, such as 10.0.0.0/16";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    net.vgw.process().unwrap().signal(Signal::SIGHUP).unwrap();
    wait_until("the log says so", || net.logged(Side::Vgw, "reload refused, nothing changed"));
    assert_eq!(spis(&mut net), before);

    // A connection that goes, and comes again by SIGHUP.
    let second = text.find("[[vpn_connection]]").unwrap();
    let second = second + 1 + text[second + 1..].find("[[vpn_connection]]").unwrap();
    let gateway = text.find("[vpn_gateway]").filter(|at| *at > second);
    let behind = gateway.unwrap_or(text.len());
    let without = [&text[..second], &text[behind..]].concat();
    host.write(&*file, &without, 0o644).unwrap();
    let taken = reload(&net);
    assert!(taken.success(), "{}", taken.stderr);
    assert_eq!(net.status(Side::Vgw)["connections"].as_array().unwrap().len(), 1);
    host.write(&*file, &text, 0o644).unwrap();
    net.vgw.process().unwrap().signal(Signal::SIGHUP).unwrap();
    wait_until("it is back", || {
        net.status(Side::Vgw)["connections"].as_array().unwrap().len() == 2
    });
    assert_eq!(spis(&mut net), before, "the other connection's tunnels were not touched");
    sleep(SECOND / 2);
    let answers = stop(ping);
    assert_eq!(answers.lost(), 0);

    // An option changes on the side that begins: make before break.
    let file = net.agent.config();
    let host = net.agent.host().clone();
    let text = host.read(&*file).unwrap();
    let changed = text.replace("dpd_timeout_seconds = 9", "dpd_timeout_seconds = 8");
    assert_ne!(text, changed);
    let ping = net.ping(EVERY);
    host.write(&*file, &changed, 0o644).unwrap();
    host.command(net.agent.line(&["reload"])).unwrap();
    net.await_tunnels(Side::Vgw, "new SAs", |tunnels| {
        [0, 1].iter().all(|i| tunnels[*i]["spi_in"] != before[*i].as_str())
    });
    net.await_up();
    sleep(SECOND);
    let answers = stop(ping);
    assert_eq!(answers.lost(), 0, "make before break");
}

fn link_mtu(net: &mut Net, side: Side, wanted: impl Fn(u64) -> bool) {
    net.await_tunnels(side, "the tunnels' path MTU is found", |tunnels| {
        tunnels.iter().all(|t| t["link_mtu"].as_u64().is_some_and(&wanted))
    });
}

/// Sets the MTU of the line between the internet and the branch's NAT.
fn set_mtu(net: &Net, mtu: u16) {
    let nat = net.world.sites[0].nat.as_ref().unwrap();
    nat.ip(&format!("link set wan mtu {mtu}")).unwrap();
    net.world.internet.ip(&format!("link set to-branch mtu {mtu}")).unwrap();
}

/// A TCP connection moves on from the desk to the application.
fn tcp_moves(net: &Net) {
    let (desk, app) = (&net.world.sites[0].hosts[0], &net.world.vpc.hosts[0]);
    let pair = tcp::Pair {
        client: &desk.host,
        source: Some(desk.addresses[0]),
        server: &app.host,
        address: app.addresses[0],
    };
    let moved = tcp::transfer(pair, 4 << 20, 1, &Stop::new()).unwrap();
    assert_eq!(moved.octets, 4 << 20);
}

#[test]
fn a_path_mtu_that_drops_is_learned_from_icmp_and_a_rise_is_found() {
    let mut net = Net::up(SCENARIO);
    for host in [net.vgw.host(), net.agent.host()] {
        // The kernel's own memory of a smaller path MTU, ten minutes otherwise.
        host.sysctl("net/ipv4/route/mtu_expires", "3").unwrap();
    }
    let begin = Instant::now();
    set_mtu(&net, 1400);
    for side in [Side::Vgw, Side::Agent] {
        link_mtu(&mut net, side, |mtu| mtu == 1400);
    }
    at_most("path MTU 1400 by ICMP: found after", begin.elapsed(), 5 * SECOND);
    tcp_moves(&net);
    let tun = net.vgw.host().command(Program::new("ip").args(["link", "show", "vgw0"])).unwrap();
    assert!(tun.stdout.contains("mtu 1338 "), "{}", tun.stdout);

    let begin = Instant::now();
    set_mtu(&net, 1500);
    for side in [Side::Vgw, Side::Agent] {
        link_mtu(&mut net, side, |mtu| mtu == 1500);
    }
    at_most("path MTU 1500 again: found after", begin.elapsed(), 30 * SECOND);
    tcp_moves(&net);
}

#[test]
fn a_path_mtu_that_drops_is_found_by_probes_where_icmp_is_filtered() {
    let mut net = Net::up(SCENARIO);
    for host in [&net.world.internet, net.world.sites[0].nat.as_ref().unwrap()] {
        host.nft(
            "add table ip quiet\n\
             add chain ip quiet output { type filter hook output priority 0 ; }\n\
             add rule ip quiet output icmp type destination-unreachable drop\n",
        )
        .unwrap();
    }
    let begin = Instant::now();
    set_mtu(&net, 1380);
    for side in [Side::Vgw, Side::Agent] {
        link_mtu(&mut net, side, |mtu| (1370..=1380).contains(&mtu));
    }
    at_most("path MTU 1380 by probes: found after", begin.elapsed(), 20 * SECOND);
    tcp_moves(&net);
}
