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

/// A tunnel has one Child SA: charon's second one for other networks is refused, with the reason in
/// our log, and the first one goes on. One that carries at least as much may take its place.
#[test]
fn a_second_child_sa_for_other_networks_is_refused_and_the_first_stays() -> Result<()> {
    let plan = Plan::new(Kind::Vgw, Begins::Charon);
    let pair = Pair::start(World::new()?, &plan)?;
    let child = |name: &str, ours: &str| {
        format!(
            "}}\n{name} {{\n  local_ts = 192.168.0.0/16\n  remote_ts = {ours}\n  \
             esp_proposals = aes256gcm16-x25519"
        )
    };
    let mut connection = plan.charon.clone();
    connection.swan_child = child("other", "10.9.0.0/16") + "\n" + &child("wider", "10.0.0.0/8");
    pair.charon.load(&[connection])?;
    let mut pair = pair.connect()?;
    let pinging = pair.ping()?;
    let before = pair.await_agreed()?.1;
    pair.charon.initiate_in_vain("other")?;
    pair.charon.await_line("received NO_ADDITIONAL_SAS notify")?;
    pair.ours
        .await_line(
            "vpn/tunnel 1: the peer wants a second Child SA, 10.9.0.0/16 === 192.168.0.0/16, and a \
             tunnel has one, 10.0.0.0/16 === 192.168.0.0/16: put all networks into one",
        )
        .with_context(|| pair.logs())?;
    let after = pair.await_agreed()?.1;
    ensure!(before.text("spi_in") == after.text("spi_in"), "{after:?}");
    pair.charon.initiate("wider")?;
    // We delete the one that it replaced, for charon's next request shows that it has the new one.
    pair.charon.initiate_in_vain("other")?;
    let (sa, tunnel) = interop::wait::until("the wider one alone", interop::wait::LIMIT, || {
        let (sa, tunnel) = (pair.charon.await_established(NAME)?, pair.ours.tunnel(NAME)?);
        let done = sa.children().len() == 1 && tunnel.text("local_selectors") == "10.0.0.0/8";
        Ok(if done { Ok((sa, tunnel)) } else { Err(format!("{sa:?} {tunnel:?}")) })
    })?;
    ensure!(sa.children()[0].text("name") == "wider" && tunnel.is_up(), "{sa:?} {tunnel:?}");
    pinging.none_lost().with_context(|| pair.logs())?;
    pair.traffic()
}
