//! Published vectors of the key exchange groups, and values of the MODP groups that an independent
//! implementation computed.

use crate::common::hex;
use aws_lc_rs::digest::{SHA256, digest};
use ike::crypto::{KeError, KeyExchange};
use ike::suite::KeGroup;
use rand_core::{Error, RngCore};

/// Hands out fixed octets: the private values of the vectors.
struct Fixed(Vec<u8>);

impl RngCore for Fixed {
    fn next_u32(&mut self) -> u32 {
        unreachable!("private values are drawn as octets")
    }
    fn next_u64(&mut self) -> u64 {
        unreachable!("private values are drawn as octets")
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        assert_eq!(dest.len(), self.0.len(), "a private value has another length");
        dest.copy_from_slice(&self.0);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

fn with_private(group: KeGroup, private: Vec<u8>) -> KeyExchange {
    KeyExchange::generate(group, &mut Fixed(private)).unwrap()
}

/// RFC 5903 sections 8.1 to 8.3: private and public value of the initiator, of the responder, and
/// the shared x coordinate.
const ECP: [(KeGroup, [&str; 5]); 3] = [
    (
        KeGroup::Ecp256,
        [
            "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
            "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180
             5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
            "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
            "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63
             56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
            "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
        ],
    ),
    (
        KeGroup::Ecp384,
        [
            "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655
             e35b538041e649ee3faef896783ab194",
            "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6
             de3ac808acb4bdb4c88732aee95f41aa9482ed1fc0eeb9cafc4984625ccfc23f
             65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c",
            "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942
             e0308312916b8ed2960e4bd55a7448fc",
            "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d
             0d1ac43a0336def96fda41d0774a3571dcfbec7aacf3196472169e838430367f
             66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c",
            "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4
             d603135569b9e9d09cf5d4a270f59746",
        ],
    ),
    (
        KeGroup::Ecp521,
        [
            "0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a0
             95aa85a30fe1c2952c6771d937ba9777f5957b2639bab072462f68c27a57382d
             4a52",
            "0015417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9ecbe
             e1e3bf42e00b8e380aeae57c2d107564941885942af5a7f4601723c4195d176c
             ed3e017cae20b6641d2eeb695786d8c946146239d099e18e1d5a514c739d7cb4
             a10ad8a788015ac405d7799dc75e7b7d5b6cf2261a6a7f1507438bf01beb6ca3
             926f9582",
            "0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e
             9c677d600b343757a3bdbf2a3163e4c2f869cca7458aa4a4effc311f5cb15168
             5eb9",
            "00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a21
             9b97c356436adc6e95bb0352f6be64a6c2912d4ef2d0433ced2b6171640012d9
             460f015c68226383956e3bd066e797b623c27ce0eac2f551a10c2c724d985207
             7b87220b6536c5c408a1d2aebb8e86d678ae49cb57091f4732296579ab44fcd1
             7f0fc56a",
            "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04
             d1427e73ca4baa240a34786859810c06b3c715a3a8cc3151f2bee417996d19f3
             ddea",
        ],
    ),
];

#[test]
fn ecp_groups_match_rfc_5903_on_both_sides() {
    for (group, [i, gi, r, gr, shared]) in ECP {
        let (initiator, responder) = (with_private(group, hex(i)), with_private(group, hex(r)));
        assert_eq!(initiator.public(), hex(gi), "{group}");
        assert_eq!(responder.public(), hex(gr), "{group}");
        assert_eq!(initiator.agree(&hex(gr)).unwrap().expose(), hex(shared), "{group}");
        assert_eq!(responder.agree(&hex(gi)).unwrap().expose(), hex(shared), "{group}");
    }
}

#[test]
fn a_point_beside_the_curve_is_refused() {
    for (group, [i, _, _, gr, _]) in ECP {
        let ours = with_private(group, hex(i));
        let point = hex(gr);
        for at in [point.len() / 2 - 1, point.len() - 1] {
            let mut beside = point.clone();
            beside[at] ^= 1;
            assert_eq!(ours.agree(&beside), Err(KeError::InvalidPublic), "{group} octet {at}");
        }
        let prefixed = [vec![4], point].concat();
        assert_eq!(ours.agree(&prefixed), Err(KeError::InvalidPublic), "{group} with 0x04");
    }
}

/// RFC 7748 section 6.1.
#[test]
fn x25519_matches_rfc_7748_on_both_sides() {
    let a = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let b = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let (alice, bob) = (with_private(KeGroup::X25519, a), with_private(KeGroup::X25519, b));
    assert_eq!(
        alice.public(),
        hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    );
    assert_eq!(
        bob.public(),
        hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    );
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(alice.agree(bob.public()).unwrap().expose(), shared);
    assert_eq!(bob.agree(alice.public()).unwrap().expose(), shared);
}

/// RFC 7748 section 6.1 asks for the check of an all-zero result; these are u coordinates of order
/// 1, 2, 4 and 8, and p-1, p and p+1, which stand for -1, 0 and 1.
#[test]
fn x25519_values_of_small_order_are_refused() {
    let ours = with_private(KeGroup::X25519, (1..=32).collect());
    let near_p = |last: u8| {
        let mut octets = [0xff; 32];
        (octets[0], octets[31]) = (last, 0x7f);
        octets.to_vec()
    };
    let mut one = vec![0; 32];
    one[0] = 1;
    for weak in [
        vec![0; 32],
        one,
        hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        near_p(0xec),
        near_p(0xed),
        near_p(0xee),
    ] {
        assert_eq!(ours.agree(&weak), Err(KeError::InvalidPublic), "{weak:02x?}");
    }
}

/// SHA-256 of g^x, g^y and g^xy, each of the group's full length, for x = the octets 1 to 64 and
/// y = the octets 101 to 164. They were computed with Python's `pow(2, x, p)`, where p came not
/// from a table but from the formula of RFC 3526 with pi by Machin's series.
const MODP: [(KeGroup, [&str; 3]); 3] = [
    (
        KeGroup::Modp2048,
        [
            "5141ed60d422816c251a9a61f4dc090fc6161ec870357a0af29fb84a0bb34e5e",
            "2e14f83fdfa073abd34d2d4a7e924fbb12b2a5d3bfdfa94db91b6c4465752f02",
            "2653ad553ee4f0365eb3fcf8d54978fa2f6f1e7cdfed5b9bee3750cb25c7ca24",
        ],
    ),
    (
        KeGroup::Modp3072,
        [
            "077dffd743a6dda7e2400cb20075f1619d72d9eb8c6fb5d0c2af92940f79bddc",
            "9f32476ead085f121fb31c4909e294105580fe01199ccfbde777f947f7eee80e",
            "488623bd89ce088ecc04f5dfc646b7b5103cca698d3d51ef4974c5a038483729",
        ],
    ),
    (
        KeGroup::Modp4096,
        [
            "0439872574dafc9b300359ea0dd742c3976ccf9fa56883bdb8268462adedf8cf",
            "52a575e6d4fedecf21b75d71ce45b4a9edddc08eafdb81339343e80163c129d2",
            "956de073b3e2c1737a6cd481d40fec3d08924bbec23bb0ade8b2b784b209ed40",
        ],
    ),
];

#[test]
fn modp_groups_match_an_independent_computation() {
    let hash = |octets: &[u8]| digest(&SHA256, octets).as_ref().to_vec();
    for (group, [gx, gy, gxy]) in MODP {
        let x = with_private(group, (1..=64).collect());
        let y = with_private(group, (101..=164).collect());
        assert_eq!(hash(x.public()), hex(gx), "{group}");
        assert_eq!(hash(y.public()), hex(gy), "{group}");
        assert_eq!(hash(x.agree(y.public()).unwrap().expose()), hex(gxy), "{group}");
        assert_eq!(hash(y.agree(x.public()).unwrap().expose()), hex(gxy), "{group}");
    }
}

/// A shared secret keeps its leading zeros (RFC 7296 2.14): a g^xy below 2^(n-8) is still n bits.
#[test]
fn a_modp_secret_is_padded_to_the_group_s_length() {
    let mut e = vec![0; 64];
    e[63] = 1;
    for (group, octets) in
        [(KeGroup::Modp2048, 256), (KeGroup::Modp3072, 384), (KeGroup::Modp4096, 512)]
    {
        let ours = with_private(group, e.clone());
        let mut expected = vec![0; octets];
        expected[octets - 1] = 2;
        assert_eq!(ours.public(), expected, "{group}: g^1");
        expected[octets - 1] = 5;
        assert_eq!(ours.agree(&expected).unwrap().expose(), expected, "{group}: 5^1");
    }
}
