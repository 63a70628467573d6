//! Identities: their text in the configuration and their octets on the wire.

use ike::Identity;
use ike::message::IdentityError;

#[test]
fn a_text_becomes_the_identity_that_it_looks_like_and_back() {
    let cases = [
        ("198.51.100.10", Identity::Ipv4([198, 51, 100, 10].into())),
        ("2001:db8::1", Identity::Ipv6("2001:db8::1".parse().unwrap())),
        ("branch.example", Identity::Fqdn("branch.example".into())),
        ("admin@branch.example", Identity::Rfc822("admin@branch.example".into())),
        ("keyid:00ffC0DE", Identity::KeyId(vec![0, 0xff, 0xc0, 0xde])),
        ("keyid", Identity::Fqdn("keyid".into())),
    ];
    for (text, expected) in cases {
        let identity: Identity = text.parse().unwrap();
        assert_eq!(identity, expected, "{text}");
        assert_eq!(identity.to_string(), text.to_lowercase());
        assert_eq!(identity.to_string().parse::<Identity>().unwrap(), expected);
        assert_eq!(Identity::parse(&identity.emit()).unwrap(), expected, "on the wire");
    }
}

#[test]
fn a_text_that_is_no_identity_is_refused_with_the_reason() {
    let name = |text: &str| IdentityError::Name(text.into());
    for (text, expected) in [
        ("", IdentityError::Length),
        (&"a".repeat(257)[..], IdentityError::Length),
        ("keyid:", IdentityError::KeyId),
        ("keyid:abc", IdentityError::KeyId),
        ("keyid:zz", IdentityError::KeyId),
        ("keyid:+1", IdentityError::KeyId),
        ("two words", name("two words")),
        ("@host", name("@host")),
        ("user@", name("user@")),
        ("a@b@c", name("a@b@c")),
        ("fe80::1%eth0", name("fe80::1%eth0")),
    ] {
        assert_eq!(text.parse::<Identity>(), Err(expected), "{text}");
    }
}

/// A peer chooses its identity, and we write it into logs: no control character gets there.
#[test]
fn what_a_peer_claims_is_printed_on_one_line() {
    let text = Identity::Fqdn("a\nERROR fake line\u{1b}[31m".into()).to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert_eq!(format!("{:?}", Identity::Other(9, vec![1, 0xab])), "type9:01ab");
}

/// The same octets under another type are another identity.
#[test]
fn types_are_not_mixed_up() {
    let fqdn = Identity::Fqdn("a.b".into());
    for kind in [3, 11, 9, 200] {
        let mut octets = fqdn.emit();
        octets[0] = kind;
        let other = Identity::parse(&octets).unwrap();
        assert_ne!(other, fqdn, "{kind}");
        assert_eq!(other.emit(), octets, "{kind}");
    }
}
