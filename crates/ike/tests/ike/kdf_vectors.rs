//! Published vectors of the PRFs, of prf+ and of the key derivation.

use crate::common::hex;
use ike::crypto::{SaKeys, child_keymat, prf, prf_plus, psk_auth};
use ike::suite::{ChosenIke, Hash, IkeEncryption, KeGroup};
use sa::{Bits, CbcIntegrity, EspSuite, Secret};

/// RFC 4231 test cases 1 to 4, 6 and 7 (case 5 is about truncation): key, data, and the outputs of
/// SHA-256, SHA-384 and SHA-512.
#[test]
fn prfs_match_rfc_4231() {
    let cases: [(Vec<u8>, Vec<u8>, [&str; 3]); 6] = [
        (
            vec![0x0b; 20],
            b"Hi There".to_vec(),
            [
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c
                 faea9ea9076ede7f4af152e8b2fa9cb6",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ],
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            [
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e
                 8e2240ca5e69e2c78b3239ecfab21649",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ],
        ),
        (
            vec![0xaa; 20],
            vec![0xdd; 50],
            [
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
                "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b
                 2a5ab39dc13814b94e3ab6e101a34f27",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39
                 bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
            ],
        ),
        (
            (1..=25).collect(),
            vec![0xcd; 50],
            [
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
                "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e
                 6801dd23c4a7d679ccf8a386c674cffb",
                "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3db
                 a91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd",
            ],
        ),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            [
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6
                 0c2ef6ab4030fe8296248df163f44952",
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352
                 6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ],
        ),
        (
            vec![0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than \
              block-size data. The key needs to be hashed before being used by the HMAC \
              algorithm."
                .to_vec(),
            [
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
                "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5
                 a678cc31e799176d3860e6110c46523e",
                "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944
                 b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
            ],
        ),
    ];
    for (i, (key, data, expected)) in cases.into_iter().enumerate() {
        for (hash, expected) in Hash::ALL.into_iter().zip(expected) {
            assert_eq!(prf(hash, &key, &[&data]).expose(), hex(expected), "row {i} {hash:?}");
            let (head, tail) = data.split_at(data.len() / 2);
            assert_eq!(prf(hash, &key, &[head, &[], tail]).expose(), hex(expected), "in parts");
        }
    }
}

/// The chain T1 | T2 | ... of RFC 7296 2.13 with Python's `hmac`: key 0 to 31, seed
/// "seed of prf+", 200 octets.
#[test]
fn prf_plus_matches_an_independent_chain() {
    let expected = [
        "83bd299cbe03c7da4dec701bd3670c0c82f6776135d98d6518e4849168e062e8
         250504422010dfd7baa4998ac31f1c128508e4a8d10a7538196ad0730c354f5d
         3a7543dd408156b532a5fa5e623d29cecc9e94d817dd36474eea53ead4fdb205
         77ed8e7ae8dae061c96b8daaf8705d40154a3ad8a09eacd810c361d6e171de74
         100fe3b817cc2bd02e5a8d2d3d0f0a1f0291e176fdbc8dbcd16c572fe2af4a66
         09a86d4db49ccfe80dda7633af02e147c35645576961adba38e42ed5f6d3d335
         f178e83a10ccf52d",
        "0971439a89e8c026a7e03d7950a52e94a191877aaba5d7346784488b389ce311
         5a7d88f0a06e3a1e006e896b42df986ecbcec7d467a1484caf1934d3a9adf81c
         de336f0ed74347277b2eb51e6bc618fde84b44014b45a31c057667e0080d5c90
         1c31d37f5a6607b1209ee23d013c39fd2cedcb014a1ffa272a75ed45925a043a
         59757aba8bd7427b3347bc0cab28172ab2b022d8aa582fe8c26e7c2f58f3a4cd
         6fa8be9762e20af8de2a029f066e4da7dcc36f3f16349cbca8f9c22fbd82f6b7
         9343e9c30cd9aa65",
        "a2762a5abb185596b46532805ffedc15c3b5f3a310abbe3f2b25db95075e1865
         eff243309bf27f8d15dd528c5a9a6290cf2740f5164311207b536e471c1ef9ab
         dd3d3f1d603c9e3f57f1169b5ec1e050e56d0cac6adfd0555abdc0aed0e5c3dc
         a59d40182b4280ef4dfc7d7c295358226cf90fdfcb1377751d70fcc0c0250097
         1109f45a9dfef237b4dd687ebe6645c62a1bf25191c88a408419ea683639bc9c
         ca193ce6fb97b85c2e8600b69a5a75b082ee020037ee339a4729233d48632340
         039e265c388115a5",
    ];
    let key: Vec<u8> = (0..32).collect();
    for (hash, expected) in Hash::ALL.into_iter().zip(expected) {
        for length in [0, 1, hash.octets(), hash.octets() + 1, 200] {
            let out = prf_plus(hash, &key, &[b"seed ", b"of prf+"], length);
            assert_eq!(out.expose(), &hex(expected)[..length], "{hash:?} {length}");
        }
    }
}

// NIST's vector for the IKEv2 key derivation of SP 800-135 with SHA-256, as the CAVP publishes it
// (and OpenSSL's test/recipes/30-test_evp_data/evpkdf_ikev2.txt repeats it).
const NI: &str = "3651fef5c9c35e93";
const NR: &str = "c09a8b90a3f04d59";
const SPIS: (u64, u64) = (0x8e5c_3ae5_0722_1684, 0xb1f2_01bb_155c_3acd);
const G_IR: &str = "d084a30166a50fb7325c3960874a839449ef9741c2f4f947d0201dd8c1269273
     d79509f37e3ca3eb4fa2fe2a28254e289cd3f34dad4eb4df1a07685a4b8a94fa
     61e2491f7598b3ce65547ff133b3f63d1ac4175eaa695033f3cedb026a6873a3
     6455172a8540b8a5d23a0143bed0390ee49b168269d75fffee9fb62be965993c";
const G_IR_NEW: &str = "52f00ab174c25d5b7139ae5ff4e8e9eddee5992d2e36adf8a559ffd90dab1442
     e4fbe429d320c0f33552a17d1557fa41ea70e8fb916c4fa27ed52b5f8ebd8461
     afa78f1159159a64055ac5f6319e29c28eae58cbc6847770f32c3fed1d047504
     84f854790f95e9ec01bc5bc461f24966462e359511329305038e94deb6dd42c2";
const DKM: &str = "462b9dd525d4fd71169174272779e704baf62c6231779ae9efe8c58b21916b42
     010164af2111ebd762f6916ca9a6f0ee05c8b320e4ee27705521de2589adea18
     78f1a551738af7c88dc4f0bb0c096a3f7d1f1a670fc79f49f678d60d665bb371
     0c8657f03ba9f62b9a818d7a228968c506e237ae9502aa6db395c61ea6a3e795
     04f86b7368bfb5423df79e48809bbccd49fd826d024f63d7c2a5566400a12e73
     6aa034510428f5ea008fe2fc16886fa388274ea6c2b4fcfc6141bf04f8207ef8
     afc224ea1059cb220dc0b23ac0e4ccda495a4e131b1d56e223aba5a48e8ed1f5";
const DKM_CHILD: &str = "23647677e7d403fa1e3006f19840aee18ad9fecc4215814c4131bdeba98433d8
     b0e31bfbbddf822abcce5e06486aa388022b75e27e1e68aa5983028b65282c73
     0c5d49ef7606770376cfdec41f7cc435d816029989bc353d3b67b9fd1168ddcb
     8978850da9b752aee6a30d0086d2c4d74ec0e03648a0dad334faf5fe88084e67
     b0f3e8fee8b5e1bd3850db540f1fb8cffe23c9e92cda209373f354880c246c75
     3e2a0eca9cb73b9910a8531c4010e6768fa29f909e60af777fed6e739c3cfda0
     3467e915d6f03fce9c41f5f9d578f8912d66a75457e79ee1d5bcc2be5c2f9bae";
const DKM_CHILD_DH: &str = "6a919387a5fa2835fe8a8237e4a14845bd2b9930db87eff7adf268f621860049
     02dba9aa942d0259a0edc4120b932a503865b57ba8fb88117ef5df7b26799cd8
     ba37aa5438108cb1a4fe117907c9d0597b708c3f11151fefd624d2317202b7c8
     1430600e6fcbb6e1a8df2b4861ef2363d53de1be69057b0cf6634a7e7bfa97b3
     c2810623e2bd6757738777177036e9c3a39794456954bd41fc444a12507ab9ca
     c69a0540d13c29db8510f566a691691baa2d9569dacc990d56a454bb444bcbbe
     8751b0550a5278812fc5ab4f28990dd6d608538d7ddde24dc81bdaaca7751fde";
const SKEYSEED_REKEY: &str = "90722c42bd849e9b72d240fc254174270fa8295de6f0338dafc303a9ec104f12";

const SUITE: ChosenIke = ChosenIke {
    encryption: IkeEncryption::AesCbc(Bits::B256),
    integrity: Some(Hash::Sha256),
    prf: Hash::Sha256,
    group: KeGroup::Modp2048,
};

/// The keys one behind the other in the order of RFC 7296 2.14.
fn stream(keys: &SaKeys) -> Vec<u8> {
    let SaKeys { d, ai, ar, ei, er, pi, pr } = keys;
    [d, ai, ar, ei, er, pi, pr].map(Secret::expose).concat()
}

#[test]
fn the_keys_of_an_ike_sa_match_nist() {
    let keys = SaKeys::initial(&SUITE, &Secret::new(hex(G_IR)), &hex(NI), &hex(NR), SPIS);
    assert_eq!(stream(&keys), hex(DKM), "all 224 octets");
    for key in [&keys.d, &keys.ai, &keys.ar, &keys.ei, &keys.er, &keys.pi, &keys.pr] {
        assert_eq!(key.len(), 32);
    }
}

#[test]
fn a_suite_with_aead_has_no_integrity_keys_and_a_salt() {
    let suite =
        ChosenIke { encryption: IkeEncryption::AesGcm16(Bits::B128), integrity: None, ..SUITE };
    let keys = SaKeys::initial(&suite, &Secret::new(hex(G_IR)), &hex(NI), &hex(NR), SPIS);
    let lengths = [&keys.d, &keys.ai, &keys.ar, &keys.ei, &keys.er, &keys.pi, &keys.pr];
    assert_eq!(lengths.map(Secret::len), [32, 0, 0, 20, 20, 32, 32]);
    assert_eq!(stream(&keys), &hex(DKM)[..136], "the stream is the same, cut otherwise");
}

#[test]
fn child_keymat_matches_nist_with_and_without_a_key_exchange() {
    let d = Secret::from(&hex(DKM)[..32]);
    let fresh = Secret::new(hex(G_IR_NEW));
    for (secret, expected) in [(None, DKM_CHILD), (Some(&fresh), DKM_CHILD_DH)] {
        let expected = hex(expected);
        for suite in EspSuite::ALL {
            let keys = child_keymat(Hash::Sha256, &d, secret, &hex(NI), &hex(NR), suite);
            let (e, i) = (suite.encryption_keymat_len(), suite.integrity_keymat_len());
            let at = |from: usize, length: usize| Secret::from(&expected[from..from + length]);
            assert_eq!(keys.initiator, (at(0, e), at(e, i)), "{suite}");
            assert_eq!(keys.responder, (at(e + i, e), at(2 * e + i, i)), "{suite}");
        }
    }
    let longest = EspSuite::AesCbc(Bits::B256, CbcIntegrity::Sha512);
    assert_eq!(2 * (longest.encryption_keymat_len() + longest.integrity_keymat_len()), 192);
}

/// NIST publishes the SKEYSEED of a rekey; prf+ over it is checked above. The old PRF makes
/// SKEYSEED, the new one the keys (RFC 7296 2.18).
#[test]
fn the_keys_of_a_rekeyed_ike_sa_match_nist() {
    let old = Secret::from(&hex(DKM)[..32]);
    for prf in Hash::ALL {
        let suite = ChosenIke { prf, ..SUITE };
        let keys = SaKeys::rekeyed(
            &suite,
            (Hash::Sha256, &old),
            &Secret::new(hex(G_IR_NEW)),
            &hex(NI),
            &hex(NR),
            SPIS,
        );
        let seed = [hex(NI), hex(NR), SPIS.0.to_be_bytes().into(), SPIS.1.to_be_bytes().into()];
        let length = 3 * prf.octets() + 4 * 32;
        let expected = prf_plus(prf, &hex(SKEYSEED_REKEY), &[&seed.concat()], length);
        assert_eq!(stream(&keys), expected.expose(), "{prf:?}");
    }
}

/// RFC 7296 2.15 with Python's `hmac`: psk "secret of both", SK_p the octets from 0 in the PRF's
/// length, the identity an ID_FQDN "vgw.example".
#[test]
fn auth_with_a_pre_shared_key_matches_an_independent_computation() {
    let expected = [
        "70e6d598721366060eb655d553c42f64be6cfd62bdac1ea8f1d1b9db096787dc",
        "25dc2d8c2a92ef21a712dfba91cd74d0383cc6564f0f67953c3272690697758f
         0384462d066d23a7dd29c0537406b4c2",
        "9b96bd3e7c7f8b2e31114822a77b1fbed659e960dd0c804d9cba9079201b3ce7
         34769467678bdd0c58ab00e12abd6ceae757633408a1f603a7b35d8f3d62538e",
    ];
    let psk = Secret::from(&b"secret of both"[..]);
    let id = ike::Identity::Fqdn("vgw.example".into()).emit();
    for (hash, expected) in Hash::ALL.into_iter().zip(expected) {
        let sk_p = Secret::new((0..hash.octets()).map(|i| u8::try_from(i).unwrap()).collect());
        let auth = psk_auth(hash, &psk, &sk_p, b"first message", b"nonce of the other side", &id);
        assert_eq!(auth.expose(), hex(expected), "{hash:?}");
    }
}
