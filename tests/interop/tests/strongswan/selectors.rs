//! Traffic selectors: IPv6 inside, and narrowing by either side.

use anyhow::{Context, Result, ensure};
use interop::connection::Connection;
use interop::pair::{Begins, Pair, Plan};
use interop::traffic::{both_ways, tcp_both_ways};
use interop::world::{OURS_INSIDE, OURS_INSIDE_V6, SWAN_INSIDE, SWAN_INSIDE_V6};
use lab::daemon::Kind;

/// Both sides say that these are the selectors of charon's side and of ours.
fn agreed(pair: &Pair, charons: &[&str], ours: &[&str]) -> Result<()> {
    let (sa, tunnel) = pair.await_agreed()?;
    let child = sa.installed().context("a Child SA")?;
    let sorted = |text: &str| {
        let mut all: Vec<String> =
            text.split([' ', ',']).filter(|s| !s.is_empty()).map(str::to_owned).collect();
        all.sort();
        all
    };
    for (what, seen, wanted) in [
        ("charon, its own", child.text("local-ts"), charons),
        ("charon, ours", child.text("remote-ts"), ours),
        ("ours, charon's", tunnel.text("remote_selectors"), charons),
        ("ours, our own", tunnel.text("local_selectors"), ours),
    ] {
        ensure!(sorted(seen) == sorted(&wanted.join(" ")), "{what}: {seen} and not {wanted:?}");
    }
    Ok(())
}

fn all_of_both_families(connection: &mut Connection) {
    connection.options =
        "local_ipv6_network_cidr = \"::/0\"\nremote_ipv6_network_cidr = \"::/0\"".into();
}

#[test]
fn ipv6_and_ipv4_inside_whoever_begins() -> Result<()> {
    for (kind, begins) in [(Kind::Vgw, Begins::Charon), (Kind::Agent, Begins::Ours)] {
        let plan = Plan::new(kind, begins).both(|connection| {
            all_of_both_families(connection);
            connection.peer_networks = "192.168.0.0/16, fd01::/64".into();
            connection.our_networks = "10.0.0.0/16, fd02::/64".into();
        });
        let pair = Pair::up(&plan)?;
        agreed(&pair, &["192.168.0.0/16", "fd01::/64"], &["10.0.0.0/16", "fd02::/64"])
            .with_context(|| pair.logs())?;
        pair.traffic()?;
        let (swan, ours) =
            (pair.world.swan_inner(SWAN_INSIDE_V6), pair.world.our_inner(OURS_INSIDE_V6));
        both_ways(swan, ours, 200_000).with_context(|| pair.logs())?;
    }
    Ok(())
}

#[test]
fn we_narrow_what_charon_offers() -> Result<()> {
    let mut plan = Plan::new(Kind::Vgw, Begins::Charon);
    plan.charon.peer_networks = "192.168.0.0/16".into();
    plan.charon.our_networks = "0.0.0.0/0".into();
    plan.ours.options = "local_ipv4_network_cidr = \"192.168.1.0/24\"\n\
                         remote_ipv4_network_cidr = \"10.0.0.0/16\""
        .into();
    let pair = Pair::up(&plan)?;
    agreed(&pair, &["192.168.1.0/24"], &["10.0.0.0/16"])?;
    pair.traffic()
}

#[test]
fn charon_narrows_what_we_offer() -> Result<()> {
    let mut plan = Plan::new(Kind::Agent, Begins::Ours);
    plan.charon.peer_networks = "192.168.1.0/24".into();
    plan.charon.our_networks = "10.0.1.0/24".into();
    let pair = Pair::up(&plan)?;
    agreed(&pair, &["192.168.1.0/24"], &["10.0.1.0/24"])?;
    pair.traffic()
}

#[test]
fn what_the_selectors_do_not_cover_is_not_carried() -> Result<()> {
    let mut plan = Plan::new(Kind::Agent, Begins::Ours);
    plan.charon.our_networks = "10.0.9.0/24".into();
    let pair = Pair::up(&plan)?;
    // The inner host 10.0.1.10 is outside of what was agreed.
    let (swan, ours) = (pair.world.swan_inner(SWAN_INSIDE), pair.world.our_inner(OURS_INSIDE));
    ensure!(both_ways(ours, swan, 1000).is_err(), "a packet outside of the selectors passed");
    let status = pair.ours.status()?;
    let drops = status["drops"].as_object().context("drops")?;
    ensure!(drops.keys().any(|reason| reason.contains("selector")), "{drops:?}");
    Ok(())
}

#[test]
fn selectors_with_a_protocol_let_nothing_else_pass() -> Result<()> {
    for (kind, begins) in [(Kind::Vgw, Begins::Charon), (Kind::Agent, Begins::Ours)] {
        let mut plan = Plan::new(kind, begins);
        plan.charon.peer_networks = "192.168.0.0/16[tcp]".into();
        plan.charon.our_networks = "10.0.0.0/16[tcp]".into();
        plan.ours.peer_networks = "192.168.0.0/16".into();
        let pair = Pair::up(&plan)?;
        let (sa, tunnel) = pair.await_agreed()?;
        let child = sa.installed().context("a Child SA")?;
        ensure!(child.text("local-ts") == "192.168.0.0/16[tcp]", "{sa:?}");
        ensure!(tunnel.text("remote_selectors").contains("[proto 6]"), "{tunnel:?}");
        let (swan, ours) = (pair.world.swan_inner(SWAN_INSIDE), pair.world.our_inner(OURS_INSIDE));
        tcp_both_ways(swan, ours, 100_000).with_context(|| pair.logs())?;
        ensure!(both_ways(ours, swan, 1000).is_err(), "a ping passed");
        let status = pair.ours.status()?;
        ensure!(status["drops"].to_string().contains("selector"), "{}", status["drops"]);
    }
    Ok(())
}
