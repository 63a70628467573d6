//! The crossings of RFC 7296 sections 2.8 and 2.25, arrow by arrow.
//!
//! Nothing is delivered that a case does not deliver, and the nonces that decide are forced: each
//! is the octet that its side had at the time. After each case both sides hold one IKE SA and one
//! pair of Child SAs, the same one, and at no time could a packet have been lost.

use std::time::Duration;

use crate::common::{A, B, Pair, TUNNEL, peers};
use ike::{Command, DownReason, Event};
use sa::Spi;

const INIT: u8 = 34;
const AUTH: u8 = 35;
const CREATE: u8 = 36;
const INFO: u8 = 37;

/// A tunnel, and a network that waits.
struct Crossing {
    pair: Pair,
    /// Whether somebody ends or makes a Child SA, so that the tunnel is not whole all the time.
    ends: bool,
}

impl Crossing {
    fn new() -> Self {
        let mut config = peers();
        for peer in &mut config {
            peer.dpd.idle = Duration::ZERO;
        }
        let mut pair = Pair::up(config, 1);
        pair.hold = true;
        Self { pair, ends: false }
    }

    /// The host begins something; its nonces begin with `octet` from now on.
    fn begin(&mut self, host: usize, octet: u8, command: Command) -> &mut Self {
        self.ends |= matches!(command, Command::DeleteChild(_) | Command::Delete(_));
        self.pair.nonce(host, octet);
        self.pair.command(host, command);
        self.check();
        self
    }

    fn check(&self) {
        if !self.ends {
            self.pair.assert_nothing_can_be_lost("");
        }
    }

    fn nonce(&mut self, host: usize, octet: u8) -> &mut Self {
        self.pair.nonce(host, octet);
        self
    }

    fn find(&self, to: usize, exchange: u8, response: bool) -> usize {
        let wire = self.pair.wire();
        let at = wire.iter().position(|m| *m == (to, exchange, response));
        at.unwrap_or_else(|| panic!("no such arrow to {to}: {wire:?}"))
    }

    /// The oldest request of this exchange type arrives at `to`.
    fn request(&mut self, to: usize, exchange: u8) -> &mut Self {
        let at = self.find(to, exchange, false);
        self.pair.deliver(at);
        self.check();
        self
    }

    /// The oldest response of this exchange type arrives at `to`.
    fn response(&mut self, to: usize, exchange: u8) -> &mut Self {
        let at = self.find(to, exchange, true);
        self.pair.deliver(at);
        self.check();
        self
    }

    /// What is on the wire, and nothing else.
    fn wire(&mut self, expected: &[(usize, u8, bool)]) -> &mut Self {
        assert_eq!(self.pair.wire(), expected);
        self
    }

    fn busy(&self, host: usize) -> u64 {
        self.pair.hosts[host].endpoint.counters().temporary_failures
    }

    fn inbound(&self, host: usize) -> Vec<Spi> {
        self.pair.hosts[host].inbound.keys().copied().collect()
    }

    fn sending(&self, host: usize) -> Spi {
        self.pair.hosts[host].outbound.as_ref().unwrap().spi
    }

    fn ike(&self, host: usize) -> u64 {
        self.pair.hosts[host].endpoint.ike_info(TUNNEL).unwrap().initiator_spi
    }

    /// The network works again; when all is quiet one of each is left.
    fn rest(&mut self) -> &mut Self {
        self.pair.hold = false;
        self.pair.begin_traffic();
        self.pair.run_secs(30);
        assert_eq!(self.pair.lost, Vec::<String>::new());
        assert!(self.pair.wire().is_empty());
        self.pair.assert_at_rest();
        for host in [A, B] {
            let names = self.pair.names(host);
            assert!(!names.contains(&"ChildDown") && !names.contains(&"IkeDown"), "{names:?}");
            assert_eq!(self.pair.failures(host), Vec::<String>::new());
        }
        self
    }

    /// The network works again; nothing of the Child SA is left, and both said so once.
    fn rest_without_child(&mut self) {
        self.pair.hold = false;
        self.pair.run_secs(30);
        for host in [A, B] {
            assert!(self.pair.hosts[host].inbound.is_empty());
            assert!(self.pair.hosts[host].outbound.is_none());
            assert_eq!(self.pair.hosts[host].endpoint.ike_sas(), 1);
            let down = self.pair.names(host).iter().filter(|n| **n == "ChildDown").count();
            assert_eq!(down, 1, "{:?}", self.pair.names(host));
        }
        assert_eq!(self.ike(A), self.ike(B));
        self.pair.command(A, Command::Initiate(TUNNEL));
        self.pair.run_secs(5);
        self.pair.assert_at_rest();
    }

    /// The network works again; nothing at all is left.
    fn rest_without_anything(&mut self) {
        self.pair.hold = false;
        self.pair.run_secs(130);
        for host in [A, B] {
            assert!(self.pair.hosts[host].inbound.is_empty());
            assert!(self.pair.hosts[host].outbound.is_none());
            assert_eq!(self.pair.hosts[host].endpoint.ike_sas(), 0);
            assert_eq!(self.pair.hosts[host].endpoint.poll_timeout(), None);
            let down = self.pair.names(host).iter().filter(|n| **n == "IkeDown").count();
            assert_eq!(down, 1, "{:?}", self.pair.names(host));
        }
    }
}

/// The four nonces of two crossing exchanges, as octets: A's request, B's answer to it, B's
/// request, A's answer to it; and whose exchange made what is redundant.
const NONCES: [([u8; 4], usize); 8] = [
    ([0x10, 0x80, 0x90, 0xa0], A),
    ([0x80, 0x10, 0x90, 0xa0], A),
    ([0x80, 0x90, 0x10, 0xa0], B),
    ([0x80, 0x90, 0xa0, 0x10], B),
    ([0x10, 0xff, 0x11, 0x12], A),
    ([0xff, 0x10, 0x11, 0x12], A),
    ([0x11, 0x12, 0x10, 0xff], B),
    ([0x11, 0x12, 0xff, 0x10], B),
];

// ---------------------------------------------------------------- Child rekey, Child rekey

///     A                                  B
///     |-- rekey ----\      /---- rekey --|
///     |<-------------\----/              |
///     |-- answer -\   \----------------->|
///     |<-----------\---------- answer ---|
///     |             \------------------->|
///     |      who made the redundant SA deletes it, the other one the old SA
#[test]
fn child_rekeys_cross_and_the_lowest_nonce_loses() {
    for ([a, b_answer, b, a_answer], redundant) in NONCES {
        let mut x = Crossing::new();
        let old = [x.sending(A), x.sending(B)];
        x.begin(A, a, Command::RekeyChild(TUNNEL)).begin(B, b, Command::RekeyChild(TUNNEL));
        x.nonce(A, a_answer).request(A, CREATE);
        x.nonce(B, b_answer).request(B, CREATE);
        assert_eq!([x.inbound(A).len(), x.inbound(B).len()], [2, 2], "both receive on theirs");
        x.response(A, CREATE).response(B, CREATE);
        assert_eq!([x.inbound(A).len(), x.inbound(B).len()], [3, 3], "and on the other's");
        // Each side deletes one: the redundant one, or the old one.
        x.wire(&[(B, INFO, false), (A, INFO, false)]);
        x.request(A, INFO).request(B, INFO).response(A, INFO).response(B, INFO);
        x.wire(&[]);
        for host in [A, B] {
            assert_ne!(x.sending(host), old[host]);
            assert_eq!(x.busy(host), 0);
        }
        // Who won sends on what it asked for itself: it began to at once.
        let winner = 1 - redundant;
        let rekeyed = x.pair.hosts[winner].events.iter().filter_map(|e| match e {
            Event::ChildRekeyed { info, .. } => Some(info.outbound),
            _ => None,
        });
        assert_eq!(rekeyed.collect::<Vec<_>>(), [x.sending(winner)]);
        x.rest();
    }
}

///     A                                  B
///     |-- rekey ------------------------>|
///     |<------------------------ rekey --|      (sent before A's came)
///     |-- answer ----------------------->|
///     |   answer to A still under way    |
///     |<------------- delete by B -------|
///     |<---------------------- answer ---|
#[test]
fn child_rekeys_cross_and_one_answer_comes_after_the_others_delete() {
    for ([a, b_answer, b, a_answer], _) in NONCES {
        let mut x = Crossing::new();
        x.begin(A, a, Command::RekeyChild(TUNNEL)).begin(B, b, Command::RekeyChild(TUNNEL));
        x.nonce(B, b_answer).request(B, CREATE);
        x.nonce(A, a_answer).request(A, CREATE).response(B, CREATE);
        // B knows all four nonces, A does not; B's DELETE overtakes its answer.
        x.request(A, INFO);
        x.response(B, INFO);
        x.response(A, CREATE);
        x.rest();
        assert_eq!([x.busy(A), x.busy(B)], [0, 0]);
    }
}

///     A                                  B
///     |-- rekey ---------\               |
///     |<------------------\----- rekey --|
///     |-- answer ----------\------------>|
///     |                     \   delete --|  (under way)
///     |                      \---------->|
///     |<---------- TEMPORARY_FAILURE ----|
#[test]
fn a_child_rekey_that_comes_while_its_sa_is_being_deleted_is_put_off() {
    for ([a, _, b, a_answer], _) in NONCES {
        let mut x = Crossing::new();
        x.begin(A, a, Command::RekeyChild(TUNNEL)).begin(B, b, Command::RekeyChild(TUNNEL));
        x.nonce(A, a_answer).request(A, CREATE).response(B, CREATE);
        x.request(B, CREATE);
        assert_eq!(x.busy(B), 1);
        x.response(A, CREATE);
        // B's SA does what A's was for: A does not ask again.
        x.wire(&[(A, INFO, false)]);
        x.request(A, INFO).response(B, INFO);
        assert_eq!([x.inbound(A).len(), x.inbound(B).len()], [2, 2], "old ones in their grace");
        x.rest();
    }
}

///     A                                  B
///     |-- rekey ---------\               |
///     |<------------------\----- rekey --|
///     |-- answer ----------\------------>|
///     |<--------------------\-- delete --|
///     |-- answer ------------\---------->|
///     |                       \--------->|
///     |<---------- CHILD_SA_NOT_FOUND ---|
#[test]
fn a_child_rekey_that_comes_after_its_sa_was_deleted_finds_none() {
    for ([a, _, b, a_answer], _) in NONCES {
        let mut x = Crossing::new();
        x.begin(A, a, Command::RekeyChild(TUNNEL)).begin(B, b, Command::RekeyChild(TUNNEL));
        x.nonce(A, a_answer).request(A, CREATE).response(B, CREATE);
        x.request(A, INFO).response(B, INFO);
        x.request(B, CREATE).response(A, CREATE);
        x.wire(&[]);
        assert_eq!([x.busy(A), x.busy(B)], [0, 0]);
        x.rest();
    }
}

// ---------------------------------------------------------------- Child rekey, Child delete

///     A                                  B
///     |-- rekey ----\    /----- delete --|
///     |<-------------\--/                |
///     |-- answer -->  \----------------->|
///     |<---------- TEMPORARY_FAILURE ----|
#[test]
fn a_child_rekey_meets_a_delete_of_the_same_sa() {
    for delete_first in [true, false] {
        let mut x = Crossing::new();
        x.begin(A, 1, Command::RekeyChild(TUNNEL)).begin(B, 1, Command::DeleteChild(TUNNEL));
        if delete_first {
            x.request(A, INFO);
            x.request(B, CREATE);
        } else {
            x.request(B, CREATE);
            x.request(A, INFO);
        }
        assert_eq!(x.busy(B), 1);
        x.rest_without_child();
    }
}

///     A                                  B
///     |-- rekey ---------\      delete --|
///     |<------------------\--------------|
///     |-- answer ----------\------------>|
///     |                     \----------->|
///     |<---------- CHILD_SA_NOT_FOUND ---|
#[test]
fn a_child_rekey_comes_after_the_sa_was_deleted() {
    let mut x = Crossing::new();
    x.begin(A, 1, Command::RekeyChild(TUNNEL)).begin(B, 1, Command::DeleteChild(TUNNEL));
    x.request(A, INFO).response(B, INFO).request(B, CREATE).response(A, CREATE);
    assert_eq!([x.busy(A), x.busy(B)], [0, 0]);
    // A wants a tunnel still: it makes a new one.
    x.wire(&[(B, CREATE, false)]);
    x.request(B, CREATE).response(A, CREATE);
    x.pair.hold = false;
    x.pair.run_secs(10);
    x.pair.assert_at_rest();
}

// ---------------------------------------------------------------- Child delete, Child delete

#[test]
fn both_delete_the_child_sa_and_neither_answer_names_it() {
    let mut x = Crossing::new();
    x.begin(A, 1, Command::DeleteChild(TUNNEL)).begin(B, 1, Command::DeleteChild(TUNNEL));
    x.request(A, INFO).request(B, INFO).response(A, INFO).response(B, INFO);
    x.wire(&[]);
    x.rest_without_child();
}

///     A                                  B
///     |-- IKE rekey ---\   /- IKE rekey --|
///     |-- a new IKE SA, to IKE_AUTH ---->|      (a reload)
///     |<---------------- both answers ---|
///     |-- delete of its rekey's IKE SA ->|
///     |-- delete of the old IKE SA ----->|      (B's own rekey of it is still in flight)
#[test]
fn the_ike_sa_of_a_reload_takes_over_from_two_crossing_ike_rekeys() {
    let mut x = Crossing::new();
    x.begin(A, 1, Command::RekeyIke(TUNNEL)).begin(B, 2, Command::RekeyIke(TUNNEL));
    x.begin(A, 3, Command::Reestablish(TUNNEL));
    x.request(B, INIT).response(A, INIT).request(B, CREATE).request(B, AUTH);
    x.response(A, CREATE).response(A, AUTH);
    // The later DELETE arrives first.
    x.wire(&[(A, CREATE, false), (B, INFO, false), (B, INFO, false)]);
    for at in [2, 1] {
        x.pair.deliver(at);
        x.check();
        assert!(x.pair.hosts[B].outbound.is_some(), "B sends on what it has");
    }
    x.rest();
}

///     A                                  B
///     |-- rekey ------------------------>|
///     |             (lost) X--- answer --|
///     |                     (its timers) |
///     |-- rekey ------------------------>|      (again)
///     |<------------------------ answer -|
///     |-- delete ----------------------->|
///     |<------------------------- rekey -|
#[test]
fn a_child_sa_whose_answer_is_lost_is_neither_used_nor_rekeyed_nor_deleted_meanwhile() {
    for command in [Command::RekeyChild(TUNNEL), Command::DeleteChild(TUNNEL)] {
        let mut x = Crossing::new();
        let old = x.sending(B);
        x.begin(A, 1, Command::RekeyChild(TUNNEL)).request(B, CREATE);
        x.pair.run_secs(20);
        x.pair.lose_all();
        assert_eq!(x.sending(B), old, "A would not know what comes on the other one");
        x.begin(B, 2, command.clone());
        x.pair.run_secs(20);
        let from_b = |x: &Crossing| x.pair.wire().iter().filter(|m| m.0 == A).count();
        assert_eq!(from_b(&x), 0, "{:?}", x.pair.wire());
        if matches!(command, Command::DeleteChild(_)) {
            x.ends = true;
            x.rest_without_child();
        } else {
            x.rest();
            let rekeyed = x.pair.names(B).iter().filter(|name| **name == "ChildRekeyed").count();
            assert_eq!(rekeyed, 2, "A's and its own");
        }
    }
}

// ---------------------------------------------------------------- Child create, Child create

#[test]
fn both_make_a_child_sa_and_the_lowest_nonce_loses() {
    for ([a, b_answer, b, a_answer], redundant) in NONCES {
        let mut x = Crossing::new();
        x.begin(A, 1, Command::DeleteChild(TUNNEL)).request(B, INFO).response(A, INFO);
        x.begin(A, a, Command::Initiate(TUNNEL)).begin(B, b, Command::Initiate(TUNNEL));
        x.nonce(A, a_answer).request(A, CREATE);
        x.nonce(B, b_answer).request(B, CREATE);
        x.response(A, CREATE).response(B, CREATE);
        // Only one is too many: its maker deletes it.
        x.wire(&[(1 - redundant, INFO, false)]);
        x.request(1 - redundant, INFO).response(redundant, INFO);
        x.pair.hold = false;
        x.pair.begin_traffic();
        x.pair.run_secs(30);
        assert_eq!(x.pair.lost, Vec::<String>::new());
        x.pair.assert_at_rest();
    }
}

// ---------------------------------------------------------------- IKE rekey, IKE rekey

#[test]
fn ike_rekeys_cross_and_the_lowest_nonce_loses() {
    for ([a, b_answer, b, a_answer], redundant) in NONCES {
        let mut x = Crossing::new();
        let (old, child) = (x.ike(A), [x.sending(A), x.sending(B)]);
        x.begin(A, a, Command::RekeyIke(TUNNEL)).begin(B, b, Command::RekeyIke(TUNNEL));
        x.nonce(A, a_answer).request(A, CREATE);
        x.nonce(B, b_answer).request(B, CREATE);
        x.response(A, CREATE).response(B, CREATE);
        // One deletes the redundant one, the other one the old one.
        x.wire(&[(B, INFO, false), (A, INFO, false)]);
        assert_eq!(x.ike(A), x.ike(B));
        assert_ne!(x.ike(A), old);
        for host in [A, B] {
            let info = x.pair.hosts[host].endpoint.ike_info(TUNNEL).unwrap();
            assert_eq!(info.initiator, host != redundant, "{:?}", [a, b_answer, b, a_answer]);
        }
        x.request(A, INFO).request(B, INFO).response(A, INFO).response(B, INFO);
        x.wire(&[]);
        assert_eq!([x.busy(A), x.busy(B)], [0, 0]);
        assert_eq!([x.sending(A), x.sending(B)], child, "the Child SA moved as it was");
        x.rest();
    }
}

/// B has all four nonces and its DELETE is there before its answer.
#[test]
fn ike_rekeys_cross_and_one_answer_comes_after_the_others_delete() {
    for ([a, b_answer, b, a_answer], _) in NONCES {
        let mut x = Crossing::new();
        x.begin(A, a, Command::RekeyIke(TUNNEL)).begin(B, b, Command::RekeyIke(TUNNEL));
        x.nonce(B, b_answer).request(B, CREATE);
        x.nonce(A, a_answer).request(A, CREATE).response(B, CREATE);
        x.request(A, INFO);
        x.rest();
        assert_eq!(x.ike(A), x.ike(B));
    }
}

/// A's request comes when B has replaced the IKE SA already.
#[test]
fn an_ike_rekey_of_a_replaced_ike_sa_is_put_off_for_good() {
    for ([a, _, b, a_answer], _) in NONCES {
        let mut x = Crossing::new();
        x.begin(A, a, Command::RekeyIke(TUNNEL)).begin(B, b, Command::RekeyIke(TUNNEL));
        x.nonce(A, a_answer).request(A, CREATE).response(B, CREATE);
        x.request(B, CREATE);
        assert_eq!(x.busy(B), 1);
        x.response(A, CREATE).request(A, INFO).response(B, INFO);
        x.wire(&[]);
        assert!(x.pair.hosts[B].endpoint.ike_info(TUNNEL).unwrap().initiator, "B's stands");
        assert_eq!(x.ike(A), x.ike(B));
        x.rest();
    }
}

/// A's request comes when the IKE SA is gone at B: A forgets its own rekey and takes B's.
#[test]
fn a_delete_after_an_ike_rekey_ends_the_other_sides_own_rekey() {
    for ([a, _, b, a_answer], _) in NONCES {
        let mut x = Crossing::new();
        x.begin(A, a, Command::RekeyIke(TUNNEL)).begin(B, b, Command::RekeyIke(TUNNEL));
        x.nonce(A, a_answer).request(A, CREATE).response(B, CREATE);
        x.request(A, INFO).response(B, INFO);
        assert_eq!(x.ike(A), x.ike(B), "A took B's at the DELETE");
        x.request(B, CREATE);
        x.rest();
    }
}

// ---------------------------------------------------------------- IKE rekey, Child exchanges

///     A                                   B
///     |-- IKE rekey --\   /- Child rekey -|
///     |<---------------\-/                |
///     |-- TEMPORARY_FAILURE ------------->|
///     |<----------- TEMPORARY_FAILURE ----|
///     |      both try again, at different times
#[test]
fn an_ike_rekey_meets_a_child_rekey_and_both_are_put_off() {
    let mut x = Crossing::new();
    let (ike, child) = (x.ike(A), x.sending(A));
    x.begin(A, 1, Command::RekeyIke(TUNNEL)).begin(B, 1, Command::RekeyChild(TUNNEL));
    x.request(A, CREATE).request(B, CREATE).response(A, CREATE).response(B, CREATE);
    x.wire(&[]);
    assert_eq!([x.busy(A), x.busy(B)], [1, 1]);
    x.rest();
    assert_ne!(x.ike(A), ike, "it was tried again");
    assert_ne!(x.sending(A), child, "and this, too");
}

#[test]
fn an_ike_rekey_meets_a_child_create_and_both_are_put_off() {
    let mut x = Crossing::new();
    let ike = x.ike(A);
    x.begin(A, 1, Command::DeleteChild(TUNNEL)).request(B, INFO).response(A, INFO);
    x.begin(A, 1, Command::RekeyIke(TUNNEL)).begin(B, 1, Command::Initiate(TUNNEL));
    x.request(A, CREATE).request(B, CREATE).response(A, CREATE).response(B, CREATE);
    assert_eq!([x.busy(A), x.busy(B)], [1, 1]);
    x.pair.hold = false;
    x.pair.run_secs(30);
    x.pair.assert_at_rest();
    assert_ne!(x.ike(A), ike);
}

/// RFC 7296 2.25.2: a Child SA may be deleted while its IKE SA is being rekeyed; the IKE rekey is
/// put off, since the side that deletes is busy.
#[test]
fn an_ike_rekey_meets_a_child_delete() {
    for delete_first in [true, false] {
        let mut x = Crossing::new();
        let ike = x.ike(A);
        x.begin(A, 1, Command::RekeyIke(TUNNEL)).begin(B, 1, Command::DeleteChild(TUNNEL));
        if delete_first {
            x.request(A, INFO).request(B, CREATE);
        } else {
            x.request(B, CREATE).request(A, INFO);
        }
        assert_eq!([x.busy(A), x.busy(B)], [0, 1]);
        x.rest_without_child();
        assert_ne!(x.ike(A), ike);
    }
}

/// The responder of an IKE rekey uses the new IKE SA before its answer has arrived.
#[test]
fn a_child_rekey_on_the_new_ike_sa_overtakes_the_answer_that_makes_it() {
    let mut x = Crossing::new();
    let child = x.sending(A);
    x.begin(A, 1, Command::RekeyIke(TUNNEL)).request(B, CREATE);
    x.begin(B, 1, Command::RekeyChild(TUNNEL));
    x.request(A, CREATE);
    assert_eq!(x.pair.hosts[A].endpoint.counters().unknown_spi, 1, "not known yet");
    x.response(A, CREATE);
    x.rest();
    assert_ne!(x.sending(A), child);
    assert_ne!(x.sending(B), child);
}

// ---------------------------------------------------------------- IKE delete, everything

#[test]
fn a_delete_of_the_ike_sa_wins_over_everything() {
    let all: [fn(sa::TunnelId) -> Command; 5] = [
        Command::RekeyChild,
        Command::DeleteChild,
        Command::RekeyIke,
        Command::Delete,
        Command::Liveness,
    ];
    for theirs in all {
        for delete_first in [true, false] {
            let mut x = Crossing::new();
            x.begin(A, 1, Command::Delete(TUNNEL)).begin(B, 1, theirs(TUNNEL));
            let exchange = x.pair.wire()[1].1;
            if delete_first {
                x.request(B, INFO).request(A, exchange);
            } else {
                x.request(A, exchange).request(B, INFO);
            }
            x.rest_without_anything();
            let reason = x.pair.hosts[A].events.iter().find_map(|e| match e {
                Event::IkeDown { reason, .. } => Some(reason.clone()),
                _ => None,
            });
            assert_eq!(reason, Some(DownReason::Requested));
        }
    }
}

/// And while a Child SA is being made.
#[test]
fn a_delete_of_the_ike_sa_meets_a_child_create() {
    let mut x = Crossing::new();
    x.begin(A, 1, Command::DeleteChild(TUNNEL)).request(B, INFO).response(A, INFO);
    x.begin(A, 1, Command::Delete(TUNNEL)).begin(B, 1, Command::Initiate(TUNNEL));
    x.request(A, CREATE).request(B, INFO);
    assert_eq!(x.busy(A), 1);
    x.rest_without_anything();
}
