//! Either side restarts, and the NAT between them forgets: traffic comes back by itself.

use anyhow::Result;
use interop::traffic::{Inner, plan};
use interop::wait;
use interop::wireguard::go::{At, Go};
use interop::wireguard::world::{self, Keys, Outside, World, is_up};
use lab::daemon::Kind;
use lab::nat;
use lab::topology::end;
use lab::traffic::ping;
use std::time::Duration;

/// A side that sends data and hears nothing tries a new handshake after 15 seconds, and again every
/// 5 to 6.
const PATIENCE: Duration = Duration::from_secs(40);

/// Pings until one is answered.
fn comes_back(from: Inner<'_>, to: Inner<'_>) -> Result<()> {
    wait::until("traffic again", PATIENCE, || {
        let once =
            ping::Plan { patience: Duration::from_millis(500), ..plan(from, to, Some(1), 1) };
        let answers = ping::run(from.host, once)?;
        Ok(if answers.received > 0 { Ok(()) } else { Err(format!("{answers:?}")) })
    })
}

#[test]
fn the_vgw_restarts_and_wireguard_go_restarts() -> Result<()> {
    let world = World::new(Outside { ipv6: false, nat: true })?;
    let keys = Keys::new(true)?;
    let mut vgw = world::daemon(&world, Kind::Vgw, &keys, "")?;
    let go = Go::start(&world, At::Site, &keys)?;
    is_up(&mut vgw)?;
    let (cloud, site) = world.inner(0)?;
    comes_back(site, cloud)?;

    vgw.stop()?;
    vgw.start()?;
    world::answers(&mut vgw)?;
    comes_back(site, cloud)?;
    world.carries_everything()?;

    go.kill()?;
    let _go = Go::start(&world, At::Site, &keys)?;
    comes_back(site, cloud)?;
    world.carries_everything()
}

#[test]
fn the_agent_restarts_and_wireguard_go_restarts_in_the_cloud() -> Result<()> {
    let world = World::new(Outside { ipv6: false, nat: true })?;
    let keys = Keys::new(false)?;
    let go = Go::start(&world, At::Cloud, &keys)?;
    let mut agent = world::daemon(&world, Kind::Agent, &keys, "persistent_keepalive = 3")?;
    is_up(&mut agent)?;
    let (cloud, site) = world.inner(0)?;
    comes_back(site, cloud)?;

    agent.stop()?;
    agent.start()?;
    world::answers(&mut agent)?;
    comes_back(site, cloud)?;
    world.carries_everything()?;

    go.kill()?;
    let _go = Go::start(&world, At::Cloud, &keys)?;
    comes_back(site, cloud)?;
    world.carries_everything()
}

/// The NAT gives the site another port. The VGW follows the first authenticated packet from there.
#[test]
fn the_vgw_follows_a_site_whose_nat_forgot_it() -> Result<()> {
    let world = World::new(Outside { ipv6: false, nat: true })?;
    let keys = Keys::new(true)?;
    let mut vgw = world::daemon(&world, Kind::Vgw, &keys, "")?;
    let _go = Go::start(&world, At::Site, &keys)?;
    is_up(&mut vgw)?;
    let (cloud, site) = world.inner(0)?;
    comes_back(cloud, site)?;
    let before = world::status(&vgw, "peer")?;
    nat::forget(end(&world.router, "cloud"), world.cloud_address())?;
    // Only the site can tell where it is; its keepalive comes every three seconds.
    comes_back(cloud, site)?;
    let after = world::status(&vgw, "peer")?;
    assert_ne!(before, after);
    world.carries_everything()
}
