//! Every exchange, from every start and behind every NAT, with each of its messages lost, doubled
//! or late, while inner packets flow.

use std::time::Duration;

use crate::common::{A, B, Fault, Pair, TUNNEL, outside, peers};
use ike::{Command, PeerConfig};
use sa::TunnelId;

const AFTER_THE_NEXT: Duration = Duration::from_millis(25);
const AFTER_ITS_REPETITION: Duration = Duration::from_millis(700);
const MUCH_LATER: Duration = Duration::from_secs(4);

const FAULTS: [Fault; 6] = [
    Fault::Lose,
    Fault::Again(Duration::ZERO),
    Fault::Again(AFTER_ITS_REPETITION),
    Fault::Late(AFTER_THE_NEXT),
    Fault::Late(AFTER_ITS_REPETITION),
    Fault::Again(MUCH_LATER),
];

/// Where NATs stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Nat {
    None,
    Initiator,
    Responder,
    Both,
}

/// Two sites whose tunnel A begins.
#[derive(Clone, Copy, Debug)]
struct Site {
    start: u16,
    nat: Nat,
    force: bool,
    /// Octets of the largest IP packet.
    packet: u16,
}

impl Site {
    fn all() -> Vec<Self> {
        let mut out = Vec::new();
        for start in [500, 4500] {
            for nat in [Nat::None, Nat::Initiator, Nat::Responder, Nat::Both] {
                for force in [false, true] {
                    for packet in [1280, 220] {
                        out.push(Self { start, nat, force, packet });
                    }
                }
            }
        }
        out
    }

    fn before(self, host: usize) -> bool {
        match self.nat {
            Nat::None => false,
            Nat::Initiator => host == A,
            Nat::Responder => host == B,
            Nat::Both => true,
        }
    }

    fn peers(self) -> [PeerConfig; 2] {
        let mut config = peers();
        for peer in &mut config {
            peer.force_encapsulation = self.force;
            // MOBIKE goes to 4500 in any case.
            peer.mobike = self.force;
            peer.fragment_size = self.packet;
        }
        config[A].remote_port = self.start;
        if self.before(B) {
            config[A].remote = Some(outside(B));
        }
        if self.before(A) {
            config[B].remote = None;
        }
        config
    }

    fn pair(self, seed: u64) -> Pair {
        let mut pair = Pair::new(self.peers(), seed);
        if self.before(A) {
            pair.nat(A);
        }
        if self.before(B) {
            pair.forward(B);
        }
        pair
    }

    fn up(self, faults: &[(usize, Fault)]) -> Pair {
        let mut pair = self.pair(1);
        pair.fault(faults.iter().copied());
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run_secs(8);
        pair.assert_at_rest();
        pair
    }
}

#[test]
fn a_tunnel_comes_up_from_every_start_and_behind_every_nat() {
    for site in Site::all() {
        let pair = site.up(&[]);
        let info = [A, B].map(|host| pair.hosts[host].endpoint.ike_info(TUNNEL).unwrap());
        // Who forces encapsulation says that it is behind a NAT.
        for host in [A, B] {
            assert_eq!(info[host].nat.remote, site.before(1 - host) || site.force, "{site:?}");
            assert_eq!(info[host].nat.local, site.before(host), "{site:?}");
        }
        let floats = site.nat != Nat::None || site.force || site.start == 4500;
        let port = if floats { 4500 } else { 500 };
        assert_eq!(info.each_ref().map(|i| i.path.local.port()), [port, port], "{site:?}");
        for host in [A, B] {
            let path = pair.hosts[host].outbound.as_ref().unwrap().path;
            assert_eq!(path.local.port(), 4500, "{site:?}: ESP is always in UDP on 4500");
            let at_peer = if site.before(1 - host) {
                outside(1 - host)
            } else {
                crate::common::address(1 - host)
            };
            assert_eq!(path.remote.ip(), at_peer, "{site:?}");
        }
    }
}

#[test]
fn each_message_of_ike_sa_init_and_ike_auth_may_be_lost_doubled_or_late() {
    for site in Site::all() {
        let messages = site.up(&[]).count;
        assert!(messages >= 4, "{site:?}: {messages} datagrams");
        for at in 0..messages {
            for fault in FAULTS {
                let pair = site.up(&[(at, fault)]);
                for host in [A, B] {
                    assert_eq!(
                        pair.failures(host),
                        Vec::<String>::new(),
                        "{site:?} {at} {fault:?}"
                    );
                    let names = pair.names(host);
                    assert!(!names.contains(&"IkeDown"), "{site:?} {at} {fault:?}: {names:?}");
                }
            }
        }
    }
}

/// An exchange on an established IKE SA, and whether a tunnel is there afterwards.
type Exchange = (&'static str, fn(TunnelId) -> Command, bool);

const EXCHANGES: [Exchange; 6] = [
    ("Child SA rekey", Command::RekeyChild, true),
    ("IKE SA rekey", Command::RekeyIke, true),
    ("liveness", Command::Liveness, true),
    ("a new IKE SA beside the old", Command::Reestablish, true),
    ("Child SA delete", Command::DeleteChild, false),
    ("IKE SA delete", Command::Delete, false),
];

/// Runs one exchange with inner packets flowing. The number of datagrams that it took.
fn exchange(
    site: Site,
    who: usize,
    (name, command, stays): Exchange,
    faults: &[(usize, Fault)],
) -> usize {
    let story = format!("{name} by {who}, {site:?}, {faults:?}");
    let mut pair = site.up(&[]);
    pair.begin_traffic();
    pair.run(Duration::from_millis(300));
    pair.fault(faults.iter().copied());
    pair.command(who, command(TUNNEL));
    pair.run_secs(3);
    let count = pair.count;
    pair.run_secs(27);
    if stays {
        assert_eq!(pair.lost, Vec::<String>::new(), "{story}");
        assert!(pair.passed > 1000, "{story}");
        pair.assert_at_rest();
        for host in [A, B] {
            let names = pair.names(host);
            assert!(!names.contains(&"ChildDown") && !names.contains(&"IkeDown"), "{story}");
            assert_eq!(pair.failures(host), Vec::<String>::new(), "{story}");
        }
        return count;
    }
    for host in [A, B] {
        assert!(pair.hosts[host].inbound.is_empty(), "{story}");
        assert!(pair.hosts[host].outbound.is_none(), "{story}");
        let child = pair.names(host).iter().filter(|n| **n == "ChildDown").count();
        assert_eq!(child, 1, "{story}");
    }
    // And it can be made again.
    pair.busy = false;
    pair.command(A, Command::Initiate(TUNNEL));
    pair.run_secs(8);
    pair.assert_at_rest();
    count
}

#[test]
fn each_message_of_each_later_exchange_may_be_lost_doubled_or_late() {
    for (start, nat, force, packet) in [
        (4500, Nat::None, true, 1280),
        (500, Nat::Both, false, 1280),
        (4500, Nat::Initiator, false, 220),
    ] {
        let site = Site { start, nat, force, packet };
        for one in EXCHANGES {
            for who in [A, B] {
                if site.before(A) && who == B && one.0.starts_with("a new IKE SA") {
                    // B has no address to begin at.
                    continue;
                }
                let messages = exchange(site, who, one, &[]);
                assert!(messages >= 2, "{}: {messages}", one.0);
                for at in 0..messages {
                    for fault in FAULTS {
                        exchange(site, who, one, &[(at, fault)]);
                    }
                }
            }
        }
    }
}

#[test]
fn any_two_messages_of_each_later_exchange_may_be_lost() {
    let site = Site { start: 4500, nat: Nat::None, force: true, packet: 1280 };
    for one in EXCHANGES {
        for who in [A, B] {
            let messages = exchange(site, who, one, &[]) + 1;
            for first in 0..messages {
                for second in first + 1..messages {
                    exchange(site, who, one, &[(first, Fault::Lose), (second, Fault::Lose)]);
                }
            }
        }
    }
}
