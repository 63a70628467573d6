//! Key derivation of the IKE SA and its Child SAs, and AUTH with a pre-shared key
//! (RFC 7296 sections 2.14, 2.15, 2.17, 2.18).

use sa::{EspSuite, Secret};

use super::{prf, prf_plus};
use crate::suite::{ChosenIke, Hash, IkeEncryption};

/// The seven keys of an IKE SA.
#[derive(Clone, Debug)]
pub struct SaKeys {
    /// Derives further keys.
    pub d: Secret,
    /// Integrity, initiator to responder; empty for AEADs.
    pub ai: Secret,
    /// Integrity, responder to initiator; empty for AEADs.
    pub ar: Secret,
    /// Encryption, initiator to responder; with the salt for AEADs.
    pub ei: Secret,
    /// Encryption, responder to initiator; with the salt for AEADs.
    pub er: Secret,
    /// AUTH of the initiator.
    pub pi: Secret,
    /// AUTH of the responder.
    pub pr: Secret,
}

/// Octets of an encryption key with the salt of AEADs (RFC 5282 7.1, RFC 7634 4).
fn encryption_len(encryption: IkeEncryption) -> usize {
    match encryption {
        IkeEncryption::AesCbc(bits) => bits.octets(),
        IkeEncryption::AesGcm16(bits) => bits.octets() + 4,
        IkeEncryption::ChaCha20Poly1305 => 36,
    }
}

impl SaKeys {
    /// Keys of a new IKE SA: `SKEYSEED = prf(Ni | Nr, g^ir)`.
    #[must_use]
    pub fn initial(
        suite: &ChosenIke,
        secret: &Secret,
        ni: &[u8],
        nr: &[u8],
        spis: (u64, u64),
    ) -> Self {
        let key = Secret::new([ni, nr].concat());
        let seed = prf(suite.prf, key.expose(), &[secret.expose()]);
        Self::expand(suite, &seed, ni, nr, spis)
    }

    /// Keys of an IKE SA that replaces another: `SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)`
    /// with the old SA's PRF.
    #[must_use]
    pub fn rekeyed(
        suite: &ChosenIke,
        old: (Hash, &Secret),
        secret: &Secret,
        ni: &[u8],
        nr: &[u8],
        spis: (u64, u64),
    ) -> Self {
        let seed = prf(old.0, old.1.expose(), &[secret.expose(), ni, nr]);
        Self::expand(suite, &seed, ni, nr, spis)
    }

    fn expand(suite: &ChosenIke, seed: &Secret, ni: &[u8], nr: &[u8], spis: (u64, u64)) -> Self {
        let prf_len = suite.prf.octets();
        let integrity = suite.integrity.map_or(0, Hash::octets);
        let encryption = encryption_len(suite.encryption);
        let total = 3 * prf_len + 2 * integrity + 2 * encryption;
        let (spi_i, spi_r) = (spis.0.to_be_bytes(), spis.1.to_be_bytes());
        let stream = prf_plus(suite.prf, seed.expose(), &[ni, nr, &spi_i, &spi_r], total);
        let mut rest = stream.expose();
        let mut cut = |length: usize| {
            let (head, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = tail;
            Secret::from(head)
        };
        Self {
            d: cut(prf_len),
            ai: cut(integrity),
            ar: cut(integrity),
            ei: cut(encryption),
            er: cut(encryption),
            pi: cut(prf_len),
            pr: cut(prf_len),
        }
    }
}

/// KEYMAT of a Child SA, per direction: encryption (with salt) and integrity.
#[derive(Clone, Debug)]
pub struct ChildKeys {
    /// Initiator to responder.
    pub initiator: (Secret, Secret),
    /// Responder to initiator.
    pub responder: (Secret, Secret),
}

/// `KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr)`, cut as RFC 7296 2.17 says: all keys from
/// initiator to responder first, encryption before integrity.
#[must_use]
pub fn child_keymat(
    hash: Hash,
    d: &Secret,
    secret: Option<&Secret>,
    ni: &[u8],
    nr: &[u8],
    suite: EspSuite,
) -> ChildKeys {
    let (encryption, integrity) = (suite.encryption_keymat_len(), suite.integrity_keymat_len());
    let fresh = secret.map_or(&[][..], Secret::expose);
    let stream = prf_plus(hash, d.expose(), &[fresh, ni, nr], 2 * (encryption + integrity));
    let mut rest = stream.expose();
    let mut cut = |length: usize| {
        let (head, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = tail;
        Secret::from(head)
    };
    ChildKeys {
        initiator: (cut(encryption), cut(integrity)),
        responder: (cut(encryption), cut(integrity)),
    }
}

/// AUTH with a pre-shared key: `prf(prf(psk, "Key Pad for IKEv2"), message | nonce | prf(SK_p, ID))`.
/// `message` is the signer's own first message, `nonce` the other side's, `id` the signer's ID
/// payload body.
#[must_use]
pub fn psk_auth(
    hash: Hash,
    psk: &Secret,
    sk_p: &Secret,
    message: &[u8],
    nonce: &[u8],
    id: &[u8],
) -> Secret {
    let key = prf(hash, psk.expose(), &[b"Key Pad for IKEv2"]);
    let maced_id = prf(hash, sk_p.expose(), &[id]);
    prf(hash, key.expose(), &[message, nonce, maced_id.expose()])
}
