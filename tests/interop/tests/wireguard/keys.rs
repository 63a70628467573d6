//! Keys and files of `wg` and `wg-quick`, read and written by us and by them.

use anyhow::{Result, ensure};
use interop::wait;
use interop::wireguard::go::{At, Go};
use interop::wireguard::world::{self, Keys, Outside, World, is_up, ours, public, run};
use lab::daemon::Kind;
use lab::netns::Host;
use lab::process::Program;
use std::net::SocketAddr;

#[test]
fn wg_takes_our_keys_and_we_take_its_keys() -> Result<()> {
    for _ in 0..20 {
        let made_here = ours(&["genkey"], "")?;
        let made_there = run(Program::new("wg").arg("genkey"), "")?;
        for key in [made_here, made_there] {
            ensure!(key.len() == 44 && key.ends_with('='));
            assert_eq!(public(&key)?, run(Program::new("wg").arg("pubkey"), &key)?);
        }
    }
    let refused = Program::new(interop::binaries::folder()?.join("vgw")).arg("pubkey");
    let output = Host::new("tool")?.output(refused.stdin("not a key"))?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        output.stderr.trim(),
        "vgw: a WireGuard key is 32 octets in base64: 44 characters, the last one `=`"
    );
    Ok(())
}

/// The agent's connection, exported as a file of wg-quick, is what wireguard-go runs with in its
/// place; and the file comes back as the same connection.
#[test]
fn a_connection_moves_to_wg_quick_and_back() -> Result<()> {
    let world = World::new(Outside { ipv6: false, nat: true })?;
    let keys = Keys::new(true)?;
    let mut vgw = world::daemon(&world, Kind::Vgw, &keys, "")?;
    let extra = "persistent_keepalive = 3\nmtu = 1400\ninside_addresses = [\"172.16.0.2/32\"]";
    let mut agent = world::daemon(&world, Kind::Agent, &keys, extra)?;
    is_up(&mut agent)?;
    let exported = world.site.command(agent.line(&["export-wg", "wg"]))?.stdout;
    let endpoint = SocketAddr::new(world.cloud_address(), 4500);
    let expected = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 172.16.0.2/32\nListenPort = 4500\nMTU = 1400\n\n\
         [Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = 10.0.0.0/16, fd10::/16\n\
         Endpoint = {endpoint}\nPersistentKeepalive = 3\n",
        keys.site,
        public(&keys.cloud)?,
        keys.preshared.as_deref().unwrap_or_default(),
    );
    assert_eq!(exported, expected);
    agent.stop()?;
    // The two count seconds since the epoch from labels 27 apart, and the VGW takes no handshake
    // that looks older than the last one. It forgets that with the session.
    vgw.stop()?;
    vgw.start()?;
    world::answers(&mut vgw)?;

    world.site.write("/run/lab/wg-ours.conf", &exported, 0o600)?;
    let strip = Program::new("wg-quick").args(["strip", "/run/lab/wg-ours.conf"]);
    let go = Go::with_config(&world, At::Site, &world.site.command(strip)?.stdout)?;
    wait::until("a handshake with the file", wait::LIMIT, || {
        Ok(if go.last_handshake()? > 0 { Ok(()) } else { Err("none".into()) })
    })?;
    is_up(&mut vgw)?;
    world.carries_everything()?;
    go.kill()?;

    let binary = interop::binaries::folder()?.join("cgw-agent");
    let import = Program::new(binary).args(["import-wg", "/run/lab/wg-ours.conf", "--id", "back"]);
    let tables = world.site.command(import.args(["--keys", "/run/lab"]))?.stdout;
    let text = format!(
        "[customer_gateway]\nid = \"cgw\"\nonprem_cidrs = [\"192.168.0.0/16\"]\n\n{tables}"
    );
    world.site.write(agent.config(), &text, 0o644)?;
    let back = world.site.command(agent.line(&["export-wg", "back"]))?.stdout;
    assert_eq!(back, exported);
    agent.start()?;
    world::answers(&mut agent)?;
    is_up(&mut agent)?;

    // And the file for the other side names what we have, without a private key.
    let for_peer = world.site.command(agent.line(&["export-wg", "back", "--for-peer"]))?.stdout;
    let ours = format!("PublicKey = {}\n", public(&keys.site)?);
    ensure!(
        for_peer.contains(&ours) && for_peer.contains("AllowedIPs = 192.168.0.0/16"),
        "{for_peer}"
    );
    ensure!(!for_peer.contains(&keys.site) && !for_peer.contains("\nPrivateKey"), "{for_peer}");
    Ok(())
}
