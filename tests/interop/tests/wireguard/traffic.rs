//! Every combination of roles, families, NAT and pre-shared key carries everything; and rekeys by
//! either side lose nothing.

use anyhow::{Result, ensure};
use interop::traffic::plan;
use interop::wireguard::go::{At, Go};
use interop::wireguard::world::{self, Keys, Outside, World, is_up, status};
use lab::daemon::Kind;
use lab::traffic::ping;
use std::net::SocketAddr;
use std::time::Duration;

fn wireguard_go_at_the_site(outside: Outside, preshared: bool) -> Result<()> {
    let world = World::new(outside)?;
    let keys = Keys::new(preshared)?;
    let mut vgw = world::daemon(&world, Kind::Vgw, &keys, "")?;
    let go = Go::start(&world, At::Site, &keys)?;
    is_up(&mut vgw)?;
    world.carries_everything()?;
    let peer: SocketAddr = status(&vgw, "peer")?.as_str().unwrap_or_default().parse()?;
    assert_eq!(peer.ip(), world.site_seen());
    assert_eq!(status(&vgw, "mtu")?, if outside.ipv6 { 1420 } else { 1440 });
    ensure!(go.last_handshake()? > 0);
    Ok(())
}

fn wireguard_go_in_the_cloud(outside: Outside, preshared: bool) -> Result<()> {
    let world = World::new(outside)?;
    let keys = Keys::new(preshared)?;
    let go = Go::start(&world, At::Cloud, &keys)?;
    let mut agent = world::daemon(&world, Kind::Agent, &keys, "persistent_keepalive = 3")?;
    is_up(&mut agent)?;
    world.carries_everything()?;
    ensure!(go.last_handshake()? > 0);
    Ok(())
}

#[test]
fn wireguard_go_begins_behind_a_nat_with_a_preshared_key() -> Result<()> {
    wireguard_go_at_the_site(Outside { ipv6: false, nat: true }, true)
}

#[test]
fn wireguard_go_begins_over_ipv6_without_a_preshared_key() -> Result<()> {
    wireguard_go_at_the_site(Outside { ipv6: true, nat: false }, false)
}

#[test]
fn we_begin_behind_a_nat_without_a_preshared_key() -> Result<()> {
    wireguard_go_in_the_cloud(Outside { ipv6: false, nat: true }, false)
}

#[test]
fn we_begin_over_ipv6_with_a_preshared_key() -> Result<()> {
    wireguard_go_in_the_cloud(Outside { ipv6: true, nat: false }, true)
}

#[test]
fn a_wrong_preshared_key_makes_no_session_and_we_say_so() -> Result<()> {
    let world = World::new(Outside { ipv6: false, nat: false })?;
    let keys = Keys::new(true)?;
    let others = Keys { preshared: Keys::new(true)?.preshared, ..Keys::new(false)? };
    let wrong = Keys { cloud: keys.cloud.clone(), site: keys.site.clone(), ..others };
    let _go = Go::start(&world, At::Cloud, &wrong)?;
    let agent = world::daemon(&world, Kind::Agent, &keys, "persistent_keepalive = 3")?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(status(&agent, "state")?, "DOWN");
    let why = status(&agent, "why")?;
    let why = why.as_str().unwrap_or_default();
    ensure!(why.starts_with("no handshake yet: ") && why.contains("pre-shared key"), "{why}");
    Ok(())
}

/// We begin the sessions, and replace them every five seconds.
#[test]
fn rekeys_that_we_begin_lose_nothing() -> Result<()> {
    let world = World::new(Outside { ipv6: false, nat: true })?;
    let keys = Keys::new(true)?;
    let go = Go::start(&world, At::Cloud, &keys)?;
    let mut agent = world::daemon(&world, Kind::Agent, &keys, "rekey_after_seconds = 5")?;
    is_up(&mut agent)?;
    let first = go.last_handshake()?;
    let (cloud, site) = world.inner(0)?;
    let out = ping::start(site.host, plan(site, cloud, Some(800), 20))?;
    let back = ping::run(cloud.host, plan(cloud, site, Some(800), 20))?;
    let out = out.stop()?;
    ensure!(back.lost() == 0 && back.duplicates == 0, "{back:?}");
    ensure!(out.lost() == 0 && out.duplicates == 0, "{out:?}");
    ensure!(go.last_handshake()? >= first + 10, "16 s of traffic are three rekeys");
    Ok(())
}

/// wireguard-go begins the session, and both sides want a new one again and again while data
/// passes: wireguard-go because its own is replaced under it, we because a user says so.
#[test]
fn rekeys_against_the_roles_lose_nothing() -> Result<()> {
    let world = World::new(Outside { ipv6: false, nat: true })?;
    let keys = Keys::new(false)?;
    let mut vgw = world::daemon(&world, Kind::Vgw, &keys, "")?;
    let go = Go::start(&world, At::Site, &keys)?;
    is_up(&mut vgw)?;
    let (cloud, site) = world.inner(0)?;
    let pinging = ping::start(site.host, plan(site, cloud, None, 10))?;
    let mut last = go.last_handshake()?;
    for _ in 0..4 {
        // Handshakes count in whole seconds there, and the time of an initiation must grow.
        std::thread::sleep(Duration::from_millis(1200));
        vgw.tunnel("wg", 1, "rekey-child")?;
        std::thread::sleep(Duration::from_millis(300));
        let now = go.last_handshake()?;
        ensure!(now > last, "no new handshake: {now}");
        last = now;
    }
    let answers = pinging.stop()?;
    ensure!(answers.lost() == 0 && answers.duplicates == 0, "{answers:?}");
    Ok(())
}
