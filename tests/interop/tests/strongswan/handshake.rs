//! IKE_SA_INIT that takes more than one try: COOKIE in both roles, INVALID_KE_PAYLOAD from us.

use anyhow::{Context, Result, ensure};
use interop::pair::{Begins, NAME, Pair, Plan};
use interop::wait::{self, LIMIT};
use interop::world::{OURS, SWAN, World};
use lab::daemon::Kind;
use lab::netns::Host;
use lab::topology::{address, end};
use std::net::UdpSocket;

/// An IKE_SA_INIT request of nobody: AES-GCM-256, PRF-HMAC-SHA2-384, x25519.
fn request(spi: u64) -> Vec<u8> {
    let transforms: [&[u8]; 3] = [
        &[3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0],
        &[3, 0, 0, 8, 2, 0, 0, 6],
        &[0, 0, 0, 8, 4, 0, 0, 31],
    ];
    let transforms = transforms.concat();
    let length = |octets: usize| u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes();
    let proposal =
        [&[0, 0][..], &length(8 + transforms.len()), &[1, 1, 0, 3], &transforms].concat();
    let mut body = [&[34, 0][..], &length(4 + proposal.len()), &proposal].concat();
    body.extend([40, 0, 0, 40, 0, 31, 0, 0]);
    body.extend([9; 32]);
    body.extend([0, 0, 0, 36]);
    body.extend([7; 32]);
    let total = u32::try_from(28 + body.len()).unwrap_or(u32::MAX);
    let mut message = [spi.to_be_bytes(), [0; 8]].concat();
    message.extend([33, 0x20, 34, 8, 0, 0, 0, 0]);
    message.extend(total.to_be_bytes());
    [message, body].concat()
}

/// Leaves `count` IKE SAs half-open at `target`, each from a port of its own.
fn half_open(host: &Host, source: String, target: String, count: u64) -> Result<()> {
    host.run(move || -> std::io::Result<()> {
        for spi in 1..=count {
            let socket = UdpSocket::bind((source.as_str(), 0))?;
            socket.send_to(&request(spi << 8 | 0xab), (target.as_str(), 500))?;
        }
        Ok(())
    })
    .context("sending requests")
}

#[test]
fn charon_answers_our_cookie() -> Result<()> {
    let mut plan = Plan::new(Kind::Vgw, Begins::Charon);
    // Strangers count only where somebody of unknown address may be meant.
    plan.ours.peer_address = String::new();
    let pair = Pair::start(World::new()?, &plan)?;
    for i in 0..6 {
        let stranger = format!("192.0.2.{}", 50 + i);
        address(end(&pair.world.swan, "wan"), format!("{stranger}/24"))?;
        half_open(&pair.world.swan, stranger, OURS[0].into(), 12)?;
    }
    wait::until("strangers counted", LIMIT, || {
        let status = pair.ours.status()?;
        let received = status["ike"]["received"].as_u64().unwrap_or(0);
        Ok(if received >= 72 { Ok(()) } else { Err(status["ike"].to_string()) })
    })?;
    let pair = pair.connect()?;
    pair.charon.await_line("parsed IKE_SA_INIT response 0 [ N(COOKIE) ]")?;
    pair.charon.await_line("generating IKE_SA_INIT request 0 [ N(COOKIE) SA KE")?;
    let status = pair.ours.status()?;
    ensure!(status["ike"]["cookies_sent"].as_u64() > Some(0), "{}", status["ike"]);
    ensure!(status["ike"]["cookies_bad"].is_null(), "{}", status["ike"]);
    pair.traffic()
}

#[test]
fn we_answer_the_cookie_of_charon() -> Result<()> {
    let mut plan = Plan::new(Kind::Agent, Begins::Charon);
    plan.charon_settings = "dos_protection = yes\n  cookie_threshold = 1".into();
    // Strangers count only where somebody of unknown address may be meant.
    plan.charon.our_address = String::new();
    let pair = Pair::start(World::new()?, &plan)?;
    half_open(&pair.world.ours, OURS[1].into(), SWAN.into(), 2)?;
    pair.charon.await_line("198.51.100.3 is initiating an IKE_SA").with_context(|| pair.logs())?;
    pair.ours.verb(NAME, "up")?;
    pair.await_agreed().with_context(|| pair.logs())?;
    pair.charon.await_line("generating IKE_SA_INIT response 0 [ N(COOKIE) ]")?;
    pair.charon.await_line("parsed IKE_SA_INIT request 0 [ N(COOKIE) SA KE")?;
    pair.traffic()
}

#[test]
fn charon_guesses_another_group_than_we_prefer_and_is_told() -> Result<()> {
    let mut plan = Plan::new(Kind::Vgw, Begins::Charon);
    plan.charon.ike = "aes256gcm16-prfsha384-modp2048-x25519".into();
    plan.charon.esp = "aes256gcm16-ecp256-x25519".into();
    let pair = Pair::up(&plan)?;
    pair.charon
        .await_line("peer didn't accept DH group MODP_2048, it requested CURVE_25519")
        .with_context(|| pair.logs())?;
    let before = pair.await_agreed()?.1;
    ensure!(before.text("ike_suite").ends_with("/CURVE_25519"), "{before:?}");
    let pinging = pair.ping()?;
    pinging.more(10)?;
    pair.charon.rekey("child", NAME)?;
    wait::until("the rekey", LIMIT, || {
        let tunnel = pair.await_agreed()?.1;
        let done = tunnel.text("pfs_group") == "CURVE_25519";
        Ok(if done { Ok(()) } else { Err(format!("{tunnel:?}\n{}", pair.logs())) })
    })?;
    pinging.none_lost()?;
    pair.traffic()
}
