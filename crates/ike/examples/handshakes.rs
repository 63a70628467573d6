//! Full handshakes (IKE_SA_INIT and IKE_AUTH, with a Child SA) per second on one core, with
//! pre-shared keys, Curve25519 and AES-GCM-16-256: of the responder alone, and of both sides.
//!
//! `cargo run --release -p ike --example handshakes [SECONDS]`
#![allow(clippy::unwrap_used, reason = "a measurement that goes wrong ends")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ike::suite::{EspEncryption, EspProposals, Hash, IkeEncryption, IkeProposals, KeGroup};
use ike::{
    Command, Endpoint, EndpointConfig, Event, Identity, PeerConfig, Transmit, TransmitPayload,
};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use sa::{Bits, Path, Secret, TunnelId};

/// Tunnels of the responder, one identity each. So many that one side's share of a round is much
/// longer than a tick of the scheduler, which the clock below counts by.
const TUNNELS: u32 = 200;

/// Time that this thread had a core, so that what else runs on the machine does not count.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap())
}

fn peer(tunnel: u32, initiator: bool) -> PeerConfig {
    let site = Identity::Fqdn(format!("site-{tunnel}.example"));
    let gateway = Identity::Fqdn("vgw.example".into());
    let (local, remote) = if initiator { (site, gateway) } else { (gateway, site) };
    let key = Secret::new(format!("the key of site {tunnel}, long enough").into_bytes());
    let mut peer = PeerConfig::new(TunnelId(tunnel), local, Some(remote), key);
    peer.remote = initiator.then(|| address(0).ip());
    peer.local = Some(if initiator { address(tunnel).ip() } else { address(0).ip() });
    peer.ike = IkeProposals {
        encryption: vec![IkeEncryption::AesGcm16(Bits::B256)],
        integrity: vec![],
        prf: vec![Hash::Sha256],
        groups: vec![KeGroup::X25519],
    };
    peer.esp = EspProposals {
        encryption: vec![EspEncryption::AesGcm16(Bits::B256)],
        integrity: vec![],
        groups: vec![],
        esn: vec![false],
    };
    peer
}

/// The responder is host 0, the initiator of tunnel n is host n.
fn address(host: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(host).unwrap_or(0)], 4500))
}

fn endpoint(seed: u64, now: Instant) -> Endpoint {
    let config = EndpointConfig {
        // Each datagram counts: no COOKIE round trips.
        cookie_threshold: usize::MAX,
        half_open_limit: usize::MAX,
        half_open_per_source: usize::MAX,
        ..EndpointConfig::default()
    };
    Endpoint::new(config, Box::new(ChaCha12Rng::seed_from_u64(seed)), now)
}

/// What one side says, as the other one receives it; its events are thrown away.
fn drain(endpoint: &mut Endpoint, up: &mut u64) -> Vec<(Path, Vec<u8>)> {
    while let Some(event) = endpoint.poll_event() {
        *up += u64::from(matches!(event, Event::IkeUp { .. }));
    }
    let mut out = Vec::new();
    while let Some(Transmit { path, payload }) = endpoint.poll_transmit() {
        if let TransmitPayload::Ike(octets) = payload {
            out.push((Path { local: path.remote, remote: path.local }, octets));
        }
    }
    out
}

/// Handshakes, and the time that the responder and the initiators spent on them.
fn measure(length: Duration) -> (u64, Duration, Duration) {
    let start = Instant::now();
    let mut responder = endpoint(1, start);
    (1..=TUNNELS).for_each(|tunnel| responder.add_peer(peer(tunnel, false)));
    let (mut made, mut at_initiators) = (0, 0);
    let (mut responding, mut initiating) = (Duration::ZERO, Duration::ZERO);
    let mut round = 0;
    while start.elapsed() < length {
        round += 1;
        let mut initiators: Vec<Endpoint> = (1..=TUNNELS)
            .map(|tunnel| {
                let mut one = endpoint(round * 1000 + u64::from(tunnel), start);
                one.add_peer(peer(tunnel, true));
                one
            })
            .collect();
        // INITIAL_CONTACT ends what the round before left, so that nothing piles up.
        let (now, before) = (Instant::now(), cpu());
        for (tunnel, one) in (1..).zip(&mut initiators) {
            one.handle_command(Command::Initiate(TunnelId(tunnel)), now);
        }
        initiating += cpu() - before;
        for _message in 0..2 {
            let mut requests = Vec::new();
            for one in &mut initiators {
                requests.extend(drain(one, &mut at_initiators));
            }
            let (now, before) = (Instant::now(), cpu());
            let mut answers = Vec::new();
            for (path, octets) in requests {
                responder.handle_datagram(path, &octets, now);
                answers.extend(drain(&mut responder, &mut made));
            }
            responding += cpu() - before;
            let (now, before) = (Instant::now(), cpu());
            for (path, octets) in answers {
                let host = match path.local.ip() {
                    std::net::IpAddr::V4(a) => usize::from(a.octets()[3]),
                    std::net::IpAddr::V6(_) => 0,
                };
                if let Some(one) = host.checked_sub(1).and_then(|at| initiators.get_mut(at)) {
                    one.handle_datagram(path, &octets, now);
                }
            }
            initiating += cpu() - before;
        }
        for one in &mut initiators {
            drain(one, &mut at_initiators);
        }
    }
    assert_eq!(made, at_initiators, "each handshake ended on both sides");
    (made, responding, initiating)
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(5);
    let (made, responding, initiating) = measure(Duration::from_secs(seconds));
    let rate = |time: Duration| made as f64 / time.as_secs_f64();
    println!(
        "{made} handshakes: PSK, CURVE_25519, AES_GCM_16-256, PRF_HMAC_SHA2_256, one Child SA"
    );
    let each = responding.as_secs_f64() * 1e6 / made as f64;
    println!("responder alone  {:>8.0} a second on one core ({each:.0} µs each)", rate(responding));
    println!("both sides       {:>8.0} a second on one core", rate(responding + initiating));
}
