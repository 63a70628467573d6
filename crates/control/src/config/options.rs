//! AWS's tunnel options: names, ranges and defaults of its API, in snake case.

use std::ops::RangeInclusive;
use std::time::Duration;

use ike::suite::{EspEncryption, EspProposals, Hash, IkeEncryption, IkeProposals, KeGroup};
use sa::{Bits, CbcIntegrity};

use super::error::Source;
use super::raw::{S, Tunnel};
use super::{ConfigError, DpdAction, Role, StartupAction};

/// The options of one tunnel.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// Suites of the IKE SA.
    pub ike: IkeProposals,
    /// Suites of the Child SA.
    pub esp: EspProposals,
    /// Lifetime of the IKE SA.
    pub phase1_lifetime: Duration,
    /// Lifetime of a Child SA: time, octets, packets.
    pub phase2_lifetime: sa::Lifetime,
    /// How long before the end a rekey begins, at the latest.
    pub rekey_margin: Duration,
    /// By how much of the margin it begins earlier, at random.
    pub rekey_fuzz_percentage: u8,
    /// Packets of the anti-replay window.
    pub replay_window: u32,
    /// Silence after which the peer is dead.
    pub dpd_timeout: Duration,
    /// What happens then.
    pub dpd_timeout_action: DpdAction,
    /// How long the peer's inside address may leave probes through the tunnel unanswered before
    /// the tunnel is taken to carry no data; nothing if it is not probed.
    pub path_probe_timeout: Option<Duration>,
    /// How long a path MTU below `link_mtu` is kept before a larger one is tried.
    pub path_mtu_raise: Duration,
    /// Who begins.
    pub startup_action: StartupAction,
    /// Whether outside addresses may change under the SAs (MOBIKE), if the peer can do it, too. One
    /// for both tunnels of a connection.
    pub mobike: bool,
}

impl Options {
    pub(super) fn new(
        source: &Source<'_>,
        role: Role,
        relaxed: bool,
        mobike: bool,
        t: &Tunnel,
    ) -> Result<Self, ConfigError> {
        let number = |key, value: &Option<S<u64>>, default: u64, range: RangeInclusive<u64>| {
            number(source, key, value.as_ref(), default, range, relaxed)
        };
        let phase1 =
            number("phase1_lifetime_seconds", &t.phase1_lifetime_seconds, 28_800, 900..=28_800)?;
        let phase2 =
            number("phase2_lifetime_seconds", &t.phase2_lifetime_seconds, 3_600, 900..=3_600)?;
        if phase2 > phase1 || (phase2 == phase1 && !relaxed) {
            let span = t.phase2_lifetime_seconds.as_ref().map_or(0..0, S::span);
            let text = format!(
                "phase2_lifetime_seconds = {phase2}: must be less than phase1_lifetime_seconds, which is {phase1}"
            );
            return Err(source.error(&span, text));
        }
        let margin_default = 270.min(phase2 / 4);
        let margin = number(
            "rekey_margin_time_seconds",
            &t.rekey_margin_time_seconds,
            margin_default,
            60.min(phase2 / 2)..=phase2 / 2,
        )?;
        let fuzz = number("rekey_fuzz_percentage", &t.rekey_fuzz_percentage, 100, 0..=100)?;
        let window = number("replay_window_size", &t.replay_window_size, 1024, 64..=8192)?;
        let dpd = number("dpd_timeout_seconds", &t.dpd_timeout_seconds, 30, 30..=86_400)?;
        let probe =
            number("path_probe_timeout_seconds", &t.path_probe_timeout_seconds, 10, 0..=86_400)?;
        let raise = number("path_mtu_raise_seconds", &t.path_mtu_raise_seconds, 600, 60..=86_400)?;
        let start = match role {
            Role::Vgw => StartupAction::Add,
            Role::Agent => StartupAction::Start,
        };
        Ok(Self {
            ike: ike_proposals(source, t)?,
            esp: esp_proposals(source, t)?,
            phase1_lifetime: Duration::from_secs(phase1),
            phase2_lifetime: sa::Lifetime {
                time: Duration::from_secs(phase2),
                bytes: t.phase2_lifetime_bytes,
                packets: t.phase2_lifetime_packets,
            },
            rekey_margin: Duration::from_secs(margin),
            rekey_fuzz_percentage: u8::try_from(fuzz).unwrap_or(100),
            replay_window: u32::try_from(window).unwrap_or(1024),
            dpd_timeout: Duration::from_secs(dpd),
            dpd_timeout_action: t.dpd_timeout_action.unwrap_or_default(),
            path_probe_timeout: (probe > 0).then(|| Duration::from_secs(probe)),
            path_mtu_raise: Duration::from_secs(raise),
            startup_action: t.startup_action.unwrap_or(start),
            mobike,
        })
    }
}

/// A number in its range. `relaxed_limits` takes the minimum away, but for zero lifetimes.
fn number(
    source: &Source<'_>,
    key: &str,
    value: Option<&S<u64>>,
    default: u64,
    range: RangeInclusive<u64>,
    relaxed: bool,
) -> Result<u64, ConfigError> {
    let Some(value) = value else { return Ok(default) };
    let (number, low) = (*value.get_ref(), *range.start());
    let floor = if relaxed && key != "replay_window_size" { low.min(1) } else { low };
    if (floor..=*range.end()).contains(&number) {
        return Ok(number);
    }
    let hint = if number < low && number > 0 && key.ends_with("seconds") {
        " (relaxed_limits = true lifts the minimum)"
    } else {
        ""
    };
    let text = format!("{key} = {number}: must be {low} to {}{hint}", range.end());
    Err(source.error(&value.span(), text))
}

const CIPHERS: &str = "AES256-GCM-16, AES128-GCM-16, CHACHA20-POLY1305, AES256, AES128";

fn list<T: Copy>(
    source: &Source<'_>,
    key: &str,
    values: Option<&Vec<S<String>>>,
    all: &[(&str, T)],
    known: &str,
) -> Result<Vec<T>, ConfigError> {
    let Some(values) = values else { return Ok(all.iter().map(|(_, value)| *value).collect()) };
    let mut out = Vec::new();
    for value in values {
        let text = value.get_ref();
        match all.iter().find(|(name, _)| name == text) {
            Some((_, value)) => out.push(*value),
            None if text == "SHA1" => {
                let error =
                    format!("{key}: SHA1 is not secure enough to support; use one of {known}");
                return Err(source.error(&value.span(), error));
            }
            None => {
                let error = format!("{key}: `{text}` is not known; use one of {known}");
                return Err(source.error(&value.span(), error));
            }
        }
    }
    Ok(out)
}

fn groups(
    source: &Source<'_>,
    key: &str,
    values: Option<&Vec<S<u16>>>,
) -> Result<Vec<KeGroup>, ConfigError> {
    let Some(values) = values else { return Ok(KeGroup::ALL.to_vec()) };
    let mut out = Vec::new();
    for value in values {
        let id = *value.get_ref();
        let Some(group) = KeGroup::from_id(id) else {
            let why =
                if matches!(id, 2 | 5) { "is too weak to support" } else { "is not supported" };
            let text = format!("{key}: group {id} {why}; use one of 14, 15, 16, 19, 20, 21, 31");
            return Err(source.error(&value.span(), text));
        };
        out.push(group);
    }
    Ok(out)
}

fn ike_proposals(source: &Source<'_>, t: &Tunnel) -> Result<IkeProposals, ConfigError> {
    let ciphers = [
        ("AES256-GCM-16", IkeEncryption::AesGcm16(Bits::B256)),
        ("AES128-GCM-16", IkeEncryption::AesGcm16(Bits::B128)),
        ("CHACHA20-POLY1305", IkeEncryption::ChaCha20Poly1305),
        ("AES256", IkeEncryption::AesCbc(Bits::B256)),
        ("AES128", IkeEncryption::AesCbc(Bits::B128)),
    ];
    let hashes =
        [("SHA2-512", Hash::Sha512), ("SHA2-384", Hash::Sha384), ("SHA2-256", Hash::Sha256)];
    let key = "phase1_encryption_algorithms";
    let encryption = list(source, key, t.phase1_encryption_algorithms.as_ref(), &ciphers, CIPHERS)?;
    let key = "phase1_integrity_algorithms";
    let known = "SHA2-512, SHA2-384, SHA2-256";
    let integrity = list(source, key, t.phase1_integrity_algorithms.as_ref(), &hashes, known)?;
    let groups = groups(source, "phase1_dh_group_numbers", t.phase1_dh_group_numbers.as_ref())?;
    Ok(IkeProposals { encryption, prf: integrity.clone(), integrity, groups })
}

fn esp_proposals(source: &Source<'_>, t: &Tunnel) -> Result<EspProposals, ConfigError> {
    let ciphers = [
        ("AES256-GCM-16", EspEncryption::AesGcm16(Bits::B256)),
        ("AES128-GCM-16", EspEncryption::AesGcm16(Bits::B128)),
        ("CHACHA20-POLY1305", EspEncryption::ChaCha20Poly1305),
        ("AES256", EspEncryption::AesCbc(Bits::B256)),
        ("AES128", EspEncryption::AesCbc(Bits::B128)),
    ];
    let hashes = [
        ("SHA2-512", CbcIntegrity::Sha512),
        ("SHA2-384", CbcIntegrity::Sha384),
        ("SHA2-256", CbcIntegrity::Sha256),
    ];
    let key = "phase2_encryption_algorithms";
    let encryption = list(source, key, t.phase2_encryption_algorithms.as_ref(), &ciphers, CIPHERS)?;
    let key = "phase2_integrity_algorithms";
    let known = "SHA2-512, SHA2-384, SHA2-256";
    let integrity = list(source, key, t.phase2_integrity_algorithms.as_ref(), &hashes, known)?;
    let groups = if t.phase2_pfs == Some(false) {
        Vec::new()
    } else {
        groups(source, "phase2_dh_group_numbers", t.phase2_dh_group_numbers.as_ref())?
    };
    let esn = t.esn.map_or_else(|| vec![true, false], |esn| vec![esn]);
    Ok(EspProposals { encryption, integrity, groups, esn })
}
