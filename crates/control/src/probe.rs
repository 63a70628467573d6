//! Whether a tunnel carries data, and how large its packets may be: asked of the peer's inside
//! address by echo requests through the tunnel itself, because IKE may live where ESP does not.
//!
//! A peer need not answer: it is held against a path only if it answered before, or if the
//! connection's other tunnel answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Rounds of probes within the time after which an unanswered path is silent.
const ROUNDS: u32 = 4;
/// The shortest time between two rounds.
const SHORTEST_ROUND: Duration = Duration::from_millis(200);
/// The longest time between two rounds.
const LONGEST_ROUND: Duration = Duration::from_secs(10);
/// Octets of a probe that asks only whether there is an answer.
pub(crate) const SMALL: u16 = 60;
/// Rounds in a row in which the small probe is answered and the full-sized one is not, until the
/// path MTU is searched.
const MISSES: u32 = 3;
/// The least octets of an outer packet that are tried; IPv4's least MTU that a host must take.
const FLOOR: u16 = 576;
/// The least that the system may say of a path. It refuses what is larger, whoever made it believe that:
/// Linux takes any smaller claim for 552 octets, unless it is told otherwise.
const LEAST: u16 = 296;
/// How often a size is tried in a search before it counts as too large.
const TRIES: u32 = 2;
/// Probes whose answers are waited for at the same time: paths may be longer than a round.
const OUTSTANDING: usize = 8;
/// Sizes that differ by less are the same: ESP pads to 4 octets at least.
const STEP: u16 = 4;

/// What is known of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PathState {
    /// The peer never answered.
    Unknown,
    /// The peer answers.
    Carries,
    /// The peer answered, and does not any more.
    Silent,
}

/// A probe to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Probe {
    pub(crate) sequence: u16,
    pub(crate) size: Size,
}

/// How large a probe is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// [`SMALL`] octets.
    Small,
    /// As large as fits an outer packet of this many octets.
    Filling(u16),
    /// The same, to ask whether the path takes that: whatever the system believes.
    Asking(u16),
}

/// What an answer changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Change {
    /// The path carries data now, and did not a moment ago.
    pub(crate) back: bool,
    /// The outer path takes this many octets from now on.
    pub(crate) link_mtu: Option<u16>,
    /// The path takes more than ICMP said, and this is what it said.
    pub(crate) contradicted: Option<u16>,
}

/// The probes of one tunnel that is up.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    /// Nothing if the path is not asked.
    timeout: Option<Duration>,
    raise: Duration,
    sequence: u16,
    next_round: Instant,
    /// Whether a small probe was answered since the round began.
    heard: bool,
    began: Instant,
    answered: Option<Instant>,
    unanswered: u32,
    silent_since: Option<Instant>,
    /// Since when the path carries data without a break.
    good_since: Option<Instant>,
    rtt: Option<Duration>,
    small: VecDeque<(u16, Instant)>,
    mtu: Mtu,
}

/// The search for the largest outer packet.
#[derive(Clone, Debug)]
struct Mtu {
    /// What the configuration says.
    ceiling: u16,
    current: u16,
    /// Full-sized probes that wait for their answers.
    full: VecDeque<u16>,
    misses: u32,
    /// When a larger one is tried.
    raise_at: Instant,
    search: Option<Search>,
    /// What ICMP said, until a larger size is answered.
    told: Option<u16>,
}

/// `works` is known to pass, `fails` is known not to.
#[derive(Clone, Copy, Debug)]
struct Search {
    works: u16,
    fails: u16,
    trying: u16,
    tries: u32,
    sequence: u16,
    until: Instant,
}

impl Prober {
    /// Probes begin at once. `timeout` is how long the peer may be silent, nothing if the path is
    /// not asked; `raise` is how long a path MTU below `ceiling` is taken for granted.
    pub(crate) fn new(
        timeout: Option<Duration>,
        raise: Duration,
        ceiling: u16,
        now: Instant,
    ) -> Self {
        Self {
            timeout,
            raise,
            sequence: 0,
            next_round: now,
            heard: false,
            began: now,
            answered: None,
            unanswered: 0,
            silent_since: None,
            good_since: None,
            rtt: None,
            small: VecDeque::new(),
            mtu: Mtu {
                ceiling,
                current: ceiling,
                full: VecDeque::new(),
                misses: 0,
                raise_at: now + raise,
                search: None,
                told: None,
            },
        }
    }

    pub(crate) fn state(&self) -> PathState {
        match (self.answered, self.silent_since) {
            (None, _) => PathState::Unknown,
            (_, None) => PathState::Carries,
            (_, Some(_)) => PathState::Silent,
        }
    }

    /// Since when the path is silent.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// For how long the path has carried data without a break.
    pub(crate) fn good_for(&self, now: Instant) -> Option<Duration> {
        self.good_since.map(|since| now.saturating_duration_since(since))
    }

    /// Whether the peer had its time and never answered.
    pub(crate) fn never_answered(&self, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.began);
        self.answered.is_none() && self.timeout.is_some_and(|timeout| waited >= timeout)
    }

    /// Octets that the outer path takes, as far as is known.
    pub(crate) fn link_mtu(&self) -> u16 {
        self.mtu.current
    }

    /// The system learned the MTU of the outer path, from ICMP. Returns whether that is news. Anybody
    /// can send ICMP, so that the next probe asks whether the path does not take more after all.
    pub(crate) fn learn_mtu(&mut self, mtu: u16, now: Instant) -> bool {
        let mtu = mtu.clamp(LEAST.min(self.mtu.ceiling), self.mtu.ceiling);
        if mtu >= self.mtu.current {
            return false;
        }
        self.set_mtu(mtu, now);
        self.mtu.told = Some(mtu);
        (self.mtu.raise_at, self.next_round) = (now, now);
        true
    }

    /// What a new size says about ICMP.
    fn contradiction(&mut self, new: Option<u16>) -> Option<u16> {
        let larger = |told: &mut u16| new.is_some_and(|new| new >= told.saturating_add(STEP));
        self.mtu.told.take_if(larger)
    }

    fn set_mtu(&mut self, mtu: u16, now: Instant) {
        self.mtu.current = mtu;
        self.mtu.search = None;
        self.mtu.full.clear();
        self.mtu.misses = 0;
        self.mtu.raise_at = now + self.raise;
    }

    /// The outer path is another one: nothing that was learned of its size is true any more.
    pub(crate) fn path_changed(&mut self, now: Instant) {
        self.set_mtu(self.mtu.ceiling, now);
        self.mtu.told = None;
        self.next_round = now;
    }

    fn round(timeout: Duration) -> Duration {
        (timeout / ROUNDS).clamp(SHORTEST_ROUND, LONGEST_ROUND)
    }

    /// How long a probe of a search may take.
    fn patience(&self) -> Duration {
        let rtt = self.rtt.unwrap_or(Duration::from_millis(300));
        (rtt * 3).clamp(Duration::from_millis(150), Duration::from_secs(2))
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timeout?;
        let search = self.mtu.search.map(|search| search.until);
        [self.silent_at(), search].into_iter().flatten().chain([self.next_round]).min()
    }

    /// When the path becomes silent unless an answer comes.
    fn silent_at(&self) -> Option<Instant> {
        let judged = self.silent_since.is_none() && self.unanswered >= 2;
        self.answered.filter(|_| judged).zip(self.timeout).map(|(at, timeout)| at + timeout)
    }

    /// Does what is due. Returns what is to be sent, and whether the path fell silent just now.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> (Vec<Probe>, Change, bool) {
        let mut probes = Vec::new();
        let mut change = Change::default();
        let silent = self.silent_at().is_some_and(|at| at <= now);
        if silent {
            self.silent_since = Some(now);
            self.good_since = None;
        }
        if self.mtu.search.is_some_and(|search| search.until <= now) {
            change.link_mtu = self.size_failed(now, &mut probes);
            change.contradicted = self.contradiction(change.link_mtu);
        }
        if let Some(timeout) = self.timeout
            && self.next_round <= now
        {
            self.next_round = now + Self::round(timeout);
            self.begin_round(now, &mut probes);
        }
        (probes, change, silent)
    }

    fn begin_round(&mut self, now: Instant, probes: &mut Vec<Probe>) {
        if !std::mem::take(&mut self.heard) {
            self.unanswered = self.unanswered.saturating_add(u32::from(!self.small.is_empty()));
        } else if !self.mtu.full.is_empty() {
            self.mtu.misses += 1;
        }
        let sequence = self.take_sequence();
        self.small.truncate(OUTSTANDING - 1);
        self.small.push_front((sequence, now));
        probes.push(Probe { sequence, size: Size::Small });
        // Only a path that answers can say anything about sizes.
        if self.state() != PathState::Carries || self.mtu.search.is_some() {
            return;
        }
        if self.mtu.misses >= MISSES {
            self.search(FLOOR.min(self.mtu.current), self.mtu.current, FLOOR, now, probes);
        } else if self.mtu.current < self.mtu.ceiling && self.mtu.raise_at <= now {
            self.mtu.raise_at = now + self.raise;
            let ceiling = self.mtu.ceiling;
            self.search(self.mtu.current, ceiling.saturating_add(1), ceiling, now, probes);
        } else {
            let sequence = self.take_sequence();
            self.mtu.full.truncate(OUTSTANDING - 1);
            self.mtu.full.push_front(sequence);
            probes.push(Probe { sequence, size: Size::Filling(self.mtu.current) });
        }
    }

    fn take_sequence(&mut self) -> u16 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn search(&mut self, works: u16, fails: u16, first: u16, now: Instant, out: &mut Vec<Probe>) {
        self.mtu.full.clear();
        self.mtu.misses = 0;
        let sequence = self.take_sequence();
        let until = now + self.patience();
        let search = Search { works, fails, trying: first, tries: 1, sequence, until };
        self.mtu.search = Some(search);
        out.push(Probe { sequence, size: Size::Asking(first) });
    }

    /// No answer to the size that is being tried.
    fn size_failed(&mut self, now: Instant, probes: &mut Vec<Probe>) -> Option<u16> {
        let mut search = self.mtu.search.take()?;
        if search.tries >= TRIES {
            if search.trying <= search.works {
                // Not even the least size: this says nothing about sizes.
                return None;
            }
            search.fails = search.trying;
            return self.step(search, now, probes);
        }
        search.tries += 1;
        search.sequence = self.take_sequence();
        search.until = now + self.patience();
        self.mtu.search = Some(search);
        probes.push(Probe { sequence: search.sequence, size: Size::Asking(search.trying) });
        None
    }

    /// Tries the middle of what is open; at the end returns an MTU that is new.
    fn step(&mut self, search: Search, now: Instant, probes: &mut Vec<Probe>) -> Option<u16> {
        if search.fails.saturating_sub(search.works) > STEP {
            let middle = search.works + (search.fails - search.works) / 2;
            self.search(search.works, search.fails, middle, now, probes);
            return None;
        }
        // A search that ends where it began found nothing but the rounding of the padding.
        let old = self.mtu.current;
        let new = if search.works.abs_diff(old) < STEP { old } else { search.works };
        self.set_mtu(new, now);
        (old != new).then_some(new)
    }

    /// An answer came out of the tunnel. What it makes necessary is appended to `probes`.
    pub(crate) fn handle_answer(
        &mut self,
        sequence: u16,
        now: Instant,
        probes: &mut Vec<Probe>,
    ) -> Change {
        let small = self.small.iter().find(|(own, _)| *own == sequence).copied();
        let full = self.mtu.full.contains(&sequence);
        let searched = self.mtu.search.filter(|search| search.sequence == sequence);
        let mut change = Change::default();
        if small.is_none() && !full && searched.is_none() {
            return change;
        }
        change.back = self.state() != PathState::Carries;
        self.answered = Some(now);
        self.silent_since = None;
        self.good_since.get_or_insert(now);
        self.unanswered = 0;
        if let Some((_, sent)) = small {
            self.rtt = Some(now.saturating_duration_since(sent));
            self.small.clear();
            self.heard = true;
        }
        if full {
            self.mtu.full.clear();
            self.mtu.misses = 0;
        }
        if let Some(mut search) = searched {
            search.works = search.works.max(search.trying);
            self.mtu.search = None;
            change.link_mtu = self.step(search, now, probes);
            change.contradicted = self.contradiction(change.link_mtu);
        }
        if change.back {
            // The size of a path that begins to answer is worth a look at once.
            self.next_round = now;
        }
        change
    }
}
