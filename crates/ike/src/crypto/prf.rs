//! PRF and prf+ (RFC 7296 section 2.13), and the HMAC that both and the integrity transforms use.

use aws_lc_rs::hmac;
use sa::Secret;

use crate::suite::Hash;

pub(super) fn algorithm(hash: Hash) -> hmac::Algorithm {
    match hash {
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
    }
}

/// `prf(key, data)`, with the data in parts.
#[must_use]
pub fn prf(hash: Hash, key: &[u8], parts: &[&[u8]]) -> Secret {
    let key = hmac::Key::new(algorithm(hash), key);
    let mut context = hmac::Context::with_key(&key);
    parts.iter().for_each(|part| context.update(part));
    Secret::from(context.sign().as_ref())
}

/// `prf+(key, seed)`, the first `length` octets; at most 255 blocks (RFC 7296 2.13).
#[must_use]
pub fn prf_plus(hash: Hash, key: &[u8], seed: &[&[u8]], length: usize) -> Secret {
    let mut out = Vec::with_capacity(length + hash.octets());
    let mut block = Secret::default();
    let mut counter = 1_u8;
    while out.len() < length {
        let number = [counter];
        let mut parts: Vec<&[u8]> = vec![block.expose()];
        parts.extend_from_slice(seed);
        parts.push(&number);
        let next = prf(hash, key, &parts);
        out.extend_from_slice(next.expose());
        block = next;
        counter = match counter.checked_add(1) {
            Some(next) => next,
            None => break,
        };
    }
    out.truncate(length);
    Secret::new(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
            .collect()
    }

    /// RFC 4231 test case 2: key "Jefe", data "what do ya want for nothing?".
    #[test]
    fn prf_matches_rfc_4231_case_2() {
        let data: &[&[u8]] = &[b"what do ya want ", b"for nothing?"];
        let cases = [
            (Hash::Sha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                Hash::Sha384,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e
                 8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Hash::Sha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (hash, expected) in cases {
            assert_eq!(prf(hash, b"Jefe", data).expose(), hex(expected), "{hash:?}");
        }
    }

    /// RFC 4231 test case 6: a key longer than the block is hashed first.
    #[test]
    fn prf_hashes_a_long_key() {
        let out = prf(
            Hash::Sha256,
            &[0xaa; 131],
            &[b"Test Using Larger Than Block-Size Key - Hash Key First"],
        );
        assert_eq!(
            out.expose(),
            hex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
        );
    }

    /// HKDF-Expand (RFC 5869) is prf+ with the seed behind the block and the same counter, so its
    /// published vectors are vectors of prf+: test case 1 of RFC 5869 appendix A.
    #[test]
    fn prf_plus_matches_the_expand_step_of_rfc_5869() {
        let prk = hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        let info = hex("f0f1f2f3f4f5f6f7f8f9");
        let okm = hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf
             34007208d5b887185865");
        assert_eq!(prf_plus(Hash::Sha256, &prk, &[&info], 42).expose(), okm);
    }

    #[test]
    fn prf_plus_stops_at_255_blocks() {
        assert_eq!(prf_plus(Hash::Sha256, b"k", &[b"s"], 100_000).len(), 255 * 32);
    }
}
