//! Hosts, links, NAT, impairments, traffic and capture, with plain routing and no VPN.
//! These tests need root, as every test that builds network namespaces.

#![allow(clippy::unwrap_used)] // A panic here is the report.

use lab::capture::Capture;
use lab::netns::Host;
use lab::process::Program;
use lab::relay::Impairment;
use lab::stop::Stop;
use lab::topology::{Network, address, bridge, end, route};
use lab::traffic::{pattern::MARKER, ping, tcp, tcp::Pair, udp};
use lab::{LabError, nat};
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

struct Line {
    network: Network,
    left: Arc<Host>,
    router: Arc<Host>,
    right: Arc<Host>,
}

/// left (192.0.2.2, 2001:db8:a::2) -- router -- right (198.51.100.2, 2001:db8:b::2)
fn line(right_mtu: u16, impairment: &Impairment) -> Line {
    let mut network = Network::new();
    let left = network.add_host("left").unwrap();
    let router = network.add_router("router").unwrap();
    let right = network.add_host("right").unwrap();
    network.connect(end(&left, "wan"), end(&router, "west"), 1500).unwrap();
    if impairment.is_none() {
        network.connect(end(&router, "east"), end(&right, "wan"), right_mtu).unwrap();
    } else {
        network
            .connect_impaired(end(&router, "east"), end(&right, "wan"), right_mtu, impairment, 1)
            .unwrap();
    }
    address(end(&left, "wan"), "192.0.2.2/24").unwrap();
    address(end(&left, "wan"), "2001:db8:a::2/64").unwrap();
    address(end(&router, "west"), "192.0.2.1/24").unwrap();
    address(end(&router, "west"), "2001:db8:a::1/64").unwrap();
    address(end(&router, "east"), "198.51.100.1/24").unwrap();
    address(end(&router, "east"), "2001:db8:b::1/64").unwrap();
    address(end(&right, "wan"), "198.51.100.2/24").unwrap();
    address(end(&right, "wan"), "2001:db8:b::2/64").unwrap();
    route(&left, "default", ip("192.0.2.1")).unwrap();
    route(&left, "default", ip("2001:db8:a::1")).unwrap();
    route(&right, "default", ip("198.51.100.1")).unwrap();
    route(&right, "default", ip("2001:db8:b::1")).unwrap();
    Line { network, left, router, right }
}

fn pair<'a>(line: &'a Line, address: &str) -> Pair<'a> {
    Pair { client: &line.left, source: None, server: &line.right, address: ip(address) }
}

#[test]
fn a_clean_line_carries_every_ping_and_every_octet() {
    let line = line(1500, &Impairment::default());
    for target in ["198.51.100.2", "2001:db8:b::2"] {
        let answers = ping::run(&line.left, ping::Plan::new(ip(target))).unwrap();
        assert_eq!((answers.sent, answers.received, answers.damaged), (10, 10, 0), "{target}");
        let moved = tcp::transfer(pair(&line, target), 5_000_000, 1, &Stop::new()).unwrap();
        assert_eq!(moved.octets, 5_000_000);
        let fast =
            tcp::throughput(pair(&line, target), 2, Duration::from_millis(300), &Stop::new())
                .unwrap();
        assert!(fast.rate() > 10e6, "{target}: {} bit/s", fast.rate());
    }
    let nobody = ping::Plan {
        count: Some(2),
        patience: Duration::from_millis(100),
        ..ping::Plan::new(ip("198.51.100.9"))
    };
    assert_eq!(ping::run(&line.left, nobody).unwrap().received, 0);
}

#[test]
fn a_smaller_mtu_behind_the_router_is_learned_and_nothing_is_lost() {
    let line = line(1400, &Impairment::default());
    let sizes: Vec<usize> = (1300..1500).step_by(9).chain([3000]).collect();
    let echoes = udp::echo_sizes(pair(&line, "198.51.100.2"), &sizes, 5).unwrap();
    assert_eq!((echoes.lost, echoes.damaged, echoes.path_mtu), (vec![], 0, Some(1400)));
    let echoes = udp::echo_sizes(pair(&line, "2001:db8:b::2"), &sizes, 5).unwrap();
    assert_eq!((echoes.lost, echoes.damaged), (vec![], 0));
    tcp::transfer(pair(&line, "198.51.100.2"), 3_000_000, 1, &Stop::new()).unwrap();
}

#[test]
fn a_relay_loses_and_delays_as_told_and_tcp_still_arrives_intact() {
    let impairment = Impairment {
        loss_percent: 2.0,
        duplicate_percent: 1.0,
        reorder_percent: 1.0,
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(1),
        rate: Some(50_000_000),
        ..Impairment::default()
    };
    let line = line(1500, &impairment);
    let plan = ping::Plan {
        count: Some(200),
        interval: Duration::from_millis(2),
        ..ping::Plan::new(ip("198.51.100.2"))
    };
    let answers = ping::run(&line.left, plan).unwrap();
    assert!(answers.lost() > 0 && answers.loss_percent() < 15.0, "{} lost", answers.lost());
    assert!(answers.quantile(0.0).unwrap() >= Duration::from_millis(20), "10 ms each way");
    let moved = tcp::transfer(pair(&line, "198.51.100.2"), 1_000_000, 1, &Stop::new()).unwrap();
    assert!(moved.rate() < 50e6, "faster than the line: {}", moved.rate());
    let frames = line.network.relays()[0].frames()[0];
    assert!(
        frames.lost.load(Relaxed) > 0
            && frames.repeated.load(Relaxed) > 0
            && frames.reordered.load(Relaxed) > 0
    );
}

#[test]
fn a_source_nat_shows_its_own_address_and_lets_nobody_in() {
    let line = line(1500, &Impairment::default());
    nat::masquerade(end(&line.router, "east"), ip("192.0.2.2")).unwrap();
    let server = line.right.run(|| UdpSocket::bind("198.51.100.2:4500")).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let client = line.left.run(|| UdpSocket::bind("192.0.2.2:4500")).unwrap();
    client.send_to(b"hello", "198.51.100.2:4500").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"hello"[..], ip("198.51.100.1")));
    assert_ne!(from.port(), 4500, "the NAT chooses the port");
}

#[test]
fn a_nat_that_restarts_gives_the_same_flow_another_port() {
    let line = line(1500, &Impairment::default());
    nat::masquerade(end(&line.router, "east"), ip("192.0.2.2")).unwrap();
    let server = line.right.run(|| UdpSocket::bind("198.51.100.2:4500")).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let client = line.left.run(|| UdpSocket::bind("192.0.2.2:4500")).unwrap();
    let port = || {
        client.send_to(b"hello", "198.51.100.2:4500").unwrap();
        server.recv_from(&mut [0; 16]).unwrap().1.port()
    };
    let first = port();
    assert_eq!(port(), first);
    nat::forget(end(&line.router, "east"), ip("198.51.100.2")).unwrap();
    // The kernel cleans up in the background.
    std::thread::sleep(Duration::from_millis(200));
    assert_ne!(port(), first);
}

#[test]
fn forwarded_ports_reach_the_host_behind_the_nat_and_other_ports_do_not() {
    let line = line(1500, &Impairment::default());
    let public = ip("198.51.100.1");
    nat::forward_ports(end(&line.router, "east"), public, ip("192.0.2.2"), &[500, 4500]).unwrap();
    let server = line.left.run(|| UdpSocket::bind("192.0.2.2:4500")).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let client = line.right.run(|| UdpSocket::bind("198.51.100.2:7777")).unwrap();
    client.send_to(b"hello", "198.51.100.1:4500").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"hello"[..], "198.51.100.2:7777".parse().unwrap()));
    server.send_to(b"answer", from).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let (_, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(from, "198.51.100.1:4500".parse().unwrap());
}

#[test]
fn a_capture_names_what_passes_and_finds_the_marker_where_it_is() {
    let line = line(1500, &Impairment::default());
    let capture =
        Capture::start(&line.router, &[4500], &["2001:db8::/32".parse().unwrap()]).unwrap();
    let client = line.left.run(|| UdpSocket::bind("192.0.2.2:0")).unwrap();
    client.send_to(b"ciphertext", "198.51.100.2:4500").unwrap();
    client.send_to(&[&b"..."[..], MARKER].concat(), "198.51.100.2:4500").unwrap();
    client.send_to(b"name?", "198.51.100.2:53").unwrap();
    ping::run(&line.left, ping::Plan { count: Some(3), ..ping::Plan::new(ip("2001:db8:b::2")) })
        .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let seen = capture.stop().unwrap();
    assert_eq!(seen.kinds.get("UDP 4500"), Some(&2), "{seen:?}");
    let others = seen.others(&[4500]);
    // Nobody listens on these ports: the answers are port unreachable (type 3).
    assert!(
        others.keys().any(|kind| kind.ends_with("-> 53")) && others.contains_key("ICMP type 3"),
        "{others:?}"
    );
    // The datagram itself, forwarded, and its octets quoted in the ICMP error, forwarded too.
    assert_eq!(seen.marked, 4, "{seen:?}");
    assert_eq!((seen.exempt, seen.exempt_marked), (6, 6));
}

#[test]
fn a_bridge_joins_several_hosts_to_one_segment() {
    let mut network = Network::new();
    let router = network.add_router("router").unwrap();
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for number in 1..=3 {
        let host = network.add_host(&format!("host{number}")).unwrap();
        let port = format!("port{number}");
        network.connect(end(&host, "lan"), end(&router, &port), 1500).unwrap();
        address(end(&host, "lan"), format!("10.0.0.{number}/24")).unwrap();
        hosts.push(host);
        ports.push(port);
    }
    bridge(&router, "lan", &ports).unwrap();
    address(end(&router, "lan"), "10.0.0.254/24").unwrap();
    for target in ["10.0.0.2", "10.0.0.3", "10.0.0.254"] {
        assert_eq!(
            ping::run(&hosts[0], ping::Plan::new(ip(target))).unwrap().lost(),
            0,
            "{target}"
        );
    }
}

#[test]
fn files_below_run_are_private_to_a_host_and_keep_their_mode() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new("files").unwrap();
    host.write("/run/vgw/psk", "secret", 0o600).unwrap();
    assert_eq!(host.read("/run/vgw/psk").unwrap(), "secret");
    let mode = host.run(|| std::fs::metadata("/run/vgw/psk").unwrap().permissions().mode());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!Path::new("/run/vgw/psk").exists(), "seen outside of the host");
}

#[test]
fn programs_run_in_the_host_and_failures_say_which_line_and_why() {
    let host = Host::new("programs").unwrap();
    let output = host.command(Program::new("ip").args(["-o", "link"])).unwrap();
    assert_eq!(output.stdout.lines().count(), 1, "only loopback: {}", output.stdout);
    let error = host
        .ip("link add left type veth peer name right\nlink set nothere up")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("programs: `ip link set nothere up` failed")
            && error.contains("Cannot find device"),
        "{error}"
    );
    let error = host.command(Program::new("no-such-program")).unwrap_err();
    assert!(matches!(error, LabError::MissingProgram { .. }), "{error}");
    let late = Program::new("sleep").arg("20").limit(Duration::from_millis(50));
    assert!(matches!(host.command(late), Err(LabError::Timeout { .. })));
}

#[test]
fn a_daemon_keeps_its_lines_and_ends_with_its_host() {
    let host = Host::new("daemon").unwrap();
    let script =
        "echo one; echo two >&2; trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done";
    let mut daemon = host.spawn(Program::new("sh").args(["-c", script])).unwrap();
    while !(daemon.log().contains("one") && daemon.log().contains("two")) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(daemon.stop(Duration::from_secs(2)).unwrap().success());
    assert!(daemon.log().contains("bye"));
    let daemon = host.spawn(Program::new("sleep").arg("60")).unwrap();
    let pid = daemon.pid();
    // Nobody kills it but the kernel, when the host's thread ends.
    std::mem::forget(daemon);
    drop(host);
    let gone = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.contains(") Z "))
    };
    for _ in 0..200 {
        if gone() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("process {pid} outlived its host");
}
