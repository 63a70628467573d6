//! Every suite that we know carries a tunnel: the whole product for the IKE SA (encryption,
//! integrity, PRF, key exchange group) and the whole product for the Child SA (suite, ESN, group
//! of perfect forward secrecy), nothing left out. One test for each group, so that they run beside
//! each other.

use crate::common::{A, B, Pair, TUNNEL, peers};
use ike::Command;
use ike::suite::{EspEncryption, EspProposals, Hash, IkeEncryption, IkeProposals, KeGroup};
use sa::{Bits, CbcIntegrity, EspSuite};

fn ike_ciphers() -> Vec<(IkeEncryption, Vec<Hash>)> {
    let mut out = vec![(IkeEncryption::ChaCha20Poly1305, vec![])];
    for bits in [Bits::B128, Bits::B256] {
        out.push((IkeEncryption::AesGcm16(bits), vec![]));
        out.extend(Hash::ALL.map(|hash| (IkeEncryption::AesCbc(bits), vec![hash])));
    }
    out
}

fn esp_ciphers() -> Vec<(EspEncryption, Vec<CbcIntegrity>)> {
    let hashes = [CbcIntegrity::Sha256, CbcIntegrity::Sha384, CbcIntegrity::Sha512];
    let mut out = vec![(EspEncryption::ChaCha20Poly1305, vec![])];
    for bits in [Bits::B128, Bits::B256] {
        out.push((EspEncryption::AesGcm16(bits), vec![]));
        out.extend(hashes.map(|hash| (EspEncryption::AesCbc(bits), vec![hash])));
    }
    out
}

/// 27 handshakes: what was asked for is what both sides have, and both hold the same keys.
fn ike_suites_with(group: KeGroup) {
    let mut tried = 0;
    for (encryption, integrity) in ike_ciphers() {
        for prf in Hash::ALL {
            let mut config = peers();
            for peer in &mut config {
                peer.ike = IkeProposals {
                    encryption: vec![encryption],
                    integrity: integrity.clone(),
                    prf: vec![prf],
                    groups: vec![group],
                };
            }
            tried += 1;
            let pair = Pair::up(config, tried);
            for host in [A, B] {
                let suite = pair.hosts[host].endpoint.ike_info(TUNNEL).unwrap().suite;
                assert_eq!((suite.encryption, suite.prf, suite.group), (encryption, prf, group));
                assert_eq!(suite.integrity, integrity.first().copied());
            }
        }
    }
    assert_eq!(tried, 27);
}

/// 18 tunnels: each is made in IKE_AUTH and rekeyed by both sides, with a fresh key exchange of
/// the group if there is one.
fn esp_suites_with(group: Option<KeGroup>) {
    let mut tried = 0;
    for (encryption, integrity) in esp_ciphers() {
        for esn in [true, false] {
            let mut config = peers();
            for peer in &mut config {
                peer.esp = EspProposals {
                    encryption: vec![encryption],
                    integrity: integrity.clone(),
                    groups: group.into_iter().collect(),
                    esn: vec![esn],
                };
            }
            tried += 1;
            let mut pair = Pair::up(config, tried);
            for who in [A, B] {
                let before = pair.hosts[A].endpoint.child_info(TUNNEL).unwrap();
                pair.command(who, Command::RekeyChild(TUNNEL));
                pair.run_secs(20);
                pair.assert_at_rest();
                for host in [A, B] {
                    let info = pair.hosts[host].endpoint.child_info(TUNNEL).unwrap();
                    let suite = match encryption {
                        EspEncryption::AesCbc(bits) => EspSuite::AesCbc(bits, integrity[0]),
                        EspEncryption::AesGcm16(bits) => EspSuite::AesGcm16(bits),
                        EspEncryption::ChaCha20Poly1305 => EspSuite::ChaCha20Poly1305,
                    };
                    assert_eq!((info.suite.suite, info.suite.esn), (suite, esn));
                    assert_eq!(info.suite.group, group);
                    assert_ne!(info.inbound, before.inbound);
                }
            }
        }
    }
    assert_eq!(tried, 18);
}

macro_rules! for_every_group {
    ($($group:ident $ike:ident $esp:ident;)*) => {
        $(
            #[test]
            fn $ike() {
                ike_suites_with(KeGroup::$group);
            }

            #[test]
            fn $esp() {
                esp_suites_with(Some(KeGroup::$group));
            }
        )*

        #[test]
        fn no_group_is_left_out() {
            assert_eq!([$(KeGroup::$group),*].len(), KeGroup::ALL.len());
            assert!(KeGroup::ALL.iter().all(|g| [$(KeGroup::$group),*].contains(g)));
        }
    };
}

for_every_group! {
    X25519 every_ike_suite_with_x25519 every_esp_suite_rekeyed_with_x25519;
    Ecp256 every_ike_suite_with_ecp_256 every_esp_suite_rekeyed_with_ecp_256;
    Ecp384 every_ike_suite_with_ecp_384 every_esp_suite_rekeyed_with_ecp_384;
    Ecp521 every_ike_suite_with_ecp_521 every_esp_suite_rekeyed_with_ecp_521;
    Modp2048 every_ike_suite_with_modp_2048 every_esp_suite_rekeyed_with_modp_2048;
    Modp3072 every_ike_suite_with_modp_3072 every_esp_suite_rekeyed_with_modp_3072;
    Modp4096 every_ike_suite_with_modp_4096 every_esp_suite_rekeyed_with_modp_4096;
}

#[test]
fn every_esp_suite_rekeyed_without_a_fresh_key_exchange() {
    esp_suites_with(None);
}
