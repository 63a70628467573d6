//! A flood of spoofed IKE_SA_INIT requests against a daemon that carries traffic, while an honest
//! peer connects. 100,000 requests; `FLOOD=1000000` sends as many as one likes, and `FLOOD_RATE`
//! says how many a second (20,000). Needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hostile::client::init_request;
use hostile::raw::RawSender;
use hostile::{Net, SCENARIO, Side};
use ike::crypto::KeyExchange;
use ike::suite::KeGroup;
use rand_core::OsRng;

/// KiB that the daemon may grow by, however many strangers there are.
const MAY_GROW: u64 = 32 * 1024;

fn parameter(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_flood_of_spoofed_requests_costs_the_tunnel_nothing_and_an_honest_peer_connects() {
    let (requests, rate) = (parameter("FLOOD", 100_000), parameter("FLOOD_RATE", 20_000));
    let mut net = Net::up(SCENARIO);
    let memory = net.memory_now(Side::Vgw);
    let ping = net.ping(Duration::from_millis(10));
    let sent = Arc::new(AtomicU64::new(0));
    let flood = {
        let (sent, to) = (Arc::clone(&sent), net.outside(0));
        let sender = RawSender::new(&net.attacker);
        net.attacker.thread("flood", move || flood(&sender, to, requests, rate, &sent)).unwrap()
    };

    // In the middle of it an honest peer connects.
    while sent.load(Relaxed) < requests / 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut client, own, peer) = net.stranger(0);
    let began = Instant::now();
    let connected = client.init() && client.auth(&own, &peer);
    let took = began.elapsed();
    let at = sent.load(Relaxed);
    assert!(connected, "the honest peer does not get through");
    assert!(at < requests, "the flood was over before the honest peer was through: {took:?}");
    let spent = flood.join().unwrap();

    std::thread::sleep(Duration::from_millis(500));
    let answers = ping.stop().unwrap();
    let grown = net.most_memory(Side::Vgw).saturating_sub(memory);
    println!(
        "{requests} spoofed IKE_SA_INIT in {:.1} s ({:.0} a second): memory {memory} KiB, at most {grown} KiB more; \
         the honest peer connected in {:.0} ms; {} pings, {} lost",
        spent.as_secs_f64(),
        requests as f64 / spent.as_secs_f64(),
        took.as_secs_f64() * 1e3,
        answers.sent,
        answers.lost(),
    );
    println!("vgw: {}", net.status(Side::Vgw)["ike"]);
    assert_eq!(answers.lost(), 0, "the tunnel loses packets");
    assert!(grown < MAY_GROW, "{grown} KiB");
    assert!(net.ike(Side::Vgw, "cookies_sent") > 0, "strangers are asked for a cookie");
}

/// Sends the requests, from other addresses each time; without marker to port 500 and with it to
/// port 4500.
fn flood(sender: &RawSender, to: Ipv4Addr, requests: u64, rate: u64, sent: &AtomicU64) -> Duration {
    let key = KeyExchange::generate(KeGroup::X25519, &mut OsRng).unwrap();
    let plain = init_request(1, &key, &[5; 32], None);
    let marked = [&[0; 4], &plain[..]].concat();
    let mut messages = [(plain, 0, 500), (marked, 4, 4500)];
    let begin = Instant::now();
    for number in 1..=requests {
        let (message, at, port) = &mut messages[usize::from(number % 2 == 0)];
        // Spread over the SPIs and the addresses alike.
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        message[*at..*at + 8].copy_from_slice(&mixed.to_be_bytes());
        let [_, a, b, c, high, low, ..] = mixed.to_be_bytes();
        let from = SocketAddrV4::new([11, a, b, c].into(), u16::from_be_bytes([high, low]) | 1024);
        sender.send(from, SocketAddrV4::new(to, *port), message);
        sent.store(number, Relaxed);
        if number % 64 == 0 {
            let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    begin.elapsed()
}
