use super::*;

fn path(remote: &str) -> Path {
    Path { local: "192.0.2.1:4500".parse().unwrap(), remote: remote.parse().unwrap() }
}

fn session(own: u8, peer: u8, known: bool) -> Session {
    let public = PublicKey::from(&StaticSecret::from([peer; 32])).to_bytes();
    Session::new(Settings {
        private: [own; 32],
        public,
        preshared: None,
        index: own.into(),
        keepalive: None,
        path: known.then(|| path("192.0.2.2:4500")),
        rekey_after: REKEY_AFTER_TIME,
    })
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

/// Hands each message to `to` and returns what it answers.
fn deliver(messages: &[Vec<u8>], to: &mut Session, now: Instant) -> Vec<Vec<u8>> {
    let mut replies = WireBatch::default();
    for message in messages {
        if kind(message) == Some(DATA) {
            let mut room = vec![0; message.len().max(HANDSHAKE_ROOM)];
            to.open(message, path("192.0.2.2:4500"), now, &mut room, &mut replies).unwrap();
        } else {
            to.handle_handshake(message, path("192.0.2.2:4500"), now, &mut replies).unwrap();
        }
    }
    datagrams(&mut replies)
}

/// Two ends with a session, begun by the first.
fn pair(now: Instant) -> (Session, Session) {
    let (mut a, mut b) = (session(1, 2, true), session(2, 1, false));
    let mut wire = WireBatch::default();
    a.initiate(false, &mut wire);
    let mut messages = datagrams(&mut wire);
    while !messages.is_empty() {
        messages = deliver(&messages, &mut b, now);
        std::mem::swap(&mut a, &mut b);
    }
    let (first, second) = if a.established.unwrap().1 { (a, b) } else { (b, a) };
    assert!(first.standing().session && second.standing().session);
    (first, second)
}

fn seal(session: &mut Session, now: Instant) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut wire = WireBatch::default();
    let sealed = session.seal([&packet(), &[]], (1440, 0), now, &mut wire);
    let sent = datagrams(&mut wire);
    sealed.map(|()| sent)
}

#[test]
fn a_key_that_sealed_many_messages_is_replaced_and_one_that_sealed_too_many_is_not_used() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    // The initiator's keepalive was message 0.
    a.rekey_after_messages = 3;
    a.reject_after_messages = 5;
    for expected in 1..=2_u64 {
        let sent = seal(&mut a, now).unwrap();
        assert_eq!(sent.len(), 1);
        assert_eq!(counter(&sent[0]), Some(expected));
    }
    let sent = seal(&mut a, now).unwrap();
    assert_eq!(sent.iter().map(|m| m[0]).collect::<Vec<_>>(), [DATA, HANDSHAKE_INITIATION]);
    // The handshake runs: no second one for each message.
    assert_eq!(seal(&mut a, now).unwrap().len(), 1);
    assert_eq!(seal(&mut a, now), Err(DropReason::SequenceExhausted));
    let answers = deliver(&sent, &mut b, now);
    deliver(&answers, &mut a, now);
    let sent = seal(&mut a, now).unwrap();
    assert_eq!(counter(&sent[0]), Some(1), "the new key counts from the beginning");
    deliver(&sent, &mut b, now);
}

#[test]
fn a_counter_beyond_the_limit_is_refused_before_anything_computes_with_it() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    let mut message = seal(&mut a, now).unwrap().remove(0);
    for counter in [u64::MAX, u64::MAX - 1, REJECT_AFTER_MESSAGES] {
        message[8..16].copy_from_slice(&counter.to_le_bytes());
        let mut room = vec![0; HANDSHAKE_ROOM];
        let at = path("192.0.2.9:1");
        let opened = b.open(&message, at, now, &mut room, &mut WireBatch::default());
        assert_eq!(opened, Err(DropReason::SequenceExhausted));
    }
    assert_ne!(b.path(), Some(path("192.0.2.9:1")));
}

#[test]
fn packets_are_padded_to_sixteen_octets_but_not_beyond_the_mtu() {
    let now = Instant::now();
    let (mut a, _) = pair(now);
    for (length, mtu, sealed) in
        [(28, 1440, 32), (32, 1440, 32), (33, 1440, 48), (1419, 1420, 1420)]
    {
        let mut wire = WireBatch::default();
        a.seal([&vec![0x45; length], &[]], (mtu, 0), now, &mut wire).unwrap();
        assert_eq!(wire.taken(), sealed + OVERHEAD, "{length} octets");
    }
}

#[test]
fn packets_that_wait_for_a_handshake_are_bounded_and_counted() {
    let now = Instant::now();
    let mut lonely = session(1, 2, true);
    let first = seal(&mut lonely, now).unwrap();
    assert_eq!(first[0][0], HANDSHAKE_INITIATION);
    assert!((1..QUEUE).all(|_| seal(&mut lonely, now) == Ok(vec![])));
    assert_eq!(seal(&mut lonely, now), Err(DropReason::WireGuardQueue));
    let mut nowhere = session(1, 2, false);
    assert_eq!(seal(&mut nowhere, now), Err(DropReason::WireGuardNoEndpoint));
}

#[test]
fn the_newest_message_is_of_a_later_session_or_has_a_higher_counter() {
    let mut session = session(1, 2, true);
    assert!(session.is_newest(0x101, 0));
    session.newest = Some((0x1fe, Some(7)));
    for (index, counter, newest) in [
        (0x1fe, 8, true),
        (0x1fe, 7, false),
        (0x1fe, 6, false),
        (0x1ff, 0, true),
        (0x102, 0, true),
        (0x1fd, 100, false),
    ] {
        assert_eq!(session.is_newest(index, counter), newest, "{index:x} {counter}");
    }
    session.newest = Some((0x1fe, None));
    assert!(session.is_newest(0x1fe, 0));
}

#[test]
fn an_initiator_renews_a_session_that_carries_only_keepalives() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    a.keepalive = Some(25);
    let later = now + REKEY_AFTER_TIME;
    for (session, due) in [(&mut a, 1), (&mut b, 0)] {
        session.begun = true;
        let mut wire = WireBatch::default();
        assert_eq!(session.tick(later - Duration::from_secs(1), &mut wire), 0);
        assert!(wire.runs.is_empty());
        session.tick(later, &mut wire);
        assert_eq!(datagrams(&mut wire).len(), due);
    }
}

#[test]
fn an_initiation_without_an_answer_is_repeated_where_the_configuration_says() {
    let now = Instant::now();
    let (mut a, mut b) = pair(now);
    let home = path("192.0.2.2:4500");
    let roamed = path("192.0.2.77:1024");
    let mut wire = WireBatch::default();
    b.seal([&packet(), &[]], (1440, 0), now, &mut wire).unwrap();
    let message = datagrams(&mut wire).remove(0);
    let mut room = vec![0; HANDSHAKE_ROOM];
    a.open(&message, roamed, now, &mut room, &mut wire).unwrap();
    for expected in [roamed, home, home] {
        a.initiate(true, &mut wire);
        assert_eq!(wire.runs[0].remote, expected.remote);
        wire.clear();
    }
    // A side that only waits knows no better place than the last one.
    let last = b.path().unwrap();
    (0..3).for_each(|_| b.initiate(true, &mut wire));
    assert_eq!(b.path(), Some(last));
}
