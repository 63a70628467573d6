//! What strangers and peers of WireGuard send to the running `vgw`, on the port that it shares with
//! IPsec, while a ping runs through the IPsec tunnel. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hostile::raw::RawSender;
use hostile::{Net, SCENARIO, Side, wait_until, wire};
use lab::daemon::{Daemon, Kind};
use lab::settings;
use lab::topology::{address, end};
use lab::traffic::ping::{self, Plan};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use rand_core::{OsRng, RngCore};
use std::io::IoSlice;
use std::os::fd::AsRawFd;

/// The same network with a site that speaks WireGuard.
fn scenario() -> String {
    format!(
        r#"{SCENARIO}
[[site]]
name = "depot"
type = "wireguard"
cidrs = ["172.21.0.0/16"]
nat = "source"

[[site.host]]
name = "shelf"
addresses = ["172.21.1.10/24"]
"#
    )
}

/// Octets of the longest UDP payload over IPv4.
const LONGEST: usize = 65_507;
/// KiB that the VGW may grow by: buffers for the longest datagrams included.
const MAY_GROW: u64 = 24 * 1024;

/// A message of WireGuard: type, receiver index, and noise.
fn message(kind: u8, index: u32, length: usize) -> Vec<u8> {
    let mut message = vec![0; length.max(8)];
    OsRng.fill_bytes(&mut message);
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message[4..8].copy_from_slice(&index.to_le_bytes());
    message.truncate(length);
    message
}

#[test]
fn what_strangers_and_peers_send_is_counted_and_harms_nobody() {
    let mut net = Net::up(&scenario());
    let folder = std::env::var_os("VGW_BIN_DIR").map_or_else(
        || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned(),
        std::path::PathBuf::from,
    );
    let files = settings::agent(&net.scenario, &net.layout, 2);
    let mut depot = Daemon::new(&net.world.sites[2].gateway, Kind::Agent, &folder, &files).unwrap();
    depot.start().unwrap();
    let app = net.world.vpc.hosts[0].addresses[0];
    let shelf = net.world.sites[2].hosts[0].host.clone();
    let every = Duration::from_millis(10);
    let plan = Plan { count: None, interval: every, ..Plan::new(app) };
    let first = ping::start(&shelf, plan.clone()).unwrap();
    wait_until("the WireGuard site reaches the VPC", || first.answered() > 3);
    drop(first.stop());
    let beside = ping::start(&shelf, plan.clone()).unwrap();
    let memory = net.most_memory(Side::Vgw);
    let ping = net.ping(every);

    let attacker = net.attacker.run(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    let to = SocketAddr::new(net.layout.outside[0], 4500);
    attacker.connect(to).unwrap();

    // Handshakes without a right first MAC cost no multiplication, and are counted.
    net.counted("wireguard_mac", 200, |_| {
        for (kind, length) in [(1, 148), (2, 92)] {
            (0..100).for_each(|_| drop(attacker.send(&message(kind, 1, length))));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    // Every type at every length: what WireGuard cannot have sent is taken for ESP.
    net.counted("unknown_spi", 300, |_| {
        for length in (9..=300).step_by(3).filter(|length| ![148, 92, 64].contains(length)) {
            for kind in [1, 2, 3, 5, 255] {
                let _ = attacker.send(&message(kind, 1, length));
            }
            std::thread::sleep(Duration::from_micros(300));
        }
    });
    net.counted("wireguard_unknown_index", 70, |_| {
        for length in 32..100 {
            attacker.send(&message(4, 0xffff_ff00, length)).unwrap();
        }
        attacker.send(&message(3, 0xffff_ff00, 64)).unwrap();
        attacker.send(&message(3, 0xffff_fe00, 64)).unwrap();
    });
    // The longest datagrams, alone and coalesced on their way.
    net.counted("wireguard_unknown_index", 10, |_| {
        for _ in 0..10 {
            attacker.send(&message(4, 0xffff_ff00, LONGEST)).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    net.counted("wireguard_unknown_index", 200, |_| {
        let run: Vec<u8> = (0..45).flat_map(|_| message(4, 0xffff_ff00, 1400)).collect();
        for _ in 0..5 {
            let segment = [ControlMessage::UdpGsoSegments(&1400)];
            let parts = [IoSlice::new(&run)];
            let flags = MsgFlags::empty();
            let sent =
                sendmsg::<SockaddrIn>(attacker.as_raw_fd(), &parts, &segment, flags, None).unwrap();
            assert_eq!(sent, run.len());
        }
    });

    // True messages of the site, seen on the way: again, from elsewhere, and with one bit changed.
    let router = net.world.internet.clone();
    let sender = RawSender::new(&net.attacker);
    let seen = wire::capture_esp(&router, net.outside(0), 120);
    let seen: Vec<_> = seen.into_iter().filter(|(.., m)| m[..4] == [4, 0, 0, 0]).collect();
    assert!(seen.len() > 20, "{} messages of WireGuard on the wire", seen.len());
    let messages = seen.len() as u64;
    net.counted("replayed", messages, |_| {
        seen.iter().for_each(|(from, to, octets)| sender.send(*from, *to, octets));
    });
    net.counted("replayed", messages, |_| {
        let elsewhere = "11.1.2.3:51820".parse().unwrap();
        seen.iter().for_each(|(_, to, octets)| sender.send(elsewhere, *to, octets));
    });
    net.counted("icv_mismatch", messages, |_| {
        for (from, to, octets) in &seen {
            let mut forged = octets.clone();
            // A counter that was not seen, so that the tag decides.
            forged[12] = forged[12].wrapping_add(1);
            let last = forged.len() - 1;
            forged[last] ^= 1;
            sender.send(*from, *to, &forged);
        }
    });

    // The site speaks for an address of the branch, which its keys do not allow.
    address(end(&shelf, "lan"), "192.168.1.77/32").unwrap();
    net.counted("inbound_source", 10, |_| {
        let source = Some("192.168.1.77".parse().unwrap());
        let spoofed = ping::start(&shelf, Plan { source, ..plan.clone() }).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let answers = spoofed.stop().unwrap();
        assert_eq!(answers.sent, answers.lost());
    });

    let (branch, site) = (ping.stop().unwrap(), beside.stop().unwrap());
    assert_eq!((branch.lost(), branch.duplicates, branch.damaged), (0, 0, 0));
    assert_eq!((site.lost(), site.duplicates, site.damaged), (0, 0, 0));
    let grown = net.most_memory(Side::Vgw) - memory;
    println!("{} and {} pings, none lost; {grown} KiB more", branch.sent, site.sent);
    assert!(grown < MAY_GROW, "{grown} KiB");
    depot.check_running().unwrap();
}
