//! What charon's libipsec cannot do, whoever is its peer: shown, so that it is not ours.

use anyhow::{Context, Result, ensure};
use interop::charon::Charon;
use interop::connection::Connection;
use interop::pair::{Begins, NAME, Pair, Plan};
use interop::world::{OURS, SWAN, World};
use lab::daemon::Kind;

const NO_ESN: &str = "IPsec SA: ESN not supported";

/// The suites of interop.md's list, with extended sequence numbers.
const SUITES: [&str; 4] =
    ["aes128gcm16-esn", "aes256gcm16-esn", "chacha20poly1305-esn", "aes256-sha256-esn"];

#[test]
fn charon_to_charon_has_no_extended_sequence_numbers() -> Result<()> {
    let world = World::new()?;
    for (number, suite) in SUITES.into_iter().enumerate() {
        let mut one = Connection::new(&format!("{NAME}{number}"), SWAN, OURS[0]);
        one.esp = suite.into();
        let mut other = one.clone();
        (other.peer_address, other.our_address) =
            (one.our_address.clone(), one.peer_address.clone());
        (other.peer_id, other.our_id) = (one.our_id.clone(), one.peer_id.clone());
        (other.peer_networks, other.our_networks) =
            (one.our_networks.clone(), one.peer_networks.clone());
        let answering = Charon::with(&world.ours, "", &[other])?;
        let charon = Charon::with(&world.swan, "", std::slice::from_ref(&one))?;
        charon.initiate_in_vain(&one.name)?;
        let log = charon.log() + &answering.log();
        ensure!(log.contains(NO_ESN), "{suite}: {log}");
    }
    Ok(())
}

#[test]
fn with_us_extended_sequence_numbers_are_agreed_and_charon_cannot_install_them() -> Result<()> {
    for suite in SUITES {
        let plan = Plan::new(Kind::Vgw, Begins::Charon).both(|c| c.esp = suite.into());
        let mut pair = Pair::start(World::new()?, &plan)?;
        pair.charon.initiate_in_vain(NAME)?;
        pair.charon.await_line(NO_ESN)?;
        // We agreed, and came up until charon took it back.
        let line = pair.ours.await_line("vpn/tunnel 1: UP: ").with_context(|| pair.logs())?;
        let log = pair.charon.log();
        ensure!(log.contains("/EXT_SEQ"), "{line}\n{log}");
        let down = pair.ours.await_tunnel(NAME, "DOWN", |t| !t.is_up())?;
        ensure!(down.text("why") == "deleted by the peer", "{down:?}");
    }
    Ok(())
}
