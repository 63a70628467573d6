//! Addresses that change under a tunnel: a NAT that forgets, and MOBIKE (RFC 4555).

use anyhow::{Context, Result, ensure};
use interop::ours::Tunnel;
use interop::pair::{Begins, NAME, Pair, Plan};
use interop::traffic::plan as pings;
use interop::wait::{self, LIMIT};
use interop::world::{OURS, OURS_INSIDE, ROUTER, SWAN, SWAN_INSIDE, World};
use lab::daemon::Kind;
use lab::topology::{address, end};
use lab::traffic::ping;
use std::time::Duration;

/// Both sides ask often enough whether the other is there, because charon takes a new address from
/// IKE messages only.
fn a_nat_forgets(kind: Kind, begins: Begins) -> Result<()> {
    let world = World::new()?;
    let mut plan = Plan::new(kind, begins);
    plan.charon.swan = "dpd_delay = 1s".into();
    plan.ours.tunnel = "dpd_timeout_seconds = 9".into();
    match begins {
        Begins::Ours => {
            world.nat_before_ours()?;
            plan.charon.our_address = String::new();
        }
        Begins::Charon => {
            world.nat_before_swan()?;
            plan.ours.peer_address = String::new();
        }
    }
    let pair = Pair::start(world, &plan)?.connect()?;
    pair.traffic()?;
    let port = || -> Result<String> {
        let (sa, tunnel) = pair.await_agreed()?;
        Ok(match begins {
            Begins::Ours => sa.ike.text("remote-port").to_owned(),
            Begins::Charon => tunnel.text("peer").to_owned(),
        })
    };
    let ike = || -> Result<String> { Ok(pair.await_agreed()?.0.ike.text("initiator-spi").into()) };
    let (before, spi) = (port()?, ike()?);
    let pinging = pair.ping()?;
    pinging.more(10)?;
    pair.world.forget_nat(begins == Begins::Ours)?;
    wait::until("the new port", LIMIT, || {
        let now = port()?;
        Ok(if now != before { Ok(()) } else { Err(now) })
    })
    .with_context(|| pair.logs())?;
    pinging.more(50).with_context(|| pair.logs())?;
    println!("{kind:?} and charon, {begins:?} behind a NAT that forgot: {}", pinging.summary()?);
    // libipsec cannot move a Child SA to another address: charon rekeys it.
    ensure!(ike()? == spi, "another IKE SA than before:\n{}", pair.logs());
    pair.traffic()
}

#[test]
fn the_nat_before_charon_forgets_and_the_tunnel_stays() -> Result<()> {
    a_nat_forgets(Kind::Vgw, Begins::Charon)
}

#[test]
fn the_nat_before_us_forgets_and_the_tunnel_stays() -> Result<()> {
    a_nat_forgets(Kind::Agent, Begins::Ours)
}

/// charon loses the address that it began from and goes on from another one (RFC 4555): the same
/// IKE SA, and the tunnel is back as soon as charon has noticed.
#[test]
fn charon_moves_to_another_address() -> Result<()> {
    const OTHER: &str = "192.0.2.77";
    let mut plan = Plan::new(Kind::Vgw, Begins::Charon);
    (plan.charon.peer_address, plan.ours.peer_address) = (String::new(), String::new());
    plan.charon.swan = "mobike = yes".into();
    let pair = Pair::up(&plan)?;
    pair.traffic()?;
    let before = pair.await_agreed()?.0.ike.text("initiator-spi").to_owned();
    // From our side only: sockets of charon's host may stand still when it loses its address.
    let (ours, swan) = (pair.world.our_inner(OURS_INSIDE), pair.world.swan_inner(SWAN_INSIDE));
    let pinging = ping::start(ours.host, pings(ours, swan, None, 10))?;
    pair.world.swan.sysctl("net/ipv4/conf/wan/promote_secondaries", "1")?;
    address(end(&pair.world.swan, "wan"), format!("{OTHER}/24"))?;
    pair.world
        .swan
        .ip(&format!("address del {SWAN}/24 dev wan\nroute replace default via {}", ROUTER[0]))?;
    let moved = |tunnel: &Tunnel| tunnel.text("peer") == format!("{OTHER}:4500");
    pair.ours.await_tunnel(NAME, "at the new address", moved).with_context(|| pair.logs())?;
    let goal = pinging.answered() + 50;
    wait::until("answers from the new address", LIMIT, || {
        let now = pinging.answered();
        Ok(if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) })
    })
    .with_context(|| pair.logs())?;
    println!("charon moved: {}", interop::pair::summary(&pinging.stop()?));
    ensure!(
        pair.await_agreed()?.0.ike.text("initiator-spi") == before,
        "another IKE SA:\n{}",
        pair.logs()
    );
    pair.traffic()
}

/// Our agent loses the address that it began from and has another one at once. Returns the
/// initiator's IKE SPI before and after.
fn we_move(mobike: bool) -> Result<[String; 2]> {
    const OTHER: &str = "198.51.100.77";
    let mut plan = Plan::new(Kind::Agent, Begins::Ours);
    (plan.charon.our_address, plan.listen) = (String::new(), Default::default());
    plan.ours.options = format!("mobike = {mobike}");
    let pair = Pair::up(&plan)?;
    pair.traffic()?;
    let spi = |pair: &Pair| -> Result<String> {
        Ok(pair.await_agreed()?.0.ike.text("initiator-spi").to_owned())
    };
    let before = spi(&pair)?;
    let (ours, swan) = (pair.world.our_inner(OURS_INSIDE), pair.world.swan_inner(SWAN_INSIDE));
    let pinging = ping::start(ours.host, pings(ours, swan, None, 10))?;
    let answered = |more: u64| {
        let goal = pinging.answered() + more;
        wait::until("answers", LIMIT, || {
            let now = pinging.answered();
            Ok(if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) })
        })
        .with_context(|| pair.logs())
    };
    answered(20)?;
    pair.world.ours.sysctl("net/ipv4/conf/wan/promote_secondaries", "1")?;
    address(end(&pair.world.ours, "wan"), format!("{OTHER}/24"))?;
    let [first, second] = OURS;
    pair.world.ours.ip(&format!(
        "address del {second}/24 dev wan\naddress del {first}/24 dev wan\nroute replace default via {}",
        ROUTER[1]
    ))?;
    let moved = |tunnel: &Tunnel| tunnel.text("local") == format!("{OTHER}:4500");
    pair.ours.await_tunnel(NAME, "from the new address", moved).with_context(|| pair.logs())?;
    answered(50)?;
    let answers = pinging.stop()?;
    println!("we moved, mobike = {mobike}: {}", interop::pair::summary(&answers));
    ensure!(answers.longest_outage < Duration::from_secs(2), "{answers:?}\n{}", pair.logs());
    let sa = pair.await_agreed()?.0;
    ensure!(sa.ike.text("remote-host") == OTHER, "{sa:?}");
    let says = pair.charon.log().contains("peer supports MOBIKE");
    ensure!(says == mobike, "{}", pair.logs());
    pair.traffic()?;
    Ok([before, spi(&pair)?])
}

#[test]
fn we_move_to_another_address_and_keep_the_ike_sa() -> Result<()> {
    let [before, after] = we_move(true)?;
    ensure!(before == after, "another IKE SA: {before} {after}");
    Ok(())
}

#[test]
fn without_mobike_we_move_with_another_ike_sa() -> Result<()> {
    let [before, after] = we_move(false)?;
    ensure!(before != after, "the same IKE SA: {before}");
    Ok(())
}
