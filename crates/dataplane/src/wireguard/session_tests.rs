use super::*;
use crate::wireguard::cookie::{Guard, Verified};
use crate::wireguard::handshake::public_key;
use crate::wireguard::message::counter;
use crate::wireguard::timers::REKEY_AFTER_TIME;
use sa::Secret;
use simd_aead::{OpenJob, open_batch};

const INITIATION_TYPE: u8 = 1;
const DATA: u8 = 4;

fn path(remote: &str) -> Path {
    Path { local: "192.0.2.1:4500".parse().unwrap(), remote: remote.parse().unwrap() }
}

/// One end: a session and the guard in front of it.
struct End {
    session: Session,
    guard: Guard,
    opened: Vec<Vec<u8>>,
}

fn end(own: u8, peer: u8, known: bool) -> End {
    let settings = Settings {
        private: [own; 32],
        public: public_key(&Secret::new(vec![peer; 32])).unwrap(),
        preshared: None,
        index: own.into(),
        keepalive: None,
        path: known.then(|| path("192.0.2.2:4500")),
        rekey_after: REKEY_AFTER_TIME,
    };
    End { session: Session::new(settings), guard: Guard::new([own; 32]), opened: Vec::new() }
}

fn packet() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend_from_slice(&[0; 8]);
    packet
}

/// Every datagram of `wire`, which is emptied.
fn datagrams(wire: &mut WireBatch) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for run in &wire.runs {
        out.extend(wire.bytes[run.range.clone()].chunks(run.segment).map(<[u8]>::to_vec));
    }
    wire.clear();
    out
}

fn types(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().map(|message| message[0]).collect()
}

impl End {
    /// Takes one message from `from`; what it answers goes to `wire`.
    fn take(
        &mut self,
        message: &[u8],
        from: Path,
        now: Instant,
        wire: &mut WireBatch,
    ) -> Result<(), DropReason> {
        match message[0] {
            DATA => {
                let unknown = DropReason::WireGuardUnknownIndex;
                let index = word(message, 4).unwrap();
                let keys = self.session.opening(index, now).cloned().ok_or(unknown)?;
                let number = counter(message).unwrap();
                let mut plain = vec![0; message.len() - OVERHEAD];
                let mut jobs = [OpenJob {
                    key: 0,
                    nonce: nonce(number),
                    aad: Aad::default(),
                    src: DATA_HEADER..message.len(),
                    dst: 0,
                    ok: false,
                    sum: None,
                }];
                open_batch(&[&keys.receive], message, &mut plain, &mut jobs).unwrap();
                if !jobs[0].ok {
                    return Err(DropReason::IcvMismatch);
                }
                let mut run = Arrived::default();
                run.add(number, from, !plain.is_empty());
                self.opened.push(plain);
                self.session.arrived(&keys, &run, now, wire);
                Ok(())
            }
            3 => self.session.handle_cookie(message, now),
            _ => match self.guard.verify(from.remote.ip(), message, now, || true) {
                Ok(Verified::Initiation(it)) => {
                    self.session.handle_initiation(*it, from, now, wire)
                }
                Ok(Verified::Response(it)) => self.session.handle_response(&it, from, now, wire),
                Err(_) => Err(DropReason::WireGuardMac),
            },
        }
    }

    /// Takes each message and returns what it answers.
    fn deliver(&mut self, messages: &[Vec<u8>], now: Instant) -> Vec<Vec<u8>> {
        let mut wire = WireBatch::default();
        for message in messages {
            self.take(message, path("192.0.2.2:4500"), now, &mut wire).unwrap();
        }
        datagrams(&mut wire)
    }

    fn tick(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut wire = WireBatch::default();
        self.session.tick(now, &mut wire);
        datagrams(&mut wire)
    }

    fn initiate(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut wire = WireBatch::default();
        self.session.initiate(true, Some(now), &mut wire);
        datagrams(&mut wire)
    }

    /// Sends one packet as a data thread does.
    fn seal(&mut self, now: Instant) -> Result<Vec<Vec<u8>>, DropReason> {
        let mut wire = WireBatch::default();
        let session = &mut self.session;
        let Some(keys) = session.sealing(now).cloned() else {
            session.wait([&packet(), &[]], (1440, 0), now, &mut wire)?;
            return Ok(datagrams(&mut wire));
        };
        let sealed = session.count(now, &mut wire).map(|counter| {
            let range = wire.room(32 + OVERHEAD);
            let job = job(counter, range.start, 0, 0..28, (4, None));
            put_data_header(&mut wire.bytes[range.clone()], keys.remote, counter).unwrap();
            seal_batch(&[&keys.send], &packet(), &mut wire.bytes, &[job]).unwrap();
            append_run(&mut wire, session.path().unwrap(), 0, range);
            session.counted(counter, now, &mut wire);
        });
        let sent = datagrams(&mut wire);
        sealed.map(|()| sent)
    }

    fn current(&self, now: Instant) -> u64 {
        self.session.sealing(now).unwrap().number
    }
}

/// Carries `messages` from `from` to `to`, and everything that follows from it.
fn carry(messages: Vec<Vec<u8>>, from: &mut End, to: &mut End, now: Instant) {
    let (mut messages, mut from, mut to) = (messages, from, to);
    for _ in 0..20 {
        if messages.is_empty() {
            return;
        }
        messages = to.deliver(&messages, now);
        std::mem::swap(&mut from, &mut to);
    }
    panic!("two ends that never stop talking");
}

/// Two ends with a session, begun by the first.
fn pair(now: Instant) -> (End, End) {
    let (mut a, mut b) = (end(1, 2, true), end(2, 1, false));
    let messages = a.initiate(now);
    carry(messages, &mut a, &mut b, now);
    assert!(a.session.standing(now).session && b.session.standing(now).session);
    (a, b)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_key_that_sealed_many_messages_is_replaced_and_one_that_sealed_too_many_is_not_used() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    // The initiator's keepalive was message 0.
    a.session.rekey_after_messages = 3;
    a.session.reject_after_messages = 5;
    for expected in 1..=2_u64 {
        let sent = a.seal(now).unwrap();
        assert_eq!(sent.len(), 1);
        assert_eq!(counter(&sent[0]), Some(expected));
    }
    let sent = a.seal(now).unwrap();
    assert_eq!(types(&sent), [DATA, INITIATION_TYPE]);
    // The handshake runs: no second one for each message.
    assert_eq!(a.seal(now).unwrap().len(), 1);
    assert_eq!(a.seal(now), Err(DropReason::SequenceExhausted));
    let answers = b.deliver(&sent, now);
    a.deliver(&answers, now);
    let sent = a.seal(now).unwrap();
    assert_eq!(counter(&sent[0]), Some(1), "the new key counts from the beginning");
    b.deliver(&sent, now);
}

#[test]
fn packets_are_padded_to_sixteen_octets_but_not_beyond_the_mtu() {
    for (length, mtu, sealed) in
        [(28, 1440, 32), (32, 1440, 32), (33, 1440, 48), (1419, 1420, 1420), (1500, 1420, 1500)]
    {
        assert_eq!(padded(length, mtu), Ok(sealed), "{length} octets");
    }
    assert_eq!(padded(LONGEST - OVERHEAD + 1, u16::MAX), Err(DropReason::TooBig));
}

#[test]
fn packets_that_wait_for_a_handshake_are_bounded_and_counted() {
    let now = Instant::now();
    let mut lonely = end(1, 2, true);
    assert_eq!(types(&lonely.seal(now).unwrap()), [INITIATION_TYPE]);
    assert!((1..QUEUE).all(|_| lonely.seal(now) == Ok(vec![])));
    assert_eq!(lonely.seal(now), Err(DropReason::WireGuardQueue));
    // Nobody answers: repeated after five seconds and some jitter, given up after ninety.
    let mut initiations = 0;
    let mut lost = 0;
    for quarter in 0..4 * 300 {
        let mut wire = WireBatch::default();
        lost += lonely.session.tick(now + quarter * Duration::from_millis(250), &mut wire);
        initiations += datagrams(&mut wire).len();
    }
    assert_eq!(lost, QUEUE);
    assert!((14..=17).contains(&initiations), "{initiations}");
    assert_eq!(types(&lonely.seal(now + seconds(300)).unwrap()), [INITIATION_TYPE]);
}

#[test]
fn an_initiator_renews_a_session_that_carries_only_keepalives() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    a.session.timers = Timers::new(Some(500));
    let later = now + REKEY_AFTER_TIME;
    for (end, due) in [(&mut a, 1), (&mut b, 0)] {
        assert!(end.tick(later - seconds(1)).is_empty());
        assert_eq!(end.tick(later).len(), due);
    }
}

#[test]
fn a_session_is_renewed_under_traffic_and_dies_without() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    let sent = a.seal(now + seconds(50)).unwrap();
    b.deliver(&sent, now + seconds(50));
    assert!(a.tick(now + seconds(60)).is_empty(), "b owes an answer, a does not");
    let keepalive = b.tick(now + seconds(60));
    assert_eq!(keepalive[0].len(), OVERHEAD);
    a.deliver(&keepalive, now + seconds(60));
    assert!(a.tick(now + seconds(119)).is_empty());
    let renewed = a.tick(now + seconds(120));
    assert_eq!(types(&renewed), [INITIATION_TYPE]);
    carry(renewed, &mut a, &mut b, now + seconds(120));
    assert_eq!((a.current(now + seconds(120)), b.current(now + seconds(120))), (2, 2));
    // Nothing more is sent on it: it is no longer used after 180 seconds, and wiped.
    let dead = now + seconds(300);
    assert!(a.session.standing(dead - seconds(1)).session);
    assert!(!a.session.standing(dead).session);
    let index = a.session.sealing(dead - seconds(1)).unwrap().index;
    assert!(a.session.opening(index, dead).is_none());
    let keys = Arc::downgrade(a.session.sealing(dead - seconds(1)).unwrap());
    assert!(a.tick(dead).is_empty());
    assert!(keys.upgrade().is_none(), "no key of it is left");
    assert!(b.tick(dead).is_empty());
}

#[test]
fn an_initiator_that_only_receives_renews_before_the_session_ends() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    for (at, begun) in [(164, vec![]), (165, vec![INITIATION_TYPE])] {
        let sent = b.seal(now + seconds(at)).unwrap();
        assert_eq!(types(&a.deliver(&sent, now + seconds(at))), begun, "{at}");
    }
}

#[test]
fn data_without_an_answer_begins_a_handshake_after_fifteen_seconds() {
    let now = Instant::now();
    let (mut a, _) = pair(now);
    a.seal(now).unwrap();
    assert!(a.tick(now + seconds(14)).is_empty());
    assert_eq!(types(&a.tick(now + seconds(15))), [INITIATION_TYPE]);
    assert_eq!(a.session.standing(now).unanswered_since, Some(now));
}

#[test]
fn a_responder_does_not_use_a_session_that_is_not_confirmed() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    let initiation = a.initiate(now);
    let response = b.deliver(&initiation, now);
    assert_eq!(b.current(now), 1, "the former one goes on");
    let early = b.seal(now).unwrap();
    let confirmation = a.deliver(&response, now);
    assert_eq!(a.current(now), 2);
    a.deliver(&early, now);
    b.deliver(&confirmation, now);
    assert_eq!(b.current(now), 2);
    // Without a former session, packets wait for the confirmation.
    let (mut a, mut b) = (end(1, 2, true), end(2, 1, true));
    let initiation = a.initiate(now);
    let response = b.deliver(&initiation, now);
    assert_eq!(types(&b.seal(now).unwrap()), [INITIATION_TYPE]);
    let confirmation = a.deliver(&response, now);
    let waited = b.deliver(&confirmation, now);
    assert_eq!(types(&waited), [DATA]);
    a.deliver(&waited, now);
    assert_eq!(a.opened.last().unwrap()[..28], packet());
}

#[test]
fn two_handshakes_that_cross_leave_both_ends_with_sessions_and_lose_nothing() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    let late = [a.seal(now).unwrap(), b.seal(now).unwrap()];
    let (from_a, from_b) = (a.initiate(now), b.initiate(now));
    let (answer_a, answer_b) = (a.deliver(&from_b, now), b.deliver(&from_a, now));
    let (last_a, last_b) = (a.deliver(&answer_b, now), b.deliver(&answer_a, now));
    a.deliver(&last_b, now);
    b.deliver(&last_a, now);
    b.deliver(&late[0], now);
    a.deliver(&late[1], now);
    for _ in 0..2 {
        let sent = a.seal(now).unwrap();
        b.deliver(&sent, now);
        let sent = b.seal(now).unwrap();
        a.deliver(&sent, now);
    }
}

/// `message` with one octet changed, and MACs for the key of `own` that anybody can make.
fn forged(message: &[u8], octet: usize, own: u8) -> Vec<u8> {
    let mut forged = message.to_vec();
    forged[octet] ^= 1;
    let public = public_key(&Secret::new(vec![own; 32])).unwrap();
    Stamper::new(&public).stamp(0, &mut forged, None);
    forged
}

#[test]
fn messages_of_a_handshake_count_once_and_changed_ones_not_at_all() {
    let now = Instant::now();
    let (mut a, mut b) = (end(1, 2, true), end(2, 1, false));
    let wire = &mut WireBatch::default();
    let (at, bad) = (path("192.0.2.9:9"), Err(DropReason::WireGuardHandshake));
    let initiation = a.initiate(now).remove(0);
    for octet in 8..INITIATION - 32 {
        let taken = b.take(&forged(&initiation, octet, 2), at, now, wire);
        assert!(taken.is_err() && wire.runs.is_empty(), "octet {octet}");
    }
    b.take(&initiation, at, now, wire).unwrap();
    let response = datagrams(wire).remove(0);
    assert_eq!(b.take(&initiation, at, now, wire), bad, "replayed");
    for octet in 8..RESPONSE - 32 {
        let taken = a.take(&forged(&response, octet, 1), at, now, wire);
        assert!(taken == bad && wire.runs.is_empty(), "octet {octet}");
    }
    a.take(&response, at, now, wire).unwrap();
    let confirmation = datagrams(wire);
    assert_eq!(types(&confirmation), [DATA]);
    assert_eq!(a.take(&response, at, now, wire), bad, "replayed");
    b.deliver(&confirmation, now);
    // An older initiation, which never arrived, is of no use either.
    let (older, newer) = (a.initiate(now).remove(0), a.initiate(now).remove(0));
    b.take(&newer, at, now, wire).unwrap();
    wire.clear();
    assert_eq!(b.take(&older, at, now, wire), bad);
}

#[test]
fn timestamps_grow_when_the_clock_stands_still_or_goes_back() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let first = later([0; 12], time);
    assert_eq!(first[..8], (0x4000_0000_0000_0025_u64 + 1_700_000_000).to_be_bytes());
    let second = later(first, time);
    let third = later(second, time - seconds(1000));
    assert!(first < second && second < third);
    assert!(later(third, time + Duration::from_nanos(500)) > third);
    let mut full = first;
    full[8..].fill(0xff);
    assert!(later(full, time) > full);
}

#[test]
fn indices_name_the_peer_and_are_not_given_out_twice() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    let used = a.session.sealing(now).unwrap().index;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..255 {
        let index = a.session.next_index();
        assert_eq!(index >> 8, 1);
        assert!(index != used && seen.insert(index));
    }
    assert!(!seen.insert(a.session.next_index()), "the count wraps");
    let sent = a.seal(now).unwrap();
    b.deliver(&sent, now);
}

#[test]
fn an_initiation_without_an_answer_is_repeated_where_the_configuration_says() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    let home = path("192.0.2.2:4500");
    let roamed = path("192.0.2.77:1024");
    let message = b.seal(now).unwrap().remove(0);
    let mut wire = WireBatch::default();
    a.take(&message, roamed, now, &mut wire).unwrap();
    for expected in [roamed, home, home] {
        a.session.initiate(true, Some(now), &mut wire);
        assert_eq!(wire.runs[0].remote, expected.remote);
        wire.clear();
    }
    // A side that only waits knows no better place than the last one.
    let last = b.session.path().unwrap();
    (0..3).for_each(|_| drop(b.initiate(now)));
    assert_eq!(b.session.path(), Some(last));
}

#[test]
fn only_the_newest_message_of_the_newest_session_moves_the_peer() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    let wire = &mut WireBatch::default();
    let old: Vec<_> = (0..3).map(|_| a.seal(now).unwrap().remove(0)).collect();
    let messages = a.initiate(now);
    carry(messages, &mut a, &mut b, now);
    let new: Vec<_> = (0..2).map(|_| a.seal(now).unwrap().remove(0)).collect();
    let [here, there] = ["192.0.2.2:1", "192.0.2.2:2"].map(path);
    for (message, from, moves) in [
        (&old[0], there, false),
        (&new[1], here, true),
        (&new[0], there, false),
        (&old[2], there, false),
    ] {
        let before = b.session.path();
        b.take(message, from, now, wire).unwrap();
        assert_eq!(b.session.path(), if moves { Some(from) } else { before });
    }
}

#[test]
fn nothing_secret_is_printed() {
    let now = Instant::now();
    let (a, _) = pair(now);
    let keys = a.session.sealing(now).unwrap();
    assert_eq!(format!("{keys:?}"), format!("Keypair({:08x})", keys.index));
}
