//! What single events of the IKE plane lead to.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use dataplane::RouteTarget;
use ike::suite::{ChosenEsp, ChosenIke, Hash, IkeEncryption, KeGroup};
use ike::{ChildInfo, Identity, IkeInfo, Nat};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sa::{Bits, EspSuite, Path, SelectorSet, Spi};

use super::*;
use crate::config::Role;

const CONNECTIONS: u32 = 50;

/// An agent with many connections, whose peers never answer.
fn gateway(startup: &str, now: Instant) -> Gateway {
    let mut text = String::from(
        "[customer_gateway]\nid = \"cgw\"\nidentity = \"branch.example\"\n\
         onprem_cidrs = [\"192.168.0.0/16\"]\n",
    );
    for number in 0..CONNECTIONS {
        let _ = writeln!(
            text,
            "[[vpn_connection]]\nid = \"vpn-{number}\"\nvpc_cidrs = [\"10.{number}.0.0/16\"]"
        );
        for tunnel in 0..2 {
            let _ = writeln!(
                text,
                "[[vpn_connection.tunnel]]\noutside_address = \"198.51.100.1{tunnel}\"\n\
                 tunnel_inside_cidr = \"169.254.{}.{}/30\"\npre_shared_key_file = \"psk\"\n\
                 startup_action = \"{startup}\"",
                100 + number,
                tunnel * 4
            );
        }
    }
    let config = Config::parse(Role::Agent, &text, "test.toml").unwrap();
    let key = |t: &Tunnel| (t.id, Secret::new(b"a key of the tests".to_vec()));
    let secrets = config.tunnels().map(|(_, tunnel)| key(tunnel)).collect();
    let rng = Box::new(ChaCha20Rng::seed_from_u64(1));
    Gateway::new(config, secrets, EndpointConfig::default(), rng, Default::default(), now)
}

fn child_up(tunnel: TunnelId, now: Instant) -> Event {
    let info = ChildInfo {
        inbound: Spi(0x8000_0001),
        outbound: Spi(0x8000_0002),
        suite: ChosenEsp { suite: EspSuite::AesGcm16(Bits::B256), esn: false, group: None },
        local_selectors: SelectorSet::nets(&[IpNet::V4(ipnet::Ipv4Net::default())]),
        remote_selectors: SelectorSet::nets(&[IpNet::V4(ipnet::Ipv4Net::default())]),
        additional_ts_possible: false,
        established: now,
        rekey_at: now + Duration::from_secs(3000),
    };
    Event::ChildUp { tunnel, info }
}

/// An IKE SA with a peer at `remote`.
pub(crate) fn ike_info(remote: IpAddr, now: Instant) -> IkeInfo {
    let at = |text: &str| text.parse().unwrap();
    IkeInfo {
        initiator: true,
        path: Path { local: at("192.0.2.2:4500"), remote: SocketAddr::new(remote, 4500) },
        initiator_spi: 1,
        responder_spi: 2,
        suite: ChosenIke {
            encryption: IkeEncryption::AesGcm16(Bits::B256),
            integrity: None,
            prf: Hash::Sha384,
            group: KeGroup::X25519,
        },
        nat: Nat::default(),
        local_id: Identity::Fqdn("branch.example".into()),
        remote_id: Identity::Ipv4([198, 51, 100, 10].into()),
        fragmentation: true,
        mobike: true,
        began: true,
        additional_addresses: Vec::new(),
        established: now,
        rekey_at: now + Duration::from_secs(20_000),
    }
}

fn ike_up(tunnel: TunnelId, now: Instant) -> Event {
    Event::IkeUp { tunnel, info: ike_info([198, 51, 100, 10].into(), now) }
}

fn actions(gateway: &mut Gateway) -> Vec<Action> {
    std::iter::from_fn(|| gateway.poll_action()).collect()
}

#[test]
fn a_tunnel_that_comes_up_changes_the_routes_of_its_connection_only() {
    let now = Instant::now();
    let mut gateway = gateway("add", now);
    let first = actions(&mut gateway);
    let tables = first.iter().filter_map(|action| match action {
        Action::Outbound(OutboundCommand::SetRoutes(routes)) => Some(routes.len()),
        _ => None,
    });
    // The network behind the peer, and the inside address of each tunnel.
    assert_eq!(tables.collect::<Vec<_>>(), [3 * CONNECTIONS as usize]);
    let id = gateway.tunnel_id("vpn-7", 1).unwrap();
    gateway.take_event(child_up(id, now), now);
    gateway.pump(now);
    let mut changed = Vec::new();
    for action in actions(&mut gateway) {
        match action {
            Action::Outbound(OutboundCommand::ChangeRoutes(routes)) => changed.extend(routes),
            Action::Log(..) => {}
            other => panic!("{other:?}"),
        }
    }
    let route = changed.pop().unwrap();
    assert_eq!((route.prefix.to_string(), changed.len()), ("10.7.0.0/16".into(), 0));
    assert_eq!(route.target, RouteTarget::Tunnel(id));
}

#[test]
fn a_child_sa_that_goes_is_tried_again_by_the_side_that_begins() {
    for (startup, ike_left, tried) in
        [("start", false, true), ("start", true, true), ("add", false, false), ("add", true, false)]
    {
        let now = Instant::now();
        let mut gateway = gateway(startup, now);
        let id = gateway.tunnel_id("vpn-7", 1).unwrap();
        if ike_left {
            gateway.take_event(ike_up(id, now), now);
        }
        gateway.take_event(child_up(id, now), now);
        assert_eq!(gateway.tunnels.get(id).unwrap().retry_at, None);
        gateway.take_event(Event::ChildDown { tunnel: id, reason: DownReason::Expired }, now);
        gateway.pump(now);
        let retry_at = gateway.tunnels.get(id).unwrap().retry_at;
        assert_eq!(retry_at, tried.then_some(now + Duration::from_secs(1)));
        if let Some(at) = retry_at {
            assert!(gateway.poll_timeout() <= at, "and it is looked at by then");
        }
    }
}

/// An authenticated peer can be refused as fast as it can ask.
#[test]
fn a_peer_that_fails_without_end_does_not_fill_the_log() {
    let now = Instant::now();
    let mut gateway = gateway("add", now);
    let [noisy, other] = ["vpn-7", "vpn-8"].map(|c| gateway.tunnel_id(c, 1).unwrap());
    let failed = |tunnel| Event::Failed {
        tunnel: Some(tunnel),
        remote: "198.51.100.10:4500".parse().unwrap(),
        diagnosis: ike::Diagnosis::NoKey,
    };
    let lines = |gateway: &mut Gateway, name: &str| {
        let all = actions(gateway).into_iter().filter_map(|action| match action {
            Action::Log(_, line) if line.starts_with(name) => Some(line),
            _ => None,
        });
        all.collect::<Vec<_>>()
    };
    (0..1000).for_each(|_| gateway.take_event(failed(noisy), now));
    assert_eq!(lines(&mut gateway, "vpn-7").len(), 20);
    gateway.take_event(failed(other), now);
    assert_eq!(lines(&mut gateway, "vpn-8").len(), 1, "the log of others is not shorter for it");
    gateway.handle_timeout(now + TICK);
    gateway.take_event(failed(noisy), now + TICK);
    let later = lines(&mut gateway, "vpn-7");
    assert_eq!(later.len(), 2);
    assert!(later[0].ends_with(": 980 more lines were left out"), "{later:?}");
}

/// What makes the system learn a path MTU can be forged, so it concerns those at that address only.
#[test]
fn a_path_mtu_is_that_of_the_tunnels_at_the_address() {
    let now = Instant::now();
    let mut gateway = gateway("add", now);
    let ids = ["vpn-1", "vpn-2", "vpn-3"].map(|c| gateway.tunnel_id(c, 1).unwrap());
    let remotes = [[203, 0, 113, 1], [203, 0, 113, 2], [203, 0, 113, 2]].map(IpAddr::from);
    for (tunnel, remote) in ids.into_iter().zip(remotes) {
        gateway.take_event(Event::IkeUp { tunnel, info: ike_info(remote, now) }, now);
        gateway.take_event(child_up(tunnel, now), now);
    }
    gateway.pump(now);
    actions(&mut gateway);
    let path = ike_info(remotes[1], now).path;
    gateway.handle_path_mtu(path, 1400, now);
    let changed: Vec<(TunnelId, u16)> = actions(&mut gateway)
        .into_iter()
        .filter_map(|action| match action {
            Action::Outbound(OutboundCommand::SetLinkMtu { tunnel, mtu }) => Some((tunnel, mtu)),
            _ => None,
        })
        .collect();
    assert_eq!(changed, [(ids[1], 1400), (ids[2], 1400)]);
    // One that moved is found where it is now.
    let moved = ike_info([203, 0, 113, 9].into(), now).path;
    gateway.take_event(Event::PathChanged { tunnel: ids[1], path: moved }, now);
    gateway.pump(now);
    actions(&mut gateway);
    gateway.handle_path_mtu(moved, 1300, now);
    gateway.handle_path_mtu(path, 1350, now);
    let link = |id| gateway.tunnels.get(id).unwrap().prober.as_ref().unwrap().link_mtu();
    assert_eq!(ids.map(link), [1500, 1300, 1350]);
}
