//! The status document: a stable shape for programs, and a table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// `vgw` or `cgw-agent`.
    pub daemon: String,
    /// Version of the daemon.
    pub version: String,
    /// Its configured name.
    pub id: String,
    /// Each connection.
    pub connections: Vec<ConnectionStatus>,
    /// Packets dropped by reason, both directions; only reasons that happened.
    pub drops: BTreeMap<String, u64>,
    /// What the IKE plane counted; only what happened.
    pub ike: BTreeMap<String, u64>,
    /// What carries the packets: AEAD backend, offloads. Filled in by the runtime.
    #[serde(default)]
    pub engine: BTreeMap<String, String>,
}

/// One connection.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its id.
    pub id: String,
    /// `ipsec` or `wireguard`.
    #[serde(default)]
    pub kind: String,
    /// Tunnel 1 and tunnel 2; the one of a WireGuard connection.
    pub tunnels: Vec<TunnelStatus>,
}

/// One tunnel. What does not exist while it is down is absent.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// `UP` or `DOWN`.
    pub state: String,
    /// Why it is down; empty when it is up.
    pub why: String,
    /// When it went up or down: seconds since the Unix epoch, after [`Status::stamp`].
    pub since: u64,
    /// How long ago that was, in seconds.
    pub since_seconds: u64,
    /// The same, exact: two whole seconds taken from each other would make `since` flicker.
    #[serde(skip)]
    pub since_age: Duration,
    /// Whether the connection's traffic goes through it.
    pub active: bool,
    /// Our outer address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// The peer's outer address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The peer's identity; with WireGuard its public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_identity: Option<String>,
    /// Where a NAT is: `local`, `remote`, `both` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat: Option<String>,
    /// Suite of the IKE SA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ike_suite: Option<String>,
    /// Suite of the Child SA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub esp_suite: Option<String>,
    /// Key exchange group of the last rekey of the Child SA; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pfs_group: Option<String>,
    /// Our SPI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spi_in: Option<String>,
    /// The peer's SPI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spi_out: Option<String>,
    /// Negotiated selectors of our side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_selectors: Option<String>,
    /// Negotiated selectors of the peer's side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_selectors: Option<String>,
    /// Whether the path carries data: `carries data`, `silent for N s`, `not probed`, or `the
    /// peer's inside address never answered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Round-trip time of the last answered probe, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_rtt_us: Option<u64>,
    /// Octets that the outer path takes, as configured or as found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_mtu: Option<u16>,
    /// Octets that an inner packet may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Seconds since the current Child SA was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child_age_seconds: Option<u64>,
    /// Seconds since its last rekey of either SA, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rekey_seconds: Option<u64>,
    /// Seconds since the last WireGuard handshake, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handshake_seconds: Option<u64>,
    /// Inner packets received.
    pub packets_in: u64,
    /// Octets of inner packets received.
    pub bytes_in: u64,
    /// Inner packets sent.
    pub packets_out: u64,
    /// Octets of inner packets sent.
    pub bytes_out: u64,
}

impl Status {
    /// Turns ages into moments: `wall` is the time of day at which the document was made.
    pub fn stamp(&mut self, wall: SystemTime) {
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        for tunnel in self.connections.iter_mut().flat_map(|c| &mut c.tunnels) {
            tunnel.since = wall.saturating_sub(tunnel.since_age).as_secs();
        }
    }

    /// A table for people: one line a tunnel, and one for each reason of drops.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = format!("{} {} {}\n", self.daemon, self.version, self.id);
        for connection in &self.connections {
            for (tunnel, number) in connection.tunnels.iter().zip(1..) {
                let role = if tunnel.active { "active" } else { "standby" };
                let _ = if connection.kind == "wireguard" {
                    write!(out, "{} wireguard: {}", connection.id, tunnel.state)
                } else {
                    write!(out, "{} tunnel {number}: {} {role}", connection.id, tunnel.state)
                };
                let _ = write!(out, " for {} s", tunnel.since_seconds);
                let mtu = tunnel.mtu.map(|mtu| format!("MTU {mtu}"));
                let nat = tunnel.nat.as_ref().map(|nat| format!("NAT {nat}"));
                let parts =
                    [&tunnel.peer, &nat, &tunnel.ike_suite, &tunnel.esp_suite, &mtu, &tunnel.path];
                for part in parts.into_iter().flatten() {
                    let _ = write!(out, ", {part}");
                }
                if let (Some(inbound), Some(outbound)) = (&tunnel.spi_in, &tunnel.spi_out) {
                    let _ = write!(out, ", SPIs {inbound} in {outbound} out");
                }
                if let Some(age) = tunnel.last_rekey_seconds {
                    let _ = write!(out, ", rekeyed {age} s ago");
                }
                if let Some(age) = tunnel.last_handshake_seconds {
                    let _ = write!(out, ", handshake {age} s ago");
                }
                let _ = write!(
                    out,
                    ", in {} packets {} B, out {} packets {} B",
                    tunnel.packets_in, tunnel.bytes_in, tunnel.packets_out, tunnel.bytes_out
                );
                if !tunnel.why.is_empty() {
                    let _ = write!(out, "\n    why: {}", tunnel.why);
                }
                out.push('\n');
            }
        }
        for (reason, count) in &self.drops {
            let _ = writeln!(out, "dropped {reason}: {count}");
        }
        out
    }
}

/// The counters that are not zero, by name.
pub(crate) fn ike_counters(c: &ike::Counters) -> BTreeMap<String, u64> {
    let all = [
        ("received", c.received),
        ("sent", c.sent),
        ("malformed", c.malformed),
        ("bad_version", c.bad_version),
        ("unknown_spi", c.unknown_spi),
        ("unauthentic", c.unauthentic),
        ("outside_window", c.outside_window),
        ("out_of_phase", c.out_of_phase),
        ("answered_again", c.answered_again),
        ("retransmits", c.retransmits),
        ("gave_up", c.gave_up),
        ("cookies_sent", c.cookies_sent),
        ("cookies_bad", c.cookies_bad),
        ("half_open_refused", c.half_open_refused),
        ("half_open_expired", c.half_open_expired),
        ("unknown_peer", c.unknown_peer),
        ("no_proposal", c.no_proposal),
        ("invalid_ke", c.invalid_ke),
        ("auth_failed", c.auth_failed),
        ("ts_unacceptable", c.ts_unacceptable),
        ("temporary_failures", c.temporary_failures),
        ("hints", c.hints),
        ("address_updates", c.address_updates),
        ("path_checks", c.path_checks),
        ("established", c.established),
        ("children", c.children),
        ("dead_peers", c.dead_peers),
    ];
    all.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_the_same_second_whenever_it_is_asked() {
        let began = Duration::from_millis(1_000_900);
        for later in (0..5_000).step_by(100).map(Duration::from_millis) {
            let tunnel = TunnelStatus {
                since_age: later,
                since_seconds: later.as_secs(),
                ..TunnelStatus::default()
            };
            let mut status = Status {
                daemon: String::new(),
                version: String::new(),
                id: String::new(),
                connections: vec![ConnectionStatus {
                    id: String::new(),
                    kind: String::new(),
                    tunnels: vec![tunnel],
                }],
                drops: BTreeMap::new(),
                ike: BTreeMap::new(),
                engine: BTreeMap::new(),
            };
            status.stamp(UNIX_EPOCH + began + later);
            assert_eq!(status.connections[0].tunnels[0].since, 1_000, "{later:?}");
        }
    }
}
