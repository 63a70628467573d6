//! Suites: what we offer, what we choose, and the line that says why nothing fits.

use ike::message::{Proposal, ProtocolId, Transform, TransformType as T};
use ike::suite::{
    ChosenIke, EspEncryption, EspProposals, Hash, IkeEncryption, IkeProposals, KeGroup,
};
use sa::{Bits, CbcIntegrity, EspSuite, Spi};

const SPI: Spi = Spi(0xc0ff_ee01);

type Row = (T, u16, Option<u16>);

const GCM_256: Row = (T::ENCR, 20, Some(256));
const CBC_128: Row = (T::ENCR, 12, Some(128));
const SHA_256: Row = (T::INTEG, 12, None);
const PRF_384: Row = (T::PRF, 6, None);
const X25519: Row = (T::KE, 31, None);
const NO_ESN: Row = (T::ESN, 0, None);
const ESN: Row = (T::ESN, 1, None);

fn ike(encryption: &[IkeEncryption], groups: &[KeGroup]) -> IkeProposals {
    IkeProposals {
        encryption: encryption.into(),
        integrity: vec![Hash::Sha256],
        prf: vec![Hash::Sha384, Hash::Sha256],
        groups: groups.into(),
    }
}

fn esp(encryption: &[EspEncryption], groups: &[KeGroup], esn: &[bool]) -> EspProposals {
    EspProposals {
        encryption: encryption.into(),
        integrity: vec![CbcIntegrity::Sha256],
        groups: groups.into(),
        esn: esn.into(),
    }
}

fn offered(protocol: ProtocolId, spi: &[u8], transforms: &[Row]) -> Proposal {
    let transforms = transforms
        .iter()
        .map(|&(kind, id, key_length)| Transform { kind, id, key_length })
        .collect();
    Proposal { number: 1, protocol, spi: spi.into(), transforms }
}

fn every_ike_suite() -> Vec<ChosenIke> {
    let mut out = Vec::new();
    for group in KeGroup::ALL {
        for prf in Hash::ALL {
            for bits in [Bits::B128, Bits::B256] {
                let encryption = IkeEncryption::AesGcm16(bits);
                out.push(ChosenIke { encryption, integrity: None, prf, group });
                for hash in Hash::ALL {
                    let (encryption, integrity) = (IkeEncryption::AesCbc(bits), Some(hash));
                    out.push(ChosenIke { encryption, integrity, prf, group });
                }
            }
            let encryption = IkeEncryption::ChaCha20Poly1305;
            out.push(ChosenIke { encryption, integrity: None, prf, group });
        }
    }
    out
}

/// RFC 7296 3.3: an AEAD stands in a proposal without integrity, AES-CBC in one with it.
#[test]
fn aeads_and_cbc_are_offered_apart_and_in_our_order() {
    let gcm = IkeEncryption::AesGcm16(Bits::B256);
    let cbc = IkeEncryption::AesCbc(Bits::B128);
    for (order, integrity) in [([gcm, cbc], [0, 1]), ([cbc, gcm], [1, 0])] {
        let offer = ike(&order, &[KeGroup::X25519, KeGroup::Ecp256]).offer(&[]);
        assert_eq!(offer.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2]);
        let with: Vec<usize> = offer.iter().map(|p| p.of(T::INTEG).count()).collect();
        assert_eq!(with, integrity);
        for proposal in &offer {
            assert_eq!((proposal.of(T::PRF).count(), proposal.of(T::KE).count()), (2, 2));
        }
    }
}

#[test]
fn every_ike_suite_survives_offer_choice_and_answer() {
    let suites = every_ike_suite();
    assert_eq!(suites.len(), 7 * 3 * 9);
    for suite in suites {
        let ours = IkeProposals {
            encryption: vec![suite.encryption],
            integrity: suite.integrity.into_iter().collect(),
            prf: vec![suite.prf],
            groups: vec![suite.group],
        };
        let offer = ours.offer(&[7; 8]);
        let (chosen, proposal) = ours.choose(&offer).unwrap();
        assert_eq!(chosen, suite);
        let answer = [chosen.answer(proposal.number, &[9; 8])];
        assert!(answer[0].is_single(), "{suite}");
        assert_eq!(ours.choose(&answer).unwrap().0, suite);
    }
}

#[test]
fn every_esp_suite_survives_offer_choice_and_answer() {
    for suite in EspSuite::ALL {
        let (encryption, integrity) = match suite {
            EspSuite::AesGcm16(bits) => (EspEncryption::AesGcm16(bits), vec![]),
            EspSuite::ChaCha20Poly1305 => (EspEncryption::ChaCha20Poly1305, vec![]),
            EspSuite::AesCbc(bits, i) => (EspEncryption::AesCbc(bits), vec![i]),
        };
        for esn in [true, false] {
            for group in KeGroup::ALL.into_iter().map(Some).chain([None]) {
                let ours = EspProposals {
                    encryption: vec![encryption],
                    integrity: integrity.clone(),
                    groups: group.into_iter().collect(),
                    esn: vec![esn],
                };
                let offer = ours.offer(SPI, true);
                let (chosen, _) = ours.choose(&offer, true).unwrap();
                assert_eq!((chosen.suite, chosen.esn, chosen.group), (suite, esn, group));
                let answer = [chosen.answer(1, SPI)];
                assert!(answer[0].is_single(), "{chosen}");
                assert_eq!(ours.choose(&answer, true).unwrap().0, chosen);
            }
        }
    }
}

#[test]
fn the_responder_follows_its_own_order() {
    let (gcm, chacha) = (IkeEncryption::AesGcm16(Bits::B256), IkeEncryption::ChaCha20Poly1305);
    let cbc = IkeEncryption::AesCbc(Bits::B128);
    let theirs = ike(&[cbc, chacha, gcm], &[KeGroup::Modp2048, KeGroup::X25519]).offer(&[]);
    for (order, expected) in [([gcm, cbc], gcm), ([cbc, gcm], cbc), ([chacha, gcm], chacha)] {
        let ours = ike(&order, &[KeGroup::X25519, KeGroup::Modp2048]);
        let (chosen, proposal) = ours.choose(&theirs).unwrap();
        assert_eq!(chosen.encryption, expected);
        assert_eq!((chosen.prf, chosen.group), (Hash::Sha384, KeGroup::X25519));
        let with_integrity = proposal.of(T::INTEG).next().is_some();
        assert_eq!(with_integrity, expected == cbc, "the proposal that holds the cipher");
    }
}

#[test]
fn what_cannot_be_accepted_is_not() {
    let ours = ike(&[IkeEncryption::AesGcm16(Bits::B256)], &[KeGroup::X25519]);
    let of = |protocol, transforms: &[Row]| offered(protocol, &[], transforms);
    let id = ProtocolId::IKE;
    for (what, proposal) in [
        ("another protocol", of(ProtocolId::ESP, &[GCM_256, PRF_384, X25519])),
        ("no PRF", of(id, &[GCM_256, X25519])),
        ("no group", of(id, &[GCM_256, PRF_384])),
        ("no key length", of(id, &[(T::ENCR, 20, None), PRF_384, X25519])),
        ("an unknown attribute", of(id, &[(T::ENCR, 20, Some(0)), PRF_384, X25519])),
        ("integrity beside an AEAD", of(id, &[GCM_256, SHA_256, PRF_384, X25519])),
        ("an unknown type", of(id, &[GCM_256, PRF_384, X25519, (T(6), 1, None)])),
        ("nothing", of(id, &[])),
    ] {
        assert_eq!(ours.choose(std::slice::from_ref(&proposal)), None, "{what}");
        let good = of(id, &[GCM_256, PRF_384, X25519]);
        assert!(ours.choose(&[proposal, good]).is_some(), "{what}: the next proposal counts");
    }
    let none = of(id, &[GCM_256, (T::INTEG, 0, None), PRF_384, X25519]);
    assert!(ours.choose(&[none]).is_some(), "NONE beside an AEAD is allowed (RFC 7296 3.3)");
}

#[test]
fn esp_wants_a_spi_its_esn_and_the_same_mind_about_pfs() {
    let gcm = EspEncryption::AesGcm16(Bits::B256);
    let both = esp(&[gcm], &[KeGroup::X25519], &[true, false]);
    let without = esp(&[gcm], &[], &[true]);
    let cbc = esp(&[EspEncryption::AesCbc(Bits::B128)], &[], &[false]);
    let pick = |ours: &EspProposals, transforms: &[Row], pfs| {
        let offer = [offered(ProtocolId::ESP, &SPI.to_be_bytes(), transforms)];
        ours.choose(&offer, pfs).map(|(c, _)| (c.esn, c.group))
    };
    assert_eq!(pick(&both, &[GCM_256, NO_ESN, ESN], false), Some((true, None)));
    assert_eq!(pick(&both, &[GCM_256, NO_ESN], false), Some((false, None)));
    assert_eq!(pick(&both, &[GCM_256], false), Some((false, None)), "no ESN transform");
    assert_eq!(pick(&both, &[GCM_256, X25519, ESN], true), Some((true, Some(KeGroup::X25519))));
    assert_eq!(pick(&both, &[GCM_256, ESN], true), None, "PFS is not optional");
    assert_eq!(pick(&both, &[GCM_256, (T::KE, 2, None), ESN], true), None, "MODP_1024");
    assert_eq!(pick(&without, &[GCM_256, ESN], true), Some((true, None)));
    let or_none = [GCM_256, X25519, (T::KE, 0, None), ESN];
    assert_eq!(pick(&without, &or_none, true), Some((true, None)));
    assert_eq!(pick(&without, &[GCM_256, X25519, ESN], true), None);
    assert_eq!(pick(&without, &[GCM_256, X25519, ESN], false), Some((true, None)), "IKE_AUTH");
    assert_eq!(pick(&without, &[GCM_256, NO_ESN], false), None);
    assert_eq!(pick(&cbc, &[CBC_128, NO_ESN], false), None, "no integrity");
    assert_eq!(pick(&cbc, &[CBC_128, SHA_256, NO_ESN], false), Some((false, None)));
    for spi in [&[][..], &[1; 8]] {
        let offer = [offered(ProtocolId::ESP, spi, &[GCM_256, ESN])];
        assert_eq!(both.choose(&offer, false), None, "an SPI of {} octets", spi.len());
    }
}

#[test]
fn ike_auth_offers_no_groups() {
    let ours = esp(&[EspEncryption::AesGcm16(Bits::B256)], &[KeGroup::X25519], &[true]);
    let groups = |pfs| ours.offer(SPI, pfs)[0].of(T::KE).count();
    assert_eq!((groups(false), groups(true)), (0, 1));
}

#[test]
fn the_difference_names_the_first_transform_type_that_fails() {
    let ours = ike(&[IkeEncryption::AesGcm16(Bits::B256)], &[KeGroup::X25519]);
    let cbc = ike(&[IkeEncryption::AesCbc(Bits::B128)], &[KeGroup::X25519]);
    let sha1 = (T::INTEG, 2, None);
    for (ours, transforms, expected) in [
        (
            &ours,
            &[CBC_128, SHA_256, PRF_384, X25519][..],
            "encryption: they offer AES_CBC-128, we accept AES_GCM_16-256",
        ),
        (
            &ours,
            &[GCM_256, (T::PRF, 2, None), X25519],
            "PRF: they offer PRF_HMAC_SHA1, we accept PRF_HMAC_SHA2_384, PRF_HMAC_SHA2_256",
        ),
        (
            &ours,
            &[GCM_256, PRF_384, (T::KE, 2, None), (T::KE, 99, None)],
            "key exchange group: they offer MODP_1024, KE_99, we accept CURVE_25519",
        ),
        (&ours, &[], "encryption: they offer nothing, we accept AES_GCM_16-256"),
        (
            &cbc,
            &[CBC_128, sha1, PRF_384, X25519],
            "integrity: they offer HMAC_SHA1_96, we accept HMAC_SHA2_256_128",
        ),
    ] {
        assert_eq!(ours.difference(&[offered(ProtocolId::IKE, &[], transforms)]), expected);
    }
    let spread = [
        offered(ProtocolId::IKE, &[], &[GCM_256, PRF_384, (T::KE, 14, None)]),
        offered(ProtocolId::IKE, &[], &[CBC_128, SHA_256, PRF_384, X25519]),
    ];
    let expected = "key exchange group: they offer MODP_2048, we accept CURVE_25519";
    assert_eq!(ours.difference(&spread), expected, "the AES-CBC proposal does not hide it");
    let unknown = offered(ProtocolId::IKE, &[], &[GCM_256, PRF_384, X25519, (T(6), 1, None)]);
    let expected = "no single proposal holds a combination that we accept";
    assert_eq!(ours.difference(&[unknown]), expected);
    assert_eq!(ours.difference(&[]), "encryption: they offer nothing, we accept AES_GCM_16-256");
}

#[test]
fn the_difference_of_child_sas_names_the_group_and_esn_too() {
    let child = esp(&[EspEncryption::AesGcm16(Bits::B256)], &[KeGroup::X25519], &[true]);
    let offer = |transforms: &[Row]| [offered(ProtocolId::ESP, &SPI.to_be_bytes(), transforms)];
    assert_eq!(
        child.difference(&offer(&[GCM_256, (T::KE, 14, None), ESN]), true),
        "PFS group: they offer MODP_2048, we accept CURVE_25519"
    );
    assert_eq!(
        child.difference(&offer(&[GCM_256, NO_ESN]), false),
        "extended sequence numbers: they offer NO_ESN, we accept ESN"
    );
}

#[test]
fn a_suite_prints_as_the_iana_names() {
    let mut chosen = ChosenIke {
        encryption: IkeEncryption::AesGcm16(Bits::B256),
        integrity: None,
        prf: Hash::Sha384,
        group: KeGroup::X25519,
    };
    assert_eq!(chosen.to_string(), "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519");
    chosen.encryption = IkeEncryption::AesCbc(Bits::B128);
    chosen.integrity = Some(Hash::Sha256);
    assert_eq!(chosen.to_string(), "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_384/CURVE_25519");
    let child = esp(&[EspEncryption::ChaCha20Poly1305], &[KeGroup::Ecp384], &[true]);
    let offer = child.offer(SPI, true);
    let (chosen, _) = child.choose(&offer, true).unwrap();
    assert_eq!(chosen.to_string(), "CHACHA20_POLY1305/ECP_384/ESN");
}

#[test]
fn two_transforms_of_a_type_are_no_answer() {
    let one = offered(ProtocolId::IKE, &[], &[GCM_256, PRF_384, X25519]);
    assert!(one.is_single());
    let two = offered(ProtocolId::IKE, &[], &[GCM_256, PRF_384, X25519, (T::KE, 14, None)]);
    assert!(!two.is_single());
}
