//! The UDP sockets in a namespace of their own: needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{block_on, enter_fresh_namespace, ip};
use netio::netlink::Link;
use netio::udp::{BindError, UdpOptions, UdpReceiver, UdpSender, UdpSocket, path_mtu};
use netio::wait;
use packet::{DatagramBatch, Run, WireBatch};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn bind(address: &str) -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind(at(address), UdpOptions::default()).unwrap())
}

fn sender(socket: &Arc<UdpSocket>) -> UdpSender {
    UdpSender::new(vec![Arc::clone(socket)].into())
}

fn run(wire: &mut WireBatch, local: &str, remote: &str, segment: usize, tos: u8, octets: &[u8]) {
    let start = wire.bytes.len();
    wire.bytes.extend_from_slice(octets);
    let range = start..wire.bytes.len();
    wire.runs.push(Run { local: at(local), remote: at(remote), range, segment, tos });
}

fn receive(receiver: &mut UdpReceiver, batch: &mut DatagramBatch) {
    let socket = Arc::clone(receiver.socket());
    assert_ne!(wait::readable(&[socket.as_fd()], Some(Duration::from_secs(2))).unwrap(), 0);
    receiver.receive(batch).unwrap();
}

fn addresses(list: &[&str]) {
    block_on(async {
        let link = Link::find("lo").unwrap();
        for address in list {
            link.add_address(address.parse().unwrap()).await.unwrap();
        }
    });
    // The kernel installs the local routes of IPv6 addresses in the background.
    for address in list {
        let net: ipnet::IpNet = address.parse().unwrap();
        let socket = std::net::UdpSocket::bind((net.addr(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let arrives = || {
            socket.send_to(&[0], socket.local_addr().unwrap()).is_ok()
                && socket.recv(&mut [0]).is_ok()
        };
        assert!((0..100).any(|_| arrives()), "{address} is not reachable");
    }
}

#[test]
fn a_run_arrives_with_its_addresses_sizes_and_traffic_class() {
    enter_fresh_namespace();
    addresses(&["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128", "fd00::2/128"]);
    for (any, local, remote) in [
        ("0.0.0.0:4500", "10.0.0.1:4500", "10.0.0.2:4501"),
        ("[::]:4500", "[fd00::1]:4500", "[fd00::2]:4501"),
    ] {
        let out = bind(any);
        let into = bind(&any.replace("4500", "4501"));
        assert!(into.gro());
        let mut wire = WireBatch::default();
        let payload: Vec<u8> = (0..3500).map(|i| (i % 251) as u8).collect();
        run(&mut wire, local, remote, 1000, 0xb9, &payload);
        let report = sender(&out).send(&wire);
        assert_eq!((report.datagrams, report.fallbacks), (4, 0), "{report:?}");
        let (mut receiver, mut batch) = (UdpReceiver::new(into), DatagramBatch::default());
        receive(&mut receiver, &mut batch);
        let mut got = Vec::new();
        for datagram in &batch.datagrams {
            assert_eq!(datagram.local, at(remote));
            assert_eq!(datagram.remote, at(local));
            assert_eq!(datagram.tos, 0xb9);
            let octets = &batch.bytes[datagram.range.clone()];
            got.extend(octets.chunks(datagram.segment).map(<[u8]>::to_vec));
        }
        let sent: Vec<Vec<u8>> = payload.chunks(1000).map(<[u8]>::to_vec).collect();
        assert_eq!(got, sent);
        assert_eq!(batch.datagrams.len(), 1, "loopback keeps the run whole for UDP_GRO");
    }
}

#[test]
fn without_coalescing_each_datagram_of_a_run_is_received_alone() {
    enter_fresh_namespace();
    addresses(&["10.0.0.1/32", "10.0.0.2/32"]);
    let out = bind("0.0.0.0:4500");
    let options = UdpOptions { gro: false, ..UdpOptions::default() };
    let into = Arc::new(UdpSocket::bind(at("0.0.0.0:4501"), options).unwrap());
    assert!(!into.gro());
    let mut wire = WireBatch::default();
    let payload: Vec<u8> = (0..3500).map(|i| (i % 251) as u8).collect();
    run(&mut wire, "10.0.0.1:4500", "10.0.0.2:4501", 1000, 0, &payload);
    let report = sender(&out).send(&wire);
    assert_eq!((report.datagrams, report.fallbacks), (4, 0), "{report:?}");
    let (mut receiver, mut batch) = (UdpReceiver::new(into), DatagramBatch::default());
    receive(&mut receiver, &mut batch);
    let got: Vec<&[u8]> = batch.datagrams.iter().map(|d| &batch.bytes[d.range.clone()]).collect();
    assert_eq!(got, payload.chunks(1000).collect::<Vec<&[u8]>>());
    assert!(batch.datagrams.iter().all(|datagram| datagram.segment == datagram.range.len()));
}

#[test]
fn datagrams_of_every_size_arrive_whole() {
    enter_fresh_namespace();
    let (out, into) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let (local, remote) = (out.local().to_string(), into.local().to_string());
    let (mut sender, mut receiver) = (sender(&out), UdpReceiver::new(into));
    let mut batch = DatagramBatch::default();
    for len in [1, 2, 1471, 1472, 1473, 9000, 65_506, 65_507] {
        let mut wire = WireBatch::default();
        run(&mut wire, &local, &remote, len, 0, &vec![7; len]);
        assert_eq!(sender.send(&wire).datagrams, 1, "{len}");
        receive(&mut receiver, &mut batch);
        assert_eq!(batch.datagrams[0].range.len(), len);
        assert_eq!(batch.datagrams[0].segment, len);
    }
    // Two runs of the largest size and one that cannot exist: the batch goes on.
    let mut wire = WireBatch::default();
    run(&mut wire, &local, &remote, 65_508, 0, &vec![7; 65_508]);
    run(&mut wire, &local, &remote, 10, 0, &[8; 10]);
    let report = sender.send(&wire);
    assert_eq!((report.datagrams, report.dropped_too_big), (1, 1), "{report:?}");
}

#[test]
fn runs_that_make_no_sense_are_counted_and_the_others_leave() {
    enter_fresh_namespace();
    let (out, into) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let (local, remote) = (out.local().to_string(), into.local().to_string());
    let mut wire = WireBatch::default();
    run(&mut wire, "127.0.0.9:1", &remote, 5, 0, &[1; 5]);
    run(&mut wire, &local, &remote, 0, 0, &[1; 5]);
    run(&mut wire, &local, &remote, 5, 0, &[2; 5]);
    wire.runs[1].range = 3..3_000_000;
    // No route in a namespace with loopback only.
    run(&mut wire, &local, "192.0.2.1:5", 5, 0, &[1; 15]);
    run(&mut wire, &local, &remote, 5, 0, &[3; 5]);
    let report = sender(&out).send(&wire);
    assert_eq!(report.datagrams, 2, "{report:?}");
    assert_eq!((report.dropped_other, report.dropped_unreachable), (3_000_000 - 3 + 1, 3));
    let (mut receiver, mut batch) = (UdpReceiver::new(into), DatagramBatch::default());
    receive(&mut receiver, &mut batch);
    let octets: Vec<u8> = batch.datagrams.iter().map(|d| batch.bytes[d.range.start]).collect();
    assert_eq!(octets, [2, 3]);
}

#[test]
fn more_segments_than_the_kernel_takes_leave_in_pieces() {
    enter_fresh_namespace();
    let (out, into) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let (local, remote) = (out.local().to_string(), into.local().to_string());
    let mut wire = WireBatch::default();
    run(&mut wire, &local, &remote, 20, 0, &[5; 20 * 200 + 7]);
    assert_eq!(sender(&out).send(&wire).datagrams, 201);
    let (mut receiver, mut batch) = (UdpReceiver::new(into), DatagramBatch::default());
    let mut octets = 0;
    while octets < 20 * 200 + 7 {
        receive(&mut receiver, &mut batch);
        octets += batch.datagrams.iter().map(|d| d.range.len()).sum::<usize>();
    }
}

#[test]
fn without_segmentation_each_datagram_leaves_alone() {
    enter_fresh_namespace();
    let (out, into) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let (local, remote) = (out.local().to_string(), into.local().to_string());
    let mut sender = sender(&out);
    sender.set_segmentation(false);
    let mut wire = WireBatch::default();
    run(&mut wire, &local, &remote, 100, 0, &[5; 350]);
    assert_eq!(sender.send(&wire).datagrams, 4);
    let (mut receiver, mut batch) = (UdpReceiver::new(into), DatagramBatch::default());
    receive(&mut receiver, &mut batch);
    assert_eq!(
        batch.datagrams.iter().map(|d| d.range.len()).collect::<Vec<_>>(),
        [100, 100, 100, 50]
    );
}

/// The ways that a kernel refuses a run, made by the MTU of the way out.
#[test]
fn a_smaller_path_mtu_is_reported_and_does_not_switch_segmentation_off() {
    enter_fresh_namespace();
    addresses(&["10.0.0.1/32"]);
    block_on(async { Link::find("lo").unwrap().set_mtu(1300).await.unwrap() });
    let out = bind("10.0.0.1:4500");
    let into = bind("10.0.0.1:4501");
    let mut sender = sender(&out);
    let mut wire = WireBatch::default();
    run(&mut wire, "10.0.0.1:4500", "10.0.0.1:4501", 1400, 0, &[1; 2900]);
    run(&mut wire, "10.0.0.1:4500", "10.0.0.1:4501", 1200, 0, &[2; 2400]);
    let report = sender.send(&wire);
    assert_eq!((report.datagrams, report.dropped_too_big), (3, 2), "{report:?}");
    assert_eq!(report.too_big, Some((at("10.0.0.1:4500"), at("10.0.0.1:4501"))));
    assert!(sender.refusing().is_empty());
    assert_eq!(path_mtu(ip("10.0.0.1"), at("10.0.0.1:4501")).unwrap(), 1300);
    // An IKE message is fragmented rather than lost.
    out.send(out.local(), into.local(), &[&[0; 4], &[9; 3000]]).unwrap();
    let (mut receiver, mut batch) = (UdpReceiver::new(into), DatagramBatch::default());
    let mut longest = 0;
    while longest != 3004 {
        receive(&mut receiver, &mut batch);
        longest = batch.datagrams.iter().map(|d| d.range.len()).max().unwrap();
    }
}

/// What ICMP said of a path is remembered by the kernel in its route, as an MTU can be set there.
#[test]
fn probes_leave_whatever_the_kernel_knows_and_so_does_everything_where_icmp_is_not_believed() {
    enter_fresh_namespace();
    addresses(&["10.0.0.1/32"]);
    let route = ["route", "add", "local", "10.0.0.9", "dev", "lo", "mtu", "1000"];
    assert!(Command::new("ip").args(route).status().unwrap().success());
    let out = bind("10.0.0.1:4500");
    let into = bind("10.0.0.9:4501");
    let mut sender = sender(&out);
    let mut wire = WireBatch::default();
    run(&mut wire, "10.0.0.1:4500", "10.0.0.9:4501", 1200, 0, &[1; 1200]);
    let lost = |report: netio::udp::SendReport| (report.datagrams, report.dropped_too_big);
    assert_eq!(lost(sender.send(&wire)), (0, 1));
    assert_eq!(lost(sender.send_probes(&wire)), (1, 0));
    assert_eq!(lost(sender.send(&wire)), (0, 1), "only the probes");
    out.believe_icmp(false).unwrap();
    assert_eq!(lost(sender.send(&wire)), (1, 0));
    // IKE messages that may not fit leave in fragments, and what comes after them does not.
    out.send(out.local(), into.local(), &[&[0; 4], &[9; 3000]]).unwrap();
    assert_eq!(lost(sender.send_probes(&wire)), (1, 0));
    assert_eq!(lost(sender.send(&wire)), (1, 0));
    out.believe_icmp(true).unwrap();
    assert_eq!(lost(sender.send(&wire)), (0, 1));
    let (mut receiver, mut batch) = (UdpReceiver::new(into), DatagramBatch::default());
    let mut arrived = Vec::new();
    while arrived.len() < 5 {
        receive(&mut receiver, &mut batch);
        arrived.extend(batch.datagrams.iter().map(|d| d.range.len()));
    }
    assert_eq!(arrived, [1200, 1200, 3004, 1200, 1200]);
}

/// A socket without checksums refuses UDP_SEGMENT (as devices do that cannot sum); the runs still
/// arrive.
#[test]
fn a_way_out_that_refuses_segmentation_is_remembered() {
    enter_fresh_namespace();
    let device = common::tun("t0", netio::tun::TunMode::Plain, "10.8.0.1/24", 1500);
    let out = bind("10.8.0.1:4500");
    switch_checksums_off(&out);
    let mut sender = sender(&out);
    let mut wire = WireBatch::default();
    run(&mut wire, "10.8.0.1:4500", "10.8.0.2:4500", 100, 0, &[1; 350]);
    let report = sender.send(&wire);
    assert_eq!((report.datagrams, report.fallbacks), (4, 1), "{report:?}");
    assert_eq!(sender.refusing(), [at("10.8.0.2:4500")]);
    let report = sender.send(&wire);
    assert_eq!((report.datagrams, report.fallbacks), (4, 0), "{report:?}");
    let mut batch = packet::InnerBatch::default();
    device.reader().read(&mut batch).unwrap();
    let sent = batch.packets.iter().filter(|p| batch.octets(p)[0] == 0x45).count();
    assert_eq!(sent, 8);
}

fn switch_checksums_off(socket: &UdpSocket) {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which lives over the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

#[test]
fn refusals_to_bind_say_what_to_do() {
    enter_fresh_namespace();
    let first = bind("127.0.0.1:4500");
    let error = UdpSocket::bind(first.local(), UdpOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("UDP port 4500 on 127.0.0.1 is already in use by "), "{text}");
    assert!(text.ends_with(&format!("(pid {})", std::process::id())), "{text}");
    let error = UdpSocket::bind(at("192.0.2.77:4500"), UdpOptions::default()).unwrap_err();
    assert!(matches!(error, BindError::NoSuchAddress { .. }));
    assert_eq!(
        error.to_string(),
        "address 192.0.2.77 is not configured on this host: add it to an interface, or change `listen`"
    );
    // IPv4 and IPv6 stand side by side.
    let (_v4, _v6) = (bind("0.0.0.0:4600"), bind("[::]:4600"));
}

#[test]
fn a_datagram_larger_than_the_interface_leaves_in_fragments_only_for_ike() {
    enter_fresh_namespace();
    // `ip` shows that the namespace is really ours: loopback only.
    let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&links.stdout).lines().count(), 1);
    block_on(async { Link::find("lo").unwrap().set_mtu(1500).await.unwrap() });
    let (out, into) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let (local, remote) = (out.local().to_string(), into.local().to_string());
    let mut wire = WireBatch::default();
    run(&mut wire, &local, &remote, 1473, 0, &[1; 1473]);
    run(&mut wire, &local, &remote, 1472, 0, &[1; 1472]);
    let report = sender(&out).send(&wire);
    assert_eq!((report.datagrams, report.dropped_too_big), (1, 1), "{report:?}");
    out.send(out.local(), into.local(), &[&[2; 1473]]).unwrap();
}
