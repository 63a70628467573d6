//! What happens when a request of the peer meets one of ours: RFC 7296 sections 2.8 and 2.25 as
//! one table.

use sa::Spi;

use crate::message::NotifyType;

/// The request of ours that is in flight. Child SAs are named by our SPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ours {
    /// None, or one that nothing can collide with.
    Nothing,
    CreateChild,
    RekeyChild(Spi),
    DeleteChild(Spi),
    RekeyIke,
    DeleteIke,
}

/// The request that came. `None` for a Child SA that we do not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Theirs {
    CreateChild,
    RekeyChild(Option<Spi>),
    DeleteChild(Option<Spi>),
    RekeyIke,
    DeleteIke,
}

/// What to do with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// As if ours did not exist.
    Proceed,
    /// As usual; when our answer comes, the nonces say which of the two results goes.
    ProceedAndCompare,
    /// As usual; ours is forgotten.
    ProceedAndForget,
    /// Answer, but without a Delete payload.
    AnswerEmpty,
    /// Answer with this error.
    Refuse(NotifyType),
}

/// What our IKE SA is while the request comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The one that holds the Child SAs.
    Current,
    /// Replaced by a rekey, or not yet known to be the one that stays: its Child SAs are
    /// elsewhere.
    Other,
}

/// The table.
pub(crate) fn verdict(place: Place, ours: Ours, theirs: Theirs) -> Verdict {
    use Verdict::{AnswerEmpty, Proceed, ProceedAndCompare, ProceedAndForget, Refuse};
    let temporary = Refuse(NotifyType::TEMPORARY_FAILURE);
    match (ours, theirs) {
        // 2.25.2: closing wins over everything, and is always answered.
        (Ours::DeleteIke | Ours::RekeyIke, Theirs::DeleteIke) => ProceedAndForget,
        (_, Theirs::DeleteIke) => Proceed,
        (Ours::DeleteIke, Theirs::DeleteChild(_)) => AnswerEmpty,
        (Ours::DeleteIke, _) => temporary,
        // 2.25.1: nothing is begun on an IKE SA that is being replaced, or was.
        _ if place == Place::Other => match theirs {
            Theirs::DeleteChild(_) => AnswerEmpty,
            _ => temporary,
        },
        (Ours::RekeyIke, Theirs::RekeyIke) => ProceedAndCompare,
        (Ours::RekeyIke, Theirs::CreateChild | Theirs::RekeyChild(_)) => temporary,
        (Ours::CreateChild | Ours::RekeyChild(_) | Ours::DeleteChild(_), Theirs::RekeyIke) => {
            temporary
        }
        // A Child SA that is not there.
        (_, Theirs::RekeyChild(None)) => Refuse(NotifyType::CHILD_SA_NOT_FOUND),
        (_, Theirs::DeleteChild(None)) => AnswerEmpty,
        // The same Child SA.
        (Ours::RekeyChild(a), Theirs::RekeyChild(Some(b))) if a == b => ProceedAndCompare,
        (Ours::DeleteChild(a), Theirs::RekeyChild(Some(b))) if a == b => temporary,
        (Ours::DeleteChild(a), Theirs::DeleteChild(Some(b))) if a == b => AnswerEmpty,
        // A tunnel has one Child SA: two that are made at once are compared like rekeys.
        (Ours::CreateChild, Theirs::CreateChild) => ProceedAndCompare,
        _ => Proceed,
    }
}

/// Of two results of crossing exchanges, whether ours is the redundant one: the one that the
/// lowest of the four nonces made (RFC 7296 2.8.1). Each argument is the lower nonce of a pair.
pub(crate) fn ours_is_redundant(ours: &[u8], theirs: &[u8]) -> bool {
    ours < theirs
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Spi = Spi(0x1000);
    const B: Spi = Spi(0x2000);

    /// Every pair on an IKE SA that holds the Child SAs, row by row as RFC 7296 2.25 has them.
    #[test]
    fn the_whole_table() {
        use Verdict::*;
        let busy = Refuse(NotifyType::TEMPORARY_FAILURE);
        let gone = Refuse(NotifyType::CHILD_SA_NOT_FOUND);
        let theirs = [
            Theirs::CreateChild,
            Theirs::RekeyChild(Some(A)),
            Theirs::RekeyChild(Some(B)),
            Theirs::RekeyChild(None),
            Theirs::DeleteChild(Some(A)),
            Theirs::DeleteChild(Some(B)),
            Theirs::DeleteChild(None),
            Theirs::RekeyIke,
            Theirs::DeleteIke,
        ];
        let table = [
            (
                Ours::Nothing,
                [Proceed, Proceed, Proceed, gone, Proceed, Proceed, AnswerEmpty, Proceed, Proceed],
            ),
            (
                Ours::CreateChild,
                [
                    ProceedAndCompare,
                    Proceed,
                    Proceed,
                    gone,
                    Proceed,
                    Proceed,
                    AnswerEmpty,
                    busy,
                    Proceed,
                ],
            ),
            (
                Ours::RekeyChild(A),
                [
                    Proceed,
                    ProceedAndCompare,
                    Proceed,
                    gone,
                    Proceed,
                    Proceed,
                    AnswerEmpty,
                    busy,
                    Proceed,
                ],
            ),
            (
                Ours::DeleteChild(A),
                [Proceed, busy, Proceed, gone, AnswerEmpty, Proceed, AnswerEmpty, busy, Proceed],
            ),
            (
                Ours::RekeyIke,
                [
                    busy,
                    busy,
                    busy,
                    busy,
                    Proceed,
                    Proceed,
                    AnswerEmpty,
                    ProceedAndCompare,
                    ProceedAndForget,
                ],
            ),
            (
                Ours::DeleteIke,
                [
                    busy,
                    busy,
                    busy,
                    busy,
                    AnswerEmpty,
                    AnswerEmpty,
                    AnswerEmpty,
                    busy,
                    ProceedAndForget,
                ],
            ),
        ];
        for (ours, row) in table {
            for (theirs, expected) in theirs.into_iter().zip(row) {
                let got = verdict(Place::Current, ours, theirs);
                assert_eq!(got, expected, "ours {ours:?}, theirs {theirs:?}");
            }
        }
    }

    #[test]
    fn an_ike_sa_without_children_only_closes() {
        let busy = Verdict::Refuse(NotifyType::TEMPORARY_FAILURE);
        for (theirs, expected) in [
            (Theirs::CreateChild, busy),
            (Theirs::RekeyChild(Some(A)), busy),
            (Theirs::RekeyIke, busy),
            (Theirs::DeleteChild(Some(A)), Verdict::AnswerEmpty),
            (Theirs::DeleteIke, Verdict::Proceed),
        ] {
            assert_eq!(verdict(Place::Other, Ours::Nothing, theirs), expected, "{theirs:?}");
        }
    }

    #[test]
    fn the_lowest_of_four_nonces_loses() {
        assert!(ours_is_redundant(&[1, 9], &[2, 0]));
        assert!(!ours_is_redundant(&[2, 0], &[1, 9]));
        assert!(ours_is_redundant(&[1], &[1, 0]), "a prefix is lower");
    }
}
