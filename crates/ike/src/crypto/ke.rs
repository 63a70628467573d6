//! Key exchange (RFC 7296 section 1.2; RFC 8031, RFC 5903, RFC 3526).

use std::fmt;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use rand_core::RngCore;
use sa::Secret;
use thiserror::Error;
use zeroize::Zeroizing;

use super::modp::{Modp2048, Modp3072, Modp4096};
use crate::suite::KeGroup;

/// Why a peer's public value gives no shared secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum KeError {
    /// Not of the group's length, not on the curve, or a value of small order.
    #[error("the peer's key exchange value is not valid for its group")]
    InvalidPublic,
    /// Our own private value could not be used; the randomness gave no valid scalar.
    #[error("no private key could be made")]
    Private,
}

/// Our half of one key exchange.
pub struct KeyExchange {
    group: KeGroup,
    private: Private,
    public: Vec<u8>,
}

enum Private {
    X25519(PrivateKey),
    Ecp(&'static agreement::Algorithm, PrivateKey),
    Modp2048(Box<Modp2048>),
    Modp3072(Box<Modp3072>),
    Modp4096(Box<Modp4096>),
}

impl KeyExchange {
    /// A fresh private value and its public value.
    ///
    /// # Errors
    /// The randomness gave no valid scalar in many tries.
    pub fn generate(group: KeGroup, rng: &mut dyn RngCore) -> Result<Self, KeError> {
        let (private, public) = match group {
            KeGroup::X25519 => {
                let mut octets = Zeroizing::new([0; 32]);
                rng.fill_bytes(octets.as_mut());
                let key = PrivateKey::from_private_key(&agreement::X25519, octets.as_ref())
                    .map_err(|_| KeError::Private)?;
                let public = key.compute_public_key().map_err(|_| KeError::Private)?;
                (Private::X25519(key), public.as_ref().to_vec())
            }
            KeGroup::Ecp256 => ecp(&agreement::ECDH_P256, 32, 0xff, rng)?,
            KeGroup::Ecp384 => ecp(&agreement::ECDH_P384, 48, 0xff, rng)?,
            KeGroup::Ecp521 => ecp(&agreement::ECDH_P521, 66, 0x01, rng)?,
            KeGroup::Modp2048 => {
                let modp = Box::new(Modp2048::generate(rng));
                let public = modp.public();
                (Private::Modp2048(modp), public)
            }
            KeGroup::Modp3072 => {
                let modp = Box::new(Modp3072::generate(rng));
                let public = modp.public();
                (Private::Modp3072(modp), public)
            }
            KeGroup::Modp4096 => {
                let modp = Box::new(Modp4096::generate(rng));
                let public = modp.public();
                (Private::Modp4096(modp), public)
            }
        };
        Ok(Self { group, private, public })
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> KeGroup {
        self.group
    }

    /// The public value as it stands in the KE payload.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret g^ir, of the group's full length.
    ///
    /// # Errors
    /// The peer's value is not valid for the group.
    pub fn agree(&self, peer: &[u8]) -> Result<Secret, KeError> {
        let secret = match &self.private {
            // A value of small order, with which the peer alone would choose the secret, is refused there
            // (RFC 7748 section 6.1).
            Private::X25519(key) => agree(&agreement::X25519, key, peer)?,
            Private::Ecp(algorithm, key) => {
                if peer.len() != self.public.len() {
                    return Err(KeError::InvalidPublic);
                }
                // The wire form is x and y; the library wants the uncompressed point.
                let mut point = vec![4];
                point.extend_from_slice(peer);
                agree(algorithm, key, &point)?
            }
            Private::Modp2048(modp) => modp.agree(peer).ok_or(KeError::InvalidPublic)?,
            Private::Modp3072(modp) => modp.agree(peer).ok_or(KeError::InvalidPublic)?,
            Private::Modp4096(modp) => modp.agree(peer).ok_or(KeError::InvalidPublic)?,
        };
        Ok(Secret::new(secret))
    }
}

impl fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyExchange({})", self.group)
    }
}

fn agree(
    algorithm: &'static agreement::Algorithm,
    key: &PrivateKey,
    peer: &[u8],
) -> Result<Vec<u8>, KeError> {
    let peer = UnparsedPublicKey::new(algorithm, peer);
    agreement::agree(key, peer, KeError::InvalidPublic, |shared| Ok(shared.to_vec()))
}

/// A scalar from `rng`: random octets below the group's order, tried again in the rare other case.
fn ecp(
    algorithm: &'static agreement::Algorithm,
    length: usize,
    top_mask: u8,
    rng: &mut dyn RngCore,
) -> Result<(Private, Vec<u8>), KeError> {
    for _ in 0..64 {
        let mut octets = Zeroizing::new(vec![0; length]);
        rng.fill_bytes(&mut octets);
        if let Some(first) = octets.first_mut() {
            *first &= top_mask;
        }
        if let Ok(key) = PrivateKey::from_private_key(algorithm, &octets) {
            let public = key.compute_public_key().map_err(|_| KeError::Private)?;
            let wire = public.as_ref().get(1..).ok_or(KeError::Private)?.to_vec();
            return Ok((Private::Ecp(algorithm, key), wire));
        }
    }
    Err(KeError::Private)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    /// Hands out fixed octets: the private values of published vectors.
    struct Fixed(Vec<u8>);

    impl RngCore for Fixed {
        fn next_u32(&mut self) -> u32 {
            0
        }
        fn next_u64(&mut self) -> u64 {
            0
        }
        fn fill_bytes(&mut self, dest: &mut [u8]) {
            let rest = self.0.split_off(dest.len());
            dest.copy_from_slice(&self.0);
            self.0 = rest;
        }
        fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
            self.fill_bytes(dest);
            Ok(())
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
            .collect()
    }

    /// RFC 7748 section 6.1.
    #[test]
    fn x25519_matches_rfc_7748() {
        let mut rng =
            Fixed(hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let alice = KeyExchange::generate(KeGroup::X25519, &mut rng).unwrap();
        assert_eq!(
            alice.public(),
            hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        );
        let bob = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        assert_eq!(
            alice.agree(&bob).unwrap().expose(),
            hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
        );
    }

    /// RFC 5903 section 8.1: the 256-bit random ECP group.
    #[test]
    fn ecp_256_matches_rfc_5903() {
        let mut rng =
            Fixed(hex("C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433"));
        let initiator = KeyExchange::generate(KeGroup::Ecp256, &mut rng).unwrap();
        assert_eq!(
            initiator.public(),
            hex("DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
                 5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3")
        );
        let responder = hex("D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63
             56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB");
        assert_eq!(
            initiator.agree(&responder).unwrap().expose(),
            hex("D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE")
        );
    }

    #[test]
    fn both_sides_of_every_group_agree_and_public_values_have_the_group_s_length() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for group in KeGroup::ALL {
            let a = KeyExchange::generate(group, &mut rng).unwrap();
            let b = KeyExchange::generate(group, &mut rng).unwrap();
            let shared = a.agree(b.public()).unwrap();
            assert_eq!(shared, b.agree(a.public()).unwrap(), "{group}");
            assert_eq!(a.public().len(), group.public_len(), "{group}");
        }
    }

    #[test]
    fn weak_and_misshapen_public_values_are_refused() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for group in KeGroup::ALL {
            let a = KeyExchange::generate(group, &mut rng).unwrap();
            let length = a.public().len();
            let mut one = vec![0; length];
            one[length - 1] = 1;
            for bad in [
                vec![0; length],
                one,
                vec![0xff; length],
                vec![1; length - 1],
                vec![1; length + 1],
                vec![],
            ] {
                if group == KeGroup::X25519 && bad == vec![0xff; length] {
                    continue; // X25519 takes every string that is not of small order.
                }
                if group == KeGroup::X25519 && bad.len() == length && bad[31] == 1 {
                    continue;
                }
                assert_eq!(a.agree(&bad), Err(KeError::InvalidPublic), "{group} {}", bad.len());
            }
        }
    }
}
