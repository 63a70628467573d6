//! What an IKE SA and a Child SA are protected with: our lists in order of preference, the offer
//! made of them, the choice from a peer's offer, and the first thing that differs.

mod esp;
mod ike;

pub use esp::{ChosenEsp, EspEncryption, EspProposals};
pub use ike::{ChosenIke, Hash, IkeEncryption, IkeProposals, KeGroup};

use std::fmt;

use crate::message::{Proposal, Transform, TransformType};

pub(crate) fn transform(kind: TransformType, id: u16, key_length: Option<u16>) -> Transform {
    Transform { kind, id, key_length }
}

/// A text for a transform that need not be one of ours.
pub(crate) fn name(t: &Transform) -> String {
    let plain = |name: &str| match t.key_length {
        Some(bits) => format!("{name}-{bits}"),
        None => name.to_owned(),
    };
    match (t.kind, t.id) {
        (TransformType::ENCR, 2) => "DES".into(),
        (TransformType::ENCR, 3) => "3DES".into(),
        (TransformType::ENCR, 11) => "NULL".into(),
        (TransformType::ENCR, 12) => plain("AES_CBC"),
        (TransformType::ENCR, 13) => plain("AES_CTR"),
        (TransformType::ENCR, 18) => plain("AES_GCM_8"),
        (TransformType::ENCR, 19) => plain("AES_GCM_12"),
        (TransformType::ENCR, 20) => plain("AES_GCM_16"),
        (TransformType::ENCR, 28) => "CHACHA20_POLY1305".into(),
        (TransformType::PRF, 1) => "PRF_HMAC_MD5".into(),
        (TransformType::PRF, 2) => "PRF_HMAC_SHA1".into(),
        (TransformType::PRF, 5) => "PRF_HMAC_SHA2_256".into(),
        (TransformType::PRF, 6) => "PRF_HMAC_SHA2_384".into(),
        (TransformType::PRF, 7) => "PRF_HMAC_SHA2_512".into(),
        (TransformType::INTEG, 1) => "HMAC_MD5_96".into(),
        (TransformType::INTEG, 2) => "HMAC_SHA1_96".into(),
        (TransformType::INTEG, 12) => "HMAC_SHA2_256_128".into(),
        (TransformType::INTEG, 13) => "HMAC_SHA2_384_192".into(),
        (TransformType::INTEG, 14) => "HMAC_SHA2_512_256".into(),
        (TransformType::KE, 0) => "NONE".into(),
        (TransformType::KE, 2) => "MODP_1024".into(),
        (TransformType::KE, 5) => "MODP_1536".into(),
        (TransformType::KE, id) => match KeGroup::from_id(id) {
            Some(group) => group.to_string(),
            None => format!("KE_{id}"),
        },
        (TransformType::ESN, 0) => "NO_ESN".into(),
        (TransformType::ESN, 1) => "ESN".into(),
        (TransformType(kind), id) => format!("T{kind}_{id}"),
    }
}

/// The most names in one list: a peer may offer thousands of transforms.
const MOST_NAMES: usize = 16;

/// `a, b, c` of the names of transforms.
pub(crate) fn names<'a>(transforms: impl Iterator<Item = &'a Transform>) -> String {
    let mut seen: Vec<&Transform> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    for t in transforms {
        if seen.contains(&t) {
            continue;
        }
        if seen.len() == MOST_NAMES {
            texts.push("and more".into());
            break;
        }
        seen.push(t);
        let text = name(t);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.is_empty() { "nothing".into() } else { texts.join(", ") }
}

/// The names of all transforms of some proposals: `A, B / C / D or E / F`, one part a type.
pub(crate) fn list(proposals: &[Proposal], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kinds = [1, 3, 2, 4, 5].map(TransformType);
    for (i, proposal) in proposals.iter().enumerate() {
        f.write_str(if i == 0 { "" } else { " or " })?;
        let parts: Vec<String> = kinds
            .into_iter()
            .filter(|kind| proposal.of(*kind).next().is_some())
            .map(|kind| names(proposal.of(kind)))
            .collect();
        f.write_str(&parts.join(" / "))?;
    }
    Ok(())
}

/// Names the first of `kinds` in which no proposal of theirs meets one of ours. Only pairs of
/// proposals that agree in the types before count, so that an AES-CBC proposal of theirs does not
/// hide what is wrong with the AEAD one that we would otherwise take.
pub(crate) fn difference(
    ours: &[Proposal],
    theirs: &[Proposal],
    kinds: &[(TransformType, &str)],
) -> String {
    let mut pairs: Vec<(Option<&Proposal>, Option<&Proposal>)> =
        ours.iter().flat_map(|o| theirs.iter().map(move |t| (Some(o), Some(t)))).collect();
    if pairs.is_empty() {
        pairs = vec![(ours.first(), theirs.first())];
    }
    for (kind, what) in kinds {
        let (of_ours, of_theirs): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        pairs.retain(|(o, t)| o.zip(*t).is_some_and(|(o, t)| meets(*kind, o, t)));
        if pairs.is_empty() {
            let all = |side: Vec<Option<&Proposal>>| {
                names(side.into_iter().flatten().flat_map(|p| p.of(*kind)))
            };
            return format!("{what}: they offer {}, we accept {}", all(of_theirs), all(of_ours));
        }
    }
    "no single proposal holds a combination that we accept".into()
}

/// Whether two proposals share a transform of `kind`, or both do without.
fn meets(kind: TransformType, ours: &Proposal, theirs: &Proposal) -> bool {
    let none = transform(kind, 0, None);
    let absent = theirs.of(kind).next().is_none();
    if ours.of(kind).next().is_none() {
        return absent || theirs.of(kind).any(|t| *t == none);
    }
    // A proposal without an ESN transform means the 32-bit numbers, whose id is 0 as NONE's is.
    let implied = kind == TransformType::ESN && absent && ours.of(kind).any(|t| *t == none);
    implied || theirs.of(kind).any(|t| ours.of(kind).any(|o| o == t))
}
