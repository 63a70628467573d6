//! The TUN device in namespaces of its own: needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{Host, block_on, enter_fresh_namespace, tun};
use netio::netlink::Link;
use netio::tun::{Tun, TunError, TunMode, TunReader, TunWriter};
use netio::wait;
use packet::InnerBatch;
use std::os::fd::AsFd;

fn read_some(reader: &mut TunReader, batch: &mut InnerBatch) -> usize {
    let ready = wait::readable(&[reader.as_fd()], Some(Duration::from_secs(2))).unwrap();
    assert_ne!(ready, 0, "nothing came out of the device");
    reader.read(batch).unwrap().packets
}

fn udp_between(mode: TunMode) {
    enter_fresh_namespace();
    let device = tun("t0", mode, "10.9.0.1/24", 1500);
    let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
    for n in 0..3u8 {
        socket.send_to(&[n; 32], "10.9.0.2:7001").unwrap();
    }
    let (mut reader, mut batch) = (device.reader(), InnerBatch::default());
    let mut first = None;
    let mut seen = 0;
    while seen < 3 {
        read_some(&mut reader, &mut batch);
        // The kernel's own IPv6 solicitations come out too.
        for packet in batch.packets.iter().filter(|p| batch.octets(p)[0] == 0x45) {
            assert_eq!(packet.checksum.is_some(), device.offloads().checksum);
            first.get_or_insert_with(|| batch.octets(packet).to_vec());
            seen += 1;
        }
    }
    let first = first.unwrap();
    assert_eq!(first[12..20], [10, 9, 0, 1, 10, 9, 0, 2]);
    assert_eq!(first[28..], [0; 32]);
    assert_eq!(reader.read(&mut batch).unwrap().packets, 0, "the device is empty now");

    // Back with addresses and ports swapped; swapping leaves both checksums as they are, but in
    // offload mode the UDP one was never completed, so it is left out (zero).
    let mut answer = first.clone();
    answer[12..16].copy_from_slice(&first[16..20]);
    answer[16..20].copy_from_slice(&first[12..16]);
    answer[20..22].copy_from_slice(&first[22..24]);
    answer[22..24].copy_from_slice(&first[20..22]);
    answer[26..28].fill(0);
    let mut back = InnerBatch::default();
    back.push(&answer);
    back.push(&[0x1f; 3]);
    let report = device.writer().write(&back);
    assert_eq!((report.packets, report.dropped_refused), (1, 1), "{report:?}");
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut got = [0; 64];
    let (len, from) = socket.recv_from(&mut got).unwrap();
    assert_eq!((len, from.to_string().as_str()), (32, "10.9.0.2:7001"));
}

#[test]
fn plain_mode_carries_packets_both_ways() {
    udp_between(TunMode::Plain);
}

#[test]
fn offload_mode_carries_packets_both_ways() {
    udp_between(TunMode::Offload);
}

#[test]
fn plain_mode_reads_no_super_packet() {
    enter_fresh_namespace();
    // A persistent device keeps its offload mask; ours does not, and each mode says what it has.
    let device = tun("t0", TunMode::Plain, "10.9.0.1/24", 1500);
    assert_eq!(device.offloads(), Default::default());
    let offload = Tun::open("t1", TunMode::Auto).unwrap();
    assert!(offload.offloads().tcp && offload.offloads().checksum);
}

#[test]
fn a_second_owner_and_bad_names_are_refused_in_words() {
    enter_fresh_namespace();
    let _first = Tun::open("t0", TunMode::Plain).unwrap();
    for mode in [TunMode::Plain, TunMode::Offload, TunMode::Auto] {
        let error = Tun::open("t0", mode).unwrap_err();
        assert!(matches!(error, TunError::Busy { .. }), "{error}");
        assert_eq!(error.to_string(), "TUN device t0 is already in use by another process");
    }
    for name in ["", "a-name-of-sixteen", "with blank", "a/b", "x%d"] {
        assert!(matches!(Tun::open(name, TunMode::Auto), Err(TunError::Name { .. })), "{name}");
    }
}

#[test]
fn many_addresses_and_routes_come_at_once_and_each_has_its_answer() {
    enter_fresh_namespace();
    let _device = tun("t0", TunMode::Auto, "169.254.10.1/30", 1438);
    block_on(async {
        let link = Link::find("t0").unwrap();
        let addresses: Vec<ipnet::IpNet> = (0..300_u16)
            .map(|n| format!("10.9.{}.{}/30", n / 64, n % 64 * 4 + 1))
            .map(|t| t.parse().unwrap())
            .collect();
        let results = link.add_addresses(&addresses).await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), addresses.len());
        let routes: Vec<_> = (0..300_u16)
            .map(|n| (format!("10.{}.{}.0/24", 20 + n / 250, n % 250).parse().unwrap(), None))
            .collect();
        link.add_route(routes[150].0, None).await.unwrap();
        // One in the middle exists already: it has its own answer, and the others theirs.
        let results = link.add_routes(&routes).await;
        for (at, result) in results.iter().enumerate() {
            let exists = result.as_ref().is_err_and(netio::netlink::NetlinkError::already_exists);
            assert_eq!((exists, result.is_err()), (at == 150, at == 150), "{at}: {result:?}");
        }
        let nets: Vec<_> = routes.iter().map(|(net, _)| *net).collect();
        // Absent already is fine.
        for _ in 0..2 {
            assert!(link.remove_routes(&nets).await.iter().all(Result::is_ok));
            assert!(link.remove_addresses(&addresses).await.iter().all(Result::is_ok));
        }
        assert!(link.add_addresses(&[]).await.is_empty());
    });
}

#[test]
fn addresses_and_routes_come_and_go() {
    enter_fresh_namespace();
    let _device = tun("t0", TunMode::Auto, "169.254.10.1/30", 1438);
    block_on(async {
        let link = Link::find("t0").unwrap();
        link.set_queue(5000).await.unwrap();
        link.add_address("fd00::1/126".parse().unwrap()).await.unwrap();
        for net in ["10.1.0.0/16", "fd00:1::/64"] {
            let net = net.parse().unwrap();
            let source =
                if matches!(net, ipnet::IpNet::V4(_)) { "169.254.10.1" } else { "fd00::1" };
            link.add_route(net, Some(common::ip(source))).await.unwrap();
            let again = link.add_route(net, None).await.unwrap_err();
            assert!(again.already_exists(), "{again}");
            // A socket that is connected through the route has the preferred source.
            let to = std::net::SocketAddr::new(net.hosts().nth(5).unwrap(), 9);
            let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).unwrap();
            socket.connect(to).unwrap();
            assert_eq!(socket.local_addr().unwrap().ip().to_string(), source);
            link.remove_route(net).await.unwrap();
            link.remove_route(net).await.unwrap();
            assert!(socket.connect(to).is_err(), "the route is gone");
        }
        link.remove_address("fd00::1/126".parse().unwrap()).await.unwrap();
        link.remove_address("fd00::1/126".parse().unwrap()).await.unwrap();
        let error = link.set_mtu(20).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot set MTU 20 on t0: "), "{error}");
        let error = link
            .add_route("10.2.0.0/16".parse().unwrap(), Some(common::ip("192.0.2.9")))
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with("cannot add route 10.2.0.0/16 on t0: "), "{error}");
    });
    let error = Link::find("missing").unwrap_err();
    assert_eq!(error.to_string(), "cannot find the device on missing: No such device");
}

/// Counters of a relay between two devices.
#[derive(Default)]
struct Relay {
    packets: AtomicU64,
    supers: AtomicU64,
    writes: AtomicU64,
    lost: AtomicU64,
    fallbacks: AtomicU64,
    merges: AtomicBool,
}

/// What a data plane does with single packets of a device in offload mode.
fn complete_checksums(batch: &mut InnerBatch) {
    for packet in batch.packets.iter_mut().filter(|p| p.gso.is_none()) {
        let Some((start, offset)) = packet.checksum.take() else { continue };
        let transport = &mut batch.bytes[packet.range.clone()][start.into()..];
        let at = usize::from(offset);
        // The field holds the pseudo-header's sum already.
        let sum = packet::checksum::of(&[transport]);
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Moves packets one way until told to stop. `prepare` is run on the thread that does.
fn relay(
    mut from: TunReader,
    mut to: TunWriter,
    stop: Arc<AtomicBool>,
    prepare: fn(),
) -> Arc<Relay> {
    let counters = Arc::new(Relay::default());
    let shared = Arc::clone(&counters);
    thread::spawn(move || {
        let mut batch = InnerBatch::default();
        prepare();
        while !stop.load(Ordering::Relaxed) {
            let _ = wait::readable(&[from.as_fd()], Some(Duration::from_millis(50)));
            let read = from.read(&mut batch).unwrap();
            complete_checksums(&mut batch);
            let supers = batch.packets.iter().filter(|p| p.gso.is_some()).count() as u64;
            let report = to.write(&batch);
            let lost = report.dropped_full + report.dropped_refused + report.dropped_down;
            shared.packets.fetch_add(read.packets as u64, Ordering::Relaxed);
            shared.supers.fetch_add(supers, Ordering::Relaxed);
            shared.writes.fetch_add(report.writes, Ordering::Relaxed);
            shared.lost.fetch_add(lost, Ordering::Relaxed);
            shared.fallbacks.fetch_add(report.fallbacks, Ordering::Relaxed);
            shared.merges.store(to.offloads().tcp, Ordering::Relaxed);
        }
    });
    counters
}

fn transfer(sender: TunMode, receiver: TunMode, family: [&'static str; 2]) -> Arc<Relay> {
    transfer_prepared(sender, receiver, family, || {})
}

/// 8 MB of TCP from one host to another, over two devices and a relay. What the data relay counted,
/// whose thread was prepared.
fn transfer_prepared(
    sender: TunMode,
    receiver: TunMode,
    family: [&'static str; 2],
    prepare: fn(),
) -> Arc<Relay> {
    const OCTETS: usize = 8 << 20;
    let (a, b) = (Host::new(), Host::new());
    let [address_a, address_b] = family;
    let tun_a = a.run(move || tun("a", sender, address_a, 1500));
    let tun_b = b.run(move || tun("b", receiver, address_b, 1500));
    let stop = Arc::new(AtomicBool::new(false));
    let data = relay(tun_a.reader(), tun_b.writer(), Arc::clone(&stop), prepare);
    let acks = relay(tun_b.reader(), tun_a.writer(), Arc::clone(&stop), || {});

    let net: ipnet::IpNet = address_b.parse().unwrap();
    let listener = b.run(move || TcpListener::bind((net.addr(), 5001)).unwrap());
    let receiving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let sent: Vec<u8> = (0..OCTETS).map(|i| (i / 1021) as u8).collect();
    let payload = sent.clone();
    a.run(move || {
        let mut stream = TcpStream::connect((net.addr(), 5001)).unwrap();
        stream.write_all(&payload).unwrap();
    });
    assert!(receiving.join().unwrap() == sent, "the octets arrive as they were sent");
    stop.store(true, Ordering::Relaxed);
    assert_eq!(acks.lost.load(Ordering::Relaxed), 0);
    data
}

const V4: [&str; 2] = ["10.9.0.1/24", "10.9.0.2/24"];
const V6: [&str; 2] = ["fd09::1/64", "fd09::2/64"];

#[test]
fn super_packets_are_read_and_written_whole() {
    for family in [V4, V6] {
        let data = transfer(TunMode::Offload, TunMode::Offload, family);
        assert!(data.supers.load(Ordering::Relaxed) > 10, "TSO is in use");
        assert_eq!(data.lost.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn segments_are_merged_into_super_packets() {
    for family in [V4, V6] {
        let data = transfer(TunMode::Plain, TunMode::Offload, family);
        let (packets, writes) =
            (data.packets.load(Ordering::Relaxed), data.writes.load(Ordering::Relaxed));
        assert_eq!(data.supers.load(Ordering::Relaxed), 0, "plain mode reads single packets");
        assert!(writes * 2 < packets, "{packets} packets took {writes} writes");
        assert_eq!(data.lost.load(Ordering::Relaxed), 0);
    }
}

/// From now on the kernel refuses this thread's gathered writes as it would refuse a super-packet of a
/// shape that it does not take: a packet is two parts, header and octets, and a merged one is more.
fn refuse_merged_writes() {
    const ARGUMENT_3: u32 = 32; // its lower half, on a little-endian machine (seccomp(2))
    let load = |at| filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let answer = |verdict| filter(libc::BPF_RET | libc::BPF_K, 0, 0, verdict);
    let writev = u32::try_from(libc::SYS_writev).unwrap();
    let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EINVAL).unwrap();
    let mut program = [
        load(0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, writev),
        load(ARGUMENT_3),
        filter(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, 1, 2),
        answer(refused),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let len = program.len() as u16;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives over the call, and counts `len` of it.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
        ]
    };
    assert_eq!(results, [0, 0]);
}

fn filter(code: u32, if_true: u8, if_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: if_true, jf: if_false, k }
}

#[test]
fn merged_packets_that_the_kernel_refuses_go_one_by_one_and_are_given_up() {
    for family in [V4, V6] {
        let data =
            transfer_prepared(TunMode::Plain, TunMode::Offload, family, refuse_merged_writes);
        let fallbacks = data.fallbacks.load(Ordering::Relaxed);
        assert!((8..72).contains(&fallbacks), "those of one more batch at most: {fallbacks}");
        assert!(!data.merges.load(Ordering::Relaxed));
        assert_eq!(data.lost.load(Ordering::Relaxed), 0, "every packet of theirs went alone");
    }
}

#[test]
fn plain_mode_carries_tcp() {
    for family in [V4, V6] {
        let data = transfer(TunMode::Plain, TunMode::Plain, family);
        assert_eq!(data.lost.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn merging_that_is_switched_off_stays_off() {
    enter_fresh_namespace();
    let device = tun("t0", TunMode::Offload, "10.9.0.1/24", 1500);
    let mut writer = device.writer();
    writer.limit(false, true);
    assert!(!writer.offloads().tcp);
    assert_eq!(writer.offloads().udp, device.offloads().udp);
}
