//! NAT on either side, both starting ports, IPv6 outside, and IKE fragments.

use anyhow::{Context, Result, ensure};
use interop::pair::{Begins, NAME, Pair, Plan};
use interop::traffic::tcp_both_ways;
use interop::world::{OURS, OURS_INSIDE, OURS_V6, ROUTER, SWAN_INSIDE, SWAN_V6, World};
use lab::capture::{Capture, Seen};
use lab::daemon::Kind;
use std::time::Duration;

/// What a capture between the two saw, after traffic: nothing but UDP 4500, no octet in clear.
fn only_esp_in_udp(seen: &Seen) -> Result<()> {
    ensure!(seen.kinds.get("UDP 4500").is_some_and(|frames| *frames > 200), "{seen:?}");
    let others = seen.others(&[4500]);
    ensure!(others.is_empty(), "something else passed: {others:?}");
    ensure!(seen.marked == 0, "in clear: {:?}", seen.first_marked);
    Ok(())
}

/// Rekeys and traffic from both sides, as a NAT must let pass.
fn everything(pair: &Pair) -> Result<()> {
    pair.traffic()?;
    for (what, verb) in [("child", "rekey-child"), ("ike", "rekey-ike")] {
        let pinging = pair.ping()?;
        pinging.more(5)?;
        let ours = pair.await_agreed()?.1;
        pair.charon.rekey(what, NAME)?;
        pinging.more(50)?;
        pair.await_agreed()?;
        pair.ours.verb(NAME, verb)?;
        pinging.more(50)?;
        let (_, after) = pair.await_agreed()?;
        ensure!(what == "ike" || ours.text("spi_in") != after.text("spi_in"), "no rekey");
        pinging.none_lost().with_context(|| pair.logs())?;
    }
    pair.traffic()
}

#[test]
fn we_are_behind_a_nat() -> Result<()> {
    let world = World::new()?;
    world.nat_before_ours()?;
    let mut plan = Plan::new(Kind::Agent, Begins::Ours);
    plan.charon.our_address = String::new();
    let capture = Capture::start(&world.router, &[4500], &[])?;
    let pair = Pair::start(world, &plan)?.connect()?;
    everything(&pair)?;
    let (sa, tunnel) = pair.await_agreed()?;
    ensure!(sa.ike.text("remote-host") == ROUTER[0], "{sa:?}");
    ensure!(sa.ike.text("remote-port") != "4500", "the NAT chose the port: {sa:?}");
    ensure!(sa.ike.text("nat-remote") == "yes", "{sa:?}");
    // charon's `encap = yes` makes it look as if it were behind one, too.
    ensure!(tunnel.text("nat") == "both", "{tunnel:?}");
    only_esp_in_udp(&capture.stop()?)
}

#[test]
fn charon_is_behind_a_nat() -> Result<()> {
    let world = World::new()?;
    world.nat_before_swan()?;
    let mut plan = Plan::new(Kind::Vgw, Begins::Charon);
    plan.ours.peer_address = String::new();
    let capture = Capture::start(&world.router, &[4500], &[])?;
    let pair = Pair::start(world, &plan)?.connect()?;
    everything(&pair)?;
    let (sa, tunnel) = pair.await_agreed()?;
    let (address, port) = tunnel.text("peer").rsplit_once(':').unwrap_or_default();
    ensure!(address == ROUTER[1] && port != "4500", "{tunnel:?}");
    ensure!(tunnel.text("nat") == "remote", "{tunnel:?}");
    ensure!(sa.ike.text("nat-local") == "yes", "{sa:?}");
    only_esp_in_udp(&capture.stop()?)
}

/// The first message goes from and to `port`; all later ones, and ESP, from and to 4500.
fn starts_on(port: u16, kind: Kind, begins: Begins) -> Result<()> {
    let mut plan = Plan::new(kind, begins).both(|connection| connection.our_port = port);
    plan.ours.tunnel = format!("remote_port = {port}");
    let pair = Pair::up(&plan)?;
    pair.traffic()?;
    let (sa, tunnel) = pair.await_agreed()?;
    ensure!((sa.ike.text("local-port"), sa.ike.text("remote-port")) == ("4500", "4500"), "{sa:?}");
    ensure!(
        tunnel.text("local").ends_with(":4500") && tunnel.text("peer").ends_with(":4500"),
        "{tunnel:?}"
    );
    let log = pair.charon.log();
    let packets =
        log.lines().filter(|line| line.contains("[NET]") && line.contains(" packet: from "));
    let ports: Vec<bool> =
        packets.map(|line| line.matches(&format!("[{port}]")).count() == 2).collect();
    // The first exchange, and for 4500 all of them.
    let expected = ports.iter().enumerate().all(|(i, on)| *on == (port == 4500 || i < 2));
    ensure!(expected && ports.len() >= 4, "{log}");
    Ok(())
}

#[test]
fn charon_starts_on_port_500_and_floats() -> Result<()> {
    starts_on(500, Kind::Vgw, Begins::Charon)
}

#[test]
fn charon_starts_on_port_4500() -> Result<()> {
    starts_on(4500, Kind::Vgw, Begins::Charon)
}

#[test]
fn we_start_on_port_500_and_float() -> Result<()> {
    starts_on(500, Kind::Agent, Begins::Ours)
}

#[test]
fn we_start_on_port_4500() -> Result<()> {
    starts_on(4500, Kind::Agent, Begins::Ours)
}

#[test]
fn ipv6_outside_whoever_begins() -> Result<()> {
    for (kind, begins) in [(Kind::Vgw, Begins::Charon), (Kind::Agent, Begins::Ours)] {
        let mut plan = Plan::new(kind, begins).both(|connection| {
            connection.peer_address = SWAN_V6.into();
            connection.our_address = OURS_V6[0].into();
        });
        plan.listen = OURS_V6.map(str::to_owned);
        if kind == Kind::Agent {
            // The address of tunnel 2 is an IPv4 one, and nobody asks for it.
            plan.listen[1] = OURS[1].into();
        }
        let pair = Pair::up(&plan)?;
        pair.traffic()?;
        let (sa, tunnel) = pair.await_agreed()?;
        ensure!(sa.ike.text("remote-host") == OURS_V6[0], "{sa:?}");
        ensure!(tunnel.text("peer") == format!("[{SWAN_V6}]:4500"), "{tunnel:?}");
        everything(&pair)?;
    }
    Ok(())
}

#[test]
fn both_sides_cut_ike_messages_into_fragments() -> Result<()> {
    for (kind, begins) in [(Kind::Vgw, Begins::Charon), (Kind::Agent, Begins::Ours)] {
        // Identities that make IKE_AUTH larger than what either side sends in one piece, and a
        // group that does the same for the rekey of the IKE SA.
        let mut plan = Plan::new(kind, begins).both(|connection| {
            connection.peer_id = format!("{}.example", "swan".repeat(60));
            connection.our_id = format!("{}.example", "ours".repeat(60));
            connection.ike = "aes256gcm16-prfsha384-modp4096".into();
        });
        plan.charon_settings = "fragment_size = 300".into();
        plan.our_settings = "link_mtu = 576".into();
        let pair = Pair::up(&plan)?;
        everything(&pair)?;
        for line in [
            "splitting IKE message",
            "received fragment #1 of",
            "reassembled fragmented IKE message",
        ] {
            pair.charon.await_line(line).with_context(|| pair.logs())?;
        }
    }
    Ok(())
}

/// charon's device takes 1400 octets whatever the path takes, so its outer packets are too large
/// here: we clamp the MSS of both directions, and TCP has no black hole.
#[test]
fn large_transfers_over_a_path_with_an_mtu_of_1400() -> Result<()> {
    for (kind, begins) in [(Kind::Vgw, Begins::Charon), (Kind::Agent, Begins::Ours)] {
        let mut plan = Plan::new(kind, begins);
        plan.our_settings = "link_mtu = 1400".into();
        let pair = Pair::start(World::with(1400, Duration::ZERO)?, &plan)?.connect()?;
        let (_, tunnel) = pair.await_agreed()?;
        ensure!(tunnel.number("mtu") == 1338, "{tunnel:?}");
        let (swan, ours) = (pair.world.swan_inner(SWAN_INSIDE), pair.world.our_inner(OURS_INSIDE));
        tcp_both_ways(swan, ours, 4_000_000).with_context(|| pair.logs())?;
    }
    Ok(())
}
