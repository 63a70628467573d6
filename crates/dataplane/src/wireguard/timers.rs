//! What is due when: the rules of whitepaper section 6, as deadlines that a tick looks at.

use std::time::{Duration, Instant};

/// When the initiator of a session begins the next one.
pub(super) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// How long an initiation waits for its response, less jitter.
pub(super) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long initiations are repeated.
pub(super) const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// How long the receiver of data may be silent.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bound of the jitter of a repeated initiation, in milliseconds.
const JITTER: u32 = 334;

/// The times of one peer.
pub(super) struct Timers {
    /// Between keepalives, if the user wants them without any cause.
    keepalive: Option<Duration>,
    /// Since when data of the peer has had no message of ours.
    owed: Option<Instant>,
    /// Since when data of ours has had no message of the peer's and no new handshake.
    silence: Option<Instant>,
    /// Since when data of ours has had no message of the peer's: for the user.
    unanswered: Option<Instant>,
    /// The last authentic message either way.
    traversed: Option<Instant>,
    /// When the handshake that runs began; unknown until a tick brings the time.
    attempt: Option<Instant>,
    /// When its last initiation left, and the jitter of the next one.
    initiated: Option<Instant>,
    jitter: Duration,
}

/// What a handshake that runs needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    Wait,
    Repeat,
    GiveUp,
}

impl Timers {
    /// `keepalive` is in seconds; 0 is none.
    pub(super) fn new(keepalive: Option<u16>) -> Self {
        let keepalive = keepalive.filter(|seconds| *seconds > 0);
        Self {
            keepalive: keepalive.map(|seconds| Duration::from_secs(seconds.into())),
            owed: None,
            silence: None,
            unanswered: None,
            traversed: None,
            attempt: None,
            initiated: None,
            jitter: Duration::ZERO,
        }
    }

    /// Whether the connection is to be kept alive without data.
    pub(super) fn persistent(&self) -> bool {
        self.keepalive.is_some()
    }

    pub(super) fn unanswered(&self) -> Option<Instant> {
        self.unanswered
    }

    /// A message of ours left that the peer can authenticate.
    pub(super) fn sent(&mut self, now: Option<Instant>) {
        self.owed = None;
        self.traversed = now.or(self.traversed);
    }

    /// Data left.
    pub(super) fn sent_data(&mut self, now: Instant) {
        self.sent(Some(now));
        self.silence.get_or_insert(now);
        self.unanswered.get_or_insert(now);
    }

    /// An authentic message came.
    pub(super) fn received(&mut self, now: Instant) {
        self.silence = None;
        self.unanswered = None;
        self.traversed = Some(now);
    }

    /// Data came.
    pub(super) fn received_data(&mut self, now: Instant) {
        self.owed.get_or_insert(now);
    }

    /// An initiation leaves; `first` if none was on its way. `random` makes the jitter.
    pub(super) fn initiate(&mut self, first: bool, random: u32, now: Option<Instant>) {
        if first {
            self.attempt = now;
        }
        self.initiated = now;
        self.jitter = Duration::from_millis((random % JITTER).into());
        self.silence = None;
        self.sent(now);
    }

    /// What the handshake that runs needs.
    pub(super) fn attempt(&mut self, now: Instant) -> Attempt {
        let since =
            |at: &mut Option<Instant>| now.saturating_duration_since(*at.get_or_insert(now));
        if since(&mut self.attempt) >= REKEY_ATTEMPT_TIME {
            Attempt::GiveUp
        } else if since(&mut self.initiated) >= REKEY_TIMEOUT + self.jitter {
            Attempt::Repeat
        } else {
            Attempt::Wait
        }
    }

    /// Data had no answer for so long that the peer may have lost the session.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silence.is_some_and(|since| {
            now.saturating_duration_since(since) >= KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
        })
    }

    /// An empty message is due: the peer waits for one, or the user wants one.
    pub(super) fn keepalive_due(&self, now: Instant) -> bool {
        let passed = |at: Option<Instant>, time| {
            at.is_some_and(|at| now.saturating_duration_since(at) >= time)
        };
        passed(self.owed, KEEPALIVE_TIMEOUT)
            || self.keepalive.is_some_and(|time| passed(self.traversed, time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_initiation_is_repeated_with_jitter_and_given_up_after_ninety_seconds() {
        let start = Instant::now();
        let mut timers = Timers::new(None);
        timers.initiate(true, 333, Some(start));
        let jitter = Duration::from_millis(333);
        let early = start + REKEY_TIMEOUT + jitter - Duration::from_millis(1);
        assert_eq!(timers.attempt(early), Attempt::Wait);
        assert_eq!(timers.attempt(start + REKEY_TIMEOUT + jitter), Attempt::Repeat);
        timers.initiate(false, 334, Some(start + seconds(86)));
        assert_eq!(timers.attempt(start + seconds(89)), Attempt::Wait, "no jitter, but too early");
        assert_eq!(timers.attempt(start + seconds(90)), Attempt::GiveUp);
        // One that the user asked for before there was any time.
        timers.initiate(true, 0, None);
        assert_eq!(timers.attempt(start + seconds(100)), Attempt::Wait);
        assert_eq!(timers.attempt(start + seconds(105)), Attempt::Repeat);
        assert_eq!(timers.attempt(start + seconds(190)), Attempt::GiveUp);
    }

    #[test]
    fn data_without_answer_asks_for_a_handshake_once_until_there_is_more_data() {
        let start = Instant::now();
        let mut timers = Timers::new(None);
        timers.sent_data(start);
        timers.sent_data(start + seconds(14));
        assert!(!timers.is_silent(start + seconds(14)));
        assert!(timers.is_silent(start + seconds(15)));
        timers.initiate(true, 0, Some(start + seconds(15)));
        assert!(!timers.is_silent(start + seconds(1000)));
        assert_eq!(timers.unanswered(), Some(start), "the user is told all of it");
        timers.sent_data(start + seconds(1000));
        assert!(timers.is_silent(start + seconds(1015)));
        timers.received(start + seconds(1015));
        assert!(!timers.is_silent(start + seconds(2000)));
        assert_eq!(timers.unanswered(), None);
    }

    #[test]
    fn data_that_came_is_answered_after_ten_seconds_and_anything_sent_answers_it() {
        let start = Instant::now();
        let mut timers = Timers::new(None);
        timers.received(start);
        assert!(!timers.keepalive_due(start + seconds(100)), "a keepalive wants no answer");
        timers.received_data(start);
        timers.received_data(start + seconds(9));
        assert!(!timers.keepalive_due(start + seconds(9)));
        assert!(timers.keepalive_due(start + seconds(10)));
        timers.sent(Some(start + seconds(10)));
        assert!(!timers.keepalive_due(start + seconds(100)));
    }

    #[test]
    fn a_persistent_keepalive_follows_the_last_message_either_way_and_zero_is_none() {
        let start = Instant::now();
        let mut timers = Timers::new(Some(25));
        assert!(timers.persistent() && !timers.keepalive_due(start), "nothing ever passed");
        timers.sent(Some(start));
        timers.received(start + seconds(20));
        assert!(!timers.keepalive_due(start + seconds(44)));
        assert!(timers.keepalive_due(start + seconds(45)));
        assert!(!Timers::new(Some(0)).persistent());
    }
}
