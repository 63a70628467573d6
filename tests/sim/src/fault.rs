//! Faults put in on purpose: an invariant that never objects proves nothing.

/// What goes wrong in a schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// A packet that was opened is handed to the site twice.
    DeliverTwice,
    /// An octet of an opened packet is changed.
    Corrupt,
    /// A packet is opened and not handed on.
    Swallow,
    /// The sender repeats a sequence number: a sealed datagram is sent again as a new one.
    RepeatSequence,
    /// The data plane is not told that an SA was removed.
    KeepInbound,
    /// A gateway receives no longer with the old SA at the moment it deletes it.
    NoGrace,
    /// A datagram is opened behind the model's back.
    Uncounted,
    /// A gateway panics at a rekey.
    Panic,
    /// A peer's half-open SAs are never given up.
    KeepHalfOpen,
}
