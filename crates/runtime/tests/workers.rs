//! Both data threads, between namespaces: needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Gateway, Host, TUNNEL, block_on};
use dataplane::DataEvent;
use netio::netlink::Link;
use netio::tun::TunMode;
use netio::udp::{UdpOptions, UdpReceiver};
use packet::DatagramBatch;
use runtime::worker::{IoDrop, Notice};
use sa::{Bits, CbcIntegrity, EspSuite, Path, Spi};

const A: &[&str] = &["10.9.0.1/24", "fd09::1/64"];
const B: &[&str] = &["10.9.0.2/24", "fd09::2/64"];

struct World {
    a: Host,
    b: Host,
    wire: Host,
    gateways: [Gateway; 2],
}

fn world(mode: TunMode, suite: EspSuite) -> World {
    let (a, b, wire) = (Host::new(), Host::new(), Host::new());
    let gateways = [Gateway::new(&a, &wire, mode, A), Gateway::new(&b, &wire, mode, B)];
    let [left, right] = &gateways;
    right.receive(suite, 1);
    left.receive(suite, 2);
    block_on(right.inbound.sync());
    block_on(left.inbound.sync());
    left.send_to(right.outer, suite, 1);
    right.send_to(left.outer, suite, 2);
    World { a, b, wire, gateways }
}

/// 16 MB of TCP from the first host to the second.
fn transfer(world: &World, to: IpAddr) {
    const OCTETS: usize = 16 << 20;
    let listener = world.b.run(move || TcpListener::bind((to, 5001)).unwrap());
    let receiving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let sent: Vec<u8> = (0..OCTETS).map(|i| (i / 977) as u8).collect();
    let payload = sent.clone();
    world.a.run(move || {
        TcpStream::connect((to, 5001)).unwrap().write_all(&payload).unwrap();
    });
    assert!(receiving.join().unwrap() == sent, "the octets arrive as they were sent");
}

#[test]
fn tcp_crosses_the_tunnel_in_every_mode_and_family() {
    let suites = [
        EspSuite::AesGcm16(Bits::B256),
        EspSuite::ChaCha20Poly1305,
        EspSuite::AesCbc(Bits::B128, CbcIntegrity::Sha256),
    ];
    for (mode, suite) in [TunMode::Auto, TunMode::Plain, TunMode::Auto].into_iter().zip(suites) {
        let world = world(mode, suite);
        for to in ["10.9.0.2", "fd09::2"] {
            transfer(&world, to.parse().unwrap());
        }
        let [left, right] = &world.gateways;
        let sent = left.counters[1].tunnel(TUNNEL);
        let received = right.counters[0].tunnel(TUNNEL);
        assert!(sent.bytes() > 32 << 20, "{mode:?}");
        assert!(received.packets() <= sent.packets());
        for gateway in &world.gateways {
            // Nothing is lost on loopback but what a full buffer may cost, and what the kernel
            // itself sent before there were routes.
            let lost = gateway.lost();
            let fine = |name| name == "udp_send_full" || name == "no_route";
            assert!(lost.iter().all(|(name, _)| fine(*name)), "{mode:?}: {lost:?}");
        }
    }
}

#[test]
fn ike_messages_leave_without_their_marker_and_a_flood_of_them_is_bounded() {
    let mut world = world(TunMode::Auto, EspSuite::AesGcm16(Bits::B128));
    let to = world.gateways[0].outer;
    let stranger = world.wire.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let from = stranger.local_addr().unwrap();
    stranger.send_to(b"\0\0\0\0an IKE message", to).unwrap();
    let got = block_on(world.gateways[0].slow.recv()).unwrap();
    assert_eq!(got.message, b"an IKE message");
    assert_eq!(got.path, Path { local: to, remote: from });

    // The channel has room for four; nobody reads it now.
    for n in 0..10u8 {
        stranger.send_to(&[0, 0, 0, 0, n], to).unwrap();
    }
    let counters = &world.gateways[0].io[0];
    wait_until(|| counters.dropped(IoDrop::IkeQueueFull) == 6);
    // Garbage is counted and the tunnel works on.
    for garbage in [&[][..], &[0xff], &[1], &[0; 4], &[9; 7], &[0xaa; 64], &[1, 0, 0, 0, 9]] {
        stranger.send_to(garbage, to).unwrap();
    }
    transfer(&world, "10.9.0.2".parse().unwrap());
    let slow = &mut world.gateways[0].slow;
    for n in 0..4 {
        assert_eq!(block_on(slow.recv()).unwrap().message, [n]);
    }
}

#[test]
fn the_first_packet_on_a_new_sa_is_told() {
    let mut world = world(TunMode::Auto, EspSuite::ChaCha20Poly1305);
    world.a.run(|| {
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"hello", "10.9.0.2:9").unwrap();
    });
    let told = block_on(world.gateways[1].notices.recv()).unwrap();
    let spi = Spi(0x7000_0001);
    assert_eq!(told, Notice::Data(DataEvent::FirstPacket { tunnel: TUNNEL, spi }));
}

/// A host that sends small datagrams one after the other, each with a system call of its own: the
/// worker lets them gather, and they leave in runs, which the loopback device keeps whole.
#[test]
fn small_packets_that_come_one_by_one_leave_in_batches() {
    let world = world(TunMode::Auto, EspSuite::AesGcm16(Bits::B128));
    let socket = world.wire.run(|| {
        let any = "127.0.0.1:0".parse().unwrap();
        Arc::new(netio::udp::UdpSocket::bind(any, UdpOptions::default()).unwrap())
    });
    let outbound = &world.gateways[0].outbound;
    world.gateways[0].send_to(socket.local(), EspSuite::AesGcm16(Bits::B128), 3);
    block_on(outbound.sync());
    world.a.run(|| {
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        for _ in 0..4000 {
            socket.send_to(&[7; 36], "10.9.0.9:9").unwrap();
        }
    });
    let (mut receiver, mut batch) = (UdpReceiver::new(socket), DatagramBatch::default());
    let (mut datagrams, mut messages) = (0, 0);
    loop {
        let descriptor = Arc::clone(receiver.socket());
        let wait = Some(Duration::from_millis(200));
        if netio::wait::readable(&[descriptor.as_fd()], wait).unwrap() == 0 {
            break;
        }
        receiver.receive(&mut batch).unwrap();
        messages += batch.datagrams.len();
        datagrams += batch.datagrams.iter().map(|d| d.range.len() / d.segment).sum::<usize>();
    }
    // A host that is faster than a worker which waits for a processor overruns the device.
    assert!(datagrams > 1000, "{datagrams} datagrams arrived");
    assert!(datagrams > 6 * messages, "{datagrams} datagrams in {messages} runs");
}

#[test]
fn a_command_is_in_force_when_it_is_acknowledged() {
    let (a, wire) = (Host::new(), Host::new());
    let gateway = Gateway::new(&a, &wire, TunMode::Auto, A);
    let suite = EspSuite::AesGcm16(Bits::B128);
    for seed in 0..50 {
        gateway.receive(suite, seed);
        block_on(gateway.inbound.sync());
        let spi = 0x7000_0000 + u32::from(seed);
        let mut esp = spi.to_be_bytes().to_vec();
        esp.extend([0; 40]);
        let before = gateway.counters[0].dropped(dataplane::DropReason::IcvMismatch);
        let to = gateway.outer;
        wire.run(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            // Sequence number 1: number 0 is never valid.
            esp[7] = 1;
            socket.send_to(&esp, to).unwrap();
        });
        wait_until(|| {
            gateway.counters[0].dropped(dataplane::DropReason::IcvMismatch) == before + 1
        });
    }
    assert_eq!(gateway.counters[0].dropped(dataplane::DropReason::UnknownSpi), 0);
}

#[test]
fn a_device_that_goes_away_ends_the_worker_with_a_reason() {
    let (a, wire) = (Host::new(), Host::new());
    let mut gateway = Gateway::new(&a, &wire, TunMode::Auto, A);
    a.run(|| {
        let deleted = std::process::Command::new("ip").args(["link", "del", "t0"]).status();
        assert!(deleted.unwrap().success());
    });
    let error = block_on(async {
        tokio::time::timeout(Duration::from_secs(5), gateway.outbound.failed()).await.unwrap()
    });
    assert!(error.raw_os_error().is_some(), "{error}");
}

#[test]
fn a_datagram_over_the_path_mtu_is_told_and_counted() {
    let mut world = world(TunMode::Auto, EspSuite::AesGcm16(Bits::B256));
    world.wire.run(|| {
        block_on(async { Link::find("lo").unwrap().set_mtu(1280).await.unwrap() });
    });
    world.a.run(|| {
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(&[0; 1300], "10.9.0.2:9").unwrap();
    });
    let [left, right] = &mut world.gateways;
    let told = block_on(async {
        loop {
            if let Some(Notice::TooBig(path)) = left.notices.recv().await {
                return path;
            }
        }
    });
    assert_eq!(told, Path { local: left.outer, remote: right.outer });
    assert_eq!(left.io[1].dropped(IoDrop::UdpSendTooBig), 1);
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it never happened");
        thread::sleep(Duration::from_millis(1));
    }
}
