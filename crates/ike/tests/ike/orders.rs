//! Every pair of exchanges that can cross, in every order in which their messages can arrive, and
//! with every single message lost, doubled or late; with the nonces forced both ways.
//!
//! The orders are enumerated: at each point any message on the wire may be the next to arrive.

use std::time::Duration;

use crate::common::{A, B, Fault, Pair, TUNNEL, peers};
use ike::Command;
use sa::TunnelId;

/// What a side begins, and what is left of the tunnel afterwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Begins {
    Nothing,
    Liveness,
    RekeyChild,
    RekeyIke,
    CreateChild,
    DeleteChild,
    Reestablish,
    DeleteIke,
}

use Begins::{CreateChild, DeleteChild, DeleteIke, Nothing, Reestablish, RekeyChild, RekeyIke};

const ALL: [Begins; 8] = [
    Nothing,
    Begins::Liveness,
    RekeyChild,
    RekeyIke,
    CreateChild,
    DeleteChild,
    Reestablish,
    DeleteIke,
];

impl Begins {
    fn command(self, tunnel: TunnelId) -> Option<Command> {
        Some(match self {
            Nothing => return None,
            Self::Liveness => Command::Liveness(tunnel),
            RekeyChild => Command::RekeyChild(tunnel),
            RekeyIke => Command::RekeyIke(tunnel),
            CreateChild => Command::Initiate(tunnel),
            DeleteChild => Command::DeleteChild(tunnel),
            Reestablish => Command::Reestablish(tunnel),
            DeleteIke => Command::Delete(tunnel),
        })
    }
}

/// Two exchanges that begin at once.
#[derive(Clone, Copy, Debug)]
struct Case {
    a: Begins,
    b: Begins,
    /// First octets of the nonces of A and B.
    nonces: [u8; 2],
}

impl Case {
    fn all() -> Vec<Self> {
        let mut out = Vec::new();
        for a in ALL {
            for b in ALL {
                for nonces in [[0x10, 0x80], [0x80, 0x10]] {
                    out.push(Self { a, b, nonces });
                }
            }
        }
        out
    }

    /// Whether somebody begins with `what`.
    fn has(self, what: Begins) -> bool {
        self.a == what || self.b == what
    }

    /// A pair in which both have just begun.
    fn begin(self, hold: bool, faults: &[(usize, Fault)]) -> Pair {
        let mut config = peers();
        for peer in &mut config {
            peer.dpd.idle = Duration::from_secs(300);
        }
        let mut pair = Pair::up(config, 1);
        if self.has(CreateChild) {
            pair.command(A, Command::DeleteChild(TUNNEL));
            pair.run_secs(10);
        }
        pair.hold = hold;
        if !self.has(CreateChild) && !hold {
            pair.begin_traffic();
            pair.run(Duration::from_millis(200));
        }
        pair.fault(faults.iter().copied());
        for (host, begins) in [(A, self.a), (B, self.b)] {
            pair.nonce(host, self.nonces[host]);
            if let Some(command) = begins.command(TUNNEL) {
                pair.command(host, command);
            }
        }
        pair
    }

    /// What must be true in the end.
    fn check(self, pair: &mut Pair, story: &str) {
        // Who is told to end something, and who to make it, may both have their way, one after the
        // other; then the tunnel is whole, or it is not there.
        let ends = self.has(DeleteIke) || self.has(DeleteChild);
        for host in [A, B] {
            let endpoint = &pair.hosts[host].endpoint;
            assert!(endpoint.ike_sas() <= 1, "{story}: {} IKE SAs", endpoint.ike_sas());
            assert_eq!(endpoint.half_open(), 0, "{story}");
            assert!(pair.hosts[host].inbound.len() <= 1, "{story}");
            let child = endpoint.child_info(TUNNEL);
            assert_eq!(pair.hosts[host].outbound.is_some(), child.is_some(), "{story}");
        }
        let info = [A, B].map(|host| pair.hosts[host].endpoint.ike_info(TUNNEL));
        let spis = info.each_ref().map(|i| i.as_ref().map(|i| (i.initiator_spi, i.responder_spi)));
        assert_eq!(spis[A], spis[B], "{story}");
        let child = [A, B].map(|host| pair.hosts[host].endpoint.child_info(TUNNEL));
        assert_eq!(child[A].is_some(), child[B].is_some(), "{story}");
        if child[A].is_some() {
            pair.assert_at_rest();
        }
        if !ends {
            assert!(child[A].is_some(), "{story}: no tunnel");
            for host in [A, B] {
                let down = pair.names(host).iter().filter(|n| n.ends_with("Down")).count();
                let deleted = usize::from(self.has(CreateChild));
                // Of two that are made at once, one may go before its maker's own is there.
                let twice = usize::from(
                    self.has(CreateChild) && (self.a == self.b || self.has(Reestablish)),
                );
                assert!(
                    (deleted..=deleted + twice).contains(&down),
                    "{story}: {:?}",
                    pair.names(host)
                );
                assert_eq!(pair.failures(host), Vec::<String>::new(), "{story}");
            }
        }
    }
}

/// Delivers in the order that `choices` say (the first on the wire where they end). Where there
/// was a choice: what was taken of how many.
fn play(case: Case, choices: &[usize]) -> Vec<(usize, usize)> {
    let story = format!("{case:?}, order {choices:?}");
    let mut pair = case.begin(true, &[]);
    let mut taken = Vec::new();
    let whole = !case.has(CreateChild) && !case.has(DeleteChild) && !case.has(DeleteIke);
    // Enough for both exchanges and the DELETEs after them; time stands still.
    for _ in 0..14 {
        let width = pair.wire().len();
        if width == 0 {
            break;
        }
        let choice = choices.get(taken.len()).copied().unwrap_or(0).min(width - 1);
        taken.push((choice, width));
        pair.deliver(choice);
        if whole {
            pair.assert_nothing_can_be_lost(&format!("{case:?}, order {taken:?}"));
        }
    }
    pair.hold = false;
    if whole {
        pair.begin_traffic();
    }
    pair.run_secs(10);
    assert_eq!(pair.lost, Vec::<String>::new(), "{story}");
    pair.busy = false;
    pair.run_secs(100);
    case.check(&mut pair, &story);
    taken
}

/// All orders of one case; how many there are.
fn every_order(case: Case) -> usize {
    let mut choices: Vec<usize> = Vec::new();
    for played in 1.. {
        let mut taken = play(case, &choices);
        // The next order: the last choice that has an alternative takes it.
        while taken.last().is_some_and(|(choice, width)| choice + 1 >= *width) {
            taken.pop();
        }
        let Some(last) = taken.last_mut() else { return played };
        last.0 += 1;
        choices = taken.into_iter().map(|(choice, _)| choice).collect();
        assert!(played < 20_000, "{case:?}: too many orders");
    }
    0
}

#[test]
fn every_order_of_every_crossing() {
    let mut orders = 0;
    for case in Case::all() {
        orders += every_order(case);
    }
    println!("{orders} orders");
    assert!(orders > 1000, "{orders}");
}

/// With inner packets all the time: none is lost unless somebody ends the tunnel.
fn run(case: Case, faults: &[(usize, Fault)]) -> usize {
    let story = format!("{case:?}, {faults:?}");
    let mut pair = case.begin(false, faults);
    pair.run_secs(3);
    let count = pair.count;
    pair.run_secs(17);
    if !case.has(DeleteIke) && !case.has(DeleteChild) {
        assert_eq!(pair.lost, Vec::<String>::new(), "{story}");
    }
    pair.busy = false;
    pair.run_secs(120);
    case.check(&mut pair, &story);
    count
}

#[test]
fn every_message_of_every_crossing_lost_doubled_or_late() {
    let ms = Duration::from_millis;
    for case in Case::all() {
        let messages = run(case, &[]);
        for at in 0..messages {
            for fault in [
                Fault::Lose,
                Fault::Again(ms(700)),
                Fault::Late(ms(15)),
                Fault::Late(ms(700)),
                Fault::Late(ms(3000)),
            ] {
                run(case, &[(at, fault)]);
            }
        }
    }
}

#[test]
fn any_two_messages_of_a_crossing_of_rekeys_lost() {
    for case in Case::all() {
        let rekey = |begins| matches!(begins, RekeyChild | RekeyIke | Reestablish);
        if !rekey(case.a) || !rekey(case.b) {
            continue;
        }
        let messages = run(case, &[]);
        for first in 0..messages {
            for second in first + 1..messages + 2 {
                run(case, &[(first, Fault::Lose), (second, Fault::Lose)]);
            }
        }
    }
}
