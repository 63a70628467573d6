//! Two tunnels to one charon, both sides that begin at the same moment, and a charon without its
//! plugins.

use anyhow::{Context, Result, ensure};
use interop::charon::Charon;
use interop::connection::Connection;
use interop::ours::{SECOND_ID, SECOND_KEY};
use interop::pair::{Begins, NAME, Pair, Plan};
use interop::world::{OURS, World};
use lab::daemon::Kind;
use std::time::Duration;

/// charon as AWS's customer gateways have it: a connection to each of our outside addresses.
#[test]
fn the_other_tunnel_takes_over_when_charon_closes_the_first() -> Result<()> {
    let plan = Plan::new(Kind::Vgw, Begins::Charon);
    let pair = Pair::start(World::new()?, &plan)?;
    let second = Connection {
        name: "second".into(),
        our_address: OURS[1].into(),
        our_id: SECOND_ID.into(),
        psk: SECOND_KEY.into(),
        ..plan.charon.clone()
    };
    pair.charon.load(&[plan.charon.clone(), second])?;
    pair.charon.initiate(NAME)?;
    pair.charon.initiate("second")?;
    pair.ours.await_active(NAME, 1, true).with_context(|| pair.logs())?;
    let pinging = pair.ping()?;
    pinging.more(20)?;
    pair.charon.terminate("ike", NAME)?;
    pair.ours.await_active(NAME, 2, false).with_context(|| pair.logs())?;
    pinging.more(50)?;
    println!("charon closed tunnel 1: {}", pinging.summary()?);
    pair.traffic()?;
    pair.charon.initiate(NAME)?;
    pair.ours.await_active(NAME, 1, true).with_context(|| pair.logs())?;
    pair.traffic()
}

/// charon deletes the older of two IKE SAs with the same identities, or none: either way one pair
/// of SAs is left that both sides use.
#[test]
fn both_begin_at_the_same_moment_and_one_pair_of_sas_is_left() -> Result<()> {
    for unique in ["replace", "never"] {
        let mut plan = Plan::new(Kind::Vgw, Begins::Charon);
        plan.charon.swan = format!("unique = {unique}");
        let pair = Pair::start(World::with_delay(Duration::from_millis(25))?, &plan)?;
        for round in 0..3 {
            let story = || format!("unique = {unique}, round {round}:\n{}", pair.logs());
            std::thread::scope(|scope| -> Result<()> {
                // It may be told that its IKE SA went in favour of ours.
                let charons = scope.spawn(|| pair.charon.initiate(NAME));
                pair.ours.verb(NAME, "up")?;
                ensure!(charons.join().is_ok(), "initiating panicked");
                Ok(())
            })?;
            pair.await_agreed().with_context(story)?;
            pair.traffic().with_context(story)?;
            pair.ours.verb(NAME, "down")?;
            pair.charon.await_gone(NAME).with_context(story)?;
        }
    }
    Ok(())
}

#[test]
fn a_charon_without_libipsec_is_named_with_its_packages() -> Result<()> {
    let world = World::new()?;
    let error = Charon::start(
        &world.swan,
        "load = random no-such-plugin kernel-netlink socket-default vici",
    )
    .err()
    .context("it started")?
    .to_string();
    ensure!(
        error.contains("libcharon-extra-plugins") && error.contains("no-such-plugin"),
        "{error}"
    );
    Ok(())
}
