//! The wire format: what is emitted parses back, and no octets make the parser panic.

use ike::message::{
    ExchangeType, HEADER_LEN, Header, Identity, MAX_PAYLOADS, Notify, NotifyType, ParseError,
    Payload, Proposal, ProtocolId, Transform, TransformType, emit_chain, parse_chain,
    parse_message,
};
use proptest::collection::vec;
use proptest::prelude::*;
use sa::{SelectorSet, TrafficSelector};

fn transform() -> impl Strategy<Value = Transform> {
    (1..6_u8, any::<u16>(), proptest::option::of(any::<u16>()))
        .prop_map(|(kind, id, key_length)| Transform { kind: TransformType(kind), id, key_length })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let spi = prop_oneof![vec(any::<u8>(), 0..1), vec(any::<u8>(), 4..5), vec(any::<u8>(), 8..9)];
    (1..255_u8, 1..4_u8, spi, vec(transform(), 1..20)).prop_map(
        |(number, protocol, spi, transforms)| Proposal {
            number,
            protocol: ProtocolId(protocol),
            spi,
            transforms,
        },
    )
}

fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|a| Identity::Ipv4(a.into())),
        any::<[u8; 16]>().prop_map(|a| Identity::Ipv6(a.into())),
        "[a-z0-9.-]{1,60}".prop_map(Identity::Fqdn),
        "[a-z]{1,20}@[a-z.]{1,20}".prop_map(Identity::Rfc822),
        vec(any::<u8>(), 1..64).prop_map(Identity::KeyId),
        vec(any::<u8>(), 1..64).prop_map(|d| Identity::Other(9, d)),
    ]
}

fn selectors() -> impl Strategy<Value = SelectorSet> {
    let v4 = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), any::<u16>()).prop_map(
        |(a, b, protocol, p, q)| {
            let address = |n: u32| std::net::IpAddr::from(n.to_be_bytes());
            TrafficSelector::new(
                address(a.min(b))..=address(a.max(b)),
                protocol,
                p.min(q)..=p.max(q),
            )
            .unwrap()
        },
    );
    let v6 = (any::<u128>(), any::<u128>()).prop_map(|(a, b)| {
        let address = |n: u128| std::net::IpAddr::from(n.to_be_bytes());
        TrafficSelector::new(address(a.min(b))..=address(a.max(b)), 0, 0..=u16::MAX).unwrap()
    });
    vec(prop_oneof![v4, v6], 1..8).prop_map(SelectorSet)
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        vec(proposal(), 1..5).prop_map(Payload::Sa),
        (any::<u16>(), vec(any::<u8>(), 0..300))
            .prop_map(|(group, data)| Payload::Ke { group, data }),
        identity().prop_map(Payload::IdI),
        identity().prop_map(Payload::IdR),
        (any::<u8>(), vec(any::<u8>(), 0..64))
            .prop_map(|(method, data)| Payload::Auth { method, data }),
        vec(any::<u8>(), 16..257).prop_map(Payload::Nonce),
        (any::<u16>(), vec(any::<u8>(), 0..64))
            .prop_map(|(kind, data)| Payload::Notify(Notify::new(NotifyType(kind), data))),
        any::<u32>()
            .prop_map(|spi| { Payload::Notify(Notify::esp(NotifyType::REKEY_SA, sa::Spi(spi))) }),
        Just(Payload::Delete { protocol: ProtocolId::IKE, spis: vec![] }),
        vec(any::<[u8; 4]>(), 1..10).prop_map(|spis| Payload::Delete {
            protocol: ProtocolId::ESP,
            spis: spis.into_iter().map(|s| s.to_vec()).collect()
        }),
        selectors().prop_map(Payload::TsI),
        selectors().prop_map(Payload::TsR),
        vec(any::<u8>(), 0..64).prop_map(Payload::VendorId),
        (47..49_u8, vec(any::<u8>(), 0..64)).prop_map(|(kind, body)| Payload::Other { kind, body }),
    ]
}

fn message(payloads: &[Payload]) -> Vec<u8> {
    let mut chain = Vec::new();
    let next_payload = emit_chain(payloads, &mut chain);
    let header = Header {
        initiator_spi: 1,
        responder_spi: 2,
        next_payload,
        exchange: ExchangeType::IKE_SA_INIT,
        initiator: true,
        response: false,
        message_id: 7,
    };
    let mut out = Vec::new();
    header.emit(HEADER_LEN + chain.len(), &mut out);
    out.extend_from_slice(&chain);
    out
}

proptest! {
    #[test]
    fn what_is_emitted_parses_back(payloads in vec(payload(), 0..10)) {
        let parsed = parse_message(&message(&payloads)).unwrap();
        prop_assert_eq!(parsed.payloads, payloads);
        prop_assert_eq!(parsed.header.message_id, 7);
    }

    #[test]
    fn random_octets_never_panic(octets in vec(any::<u8>(), 0..600), first in any::<u8>()) {
        let _ = parse_message(&octets);
        let _ = parse_chain(first, &octets);
    }

    #[test]
    fn a_mutated_message_never_panics(
        payloads in vec(payload(), 1..6),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut octets = message(&payloads);
        for (at, value) in changes {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        let _ = parse_message(&octets);
        octets.truncate(cut.index(octets.len()));
        let length = u32::try_from(octets.len()).unwrap();
        if let Some(field) = octets.get_mut(24..28) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        let _ = parse_message(&octets);
    }
}

#[test]
fn every_truncation_of_a_message_is_an_error() {
    let whole = message(&[Payload::Nonce(vec![1; 32]), Payload::VendorId(b"vgw".to_vec())]);
    for cut in 0..whole.len() {
        let mut short = whole[..cut].to_vec();
        assert!(parse_message(&short).is_err());
        if cut >= HEADER_LEN {
            short[24..28].copy_from_slice(&u32::try_from(cut).unwrap().to_be_bytes());
            assert!(parse_message(&short).is_err(), "{cut}");
        }
    }
}

#[test]
fn an_unknown_critical_payload_is_named_and_an_uncritical_one_is_carried() {
    let mut octets = message(&[Payload::Other { kind: 200, body: vec![1, 2] }]);
    assert!(parse_message(&octets).is_ok());
    octets[HEADER_LEN + 1] |= 0x80;
    assert_eq!(parse_message(&octets), Err(ParseError::UnsupportedCritical(200)));
}

#[test]
fn a_major_version_other_than_two_is_refused() {
    let mut octets = message(&[]);
    octets[17] = 0x30;
    assert_eq!(parse_message(&octets), Err(ParseError::MajorVersion(3)));
}

#[test]
fn the_number_of_payloads_is_capped() {
    let payloads = vec![Payload::VendorId(vec![]); MAX_PAYLOADS + 1];
    assert_eq!(parse_message(&message(&payloads)), Err(ParseError::TooMany("payloads")));
    assert!(parse_message(&message(&payloads[1..])).is_ok());
}
