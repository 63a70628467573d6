//! Published vectors, on every backend that the machine has.

// Helpers of tests panic like the tests themselves.
#![allow(clippy::unwrap_used)]

use simd_aead::{
    Aad, Algorithm, Backend, Key, OpenJob, SealJob, TAG, open_batch_on, seal_batch_on,
};

/// Seals and opens one packet on every backend.
fn check(algorithm: Algorithm, key: &str, nonce: &str, aad: &str, plain: &str, sealed: &str) {
    let key = Key::new(algorithm, &hex(key)).unwrap();
    let nonce: [u8; 12] = hex(nonce).try_into().unwrap();
    let aad = Aad::new(&hex(aad)).unwrap();
    let (plain, sealed) = (hex(plain), hex(sealed));
    for backend in Backend::available() {
        let body = 0..plain.len();
        let job =
            SealJob { key: 0, nonce, aad, dst: 0, prefix: 0, body, suffix: 0, checksum: None };
        let mut out = vec![0; plain.len() + TAG];
        seal_batch_on(backend, &[&key], &plain, &mut out, &[job]).unwrap();
        assert_eq!(out, sealed, "{backend} {algorithm}");
        let mut back = vec![1; plain.len()];
        let mut job =
            [OpenJob { key: 0, nonce, aad, src: 0..sealed.len(), dst: 0, ok: false, sum: None }];
        open_batch_on(backend, &[&key], &sealed, &mut back, &mut job).unwrap();
        assert!(job[0].ok, "{backend} {algorithm}");
        assert_eq!(back, plain, "{backend} {algorithm}");
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// RFC 8439 section 2.8.2.
#[test]
fn rfc_8439_section_2_8_2() {
    check(
        Algorithm::ChaCha20Poly1305,
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "070000004041424344454647",
        "50515253c0c1c2c3c4c5c6c7",
        "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a204966
         204920636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572
         652c2073756e73637265656e20776f756c642062652069742e",
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da
         92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585
         808b4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
    );
}

/// NIST's GCM specification, test cases 1, 2, 13 and 14.
#[test]
fn gcm_specification_zero_keys() {
    check(
        Algorithm::Aes128Gcm,
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "58e2fccefa7e3061367f1d57a4e7455a",
    );
    check(
        Algorithm::Aes128Gcm,
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf",
    );
    check(
        Algorithm::Aes256Gcm,
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "530f8afbc74536b9a963b4f1c4cb738b",
    );
    check(
        Algorithm::Aes256Gcm,
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
    );
}
