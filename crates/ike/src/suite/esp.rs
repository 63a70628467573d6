//! Suites of a Child SA.

use std::fmt;

use sa::{Bits, CbcIntegrity, EspSuite};

use super::{KeGroup, name, transform};
use crate::message::{Proposal, ProtocolId, Transform, TransformType as T};

/// Encryption of a Child SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the ciphers' names")]
pub enum EspEncryption {
    AesCbc(Bits),
    AesGcm16(Bits),
    ChaCha20Poly1305,
}

impl EspEncryption {
    fn is_aead(self) -> bool {
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

fn integrity_transform(integrity: CbcIntegrity) -> Transform {
    transform(T::INTEG, 12 + integrity as u16, None)
}

/// What we accept for a Child SA, each list best first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EspProposals {
    /// Encryption.
    pub encryption: Vec<EspEncryption>,
    /// Integrity, for AES-CBC.
    pub integrity: Vec<CbcIntegrity>,
    /// Groups for perfect forward secrecy in CREATE_CHILD_SA; empty for none.
    pub groups: Vec<KeGroup>,
    /// Extended sequence numbers: `true`, `false`, or both in order of preference.
    pub esn: Vec<bool>,
}

/// The suite of one Child SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChosenEsp {
    /// How packets are protected.
    pub suite: EspSuite,
    /// Whether sequence numbers are 64 bits.
    pub esn: bool,
    /// The group of a fresh key exchange, if there is one.
    pub group: Option<KeGroup>,
}

impl EspProposals {
    /// The proposals to send for the inbound SPI `spi`. IKE_AUTH carries no key exchange
    /// (RFC 7296 1.2), so `pfs` is false there.
    #[must_use]
    pub fn offer(&self, spi: sa::Spi, pfs: bool) -> Vec<Proposal> {
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
                transforms.extend(self.integrity.iter().map(|i| integrity_transform(*i)));
            }
            if pfs {
                transforms.extend(self.groups.iter().map(|g| transform(T::KE, g.id(), None)));
            }
            transforms.extend(self.esn.iter().map(|e| transform(T::ESN, u16::from(*e), None)));
            out.push(Proposal {
                number: u8::try_from(out.len() + 1).unwrap_or(1),
                protocol: ProtocolId::ESP,
                spi: spi.to_be_bytes().to_vec(),
                transforms,
            });
        }
        out
    }

    /// Picks the first suite in our order that the peer offers; with it the peer's proposal.
    #[must_use]
    pub fn choose<'p>(
        &self,
        offer: &'p [Proposal],
        pfs: bool,
    ) -> Option<(ChosenEsp, &'p Proposal)> {
        for encryption in &self.encryption {
            for proposal in offer {
                if let Some(chosen) = self.match_proposal(*encryption, proposal, pfs) {
                    return Some((chosen, proposal));
                }
            }
        }
        None
    }

    fn match_proposal(
        &self,
        encryption: EspEncryption,
        p: &Proposal,
        pfs: bool,
    ) -> Option<ChosenEsp> {
        let known = |t: &Transform| matches!(t.kind, T::ENCR | T::INTEG | T::KE | T::ESN);
        if p.protocol != ProtocolId::ESP || p.spi.len() != 4 || !p.transforms.iter().all(known) {
            return None;
        }
        let has = |t: Transform| p.transforms.contains(&t);
        if !has(encryption.transform()) {
            return None;
        }
        let suite = match encryption {
            EspEncryption::AesGcm16(bits) => EspSuite::AesGcm16(bits),
            EspEncryption::ChaCha20Poly1305 => EspSuite::ChaCha20Poly1305,
            EspEncryption::AesCbc(bits) => {
                let integrity = self.integrity.iter().find(|i| has(integrity_transform(**i)))?;
                EspSuite::AesCbc(bits, *integrity)
            }
        };
        if encryption.is_aead()
            && p.of(T::INTEG).next().is_some()
            && !has(transform(T::INTEG, 0, None))
        {
            return None;
        }
        // A proposal without an ESN transform means the old 32-bit numbers (RFC 7296 3.3.3 wants
        // one, but some peers leave it out).
        let offers_esn = |esn: bool| {
            has(transform(T::ESN, u16::from(esn), None)) || (!esn && p.of(T::ESN).next().is_none())
        };
        let esn = *self.esn.iter().find(|e| offers_esn(**e))?;
        let without = p.of(T::KE).next().is_none() || has(transform(T::KE, 0, None));
        let group = if pfs && !self.groups.is_empty() {
            Some(*self.groups.iter().find(|g| has(transform(T::KE, g.id(), None)))?)
        } else if without || !pfs {
            None
        } else {
            return None;
        };
        Some(ChosenEsp { suite, esn, group })
    }

    /// Names the first transform type in which no proposal of `offer` meets ours.
    #[must_use]
    pub fn difference(&self, offer: &[Proposal], pfs: bool) -> String {
        let all = [
            (T::ENCR, "encryption"),
            (T::INTEG, "integrity"),
            (T::KE, "PFS group"),
            (T::ESN, "extended sequence numbers"),
        ];
        let kinds: Vec<_> = all.into_iter().filter(|(kind, _)| pfs || *kind != T::KE).collect();
        super::difference(&self.offer(sa::Spi(0), pfs), offer, &kinds)
    }
}

impl ChosenEsp {
    /// The one proposal that answers with this suite and our inbound SPI.
    #[must_use]
    pub fn answer(&self, number: u8, spi: sa::Spi) -> Proposal {
        let mut transforms = Vec::new();
        match self.suite {
            EspSuite::AesGcm16(bits) => {
                transforms.push(EspEncryption::AesGcm16(bits).transform());
            }
            EspSuite::ChaCha20Poly1305 => {
                transforms.push(EspEncryption::ChaCha20Poly1305.transform());
            }
            EspSuite::AesCbc(bits, integrity) => {
                transforms.push(EspEncryption::AesCbc(bits).transform());
                transforms.push(integrity_transform(integrity));
            }
        }
        transforms.extend(self.group.map(|g| transform(T::KE, g.id(), None)));
        transforms.push(transform(T::ESN, u16::from(self.esn), None));
        Proposal { number, protocol: ProtocolId::ESP, spi: spi.to_be_bytes().to_vec(), transforms }
    }
}

impl fmt::Display for ChosenEsp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = self.answer(1, sa::Spi(0));
        for (i, t) in answer.transforms.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "/" }, name(t))?;
        }
        Ok(())
    }
}

impl fmt::Display for EspProposals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::list(&self.offer(sa::Spi(0), true), f)
    }
}
