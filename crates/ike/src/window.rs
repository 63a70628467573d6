//! Message ids, retransmission and the cached response (RFC 7296 sections 2.1 to 2.3).
//!
//! The window is one request each way: we never send a second request before the first is
//! answered, and never announce a larger window.

use std::time::{Duration, Instant};

use crate::config::Retransmit;

/// First intervals that are left to a request about which we were warned.
const HURRIED: u32 = 6;

/// What a request's message id means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Incoming {
    /// The next request: to be processed.
    New,
    /// The one that we answered last: answered again from the cache.
    Again,
    /// Neither.
    Outside,
}

/// A request of ours that waits for its answer.
#[derive(Debug)]
struct InFlight {
    id: u32,
    datagrams: Vec<Vec<u8>>,
    sent: u32,
    /// Transmissions since the intervals last began to grow.
    round: u32,
    first: Instant,
    next: Instant,
    /// When it is given up, however often the intervals began anew.
    until: Instant,
    /// The first interval.
    shortest: Duration,
    /// It is given up at `until`, however seldom it was sent.
    hurried: bool,
}

/// What is due for the request in flight.
pub(crate) enum Due<'a> {
    /// Send these again.
    Again(&'a [Vec<u8>]),
    /// Nobody answers: number of transmissions and the time since the first.
    GiveUp(u32, Duration),
}

/// The state of one IKE SA's message ids.
#[derive(Debug, Default)]
pub(crate) struct Window {
    next_request: u32,
    in_flight: Option<InFlight>,
    next_expected: u32,
    response: Vec<Vec<u8>>,
}

impl Window {
    /// The id of our next request.
    pub(crate) fn next_request(&self) -> u32 {
        self.next_request
    }

    /// Whether a request of ours waits for its answer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Remembers the request that is being sent now; its id is spent.
    pub(crate) fn sent(&mut self, datagrams: Vec<Vec<u8>>, retransmit: &Retransmit, now: Instant) {
        let shortest = retransmit.interval(1);
        self.in_flight = Some(InFlight {
            id: self.next_request,
            datagrams,
            sent: 1,
            round: 1,
            first: now,
            next: now + shortest,
            until: now + retransmit.patience(),
            shortest,
            hurried: false,
        });
        self.next_request = self.next_request.saturating_add(1);
    }

    /// The same request in another form (IKE_SA_INIT with a COOKIE, RFC 7296 2.6): the id stays.
    pub(crate) fn resent(
        &mut self,
        datagrams: Vec<Vec<u8>>,
        retransmit: &Retransmit,
        now: Instant,
    ) {
        self.next_request = self.next_request.saturating_sub(1);
        self.sent(datagrams, retransmit, now);
    }

    /// The datagrams of the request in flight, and since when it is.
    pub(crate) fn in_flight(&self) -> Option<(&[Vec<u8>], Instant)> {
        self.in_flight.as_ref().map(|f| (f.datagrams.as_slice(), f.first))
    }

    /// How often the request in flight was sent, and since when.
    pub(crate) fn tries(&self) -> Option<(u32, Instant)> {
        self.in_flight.as_ref().map(|f| (f.sent, f.first))
    }

    /// Whether a response with this id answers the request in flight.
    pub(crate) fn is_answer(&self, id: u32) -> bool {
        self.in_flight.as_ref().is_some_and(|f| f.id == id)
    }

    /// The request in flight was answered. Returns how often it was sent.
    pub(crate) fn answered(&mut self) -> u32 {
        self.in_flight.take().map_or(0, |f| f.sent)
    }

    /// Something authentic came from the peer. The way to it is open again, so the request in flight
    /// does not wait for the end of a long interval: the intervals begin anew. A peer that speaks
    /// and never answers is given up after the same time as one that is silent.
    pub(crate) fn heard(&mut self, now: Instant) {
        if let Some(flight) = &mut self.in_flight
            && flight.round > 1
        {
            flight.round = 1;
            flight.next = flight.next.min(now + flight.shortest);
        }
    }

    /// Somebody says, unprotected, that the peer cannot answer. A few more transmissions give the
    /// peer the chance to contradict; then the request is given up.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if let Some(flight) = &mut self.in_flight {
            flight.hurried = true;
            flight.round = 1;
            flight.next = flight.next.min(now + flight.shortest);
            flight.until = flight.until.min(now + flight.shortest * HURRIED);
        }
    }

    /// Somebody says, unprotected, that the request is in vain. It is given up after one more interval,
    /// in which the true answer may come, and is not sent again.
    pub(crate) fn conclude(&mut self, now: Instant) {
        if let Some(flight) = &mut self.in_flight {
            flight.hurried = true;
            flight.until = flight.until.min(now + flight.shortest);
            flight.next = flight.until;
        }
    }

    /// Where a request with this id stands.
    pub(crate) fn incoming(&self, id: u32) -> Incoming {
        if id == self.next_expected {
            Incoming::New
        } else if id.checked_add(1) == Some(self.next_expected) && !self.response.is_empty() {
            Incoming::Again
        } else {
            Incoming::Outside
        }
    }

    /// Remembers the response to the request that was expected.
    pub(crate) fn respond(&mut self, datagrams: Vec<Vec<u8>>) {
        self.next_expected = self.next_expected.saturating_add(1);
        self.response = datagrams;
    }

    /// The response to the last request.
    pub(crate) fn response(&self) -> &[Vec<u8>] {
        &self.response
    }

    /// When [`Self::due`] has something to say.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|f| f.next)
    }

    /// Retransmits or gives up if the time has come.
    pub(crate) fn due(&mut self, retransmit: &Retransmit, now: Instant) -> Option<Due<'_>> {
        let flight = self.in_flight.as_mut().filter(|f| f.next <= now)?;
        let enough = flight.hurried || flight.sent >= retransmit.tries;
        let spent = enough && flight.until <= now;
        if spent || flight.round >= retransmit.tries {
            return Some(Due::GiveUp(flight.sent, now.saturating_duration_since(flight.first)));
        }
        flight.sent += 1;
        flight.round += 1;
        // From `now`, not from `next`: after a suspended host wakes there is no burst.
        flight.next = now + retransmit.interval(flight.round);
        Some(Due::Again(&flight.datagrams))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_sent_again_at_growing_intervals_and_then_given_up() {
        let start = Instant::now();
        let plan = Retransmit { first: Duration::from_secs(1), factor: 2.0, tries: 3 };
        let mut window = Window::default();
        window.sent(vec![vec![1]], &plan, start);
        let mut at = Vec::new();
        loop {
            let now = window.deadline().unwrap();
            at.push(now.duration_since(start).as_secs());
            match window.due(&plan, now).unwrap() {
                Due::Again(datagrams) => assert_eq!(datagrams, [vec![1]]),
                Due::GiveUp(tries, waited) => {
                    assert_eq!((tries, waited.as_secs()), (3, 7));
                    break;
                }
            }
        }
        assert_eq!(at, [1, 3, 7]);
    }

    #[test]
    fn a_sign_of_life_ends_a_long_wait_but_not_the_patience() {
        let start = Instant::now();
        let seconds = |n| start + Duration::from_secs(n);
        let plan = Retransmit { first: Duration::from_secs(1), factor: 2.0, tries: 5 };
        let mut window = Window::default();
        window.sent(vec![vec![1]], &plan, start);
        for at in [1, 3, 7] {
            assert_eq!(window.deadline(), Some(seconds(at)));
            assert!(matches!(window.due(&plan, seconds(at)), Some(Due::Again(_))));
        }
        assert_eq!(window.deadline(), Some(seconds(15)));
        window.heard(seconds(8));
        assert_eq!(window.deadline(), Some(seconds(9)), "not seven seconds later");
        // A peer that speaks all the time and does not answer: once a second, 31 seconds in all.
        let mut times = 0;
        let (mut now, end) = loop {
            let now = window.deadline().unwrap();
            match window.due(&plan, now).unwrap() {
                Due::Again(_) => times += 1,
                Due::GiveUp(sent, waited) => break (now, (sent, waited.as_secs())),
            }
            window.heard(now);
        };
        assert_eq!((times, end), (22, (26, 31)));
        // One that falls silent again is given up after a whole round.
        window.answered();
        window.sent(vec![vec![1]], &plan, now);
        let begun = now;
        for _ in 0..3 {
            now = window.deadline().unwrap();
            assert!(matches!(window.due(&plan, now), Some(Due::Again(_))));
        }
        window.heard(now);
        while let Some(Due::Again(_)) = window.due(&plan, window.deadline().unwrap()) {
            now = window.deadline().unwrap();
        }
        assert_eq!(now.duration_since(begun).as_secs(), 7 + 31);
    }

    #[test]
    fn a_warning_shortens_the_patience_and_may_be_contradicted() {
        let start = Instant::now();
        let plan = Retransmit::default();
        let mut window = Window::default();
        window.sent(vec![vec![1]], &plan, start);
        let mut at = Vec::new();
        loop {
            let now = window.deadline().unwrap();
            at.push(now.duration_since(start).as_millis());
            match window.due(&plan, now).unwrap() {
                Due::Again(_) => window.hurry(now),
                Due::GiveUp(tries, _) => {
                    assert_eq!(tries, 7);
                    break;
                }
            }
        }
        assert_eq!(at, [500, 1000, 1500, 2000, 2500, 3000, 3500]);
        window.answered();
        assert!(!window.is_waiting());
        window.hurry(start);
        assert_eq!(window.deadline(), None, "there is nothing to hurry");
    }

    #[test]
    fn only_the_next_request_is_new_and_only_the_last_is_answered_again() {
        let mut window = Window { next_expected: 5, ..Window::default() };
        assert_eq!(window.incoming(5), Incoming::New);
        assert_eq!(window.incoming(4), Incoming::Outside, "nothing is cached yet");
        window.respond(vec![vec![9]]);
        assert_eq!(window.incoming(5), Incoming::Again);
        assert_eq!(window.incoming(6), Incoming::New);
        for id in [0, 4, 7, u32::MAX] {
            assert_eq!(window.incoming(id), Incoming::Outside, "{id}");
        }
    }

    #[test]
    fn the_back_off_never_overflows() {
        let wild = Retransmit { first: Duration::from_secs(1), factor: f64::MAX, tries: u32::MAX };
        assert_eq!(wild.interval(u32::MAX), Retransmit::LONGEST);
        let nan = Retransmit { factor: f64::NAN, ..wild };
        assert_eq!(nan.interval(9), Duration::from_secs(1));
    }
}
