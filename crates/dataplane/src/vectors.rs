//! ESP as others published it: nonce, associated data, IV and ICV stand where they stand there.

use sa::{Bits, CbcIntegrity, EspSuite, Secret, Spi};
use simd_aead::{OpenJob, SealJob, open_batch, seal_batch};

use crate::cipher::{Cipher, aad, nonce};

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

struct Aead {
    suite: EspSuite,
    key: &'static str,
    salt: &'static str,
    iv: &'static str,
    spi: u32,
    sequence: u64,
    esn: bool,
    plain: &'static str,
    sealed: &'static str,
}

/// Three cases of draft-mcgrew-gcm-test-01 section 4 (128 bits with ESN, 128 without, 256 bits),
/// and RFC 7634 appendix A.
const AEADS: [Aead; 4] = [
    Aead {
        suite: EspSuite::AesGcm16(Bits::B128),
        key: "4c80cdefbb5d10da906ac73c3613a634",
        salt: "2e443b68",
        iv: "4956ed7e3b244cfe",
        spi: 0x4321,
        sequence: 0x8765_4321_0000_0000,
        esn: true,
        plain: "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000\
                00000000045f736970045f756470037369700963796265726369747902646b00\
                0021000101020201",
        sealed: "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34\
                 cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce\
                 61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
    },
    Aead {
        suite: EspSuite::AesGcm16(Bits::B128),
        key: "feffe9928665731c6d6a8f9467308308",
        salt: "cafebabe",
        iv: "facedbaddecaf888",
        spi: 0xa5f8,
        sequence: 10,
        esn: false,
        plain: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100\
                0001000000000000037369700963796265726369747902646b00000100010001",
        sealed: "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c\
                 3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1\
                 83b70d3aa8bc6ee4c309e9d85a41ad4a",
    },
    Aead {
        suite: EspSuite::AesGcm16(Bits::B256),
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        salt: "11223344",
        iv: "0102030405060708",
        spi: 0x4a2c_bfe3,
        sequence: 2,
        esn: false,
        plain: "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee000000000\
                7002400020bf0000020405b40101040201020201",
        sealed: "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763\
                 748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c49\
                 15956c96",
    },
    Aead {
        suite: EspSuite::ChaCha20Poly1305,
        key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        salt: "a0a1a2a3",
        iv: "1011121314151617",
        spi: 0x0102_0304,
        sequence: 5,
        esn: false,
        plain: "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10\
                0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223\
                2425262728292a2b2c2d2e2f303132333435363701020204",
        sealed: "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6\
                 14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3\
                 cbec163fac469b502773f6fb94e664da9165b82829f641e0\
                 76aaa8266b7fb0f7b11b369907e1ad43",
    },
];

#[test]
fn aead_packets_of_the_gcm_draft_and_of_rfc_7634() {
    for case in AEADS {
        let keymat = Secret::new(octets(&format!("{}{}", case.key, case.salt)));
        let cipher = Cipher::new(case.suite, &keymat, &Secret::default());
        let Some(Cipher::Aead { key, salt }) = cipher else { panic!("{}", case.suite) };
        let nonce = nonce(salt, octets(case.iv).try_into().unwrap());
        let aad = aad(Spi(case.spi), case.sequence, case.esn);
        let (plain, sealed) = (octets(case.plain), octets(case.sealed));
        let mut out = vec![0; sealed.len()];
        let body = 0..plain.len();
        let job =
            SealJob { key: 0, nonce, aad, dst: 0, prefix: 0, body, suffix: 0, checksum: None };
        seal_batch(&[&key], &plain, &mut out, &[job]).unwrap();
        assert_eq!(out, sealed, "{}", case.suite);
        let mut jobs =
            [OpenJob { key: 0, nonce, aad, src: 0..sealed.len(), dst: 0, ok: false, sum: None }];
        open_batch(&[&key], &sealed, &mut out, &mut jobs).unwrap();
        assert!(jobs[0].ok);
        assert_eq!(out[..plain.len()], plain, "{}", case.suite);
    }
}

/// RFC 3602 section 4, cases 7 and 8: tunnel mode, without their ICV, which they do not have.
#[test]
fn cbc_packets_of_rfc_3602() {
    let key = Secret::new(octets("0123456789abcdef0123456789abcdef"));
    let cases = [
        (
            "0000876500000002f4e765244f6407adf13dc1380f673f37",
            "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d\
             02a2040008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223\
             2425262728292a2b2c2d2e2f3031323334353637",
            "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8\
             e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5\
             c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d",
        ),
        (
            "000087650000000585d47224b5f3dd5d2101d4ea8dffab22",
            "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083d\
             a3de0300ffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
             ffffffff",
            "15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb5\
             0f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3\
             d2726d9b5ef6affc6d17a0decbb13892",
        ),
    ];
    for (clear, plain, sealed) in cases {
        let suite = EspSuite::AesCbc(Bits::B128, CbcIntegrity::Sha256);
        let integrity = Secret::new(vec![7; suite.integrity_keymat_len()]);
        let Some(Cipher::Cbc(cbc)) = Cipher::new(suite, &key, &integrity) else { panic!() };
        // The trailer by its rule: 1, 2, 3, …, how many, and that it is IPv4.
        let mut text = octets(plain);
        let padding = u8::try_from(16 - (text.len() + 2) % 16).unwrap();
        text.extend(1..=padding);
        text.extend([padding, 4]);
        let mut packet = [octets(clear), text.clone(), vec![0; 16]].concat();
        let icv_at = packet.len() - 16;
        cbc.seal(&mut packet, None).unwrap();
        assert_eq!(packet[24..icv_at], octets(sealed));
        let mut opened = vec![0; text.len()];
        cbc.open(&packet, None, &mut opened).unwrap();
        assert_eq!(opened, text);
    }
}

/// The ICV is the first half of the HMAC (RFC 4868 2.3) over the packet, and behind it, unsent,
/// the upper half of an extended sequence number (RFC 4303 2.2.1).
#[test]
fn a_cbc_icv_covers_what_the_rfcs_say() {
    use aws_lc_rs::hmac;
    let hashes = [
        (CbcIntegrity::Sha256, hmac::HMAC_SHA256),
        (CbcIntegrity::Sha384, hmac::HMAC_SHA384),
        (CbcIntegrity::Sha512, hmac::HMAC_SHA512),
    ];
    for (integrity, hash) in hashes {
        for high in [None, Some(0x0102_0304_u32)] {
            let suite = EspSuite::AesCbc(Bits::B256, integrity);
            let encryption = Secret::new(vec![1; 32]);
            let secret = vec![2; suite.integrity_keymat_len()];
            let cipher = Cipher::new(suite, &encryption, &Secret::new(secret.clone()));
            let Some(Cipher::Cbc(cbc)) = cipher else { panic!("{suite}") };
            let icv = suite.icv_len();
            let mut packet = vec![3; 24 + 32 + icv];
            cbc.seal(&mut packet, high).unwrap();
            let (covered, tag) = packet.split_at(24 + 32);
            let mut covered = covered.to_vec();
            covered.extend(high.into_iter().flat_map(u32::to_be_bytes));
            let expected = hmac::sign(&hmac::Key::new(hash, &secret), &covered);
            assert_eq!(expected.as_ref()[..icv], *tag, "{suite}");
            let mut plain = vec![0; 32];
            assert!(cbc.open(&packet, high.map(|h| h ^ 1), &mut plain).is_some() == high.is_none());
        }
    }
}
