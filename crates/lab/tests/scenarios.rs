//! Every scenario that the project ships is one that the lab takes.

#![allow(clippy::unwrap_used)] // A panic here is the report.

use lab::layout::Layout;
use lab::scenario::Scenario;
use lab::settings;
use lab::steps::both_ways;
use lab::traffic::ping::{self, Plan};
use lab::world::World;
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

fn shipped() -> Vec<(String, Scenario)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/lab");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let tomls = files.filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    tomls
        .map(|path| {
            (path.display().to_string(), Scenario::load(&path).unwrap_or_else(|e| panic!("{e}")))
        })
        .collect()
}

#[test]
fn every_shipped_scenario_parses_and_says_what_it_is_about() {
    let all = shipped();
    assert!(
        all.iter().any(|(name, _)| name.ends_with("/nat.toml")),
        "the default scenario is there"
    );
    for (name, scenario) in &all {
        assert!(!scenario.description.is_empty(), "{name}");
        assert!(!scenario.test.steps.is_empty(), "{name}");
    }
    let seeds: BTreeSet<u64> = all.iter().map(|(_, scenario)| scenario.seed).collect();
    assert_eq!(seeds.len(), all.len(), "each has a seed of its own");
}

#[test]
fn both_sides_get_the_same_keys_and_each_tunnel_another_one() {
    for (name, scenario) in shipped() {
        let layout = Layout::new(&scenario);
        let secrets = |files: Vec<settings::File>| -> Vec<(String, String)> {
            files
                .into_iter()
                .filter(|file| file.secret)
                .map(|file| (file.path, file.text))
                .collect()
        };
        let vgw = secrets(settings::vgw(&scenario, &layout));
        let agents: Vec<_> = (0..scenario.sites.len())
            .flat_map(|index| secrets(settings::agent(&scenario, &layout, index)))
            .collect();
        // A private key of WireGuard stays on its side; everything else is known to both.
        let private = |(path, _): &(String, String)| path.ends_with("/wg.key");
        let (vgw_own, vgw): (Vec<_>, Vec<_>) = vgw.into_iter().partition(private);
        let (agents_own, agents): (Vec<_>, Vec<_>) = agents.into_iter().partition(private);
        assert_eq!(vgw, agents, "{name}");
        let different: BTreeSet<_> = vgw.iter().map(|(_, key)| key).collect();
        let wireguard = agents_own.len();
        assert_eq!(different.len(), 2 * scenario.sites.len() - wireguard, "{name}");
        let own: BTreeSet<_> = vgw_own.iter().chain(&agents_own).map(|(_, key)| key).collect();
        assert_eq!(own.len(), wireguard + usize::from(wireguard > 0), "{name}");
    }
}

#[test]
fn no_two_interfaces_of_a_scenario_share_an_address() {
    for (name, scenario) in shipped() {
        let layout = Layout::new(&scenario);
        let mut all = Vec::new();
        all.extend(layout.vgw);
        if layout.vgw != layout.outside {
            all.extend(layout.outside);
        }
        for place in layout.sites.iter().map(|site| &site.place).chain([&layout.vpc]) {
            all.extend(place.gateway.iter().map(ipnet::IpNet::addr));
            all.extend(
                place
                    .hosts
                    .iter()
                    .flat_map(|host| host.addresses.iter().chain([&host.plain]))
                    .map(|n| n.addr()),
            );
            all.push(lab::layout::nth(&place.line, 1));
            all.extend(place.behind_nat.map(|_| place.next_hop()));
        }
        for site in &layout.sites {
            all.push(site.public);
            if site.cgw != site.public {
                all.push(site.cgw);
            }
        }
        let different: BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{name}: {all:?}");
    }
}

/// Builds each one; needs root. The hosts' second addresses reach each other past any tunnel, their
/// first ones do not, and the customer gateway reaches both outside addresses on UDP 4500.
#[test]
fn every_shipped_scenario_builds_and_routes_what_it_should_without_a_vpn() {
    for (name, scenario) in shipped() {
        let layout = Layout::new(&scenario);
        let world =
            World::build(&scenario, &layout).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (site, addresses) in world.sites.iter().zip(&layout.sites) {
            for way in both_ways(&site.hosts[0], &world.vpc.hosts[0]) {
                let plain = way.plain();
                let plan =
                    Plan { source: Some(plain.source), count: Some(5), ..Plan::new(plain.target) };
                assert!(
                    ping::run(&way.from.host, plan).unwrap().received > 0,
                    "{name}: {}",
                    way.name
                );
                let patience = Duration::from_millis(50);
                let plan = Plan {
                    source: Some(way.source),
                    count: Some(2),
                    patience,
                    ..Plan::new(way.target)
                };
                assert_eq!(
                    ping::run(&way.from.host, plan).unwrap().received,
                    0,
                    "{name}: {}",
                    way.name
                );
            }
            for (outside, own) in layout.outside.into_iter().zip(layout.vgw) {
                let server = world.vpc.gateway.run(move || UdpSocket::bind((own, 4500))).unwrap();
                server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                let cgw = addresses.cgw;
                let client = site.gateway.run(move || UdpSocket::bind((cgw, 4500))).unwrap();
                // The line may lose some.
                let arrived = (0..5).find_map(|_| {
                    client.send_to(b"hello", (outside, 4500)).unwrap();
                    server.recv_from(&mut [0; 16]).ok()
                });
                let from = arrived.unwrap_or_else(|| panic!("{name}: {outside} is not reached")).1;
                assert_eq!(from.ip(), addresses.public, "{name}");
            }
        }
    }
}
