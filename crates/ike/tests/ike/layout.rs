//! The wire format octet by octet, written down from RFC 7296 section 3: a round trip alone would
//! not notice a mistake that parsing and emission share.

use crate::common::hex;
use ike::Identity;
use ike::message::{
    Encrypted, ExchangeType, HEADER_LEN, Header, Notify, NotifyType as N, ParseError, Payload,
    Proposal, ProtocolId, Transform, TransformType as T, emit_chain, parse_chain, parse_message,
};
use sa::{SelectorSet, Spi, TrafficSelector};

/// A header with its length filled in, and the payloads behind it.
fn datagram(next_payload: &str, payloads: &str) -> Vec<u8> {
    let body = hex(payloads);
    let mut out = hex("0102030405060708 0000000000000000");
    out.extend(hex(next_payload));
    out.extend(hex("20 22 08 00000000"));
    out.extend(u32::try_from(HEADER_LEN + body.len()).unwrap().to_be_bytes());
    out.extend(body);
    out
}

const EVERY_PAYLOAD: &str = "
    22000028 00000024 01010003
        0300000c 01000014 800e0100
        03000008 02000006
        00000008 0400001f
    2800000c 001f0000 aabbccdd
    29000014 000102030405060708090a0b0c0d0e0f
    2900000a 00004004 beef
    2a00000c 03044009 c0ffee01
    2a000010 03040002 11111111 22222222
    2c000008 01000000
    2d000018 01000000 07000010 0000ffff 0a000000 0a00ffff
    23000030 01000000 08110028 01bb01bc
        fd000000000000000000000000000000 fd00000000000000000000000000ffff
    2400000c 01000000 c6336401
    2700000b 02000000 612e62
    2b00000a 02000000 1234
    2f000007 766777
    00000006 0102";

fn every_payload() -> Vec<Payload> {
    let transform = |kind, id, key_length| Transform { kind, id, key_length };
    let v6 = |last: u16| std::net::IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    vec![
        Payload::Sa(vec![Proposal {
            number: 1,
            protocol: ProtocolId::IKE,
            spi: vec![],
            transforms: vec![
                transform(T::ENCR, 20, Some(256)),
                transform(T::PRF, 6, None),
                transform(T::KE, 31, None),
            ],
        }]),
        Payload::Ke { group: 31, data: hex("aabbccdd") },
        Payload::Nonce((0..16).collect()),
        Payload::notify(N::NAT_DETECTION_SOURCE_IP, hex("beef")),
        Payload::Notify(Notify::esp(N::REKEY_SA, Spi(0xc0ff_ee01))),
        Payload::Delete { protocol: ProtocolId::ESP, spis: vec![hex("11111111"), hex("22222222")] },
        Payload::Delete { protocol: ProtocolId::IKE, spis: vec![] },
        Payload::TsI(SelectorSet(vec![TrafficSelector::net("10.0.0.0/16".parse().unwrap())])),
        Payload::TsR(SelectorSet(vec![
            TrafficSelector::new(v6(0)..=v6(0xffff), 17, 443..=444).unwrap(),
        ])),
        Payload::IdI("198.51.100.1".parse().unwrap()),
        Payload::IdR(Identity::Fqdn("a.b".into())),
        Payload::Auth { method: 2, data: hex("1234") },
        Payload::VendorId(b"vgw".to_vec()),
        Payload::Other { kind: 47, body: vec![1, 2] },
    ]
}

#[test]
fn every_payload_stands_as_the_rfc_draws_it() {
    let octets = datagram("21", EVERY_PAYLOAD);
    let parsed = parse_message(&octets).unwrap();
    assert_eq!(parsed.payloads, every_payload());
    assert_eq!(parsed.encrypted, None);
    let mut chain = Vec::new();
    let next_payload = emit_chain(&every_payload(), &mut chain);
    assert_eq!(chain, hex(EVERY_PAYLOAD));
    let header = Header {
        initiator_spi: 0x0102_0304_0506_0708,
        responder_spi: 0,
        next_payload,
        exchange: ExchangeType::IKE_SA_INIT,
        initiator: true,
        response: false,
        message_id: 0,
    };
    assert_eq!(parsed.header, header);
    let mut out = Vec::new();
    header.emit(HEADER_LEN + chain.len(), &mut out);
    assert_eq!([out, chain].concat(), octets);
}

#[test]
fn the_chain_of_every_payload_fails_at_every_truncation() {
    let chain = hex(EVERY_PAYLOAD);
    assert_eq!(parse_chain(33, &chain).unwrap(), every_payload());
    for cut in 0..chain.len() {
        assert!(parse_chain(33, &chain[..cut]).is_err(), "cut at {cut}");
    }
    let longer = [&chain[..], &[0]].concat();
    assert!(parse_chain(33, &longer).is_err(), "an octet behind the last payload");
}

#[test]
fn flags_and_message_id_stand_where_the_rfc_draws_them() {
    for (initiator, response, flags) in
        [(false, false, 0x00_u8), (true, false, 0x08), (false, true, 0x20), (true, true, 0x28)]
    {
        let header = Header {
            initiator_spi: 1,
            responder_spi: 2,
            next_payload: 0,
            exchange: ExchangeType::INFORMATIONAL,
            initiator,
            response,
            message_id: 0x0a0b_0c0d,
        };
        let mut out = Vec::new();
        header.emit(HEADER_LEN, &mut out);
        assert_eq!(out[16..24], [0, 0x20, 37, flags, 0x0a, 0x0b, 0x0c, 0x0d]);
        assert_eq!(Header::parse(&out), Ok(header));
        // A higher minor version, the version flag and reserved flags are ignored (RFC 7296 3.1).
        (out[17], out[19]) = (0x2f, flags | !0x28);
        assert_eq!(Header::parse(&out), Ok(header));
    }
}

#[test]
fn an_encrypted_payload_is_found_and_must_be_the_last() {
    let sk = parse_message(&datagram("2e", "27000008 01020304")).unwrap();
    let body = HEADER_LEN + 4;
    assert_eq!(sk.encrypted, Some(Encrypted { body, inner: 39, fragment: None }));
    let after_clear = parse_message(&datagram("2b", "2e000004 27000008 01020304")).unwrap();
    assert_eq!(after_clear.payloads, [Payload::VendorId(vec![])]);
    assert_eq!(after_clear.encrypted.unwrap().body, body + 4);
    let skf = parse_message(&datagram("35", "2700000a 00010003 0102")).unwrap();
    assert_eq!(
        skf.encrypted,
        Some(Encrypted { body: body + 4, inner: 39, fragment: Some((1, 3)) })
    );
    let two = parse_message(&datagram("2e", "27000008 01020304 00000004"));
    assert_eq!(two, Err(ParseError::Malformed("encrypted payload that is not the last")));
    let inside = parse_chain(46, &hex("00000004"));
    assert_eq!(inside, Err(ParseError::Malformed("encrypted payload inside another")));
}

/// RFC 7383 2.5: numbers count from 1 to the total, and only the first names what is inside.
#[test]
fn fragment_numbers_that_cannot_be_are_refused() {
    for (payload, fits) in [
        ("27000008 00010001", true),
        ("00000008 00020002", true),
        ("00000008 ffffffff", true),
        ("27000008 00000001", false),
        ("27000008 00000000", false),
        ("00000008 00030002", false),
        ("27000008 00020002", false),
        ("27000007 000100", false),
        ("27000004", false),
    ] {
        assert_eq!(parse_message(&datagram("35", payload)).is_ok(), fits, "{payload}");
    }
}

/// What the RFC wants to be told is what the error says.
#[test]
fn each_mistake_has_its_error_and_its_notification() {
    let bad = ParseError::Malformed;
    let nonce = |octets: usize| format!("0000{:04x}{}", octets + 4, "00".repeat(octets));
    let cases: &[(&str, &str, &str, ParseError)] = &[
        ("payload shorter than its header", "2b", "00000003", ParseError::Truncated),
        ("payload past the end", "2b", "00000005", ParseError::Truncated),
        ("chain that promises more", "2b", "2b000004", ParseError::Truncated),
        ("octets behind the chain", "00", "00", bad("octets after the last payload")),
        ("nonce of 15", "28", &nonce(15), bad("nonce")),
        ("nonce of 257", "28", &nonce(257), bad("nonce")),
        ("KE without group", "22", "00000006 001f", ParseError::Truncated),
        ("AUTH without method", "27", "00000004", ParseError::Truncated),
        ("ID without type", "23", "00000004", ParseError::Truncated),
        ("IPv4 of 5 octets", "23", "0000000d 01000000 0102030405", bad("identity")),
        ("IPv6 of 4 octets", "24", "0000000c 05000000 01020304", bad("identity")),
        ("FQDN that is no UTF-8", "23", "00000009 02000000 ff", bad("identity")),
        ("notify with a long SPI", "29", "00000011 03094009 000000000000000000", bad("notify")),
        ("notify whose SPI is cut", "29", "0000000a 03044009 0000", ParseError::Truncated),
        ("delete of half an SPI", "2a", "0000000a 03040001 0000", bad("delete")),
        ("delete with IKE SPIs", "2a", "00000010 01080001 0000000000000000", bad("delete")),
        ("delete for no protocol", "2a", "00000008 00000000", bad("delete")),
        ("delete of 65535 SPIs", "2a", "0000000c 0304ffff 00000000", bad("delete")),
        ("no selectors", "2c", "00000008 00000000", bad("traffic selector")),
        ("selectors cut", "2c", "00000008 01000000", ParseError::Truncated),
        ("65 selectors", "2d", "00000008 41000000", ParseError::TooMany("traffic selectors")),
        (
            "reversed selector",
            "2c",
            "00000018 01000000 07000010 0000ffff 0a00ffff 0a000000",
            bad("traffic selector"),
        ),
        (
            "IPv4 selector of 20 octets",
            "2c",
            "0000001c 01000000 07000014 0000ffff 0a000000 0a00ffff 00000000",
            bad("traffic selector"),
        ),
        ("SA without a proposal", "21", "00000004", ParseError::Truncated),
        ("proposal longer than the SA", "21", "0000000c 0000000c 01010000", ParseError::Truncated),
        ("proposal shorter than its head", "21", "0000000c 00000003 01010000", bad("SA payload")),
        ("more proposals promised", "21", "0000000c 02000008 01010000", ParseError::Truncated),
        ("last proposal that is not", "21", "0000000c 01000008 01010000", bad("SA payload")),
        ("SPI of 9", "21", "00000015 00000011 01010900 000000000000000000", bad("proposal")),
        (
            "fewer transforms than counted",
            "21",
            "00000014 00000010 01010002 03000008 01000014",
            ParseError::Truncated,
        ),
        (
            "last transform that promises more",
            "21",
            "00000014 00000010 01010001 03000008 01000014",
            bad("proposal"),
        ),
        (
            "more transforms than counted",
            "21",
            "0000001c 00000018 01010001 00000008 01000014 00000008 02000006",
            bad("proposal"),
        ),
        (
            "attribute past its transform",
            "21",
            "0000001a 00000016 01010001 0000000e 01000014 00030004 0000",
            ParseError::Truncated,
        ),
        ("unknown and critical", "ff", "00800004", ParseError::UnsupportedCritical(255)),
    ];
    for (what, next, payloads, expected) in cases {
        let result = parse_message(&datagram(next, payloads));
        assert_eq!(result, Err(*expected), "{what}");
        let notify = expected.notify();
        match expected {
            ParseError::UnsupportedCritical(kind) => {
                assert_eq!(notify.kind, N::UNSUPPORTED_CRITICAL_PAYLOAD, "{what}");
                assert_eq!(notify.data, [*kind], "{what}");
            }
            _ => assert_eq!((notify.kind, notify.data), (N::INVALID_SYNTAX, vec![]), "{what}"),
        }
    }
    assert_eq!(ParseError::MajorVersion(3).notify().kind, N::INVALID_MAJOR_VERSION);
}

/// RFC 7296 2.5: the critical bit of a payload that we know is ignored.
#[test]
fn known_payloads_may_be_critical() {
    for kind in [37_u8, 38, 43, 47, 48] {
        let octets = datagram(&format!("{kind:02x}"), "00800004");
        assert!(parse_message(&octets).is_ok(), "{kind}");
    }
}

/// RFC 7296 3.3.6: a transform with an attribute that is not understood is unacceptable, and its
/// neighbours are read as usual.
#[test]
fn a_transform_with_an_unknown_attribute_equals_none_of_ours() {
    for attribute in ["800f0100", "000e00020100", "800e0100800e0100", "00ff0000"] {
        let transform = 8 + attribute.len() / 2;
        let proposal = 8 + transform + 12;
        let payloads = format!(
            "0000{:04x} 0000{proposal:04x} 01010002
             0300{transform:04x} 01000014 {attribute} 0000000c 01000014 800e0080",
            4 + proposal
        );
        let parsed = parse_message(&datagram("21", &payloads)).unwrap();
        let [Payload::Sa(proposals)] = &parsed.payloads[..] else { panic!("{parsed:?}") };
        let lengths: Vec<_> = proposals[0].transforms.iter().map(|t| t.key_length).collect();
        assert_eq!(lengths, [Some(0), Some(128)], "{attribute}");
    }
}
