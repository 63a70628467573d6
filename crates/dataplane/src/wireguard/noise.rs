//! The one place that knows boringtun: keys, the guard in front of handshakes, and sessions.
//!
//! boringtun reads the clock and the randomness of the system itself, takes one packet a call, and
//! wants `&mut` for both directions. What it leaves open is done here: the padding to 16 octets,
//! the limits of messages on one key, keeping a connection alive that gave up, and who may move a
//! peer's address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use packet::WireBatch;
use sa::{Path, Secret};

use super::flood::WITHOUT_COOKIE;
use crate::seal::append_run;
use crate::{DropReason, ecn};

/// Octets of a handshake initiation, the longest handshake message, which boringtun asks room for
/// in every call.
pub(super) const HANDSHAKE_ROOM: usize = 148;
/// Octets that a data message is longer than its packet.
const OVERHEAD: usize = 32;
/// Octets of the longest data message that is sent.
const LONGEST: usize = 16_384;
/// Packets are padded to a multiple of this, as far as the MTU allows (whitepaper 5.4.6).
const PAD_TO: usize = 16;
/// Packets that boringtun keeps while a handshake runs; it drops further ones silently.
const QUEUE: usize = 256;
/// When the initiator of a session begins the next one (whitepaper 6.1).
pub(super) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Messages on one key after which a new one is made, and after which it is used no more.
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
const HANDSHAKE_INITIATION: u8 = 1;
const DATA: u8 = 4;

/// The public key of a private one; `None` if that does not have 32 octets.
#[must_use]
pub fn public_key(private: &Secret) -> Option<[u8; 32]> {
    let octets: [u8; 32] = private.expose().try_into().ok()?;
    Some(PublicKey::from(&StaticSecret::from(octets)).to_bytes())
}

/// Stands in front of all handshakes to one of our public keys: checks the first MAC, limits their
/// rate by cookies, and only then spends a multiplication on finding out who it is.
pub(super) struct Guard {
    private: StaticSecret,
    public: PublicKey,
    limiter: RateLimiter,
}

/// A handshake message that may be worked on.
pub(super) enum Verified {
    /// An initiation by the owner of this public key, as far as that can be known by now.
    Initiation([u8; 32]),
    /// A response to an initiation of ours, by its receiver index.
    Response(u32),
}

/// A handshake message that may not.
pub(super) enum Refused {
    /// It is for another public key.
    Mac,
    /// The first octets of the room hold a cookie for its sender.
    Cookie(usize),
    /// Its sender asks too often.
    Flood,
    /// It does not verify.
    Invalid,
}

impl Guard {
    pub(super) fn new(private: [u8; 32]) -> Self {
        let private = StaticSecret::from(private);
        let public = PublicKey::from(&private);
        let limiter = RateLimiter::new(&public, WITHOUT_COOKIE.into());
        Self { private, public, limiter }
    }

    /// Checks a handshake message from `source`. `allow` has the last word on whether it is worth a
    /// multiplication. A cookie is written to `room`.
    pub(super) fn verify(
        &self,
        source: IpAddr,
        message: &[u8],
        room: &mut [u8; HANDSHAKE_ROOM],
        allow: impl FnOnce() -> bool,
    ) -> Result<Verified, Refused> {
        match self.limiter.verify_packet(Some(source), message, room) {
            Ok(_) if !allow() => Err(Refused::Flood),
            Ok(Packet::HandshakeInit(initiation)) => {
                let half = parse_handshake_anon(&self.private, &self.public, &initiation);
                half.map(|h| Verified::Initiation(h.peer_static_public)).or(Err(Refused::Invalid))
            }
            Ok(Packet::HandshakeResponse(response)) => {
                Ok(Verified::Response(response.receiver_idx))
            }
            Ok(_) => Err(Refused::Invalid),
            Err(TunnResult::WriteToNetwork(cookie)) => Err(Refused::Cookie(cookie.len())),
            Err(TunnResult::Err(WireGuardError::InvalidMac)) => Err(Refused::Mac),
            Err(_) => Err(Refused::Invalid),
        }
    }

    /// Begins a new second of the rate limit.
    pub(super) fn begin_second(&self) {
        self.limiter.reset_count();
    }
}

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
    tunn: Tunn,
    path: Option<Path>,
    /// Where the configuration says that it is.
    home: Option<Path>,
    /// Initiations since the last authenticated message.
    attempts: u32,
    keepalive: Option<u16>,
    rekey_after: Duration,
    rekey_after_messages: u64,
    reject_after_messages: u64,
    /// A packet with its padding.
    padded: Vec<u8>,
    /// Receiver index and counter of the newest authenticated message.
    newest: Option<(u32, Option<u64>)>,
    /// We answered an initiation, and its session was not used yet.
    offered: bool,
    /// When the session that is used was made, and whether we began it.
    established: Option<(Instant, bool)>,
    /// Data was sent on it.
    used: bool,
    unanswered_since: Option<Instant>,
    /// Packets that wait for a handshake.
    queued: usize,
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

impl Session {
    pub(super) fn new(settings: Settings) -> Self {
        let private = StaticSecret::from(settings.private);
        // Every message was verified and counted by the guard before it comes here.
        let unlimited = Arc::new(RateLimiter::new(&PublicKey::from(&private), u64::MAX));
        let tunn = Tunn::new(
            private,
            PublicKey::from(settings.public),
            settings.preshared,
            settings.keepalive,
            settings.index,
            Some(unlimited),
        );
        Self {
            tunn,
            path: settings.path,
            home: settings.path,
            attempts: 0,
            keepalive: settings.keepalive,
            rekey_after: settings.rekey_after,
            rekey_after_messages: REKEY_AFTER_MESSAGES,
            reject_after_messages: REJECT_AFTER_MESSAGES,
            padded: Vec::new(),
            newest: None,
            offered: false,
            established: None,
            used: false,
            unanswered_since: None,
            queued: 0,
            lost: 0,
            begun: false,
        }
    }

    pub(super) fn path(&self) -> Option<Path> {
        self.path
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            session: self.tunn.time_since_last_handshake().is_some(),
            established: self.established.map(|(at, _)| at),
            unanswered_since: self.unanswered_since,
            path: self.path,
        }
    }

    /// Seals the packet that `parts` are into `wire`. Without a session the packet waits, and a
    /// handshake begins.
    pub(super) fn seal(
        &mut self,
        parts: [&[u8]; 2],
        (mtu, tos): (u16, u8),
        now: Instant,
        wire: &mut WireBatch,
    ) -> Result<(), DropReason> {
        let path = self.path.ok_or(DropReason::WireGuardNoEndpoint)?;
        self.padded.clear();
        parts.iter().for_each(|part| self.padded.extend_from_slice(part));
        let length = self.padded.len();
        let padded = length.next_multiple_of(PAD_TO).min(usize::from(mtu).max(length));
        self.padded.resize(padded, 0);
        if padded + OVERHEAD > LONGEST {
            return Err(DropReason::TooBig);
        }
        let range = wire.room((padded + OVERHEAD).max(HANDSHAKE_ROOM));
        let start = range.start;
        let room = wire.bytes.get_mut(range).unwrap_or_default();
        let (kind, written, counter) = match self.tunn.encapsulate(&self.padded, room) {
            TunnResult::WriteToNetwork(message) => (kind(message), message.len(), counter(message)),
            _ => (None, 0, None),
        };
        if kind != Some(DATA) {
            wire.give_back(start + written);
            if written > 0 {
                append_run(wire, path, 0, start..start + written);
            }
            self.queued += 1;
            return if self.queued > QUEUE { Err(DropReason::WireGuardQueue) } else { Ok(()) };
        }
        let counter = counter.unwrap_or(u64::MAX);
        if counter >= self.reject_after_messages {
            wire.give_back(start);
            self.initiate(false, wire);
            return Err(DropReason::SequenceExhausted);
        }
        wire.give_back(start + written);
        append_run(wire, path, ecn::encapsulate(tos), start..start + written);
        self.used = true;
        self.unanswered_since.get_or_insert(now);
        if counter >= self.rekey_after_messages {
            self.initiate(false, wire);
        }
        Ok(())
    }

    /// Opens a data message into `room`, which is as long as the message and [`HANDSHAKE_ROOM`] at
    /// least. Returns the length of the packet in it; `None` for a keepalive.
    pub(super) fn open(
        &mut self,
        message: &[u8],
        path: Path,
        now: Instant,
        room: &mut [u8],
        replies: &mut WireBatch,
    ) -> Result<Option<usize>, DropReason> {
        let (index, counter) =
            index_and_counter(message).ok_or(DropReason::WireGuardUnknownIndex)?;
        // boringtun computes with counters beyond this, and would overflow.
        if counter >= self.reject_after_messages {
            return Err(DropReason::SequenceExhausted);
        }
        let length = match self.tunn.decapsulate(None, message, room) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Some(packet.len())
            }
            TunnResult::Done => None,
            TunnResult::WriteToNetwork(_) => return Err(DropReason::Internal),
            TunnResult::Err(error) => return Err(reason(&error)),
        };
        if self.is_newest(index, counter) {
            let fresh = self.newest.is_none_or(|(newest, _)| newest != index);
            self.newest = Some((index, Some(counter)));
            self.path = Some(path);
            if fresh && std::mem::take(&mut self.offered) {
                self.establish(false, now);
            }
        }
        self.answered();
        if self.queued > 0 {
            self.send_queued(replies);
        }
        Ok(length)
    }

    /// Takes a handshake message or a cookie that is for this peer.
    pub(super) fn handle_handshake(
        &mut self,
        message: &[u8],
        path: Path,
        now: Instant,
        replies: &mut WireBatch,
    ) -> Result<(), DropReason> {
        // boringtun's clock stands still between the calls of its timers, and of two sessions that
        // are equally old a late packet on the former one would make it the current one again.
        self.update_timers(replies);
        let mut room = [0; HANDSHAKE_ROOM];
        let reply = match self.tunn.decapsulate(None, message, &mut room) {
            TunnResult::WriteToNetwork(reply) => reply,
            TunnResult::Done => return Ok(()),
            TunnResult::Err(WireGuardError::WrongIndex) => {
                return Err(DropReason::WireGuardUnknownIndex);
            }
            TunnResult::Err(_) => return Err(DropReason::WireGuardHandshake),
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
                return Err(DropReason::Internal);
            }
        };
        send(replies, path, reply);
        if kind(message) == Some(HANDSHAKE_INITIATION) {
            // An initiation may be an old one that somebody repeats after a restart of ours. It is
            // answered where it came from; the peer moves when it uses the session.
            self.offered = true;
            return Ok(());
        }
        self.path = Some(path);
        self.newest = receiver_index(message, 8).map(|index| (index, None));
        self.offered = false;
        self.establish(true, now);
        self.answered();
        self.send_queued(replies);
        Ok(())
    }

    /// Does what is due: handshakes, retransmissions, rekeys and keepalives. Returns how many
    /// packets waited in vain for a handshake.
    pub(super) fn tick(&mut self, now: Instant, replies: &mut WireBatch) -> usize {
        self.update_timers(replies);
        let due = self.established.is_some_and(|(at, by_us)| {
            by_us && now.saturating_duration_since(at) >= self.rekey_after
        });
        // boringtun does this for data after 120 seconds, and lets a session with nothing but
        // keepalives die.
        if due && (self.used || self.keepalive.is_some()) {
            self.initiate(false, replies);
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.initiate(false, replies);
        }
        std::mem::take(&mut self.lost)
    }

    fn update_timers(&mut self, replies: &mut WireBatch) {
        let mut room = [0; HANDSHAKE_ROOM];
        match self.tunn.update_timers(&mut room) {
            TunnResult::WriteToNetwork(message) => {
                if kind(message) == Some(HANDSHAKE_INITIATION) {
                    self.attempt();
                }
                if let Some(path) = self.path {
                    send(replies, path, message);
                }
            }
            TunnResult::Err(WireGuardError::ConnectionExpired) => {
                self.lost += std::mem::take(&mut self.queued).min(QUEUE);
                // boringtun rests from here on until there is data.
                if self.keepalive.is_some() {
                    self.initiate(true, replies);
                }
            }
            _ => {}
        }
    }

    /// Begins a handshake; without `force` only if none runs.
    pub(super) fn initiate(&mut self, force: bool, wire: &mut WireBatch) {
        if self.path.is_none() {
            return;
        }
        let mut room = [0; HANDSHAKE_ROOM];
        if let TunnResult::WriteToNetwork(message) =
            self.tunn.format_handshake_initiation(&mut room, force)
        {
            self.attempt();
            if let Some(path) = self.path {
                send(wire, path, message);
            }
        }
    }

    /// Another initiation goes out. If the one before had no answer, the peer, or we ourselves, may
    /// not be where we were: what the configuration says is tried again.
    fn attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        if self.attempts > 1 {
            self.path = self.home.or(self.path);
        }
    }

    /// An authenticated message came.
    fn answered(&mut self) {
        self.unanswered_since = None;
        self.attempts = 0;
    }

    fn establish(&mut self, by_us: bool, now: Instant) {
        self.established = Some((now, by_us));
        self.used = false;
    }

    /// Whether this message is newer than every one before: a later session, or a later counter.
    /// Only such a message tells where the peer is; late ones tell where it was.
    fn is_newest(&self, index: u32, counter: u64) -> bool {
        match self.newest {
            None => true,
            Some((newest, last)) if newest == index => last.is_none_or(|last| counter > last),
            // The lowest octet counts the peer's sessions, and wraps.
            Some((newest, _)) => {
                let ahead = index.wrapping_sub(newest) & 0xff;
                (1..0x80).contains(&ahead)
            }
        }
    }

    /// Sends what waited for a session.
    fn send_queued(&mut self, wire: &mut WireBatch) {
        let Some(path) = self.path else { return };
        loop {
            let range = wire.room(LONGEST);
            let start = range.start;
            let room = wire.bytes.get_mut(range).unwrap_or_default();
            let sent = match self.tunn.decapsulate(None, &[], room) {
                TunnResult::WriteToNetwork(message) if kind(message) == Some(DATA) => message.len(),
                _ => 0,
            };
            wire.give_back(start + sent);
            if sent == 0 {
                self.queued = 0;
                return;
            }
            append_run(wire, path, 0, start..start + sent);
        }
    }
}

/// Appends one message of its own.
pub(super) fn send(wire: &mut WireBatch, path: Path, message: &[u8]) {
    let range = wire.room(message.len());
    if let Some(room) = wire.bytes.get_mut(range.clone()) {
        room.copy_from_slice(message);
        append_run(wire, path, 0, range);
    }
}

fn kind(message: &[u8]) -> Option<u8> {
    message.first().copied()
}

/// The receiver index of a message, which stands at `at`.
pub(super) fn receiver_index(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..)?.first_chunk::<4>().map(|word| u32::from_le_bytes(*word))
}

fn counter(message: &[u8]) -> Option<u64> {
    message.get(8..)?.first_chunk::<8>().map(|word| u64::from_le_bytes(*word))
}

fn index_and_counter(message: &[u8]) -> Option<(u32, u64)> {
    Some((receiver_index(message, 4)?, counter(message)?))
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::DuplicateCounter => DropReason::Replayed,
        WireGuardError::InvalidCounter => DropReason::TooOld,
        WireGuardError::InvalidAeadTag => DropReason::IcvMismatch,
        WireGuardError::InvalidPacket => DropReason::InnerInvalid,
        _ => DropReason::WireGuardUnknownIndex,
    }
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;
