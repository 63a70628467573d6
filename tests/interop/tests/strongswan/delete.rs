//! DELETE from each side: the other notices, and says why.

use anyhow::{Context, Result, ensure};
use interop::pair::{Begins, NAME, Pair, Plan};
use lab::daemon::Kind;

#[test]
fn charon_deletes_the_child_sa_and_then_the_ike_sa() -> Result<()> {
    let mut pair = Pair::up(&Plan::new(Kind::Vgw, Begins::Charon))?;
    pair.charon.terminate("child", NAME)?;
    let tunnel = pair.ours.await_tunnel(NAME, "DOWN", |t| !t.is_up())?;
    ensure!(tunnel.text("why") == "deleted by the peer", "{tunnel:?}");
    ensure!(!tunnel.text("ike_suite").is_empty(), "the IKE SA is still there: {tunnel:?}");
    ensure!(tunnel.text("esp_suite").is_empty(), "{tunnel:?}");
    pair.ours.await_line("vpn/tunnel 1: DOWN: deleted by the peer")?;
    pair.charon.initiate(NAME).with_context(|| pair.logs())?;
    pair.await_agreed()?;
    pair.traffic()?;
    pair.charon.terminate("ike", NAME)?;
    let tunnel = pair.ours.await_tunnel(NAME, "DOWN", |t| t.text("ike_suite").is_empty())?;
    ensure!(!tunnel.is_up() && tunnel.text("why") == "deleted by the peer", "{tunnel:?}");
    let downs =
        pair.ours.lines().iter().filter(|l| l.contains("DOWN: deleted by the peer")).count();
    ensure!(downs == 2, "{downs} lines");
    Ok(())
}

#[test]
fn we_delete_the_tunnel_and_let_it_come_up_again() -> Result<()> {
    let mut pair = Pair::up(&Plan::new(Kind::Agent, Begins::Ours))?;
    pair.ours.verb(NAME, "down")?;
    pair.charon.await_gone(NAME)?;
    pair.charon.await_line("received DELETE for IKE_SA vpn[1]")?;
    let tunnel = pair.ours.await_tunnel(NAME, "DOWN", |t| !t.is_up())?;
    ensure!(tunnel.text("why") == "taken down by us", "{tunnel:?}");
    pair.ours.await_line("vpn/tunnel 1: DOWN: taken down by us")?;
    pair.ours.verb(NAME, "up")?;
    pair.await_agreed().with_context(|| pair.logs())?;
    pair.traffic()
}

#[test]
fn a_daemon_that_stops_deletes_its_sas_at_charon() -> Result<()> {
    let mut pair = Pair::up(&Plan::new(Kind::Vgw, Begins::Charon))?;
    let status = pair.ours.daemon().stop()?.context("it ran")?;
    ensure!(status.success(), "{status}");
    pair.charon.await_gone(NAME)?;
    pair.charon.await_line("received DELETE for IKE_SA vpn[1]")
}
