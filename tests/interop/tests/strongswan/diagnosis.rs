//! A tunnel with charon that cannot come up: the one line that says why, in log and status.

use anyhow::{Context, Result, ensure};
use interop::pair::{Begins, NAME, Pair, Plan};
use lab::daemon::Kind;

/// Starts both, lets one begin, and expects `line` in our status and log, and `charon` in its log.
fn fails(plan: &Plan, line: &str, charon: &str) -> Result<()> {
    let mut pair = Pair::start(interop::world::World::new()?, plan)?;
    if plan.begins == Begins::Charon {
        pair.charon.initiate_in_vain(NAME)?;
    }
    pair.ours
        .await_tunnel(NAME, &format!("DOWN with `{line}`"), |t| !t.is_up() && t.text("why") == line)
        .with_context(|| pair.logs())?;
    let logged = pair.ours.await_line(line).with_context(|| pair.logs())?;
    ensure!(logged.contains(&format!("WARN vpn/tunnel 1: {line}")), "{logged}");
    pair.charon.await_line(charon).with_context(|| pair.logs())
}

/// We answer, and charon begins with something that does not suit us.
fn charon_begins() -> Plan {
    Plan::new(Kind::Vgw, Begins::Charon)
}

/// We begin with something that does not suit charon.
fn we_begin() -> Plan {
    Plan::new(Kind::Agent, Begins::Ours)
}

#[test]
fn a_wrong_key_when_charon_begins() -> Result<()> {
    let mut plan = charon_begins();
    plan.charon.psk = "another.key_of_charon".into();
    fails(
        &plan,
        "pre-shared key: the peer's AUTH as swan.example does not match our key for it (we are ours.example)",
        "received AUTHENTICATION_FAILED notify error",
    )
}

#[test]
fn a_wrong_key_when_we_begin() -> Result<()> {
    let mut plan = we_begin();
    plan.charon.psk = "another.key_of_charon".into();
    fails(
        &plan,
        "pre-shared key or identity: the peer refuses us as ours.example, asked for as swan.example",
        "tried 1 shared key for 'swan.example' - 'ours.example', but MAC mismatched",
    )
}

#[test]
fn no_common_ike_proposal_when_charon_begins() -> Result<()> {
    let mut plan = charon_begins();
    plan.charon.ike = "aes128gcm16-prfsha256-ecp256".into();
    plan.ours.tunnel = "phase1_dh_group_numbers = [31, 20]".into();
    fails(
        &plan,
        "no common IKE proposal: key exchange group: they offer ECP_256, we accept CURVE_25519, ECP_384",
        "received NO_PROPOSAL_CHOSEN notify error",
    )
}

#[test]
fn no_common_ike_proposal_when_we_begin() -> Result<()> {
    let mut plan = we_begin();
    plan.charon.ike = "aes128gcm16-prfsha256-ecp256".into();
    plan.ours.tunnel = "phase1_encryption_algorithms = [\"AES256-GCM-16\"]\n\
                        phase1_integrity_algorithms = [\"SHA2-384\"]\n\
                        phase1_dh_group_numbers = [20]"
        .into();
    fails(
        &plan,
        "the peer accepts none of our IKE proposals: we offer AES_GCM_16-256 / PRF_HMAC_SHA2_384 / ECP_384, and it does not say what it accepts",
        "received proposals unacceptable",
    )
}

#[test]
fn no_common_esp_proposal_when_charon_begins() -> Result<()> {
    let mut plan = charon_begins();
    plan.charon.esp = "aes128gcm16".into();
    plan.ours.tunnel =
        "phase2_encryption_algorithms = [\"AES256-GCM-16\", \"CHACHA20-POLY1305\"]".into();
    fails(
        &plan,
        "no common ESP proposal: encryption: they offer AES_GCM_16-128, we accept AES_GCM_16-256, CHACHA20_POLY1305",
        "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built",
    )
}

#[test]
fn no_common_esp_proposal_when_we_begin() -> Result<()> {
    let mut plan = we_begin();
    plan.charon.esp = "aes128gcm16".into();
    plan.ours.tunnel = "phase2_encryption_algorithms = [\"AES256-GCM-16\"]\n\
                        phase2_dh_group_numbers = [31]\nesn = false"
        .into();
    fails(
        &plan,
        "the peer accepts none of our ESP proposals: we offer AES_GCM_16-256 / CURVE_25519 / NO_ESN, and it does not say what it accepts",
        "no acceptable proposal found",
    )
}

#[test]
fn an_unknown_identity_when_charon_begins() -> Result<()> {
    let mut plan = charon_begins();
    plan.charon.peer_id = "stranger.example".into();
    fails(
        &plan,
        "identity: the peer is stranger.example, we expect swan.example",
        "received AUTHENTICATION_FAILED notify error",
    )
}

#[test]
fn charon_asks_for_another_identity_than_ours() -> Result<()> {
    let mut plan = charon_begins();
    plan.charon.our_id = "somebody-else.example".into();
    fails(
        &plan,
        "identity: the peer asks for somebody-else.example, we are ours.example",
        "received AUTHENTICATION_FAILED notify error",
    )
}

#[test]
fn an_unknown_identity_when_we_begin() -> Result<()> {
    let mut plan = we_begin();
    plan.ours.our_id = "stranger.example".into();
    fails(
        &plan,
        "pre-shared key or identity: the peer refuses us as stranger.example, asked for as swan.example",
        "no matching peer config found",
    )
}

#[test]
fn selectors_without_overlap_when_charon_begins() -> Result<()> {
    let mut plan = charon_begins();
    plan.charon.peer_networks = "172.16.5.0/24".into();
    plan.ours.options = "local_ipv4_network_cidr = \"192.168.0.0/16\"".into();
    fails(
        &plan,
        "traffic selectors: they offer 10.0.0.0/16 for our side and 172.16.5.0/24 for theirs, we accept 0.0.0.0/0 and 192.168.0.0/16",
        "received TS_UNACCEPTABLE notify, no CHILD_SA built",
    )
}

#[test]
fn selectors_without_overlap_when_we_begin() -> Result<()> {
    let mut plan = we_begin();
    plan.ours.options = "local_ipv4_network_cidr = \"172.16.5.0/24\"".into();
    fails(
        &plan,
        "traffic selectors: the peer accepts none of ours: we offer 172.16.5.0/24 for our side and 0.0.0.0/0 for theirs",
        "traffic selectors 0.0.0.0/0 === 172.16.5.0/24 unacceptable",
    )
}
