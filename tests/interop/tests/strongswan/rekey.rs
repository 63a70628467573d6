//! Rekeys that either side starts, with a ping every 10 ms each way, and none lost.

use anyhow::{Context, Result, ensure};
use interop::pair::{Begins, NAME, Pair, Plan};
use interop::wait::{self, LIMIT};
use interop::world::World;
use lab::daemon::Kind;
use std::time::Duration;

/// Rekeys of each kind by each side.
const ROUNDS: usize = 2;

/// The SPIs that a rekey changes: ours and charon's of the Child SA, both of the IKE SA.
#[derive(Clone, Debug, PartialEq)]
struct Spis {
    child: [String; 2],
    ike: [String; 2],
}

fn spis(pair: &Pair) -> Result<Spis> {
    let (sa, tunnel) = pair.await_agreed()?;
    let text = |key: &str| sa.ike.text(key).to_owned();
    Ok(Spis {
        child: [tunnel.text("spi_in").into(), tunnel.text("spi_out").into()],
        ike: [text("initiator-spi"), text("responder-spi")],
    })
}

fn rekeys(kind: Kind, begins: Begins) -> Result<()> {
    let pair = Pair::up(&Plan::new(kind, begins))?;
    pair.traffic()?;
    let pinging = pair.ping()?;
    let mut before = spis(&pair)?;
    for round in 0..ROUNDS * 4 {
        pinging.more(20)?;
        let child = round % 2 == 0;
        let (what, verb) = if child { ("child", "rekey-child") } else { ("ike", "rekey-ike") };
        let (who, done) = if round % 4 < 2 {
            ("charon", pair.charon.rekey(what, NAME))
        } else {
            ("ours", pair.ours.verb(NAME, verb))
        };
        done?;
        let story = format!("{who} rekeyed the {what}");
        let after = wait::until(&story, LIMIT, || {
            let after = spis(&pair)?;
            let changed =
                |old: &[String; 2], new: &[String; 2]| old[0] != new[0] && old[1] != new[1];
            let (child_new, ike_new) =
                (changed(&before.child, &after.child), changed(&before.ike, &after.ike));
            Ok(if child_new == child && ike_new != child {
                Ok(after)
            } else {
                Err(format!("{before:?} to {after:?}"))
            })
        });
        before = after.with_context(|| pair.logs())?;
    }
    // Longer than either side keeps what a rekey replaced.
    pinging.more(650)?;
    let sent = pinging.none_lost().with_context(|| pair.logs())?;
    ensure!(sent > 1000, "only {sent} pings");
    let (sa, _) = pair.await_agreed()?;
    ensure!(sa.children().len() == 1, "Child SAs that nobody removed: {sa:?}");
    let status = pair.ours.status()?;
    ensure!(status["drops"].as_object().is_some_and(|d| d.is_empty()), "{}", status["drops"]);
    pair.traffic()
}

#[test]
fn vgw_and_charon_rekey_what_charon_began_and_no_ping_is_lost() -> Result<()> {
    rekeys(Kind::Vgw, Begins::Charon)
}

#[test]
fn the_agent_and_charon_rekey_what_the_agent_began_and_no_ping_is_lost() -> Result<()> {
    rekeys(Kind::Agent, Begins::Ours)
}

/// charon authenticates anew every few seconds, with the new IKE SA beside the old one. Our answer
/// ends the old one; what was under way on it still arrives.
#[test]
fn charon_authenticates_anew_and_no_ping_is_lost() -> Result<()> {
    let mut plan = Plan::new(Kind::Vgw, Begins::Charon);
    plan.charon_settings = "make_before_break = yes".into();
    plan.charon.swan = "reauth_time = 4s\nrekey_time = 0\nrand_time = 0\nover_time = 60s".into();
    let pair = Pair::start(World::with_delay(Duration::from_millis(25))?, &plan)?.connect()?;
    let pinging = pair.ping()?;
    let mut seen = vec![spis(&pair)?];
    let story = "three authentications more";
    wait::until(story, LIMIT, || {
        let now = spis(&pair)?;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        Ok(if seen.len() > 3 { Ok(()) } else { Err(format!("{seen:?}")) })
    })
    .with_context(|| pair.logs())?;
    pinging.more(50)?;
    pinging.none_lost().with_context(|| pair.logs())?;
    pair.traffic()
}
