//! One peer: its handshakes, its sessions, where it is, and what waits for a session.
//!
//! Everything here stands behind the peer's lock, which both data threads take for a moment: to
//! count a message, never to encrypt one. The exceptions are messages of our own: handshakes,
//! keepalives, and what waited.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use packet::{MAX_DATAGRAM, WireBatch};
use rand_core::{OsRng, RngCore};
use sa::Path;
use simd_aead::{Aad, Checksum, SealJob, seal_batch};
use x25519_dalek::StaticSecret;

use super::cookie::Stamper;
use super::handshake::{Initiated, Own, Received, SessionKeys, Statics, Timestamp};
use super::keypairs::{Keypair, Keypairs, REJECT_AFTER_TIME};
use super::message::{
    DATA_HEADER, INITIATION, OVERHEAD, RESPONSE, nonce, put, put_data_header, word,
};
use super::timers::{Attempt, KEEPALIVE_TIMEOUT, REKEY_TIMEOUT, Timers};
use crate::seal::append_run;
use crate::{DropReason, ecn};

/// Octets of the longest data message: what UDP over IPv4 takes.
const LONGEST: usize = MAX_DATAGRAM - 28;
/// Packets are padded to a multiple of this, as far as the MTU allows (whitepaper 5.4.6).
const PAD_TO: usize = 16;
/// Packets that wait for a handshake at most.
const QUEUE: usize = 256;
/// Messages on one key after which a new one is made, and after which it is used no more.
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
pub(super) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Seconds of TAI64 at the epoch of Unix.
const TAI64_EPOCH: u64 = (1 << 62) + 37;

/// What a session is made from.
pub(super) struct Settings {
    pub(super) private: [u8; 32],
    pub(super) public: [u8; 32],
    pub(super) preshared: Option<[u8; 32]>,
    pub(super) index: u32,
    pub(super) keepalive: Option<u16>,
    pub(super) path: Option<Path>,
    pub(super) rekey_after: Duration,
}

/// One peer's sessions, and where it is.
pub(super) struct Session {
    statics: Statics,
    stamper: Stamper,
    keypairs: Keypairs,
    timers: Timers,
    /// Our initiation that has no answer yet, by our index.
    pending: Option<(u32, Initiated)>,
    /// The last index that we gave out: the peer's number, and a count in the lowest octet.
    index: u32,
    /// The timestamps of the last initiation of ours, and of the peer.
    stamped: Timestamp,
    newest_initiation: Timestamp,
    path: Option<Path>,
    /// Where the configuration says that it is.
    home: Option<Path>,
    /// Initiations since the last authenticated message.
    attempts: u32,
    rekey_after: Duration,
    rekey_after_messages: u64,
    reject_after_messages: u64,
    /// Session and counter of the newest authenticated message.
    newest: (u64, Option<u64>),
    /// When the session that is used was made, and whether we began it.
    established: Option<(Instant, bool)>,
    /// Data was sent on it.
    used: bool,
    /// Packets with their padding that wait for a handshake, and their outer traffic classes.
    waiting: VecDeque<(u8, Vec<u8>)>,
    /// Of those, how many were given up since somebody asked.
    lost: usize,
    begun: bool,
}

/// How a peer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// There is a session that may be used.
    pub(super) session: bool,
    pub(super) established: Option<Instant>,
    /// Data was sent, and nothing came since.
    pub(super) unanswered_since: Option<Instant>,
    pub(super) path: Option<Path>,
}

/// A run of data messages that were opened with one session.
#[derive(Default)]
pub(super) struct Arrived {
    /// Counter and path of the newest one.
    pub(super) newest: Option<(u64, Path)>,
    /// One was not empty.
    pub(super) data: bool,
}

impl Arrived {
    /// Takes one more that is authentic.
    pub(super) fn add(&mut self, counter: u64, path: Path, data: bool) {
        if self.newest.is_none_or(|(newest, _)| counter > newest) {
            self.newest = Some((counter, path));
        }
        self.data |= data;
    }
}

impl Session {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            statics: Statics::new(Own::new(settings.private), settings.public, settings.preshared),
            stamper: Stamper::new(&settings.public),
            keypairs: Keypairs::default(),
            timers: Timers::new(settings.keepalive),
            pending: None,
            index: settings.index << 8,
            stamped: [0; 12],
            newest_initiation: [0; 12],
            path: settings.path,
            home: settings.path,
            attempts: 0,
            rekey_after: settings.rekey_after,
            rekey_after_messages: REKEY_AFTER_MESSAGES,
            reject_after_messages: REJECT_AFTER_MESSAGES,
            newest: (0, None),
            established: None,
            used: false,
            waiting: VecDeque::new(),
            lost: 0,
            begun: false,
        }
    }

    pub(super) fn path(&self) -> Option<Path> {
        self.path
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        Standing {
            session: self.keypairs.current(now).is_some(),
            established: self.established.map(|(at, _)| at),
            unanswered_since: self.timers.unanswered(),
            path: self.path,
        }
    }

    /// The session that seals now; `None` if there is none.
    pub(super) fn sealing(&self, now: Instant) -> Option<&Arc<Keypair>> {
        self.keypairs.current(now)
    }

    /// The session that opens messages to `index`.
    pub(super) fn opening(&self, index: u32, now: Instant) -> Option<&Arc<Keypair>> {
        self.keypairs.find(index, now)
    }

    /// Counts a data message on [`Self::sealing`]. Returns its counter.
    pub(super) fn count(&mut self, now: Instant, wire: &mut WireBatch) -> Result<u64, DropReason> {
        let Some(counter) = self.keypairs.take_counter(self.reject_after_messages) else {
            self.initiate(false, Some(now), wire);
            return Err(DropReason::SequenceExhausted);
        };
        self.used = true;
        self.timers.sent_data(now);
        Ok(counter)
    }

    /// The data message with this counter has its place: a key that sealed many is replaced.
    pub(super) fn counted(&mut self, counter: u64, now: Instant, wire: &mut WireBatch) {
        if counter >= self.rekey_after_messages {
            self.initiate(false, Some(now), wire);
        }
    }

    /// Keeps the packet that `parts` are until there is a session, and begins a handshake.
    pub(super) fn wait(
        &mut self,
        parts: [&[u8]; 2],
        (mtu, tos): (u16, u8),
        now: Instant,
        wire: &mut WireBatch,
    ) -> Result<(), DropReason> {
        self.initiate(false, Some(now), wire);
        if self.waiting.len() >= QUEUE {
            return Err(DropReason::WireGuardQueue);
        }
        let mut packet = parts.concat();
        packet.resize(padded(packet.len(), mtu)?, 0);
        self.waiting.push_back((ecn::encapsulate(tos), packet));
        Ok(())
    }

    /// A run of data messages was opened with `keys`.
    pub(super) fn arrived(
        &mut self,
        keys: &Arc<Keypair>,
        run: &Arrived,
        now: Instant,
        replies: &mut WireBatch,
    ) {
        let Some((counter, path)) = run.newest else { return };
        // Only the newest message tells where the peer is; late ones tell where it was.
        if (keys.number, Some(counter)) > self.newest {
            self.newest = (keys.number, Some(counter));
            self.path = Some(path);
        }
        if self.keypairs.confirm(keys) {
            self.establish(false, now);
        }
        self.answered(now);
        if run.data {
            self.timers.received_data(now);
        }
        if !self.waiting.is_empty() {
            self.send_waiting(now, replies);
        }
        // The peer will go on, and this session will soon not be there to answer it.
        let late = REJECT_AFTER_TIME.saturating_sub(KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
        if self.keypairs.current(now).is_some_and(|keys| keys.by_us && keys.age(now) >= late) {
            self.initiate(false, Some(now), replies);
        }
    }

    /// Takes an initiation that the guard let pass, and answers it.
    pub(super) fn handle_initiation(
        &mut self,
        mut initiation: Received,
        path: Path,
        now: Instant,
        replies: &mut WireBatch,
    ) -> Result<(), DropReason> {
        let bad = DropReason::WireGuardHandshake;
        let timestamp = initiation.authenticate(&self.statics).ok_or(bad)?;
        if timestamp <= self.newest_initiation {
            return Err(bad);
        }
        self.newest_initiation = timestamp;
        let index = self.next_index();
        let ephemeral = StaticSecret::random_from_rng(OsRng);
        let mut message = [0; RESPONSE];
        let (remote, keys) =
            initiation.respond(&self.statics, ephemeral, index, &mut message).ok_or(bad)?;
        let keys = self.keypair(&keys, [index, remote], false, now)?;
        self.keypairs.begun_by_peer(keys);
        self.stamper.stamp(index, &mut message, Some(now));
        // An initiation may be an old one that somebody repeats after a restart of ours. It is
        // answered where it came from; the peer moves when it uses the session.
        send(replies, path, &message);
        self.timers.sent(Some(now));
        Ok(())
    }

    /// Takes a response, which makes a session that may be used at once.
    pub(super) fn handle_response(
        &mut self,
        message: &[u8; RESPONSE],
        path: Path,
        now: Instant,
        replies: &mut WireBatch,
    ) -> Result<(), DropReason> {
        let bad = DropReason::WireGuardHandshake;
        let asked = self.pending.as_ref().filter(|(index, _)| word(message, 8) == Some(*index));
        let (index, initiated) = asked.ok_or(bad)?;
        let index = *index;
        let (remote, keys) = initiated.finish(&self.statics, message).ok_or(bad)?;
        self.pending = None;
        let keys = self.keypair(&keys, [index, remote], true, now)?;
        self.newest = (keys.number, None);
        self.keypairs.begun_by_us(keys);
        self.path = Some(path);
        self.establish(true, now);
        self.answered(now);
        if self.waiting.is_empty() {
            // The peer may not use the session before it saw a message on it.
            self.send_keepalive(now, replies);
        } else {
            self.send_waiting(now, replies);
        }
        Ok(())
    }

    /// Takes a cookie, which the next initiation shows.
    pub(super) fn handle_cookie(&mut self, message: &[u8], now: Instant) -> Result<(), DropReason> {
        self.stamper.take(message, now).ok_or(DropReason::WireGuardHandshake)
    }

    /// Does what is due: handshakes, retransmissions, rekeys and keepalives. Returns how many
    /// packets waited in vain for a handshake.
    pub(super) fn tick(&mut self, now: Instant, replies: &mut WireBatch) -> usize {
        self.keypairs.expire(now);
        self.stamper.expire(now);
        if self.pending.is_some() {
            match self.timers.attempt(now) {
                Attempt::Wait => {}
                Attempt::Repeat => self.send_initiation(false, Some(now), replies),
                Attempt::GiveUp => {
                    self.pending = None;
                    self.used = false;
                    self.lost += self.waiting.len();
                    self.waiting.clear();
                    if self.timers.persistent() {
                        self.initiate(false, Some(now), replies);
                    }
                }
            }
        } else if !std::mem::replace(&mut self.begun, true)
            || self.is_old(now)
            || self.timers.is_silent(now)
        {
            self.initiate(false, Some(now), replies);
        } else if self.timers.keepalive_due(now) {
            if self.keypairs.current(now).is_some() {
                self.send_keepalive(now, replies);
            } else if self.timers.persistent() {
                self.initiate(false, Some(now), replies);
            }
        }
        std::mem::take(&mut self.lost)
    }

    /// A session that we began, and that carries data or is to be kept, is to be replaced.
    fn is_old(&self, now: Instant) -> bool {
        let due = self.established.is_some_and(|(at, by_us)| {
            by_us && now.saturating_duration_since(at) >= self.rekey_after
        });
        due && (self.used || self.timers.persistent())
    }

    /// Begins a handshake; without `force` only if none runs. `now` is unknown if nothing was
    /// told yet.
    pub(super) fn initiate(&mut self, force: bool, now: Option<Instant>, wire: &mut WireBatch) {
        if force || self.pending.is_none() {
            self.send_initiation(true, now, wire);
        }
    }

    /// Sends an initiation, the first of its handshake or another one.
    fn send_initiation(&mut self, first: bool, now: Option<Instant>, wire: &mut WireBatch) {
        self.begun = true;
        // If the one before had no answer, the peer, or we ourselves, may not be where we were:
        // what the configuration says is tried again.
        if self.attempts > 0 {
            self.path = self.home.or(self.path);
        }
        let Some(path) = self.path else { return };
        self.attempts = self.attempts.saturating_add(1);
        let index = self.next_index();
        self.stamped = later(self.stamped, SystemTime::now());
        let ephemeral = StaticSecret::random_from_rng(OsRng);
        let mut message = [0; INITIATION];
        let begun = Initiated::begin(&self.statics, ephemeral, index, &self.stamped, &mut message);
        let Some(initiated) = begun else { return };
        self.stamper.stamp(index, &mut message, now);
        self.pending = Some((index, initiated));
        self.timers.initiate(first, OsRng.next_u32(), now);
        send(wire, path, &message);
    }

    /// An index that no session has.
    fn next_index(&mut self) -> u32 {
        let pending = self.pending.as_ref().map(|(index, _)| *index);
        loop {
            self.index = self.index & !0xff | (self.index.wrapping_add(1) & 0xff);
            if !self.keypairs.has(self.index) && pending != Some(self.index) {
                return self.index;
            }
        }
    }

    fn keypair(
        &mut self,
        keys: &SessionKeys,
        indices: [u32; 2],
        by_us: bool,
        now: Instant,
    ) -> Result<Keypair, DropReason> {
        let number = self.keypairs.number();
        Keypair::new(keys, indices, (number, by_us, now)).ok_or(DropReason::Internal)
    }

    /// An authenticated message came.
    fn answered(&mut self, now: Instant) {
        self.timers.received(now);
        self.attempts = 0;
    }

    fn establish(&mut self, by_us: bool, now: Instant) {
        self.established = Some((now, by_us));
        self.used = false;
        self.begun = true;
    }

    fn send_keepalive(&mut self, now: Instant, wire: &mut WireBatch) {
        if self.seal_own(&[], 0, now, wire) {
            self.timers.sent(Some(now));
        }
    }

    /// Sends what waited for a session.
    fn send_waiting(&mut self, now: Instant, wire: &mut WireBatch) {
        while let Some((tos, packet)) = self.waiting.pop_front() {
            if !self.seal_own(&packet, tos, now, wire) {
                self.waiting.push_front((tos, packet));
                return;
            }
            self.used = true;
            self.timers.sent_data(now);
        }
    }

    /// Seals one packet with its padding, under the lock. Returns whether there was a session.
    fn seal_own(&mut self, packet: &[u8], tos: u8, now: Instant, wire: &mut WireBatch) -> bool {
        let (Some(path), Some(keys)) = (self.path, self.keypairs.current(now).cloned()) else {
            return false;
        };
        let Some(counter) = self.keypairs.take_counter(self.reject_after_messages) else {
            return false;
        };
        let range = wire.room(packet.len() + OVERHEAD);
        let job = [job(counter, range.start, packet.len(), 0..0, (0, None))];
        let sealed = wire.bytes.get_mut(range.clone()).and_then(|out| {
            put_data_header(out, keys.remote, counter)?;
            put(out, DATA_HEADER, packet)
        });
        if sealed.is_none() || seal_batch(&[&keys.send], &[], &mut wire.bytes, &job).is_err() {
            wire.give_back(range.start);
            return false;
        }
        append_run(wire, path, tos, range);
        true
    }
}

/// What seals the data message whose header stands at `start`.
pub(super) fn job(
    counter: u64,
    start: usize,
    prefix: usize,
    body: std::ops::Range<usize>,
    (suffix, checksum): (usize, Option<Checksum>),
) -> SealJob {
    SealJob {
        key: 0,
        nonce: nonce(counter),
        aad: Aad::default(),
        dst: start + DATA_HEADER,
        prefix,
        body,
        suffix,
        checksum,
    }
}

/// How long a packet of `length` is with its padding.
pub(super) fn padded(length: usize, mtu: u16) -> Result<usize, DropReason> {
    let padded = length.next_multiple_of(PAD_TO).min(usize::from(mtu).max(length));
    if padded + OVERHEAD > LONGEST { Err(DropReason::TooBig) } else { Ok(padded) }
}

/// The time as a timestamp, or the least one after `last` if the clock did not move on.
fn later(last: Timestamp, time: SystemTime) -> Timestamp {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut stamp = [0; 12];
    stamp[..8].copy_from_slice(&(TAI64_EPOCH + time.as_secs()).to_be_bytes());
    stamp[8..].copy_from_slice(&time.subsec_nanos().to_be_bytes());
    if stamp > last {
        return stamp;
    }
    // Peers compare all octets as one number, nanoseconds or not.
    let mut next = last;
    for octet in next.iter_mut().rev() {
        *octet = octet.wrapping_add(1);
        if *octet != 0 {
            break;
        }
    }
    next
}

/// Appends one message of its own.
pub(super) fn send(wire: &mut WireBatch, path: Path, message: &[u8]) {
    let range = wire.room(message.len());
    if let Some(room) = wire.bytes.get_mut(range.clone()) {
        room.copy_from_slice(message);
        append_run(wire, path, 0, range);
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
