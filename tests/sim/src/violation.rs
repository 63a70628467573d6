//! What must never happen.

use std::fmt;
use std::time::Duration;

/// The invariants, each named for how it is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Kind {
    /// Something panicked.
    Panic,
    /// Not one IKE SA and one pair of Child SAs for each tunnel, long after everything calmed down.
    NotAtRest,
    /// A tunnel that a site is to begin, is not there, and that the site does nothing about.
    Forgotten,
    /// A sequence number or an IV was used twice under one key.
    Reuse,
    /// A packet came out twice.
    DeliveredTwice,
    /// A packet came out that nobody sent, or not as it was sent, or elsewhere.
    NeverSent,
    /// A packet was lost although the link lost nothing and nobody restarted.
    Lost,
    /// More SAs than a tunnel can have use for.
    Unbounded,
    /// The counters do not add up.
    Counters,
    /// Time stands still: the same instant wants to be handled again and again.
    Spin,
    /// A command that must work was refused.
    Refused,
}

/// One broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub kind: Kind,
    /// When, from the beginning of the schedule.
    pub at: Duration,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.3} s: {}", self.kind, self.at.as_secs_f64(), self.text)
    }
}
