//! Suites of an IKE SA.

use std::fmt;

use sa::Bits;

use super::{name, transform};
use crate::message::{Proposal, ProtocolId, Transform, TransformType as T};

/// The hash of a PRF or of an integrity transform.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the hashes' names")]
pub enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Octets of the hash: also of a PRF's key and of an integrity key.
    #[must_use]
    pub fn octets(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn prf(self) -> Transform {
        transform(T::PRF, 5 + self as u16, None)
    }

    pub(super) fn integrity(self) -> Transform {
        transform(T::INTEG, 12 + self as u16, None)
    }
}

/// Encryption of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the ciphers' names")]
pub enum IkeEncryption {
    AesCbc(Bits),
    AesGcm16(Bits),
    ChaCha20Poly1305,
}

impl IkeEncryption {
    /// Whether it authenticates by itself.
    #[must_use]
    pub fn is_aead(self) -> bool {
        !matches!(self, Self::AesCbc(_))
    }

    fn transform(self) -> Transform {
        match self {
            Self::AesCbc(bits) => transform(T::ENCR, 12, Some(bits.bits())),
            Self::AesGcm16(bits) => transform(T::ENCR, 20, Some(bits.bits())),
            Self::ChaCha20Poly1305 => transform(T::ENCR, 28, None),
        }
    }
}

/// Key exchange groups.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the groups' names")]
pub enum KeGroup {
    Modp2048,
    Modp3072,
    Modp4096,
    Ecp256,
    Ecp384,
    Ecp521,
    X25519,
}

impl KeGroup {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::X25519,
        Self::Ecp384,
        Self::Ecp256,
        Self::Ecp521,
        Self::Modp4096,
        Self::Modp3072,
        Self::Modp2048,
    ];

    /// Its IANA number.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Ecp521 => 21,
            Self::X25519 => 31,
        }
    }

    /// The group with an IANA number, if it is one of ours.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.id() == id)
    }

    /// Octets of a public value in a KE payload (RFC 7296 3.4, RFC 5903 section 7, RFC 8031
    /// section 3.1).
    #[must_use]
    pub fn public_len(self) -> usize {
        match self {
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Ecp521 => 132,
            Self::X25519 => 32,
        }
    }

    fn transform(self) -> Transform {
        transform(T::KE, self.id(), None)
    }
}

impl fmt::Display for KeGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Modp2048 => "MODP_2048",
            Self::Modp3072 => "MODP_3072",
            Self::Modp4096 => "MODP_4096",
            Self::Ecp256 => "ECP_256",
            Self::Ecp384 => "ECP_384",
            Self::Ecp521 => "ECP_521",
            Self::X25519 => "CURVE_25519",
        })
    }
}

/// What we accept for an IKE SA, each list best first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct IkeProposals {
    /// Encryption.
    pub encryption: Vec<IkeEncryption>,
    /// Integrity, for AES-CBC.
    pub integrity: Vec<Hash>,
    /// Pseudo-random functions.
    pub prf: Vec<Hash>,
    /// Key exchange groups; the first is the one that we guess.
    pub groups: Vec<KeGroup>,
}

/// The suite of one IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChosenIke {
    /// Encryption.
    pub encryption: IkeEncryption,
    /// Integrity for AES-CBC; `None` for AEADs.
    pub integrity: Option<Hash>,
    /// PRF.
    pub prf: Hash,
    /// Key exchange group.
    pub group: KeGroup,
}

impl IkeProposals {
    /// The proposals to send: AEADs and AES-CBC cannot share one (RFC 7296 3.3).
    #[must_use]
    pub fn offer(&self, spi: &[u8]) -> Vec<Proposal> {
        let mut out = Vec::new();
        let aead_first = self.encryption.first().is_some_and(|e| e.is_aead());
        for aead in [aead_first, !aead_first] {
            let mut transforms: Vec<Transform> = self
                .encryption
                .iter()
                .filter(|e| e.is_aead() == aead)
                .map(|e| e.transform())
                .collect();
            if transforms.is_empty() {
                continue;
            }
            if !aead {
                transforms.extend(self.integrity.iter().map(|h| h.integrity()));
            }
            transforms.extend(self.prf.iter().map(|h| h.prf()));
            transforms.extend(self.groups.iter().map(|g| g.transform()));
            out.push(Proposal {
                number: u8::try_from(out.len() + 1).unwrap_or(1),
                protocol: ProtocolId::IKE,
                spi: spi.to_vec(),
                transforms,
            });
        }
        out
    }

    /// Picks the first suite in our order that the peer offers; with it the peer's proposal.
    #[must_use]
    pub fn choose<'p>(&self, offer: &'p [Proposal]) -> Option<(ChosenIke, &'p Proposal)> {
        for encryption in &self.encryption {
            for proposal in offer {
                if let Some(chosen) = self.match_proposal(*encryption, proposal) {
                    return Some((chosen, proposal));
                }
            }
        }
        None
    }

    fn match_proposal(&self, encryption: IkeEncryption, p: &Proposal) -> Option<ChosenIke> {
        let known = |t: &Transform| (1..=4).contains(&t.kind.0);
        if p.protocol != ProtocolId::IKE || !p.transforms.iter().all(known) {
            return None;
        }
        let has = |t: Transform| p.transforms.contains(&t);
        if !has(encryption.transform()) {
            return None;
        }
        let integrity = if encryption.is_aead() {
            let none = p.of(T::INTEG).next().is_none() || has(transform(T::INTEG, 0, None));
            none.then_some(None)?
        } else {
            Some(*self.integrity.iter().find(|h| has(h.integrity()))?)
        };
        let prf = *self.prf.iter().find(|h| has(h.prf()))?;
        let group = *self.groups.iter().find(|g| has(g.transform()))?;
        Some(ChosenIke { encryption, integrity, prf, group })
    }

    /// Names the first transform type in which no proposal of `offer` meets ours.
    #[must_use]
    pub fn difference(&self, offer: &[Proposal]) -> String {
        let kinds = [
            (T::ENCR, "encryption"),
            (T::INTEG, "integrity"),
            (T::PRF, "PRF"),
            (T::KE, "key exchange group"),
        ];
        super::difference(&self.offer(&[]), offer, &kinds)
    }
}

impl ChosenIke {
    /// The one proposal that answers with this suite.
    #[must_use]
    pub fn answer(&self, number: u8, spi: &[u8]) -> Proposal {
        let mut transforms = vec![self.encryption.transform()];
        transforms.extend(self.integrity.map(Hash::integrity));
        transforms.push(self.prf.prf());
        transforms.push(self.group.transform());
        Proposal { number, protocol: ProtocolId::IKE, spi: spi.to_vec(), transforms }
    }
}

impl fmt::Display for ChosenIke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, t) in self.answer(1, &[]).transforms.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "/" }, name(t))?;
        }
        Ok(())
    }
}

impl fmt::Display for IkeProposals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::list(&self.offer(&[]), f)
    }
}
