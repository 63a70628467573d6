//! The sessions of one peer: the one that seals, the one before it, and one that waits for its
//! first message (whitepaper 5.4.5 and 6).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use simd_aead::{Algorithm, Key};

use super::handshake::SessionKeys;
use crate::replay::ReplayWindow;

/// Age at which a session seals and opens nothing any more.
pub(super) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Messages that may be late at most.
const WINDOW: u32 = 8192;

/// One session. What a batch needs of it stands behind no lock of the peer, so that one direction
/// encrypts while the other one does, too.
pub(crate) struct Keypair {
    /// Our index, which messages to us name.
    pub(super) index: u32,
    /// The peer's index, which messages to it name.
    pub(super) remote: u32,
    /// Counts the peer's sessions.
    pub(super) number: u64,
    /// Whether we began it.
    pub(super) by_us: bool,
    pub(super) created: Instant,
    pub(super) send: Key,
    pub(super) receive: Key,
    /// Only the receiving thread takes this lock.
    window: Mutex<ReplayWindow>,
}

impl Keypair {
    /// `None` only if a key has not 32 octets, which none of a handshake's can.
    pub(super) fn new(
        keys: &SessionKeys,
        [index, remote]: [u32; 2],
        (number, by_us, created): (u64, bool, Instant),
    ) -> Option<Self> {
        let key = |octets| Key::new(Algorithm::ChaCha20Poly1305, octets).ok();
        Some(Self {
            index,
            remote,
            number,
            by_us,
            created,
            send: key(&*keys.send)?,
            receive: key(&*keys.receive)?,
            window: Mutex::new(ReplayWindow::new(WINDOW, true)),
        })
    }

    pub(super) fn window(&self) -> MutexGuard<'_, ReplayWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }

    fn usable(&self, now: Instant) -> bool {
        self.age(now) < REJECT_AFTER_TIME
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({:08x})", self.index)
    }
}

/// A session that seals, and the counter of its next message.
struct Current {
    keys: Arc<Keypair>,
    next: u64,
}

/// All sessions of one peer.
#[derive(Default)]
pub(super) struct Keypairs {
    current: Option<Current>,
    /// What came before, the newest first. It seals no more, and opens what is late; two of them
    /// because two handshakes that cross make two sessions at once.
    former: [Option<Arc<Keypair>>; 2],
    /// We answered an initiation, and nothing came on this yet: the peer may not have the answer.
    next: Option<Arc<Keypair>>,
    /// Sessions so far.
    made: u64,
}

impl Keypairs {
    /// The number of the next session.
    pub(super) fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// Takes a session that the peer's response made: the peer has it, too. One that waited stays
    /// for what the peer may send on it after two handshakes crossed.
    pub(super) fn begun_by_us(&mut self, keys: Keypair) {
        self.promote(Arc::new(keys));
        if let Some(waiting) = self.next.take() {
            let [former, _] = std::mem::take(&mut self.former);
            self.former = [Some(waiting), former];
        }
    }

    /// Takes a session that a response of ours made. It must not seal before the peer confirms it.
    pub(super) fn begun_by_peer(&mut self, keys: Keypair) {
        self.next = Some(Arc::new(keys));
    }

    /// Something authentic came on `keys`. Returns whether that confirmed a session, which seals
    /// from here on.
    pub(super) fn confirm(&mut self, keys: &Arc<Keypair>) -> bool {
        let next = self.next.take_if(|next| Arc::ptr_eq(next, keys));
        next.map(|keys| self.promote(keys)).is_some()
    }

    fn promote(&mut self, keys: Arc<Keypair>) {
        if let Some(current) = self.current.replace(Current { keys, next: 0 }) {
            let [former, _] = std::mem::take(&mut self.former);
            self.former = [Some(current.keys), former];
        }
    }

    /// The session with this index of ours, if its age allows its use.
    pub(super) fn find(&self, index: u32, now: Instant) -> Option<&Arc<Keypair>> {
        self.all().find(|keys| keys.index == index).filter(|keys| keys.usable(now))
    }

    /// Whether a session has this index.
    pub(super) fn has(&self, index: u32) -> bool {
        self.all().any(|keys| keys.index == index)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Keypair>> {
        let current = self.current.as_ref().map(|current| &current.keys);
        current.into_iter().chain(self.former.iter().flatten()).chain(&self.next)
    }

    /// The session that seals, if its age allows that.
    pub(super) fn current(&self, now: Instant) -> Option<&Arc<Keypair>> {
        self.current.as_ref().map(|c| &c.keys).filter(|keys| keys.usable(now))
    }

    /// The counter of the next message on the session that seals, which is below `limit`; counts
    /// it. No number is given out twice: who asks holds the peer's lock.
    pub(super) fn take_counter(&mut self, limit: u64) -> Option<u64> {
        let current = self.current.as_mut().filter(|current| current.next < limit)?;
        let counter = current.next;
        current.next += 1;
        Some(counter)
    }

    /// Forgets, and so wipes, sessions that may not be used any more. The protocol asks for that
    /// after three times this age (whitepaper 6.2).
    pub(super) fn expire(&mut self, now: Instant) {
        self.current.take_if(|current| !current.keys.usable(now));
        self.former.iter_mut().for_each(|former| drop(former.take_if(|k| !k.usable(now))));
        self.next.take_if(|keys| !keys.usable(now));
    }
}
