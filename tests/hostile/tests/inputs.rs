//! What has broken other daemons, sent to the running `vgw` over sockets, before, during and after
//! authentication, while a ping runs through another peer's tunnel. Each input has a counter or a
//! line; the ping loses nothing; memory stays bounded. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use hostile::client::{Client, esp_offer, init_request, plain, plain_chain};
use hostile::raw::RawSender;
use hostile::{Net, SCENARIO, Side, wire};
use ike::Identity;
use ike::crypto::KeyExchange;
use ike::message::{
    ExchangeType, Notify, NotifyType, Payload, ProtocolId, Transform, TransformType, emit_chain,
};
use ike::suite::{IkeProposals, KeGroup};
use lab::process::Program;
use lab::settings;
use rand_core::{OsRng, RngCore};
use sa::SelectorSet;

/// Payload types.
const IDI: u8 = 35;
const TSI: u8 = 44;
const SKF: u8 = 53;

/// Fragments that a message has at most.
const FRAGMENTS: u16 = 64;

/// KiB that a daemon may grow by under everything here.
const MAY_GROW: u64 = 24 * 1024;

/// A ping while `attack` runs; none of its packets is lost, and the SAs stay the same.
fn beside_a_ping(attack: impl FnOnce(&mut Net)) {
    let mut net = Net::up(SCENARIO);
    let before = net.tunnels(Side::Vgw);
    let memory = net.most_memory(Side::Vgw);
    let ping = net.ping(Duration::from_millis(10));
    attack(&mut net);
    sleep(Duration::from_millis(300));
    let answers = ping.stop().unwrap();
    assert_eq!((answers.lost(), answers.duplicates, answers.damaged), (0, 0, 0));
    let after = net.tunnels(Side::Vgw);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!((&old["spi_in"], &new["spi_in"]), (&new["spi_in"], &old["spi_in"]));
    }
    let grown = net.most_memory(Side::Vgw) - memory;
    println!("{} pings, none lost; most memory grew by {grown} KiB", answers.sent);
    assert!(grown < MAY_GROW, "{grown} KiB");
}

/// A socket of the attacker, without marker to port 500 or with whatever is sent to 4500.
fn socket(net: &Net, port: u16) -> UdpSocket {
    let to = SocketAddr::new(net.layout.outside[0], port);
    let socket = net.attacker.run(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    socket.connect(to).unwrap();
    socket
}

fn true_init() -> Vec<u8> {
    let key = KeyExchange::generate(KeGroup::X25519, &mut OsRng).unwrap();
    init_request(OsRng.next_u64() | 1, &key, &[7; 32], None)
}

fn marked(message: &[u8]) -> Vec<u8> {
    [&[0; 4], message].concat()
}

fn init_with(edit: impl Fn(&mut Vec<Payload>)) -> Vec<u8> {
    let key = KeyExchange::generate(KeGroup::X25519, &mut OsRng).unwrap();
    let offer = IkeProposals { groups: vec![KeGroup::X25519], ..IkeProposals::default() };
    let mut payloads = vec![
        Payload::Sa(offer.offer(&[])),
        Payload::Ke { group: 31, data: key.public().to_vec() },
        Payload::Nonce(vec![9; 32]),
    ];
    edit(&mut payloads);
    plain((OsRng.next_u64() | 1, 0), ExchangeType::IKE_SA_INIT, 0, &payloads)
}

#[test]
fn what_strangers_send_is_counted_and_harms_nobody() {
    beside_a_ping(|net| {
        let (ike, nat_t) = (socket(net, 500), socket(net, 4500));
        let mut noise = [0; 1400];
        OsRng.fill_bytes(&mut noise);

        // Garbage of every length, on both ports.
        net.counted("malformed", 140, |_| {
            (0..1400).step_by(10).for_each(|length| drop(ike.send(&noise[..length])));
        });
        net.counted("runt", 2, |_| (0..3).for_each(|n| drop(nat_t.send(&noise[..n]))));
        net.counted("unknown_spi", 20, |_| {
            for length in (40..1400).step_by(68) {
                nat_t.send(&[&[0x71], &noise[..length]].concat()).unwrap();
            }
        });
        net.counted("malformed", 20, |_| {
            (0..20).for_each(|n| drop(nat_t.send(&marked(&noise[..n * 60]))));
        });

        // Truncated, prolonged, and with a length that disagrees with the datagram.
        let good = true_init();
        let cuts = good.len() as u64;
        net.counted("malformed", cuts, |_| {
            for cut in 0..good.len() {
                ike.send(&good[..cut]).unwrap();
                if cut % 64 == 0 {
                    sleep(Duration::from_millis(5));
                }
            }
        });
        net.counted("malformed", 3, |_| {
            nat_t.send(&marked(&good[..27])).unwrap();
            nat_t.send(&marked(&[&good[..], &[0]].concat())).unwrap();
            let mut long = good.clone();
            long[24..28].copy_from_slice(&0xffff_ffff_u32.to_be_bytes());
            nat_t.send(&marked(&long)).unwrap();
        });
        net.counted("bad_version", 2, |_| {
            for version in [0x10, 0x30] {
                let mut other = good.clone();
                other[17] = version;
                ike.send(&other).unwrap();
            }
        });

        // Proposals without a key exchange, and with one that nobody implements.
        net.counted("no_proposal", 2, |_| {
            for ids in [vec![], vec![22, 1024]] {
                let message = init_with(|payloads| {
                    let Payload::Sa(offer) = &mut payloads[0] else { panic!("SA is first") };
                    for proposal in offer {
                        proposal.transforms.retain(|t| t.kind != TransformType::KE);
                        let unknown = ids.iter().map(|id| Transform {
                            kind: TransformType::KE,
                            id: *id,
                            key_length: None,
                        });
                        proposal.transforms.extend(unknown);
                    }
                });
                ike.send(&message).unwrap();
            }
        });

        // Key exchange values that cannot be: the exchange begins nothing.
        let begun = net.ike(Side::Vgw, "received");
        let mut sent = 0;
        for (group, data) in [
            (31, vec![0; 32]),
            (31, [&[1], &[0; 31][..]].concat()),
            (31, vec![9; 31]),
            (31, vec![9; 33]),
            (31, Vec::new()),
            (14, vec![0; 256]),
            (14, vec![0xff; 256]),
            (19, vec![0; 64]),
            (1024, vec![1; 32]),
            (0xffff, vec![1; 1000]),
        ] {
            let message = init_with(|payloads| {
                let mut offer = IkeProposals::default();
                offer.groups = KeGroup::from_id(group).map_or(offer.groups, |g| vec![g]);
                payloads[0] = Payload::Sa(offer.offer(&[]));
                payloads[1] = Payload::Ke { group, data: data.clone() };
            });
            nat_t.send(&marked(&message)).unwrap();
            sent += 1;
        }
        net.counted("received", 1, |_| drop(ike.send(&init_with(|p| drop(p.pop())))));
        assert!(net.ike(Side::Vgw, "received") > begun + sent);

        // Protected messages for nobody, hints about SAs that are not there.
        net.counted("unknown_spi", 2, |_| {
            for exchange in [ExchangeType::INFORMATIONAL, ExchangeType::CREATE_CHILD_SA] {
                let text = b"$(reboot)`reboot`\n\x1b[2J%n%s".to_vec();
                let notify = Payload::notify(NotifyType::AUTHENTICATION_FAILED, text);
                ike.send(&plain((5, 6), exchange, 1, &[notify])).unwrap();
            }
        });
        // More payloads than anybody sends.
        net.counted("malformed", 1, |_| {
            let many = vec![Payload::VendorId(Vec::new()); 300];
            ike.send(&plain((5, 0), ExchangeType::IKE_SA_INIT, 0, &many)).unwrap();
        });
    });
}

#[test]
fn what_is_sent_during_authentication_is_counted_and_harms_nobody() {
    beside_a_ping(|net| {
        let begin = |net: &Net| {
            let (mut client, own, peer) = net.stranger(0);
            assert!(client.init(), "IKE_SA_INIT is answered");
            (client, own, peer)
        };

        // Nothing but IKE_AUTH before the peer is authenticated.
        for exchange in [ExchangeType::INFORMATIONAL, ExchangeType::CREATE_CHILD_SA] {
            let (mut client, ..) = begin(net);
            net.counted("out_of_phase", 1, |_| {
                assert_eq!(client.request(exchange, &[]), None);
            });
        }

        // IKE_AUTH that nobody can have sent.
        type Edit = fn(&mut Vec<Payload>);
        let edits: [(&str, Edit); 7] = [
            // Own AUTH left out.
            ("auth_failed", |p| p.retain(|p| !matches!(p, Payload::Auth { .. }))),
            ("auth_failed", |p| p[2] = Payload::Auth { method: 2, data: Vec::new() }),
            ("auth_failed", |p| p[2] = Payload::Auth { method: 2, data: vec![0; 64] }),
            ("auth_failed", |p| p[2] = Payload::Auth { method: 1, data: vec![1; 1000] }),
            // Another identity, and one that is very long.
            ("auth_failed", |p| p[0] = Payload::IdI("nobody.example".parse().unwrap())),
            ("malformed", |p| p[0] = Payload::IdI(Identity::KeyId(vec![0x41; 1000]))),
            ("malformed", |p| p[0] = Payload::IdI(Identity::Fqdn("a".repeat(1000)))),
        ];
        for (counter, edit) in edits {
            let (mut client, own, peer) = begin(net);
            let mut payloads = client.auth_payloads(&own, &peer);
            edit(&mut payloads);
            let mut chain = Vec::new();
            let first = emit_chain(&payloads, &mut chain);
            let request = client.seal(ExchangeType::IKE_AUTH, 1, first, &chain);
            net.counted(counter, 1, |_| {
                client.send(&request);
                let answer = client.receive().and_then(|answer| client.open(&answer)).unwrap();
                let refused = |p: &Payload| matches!(p, Payload::Notify(n) if n.kind.is_error());
                assert!(answer.iter().any(refused), "{answer:?}");
            });
            // Sent again, it meets no state from before, and nothing is left to be used.
            for _ in 0..3 {
                client.send(&request);
            }
            client.next_id = 2;
            assert_eq!(client.request(ExchangeType::CREATE_CHILD_SA, &[]), None, "{counter}");
        }
        assert!(net.logged(Side::Vgw, "pre-shared key: the peer's AUTH as "));
        assert!(net.logged(Side::Vgw, "identity: the peer is nobody.example"));

        // A chain of payloads that cannot be parsed, under the right keys.
        for (first, chain) in [
            (IDI, vec![0, 0, 0xff, 0xff]),
            (IDI, vec![0, 0, 0, 3]),
            (TSI, vec![0, 0, 0, 8, 255, 0, 0, 0]),
            (200, vec![200, 0x80, 0, 4, 0, 0x80, 0, 4]),
        ] {
            let (mut client, ..) = begin(net);
            net.counted("malformed", 1, |_| {
                let _ = client.request_chain(ExchangeType::IKE_AUTH, first, &chain);
            });
        }

        // The key of the connection is lost on our side: a reload says so and changes nothing.
        let files = settings::vgw(&net.scenario, &net.layout);
        let key = files.iter().find(|file| file.path.ends_with("psk-2-1")).unwrap();
        let host = net.vgw.host().clone();
        host.command(Program::new("rm").args([&*key.path])).unwrap();
        let refused = host.output(net.vgw.line(&["reload"])).unwrap();
        assert!(!refused.success() && refused.stderr.contains("psk-2-1"), "{}", refused.stderr);
        let (mut unknown, own, peer) = begin(net);
        assert!(unknown.auth(&own, &peer), "the key that was read before is still there");
        host.write(&*key.path, &key.text, 0o600).unwrap();

        // Fragments that never become whole, in every number, and forged ones.
        let (mut client, ..) = begin(net);
        let spis = client.spis;
        net.counted("unauthentic", 100, |_| {
            for number in 1..=100_u16 {
                let mut chain = vec![0, 0, 0, 60];
                chain.extend(number.to_be_bytes());
                chain.extend(100_u16.to_be_bytes());
                chain.resize(60, 0x55);
                chain[0] = if number == 1 { IDI } else { 0 };
                client.send(&plain_chain(spis, ExchangeType::IKE_AUTH, 1, SKF, &chain));
            }
        });
        net.counted("malformed", 2, |_| {
            for (number, total) in [(0_u16, 5_u16), (6, 5)] {
                let mut chain = vec![0, 0, 0, 60];
                chain.extend(number.to_be_bytes());
                chain.extend(total.to_be_bytes());
                chain.resize(60, 0);
                client.send(&plain_chain(spis, ExchangeType::IKE_AUTH, 1, SKF, &chain));
            }
        });

        // The same peer, honestly.
        let (mut honest, own, peer) = begin(net);
        assert!(honest.auth(&own, &peer), "an honest peer from the same address connects");
        let _ = client.request(ExchangeType::INFORMATIONAL, &[]);
    });
}

/// A selector as it stands on the wire.
fn selectors(count: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + body.len()).unwrap().to_be_bytes();
    [&[0, 0], &length[..], &[count, 0, 0, 0], body].concat()
}

#[test]
fn a_peer_that_misbehaves_after_authentication_harms_its_own_tunnel_only() {
    beside_a_ping(|net| {
        let connect = |net: &mut Net| -> Client {
            let (mut client, own, peer) = net.stranger(0);
            assert!(client.init() && client.auth(&own, &peer));
            client
        };
        let mut client = connect(net);
        let everything = SelectorSet::nets(&["0.0.0.0/0".parse().unwrap()]);
        let child = |rekey: Option<Notify>, ke: Option<Payload>| {
            let mut payloads: Vec<Payload> = rekey.map(Payload::Notify).into_iter().collect();
            payloads.extend([Payload::Sa(esp_offer()), Payload::Nonce(vec![3; 32])]);
            payloads.extend(ke);
            payloads.extend([Payload::TsI(everything.clone()), Payload::TsR(everything.clone())]);
            payloads
        };
        let error = |answer: &Option<Vec<Payload>>| {
            answer.as_ref().is_some_and(|answer| {
                let refused = |p: &Payload| matches!(p, Payload::Notify(n) if n.kind.is_error());
                answer.iter().any(refused)
            })
        };

        // REKEY_SA of SAs and protocols that are not there.
        for protocol in [0, 1, 2, 200] {
            let notify = Notify {
                protocol: ProtocolId(protocol),
                spi: vec![1, 2, 3, 4],
                kind: NotifyType::REKEY_SA,
                data: vec![0x25; 100],
            };
            let payloads = child(Some(notify), None);
            let answer = client.request(ExchangeType::CREATE_CHILD_SA, &payloads);
            assert!(error(&answer), "protocol {protocol}: {answer:?}");
        }

        // A key exchange value of zeros.
        let ke = Payload::Ke { group: 31, data: vec![0; 32] };
        let answer = client.request(ExchangeType::CREATE_CHILD_SA, &child(None, Some(ke)));
        assert!(answer.is_none() || !answer.unwrap().is_empty());

        // Traffic selectors that cannot be.
        for body in [
            selectors(255, &[]),
            selectors(1, &[7, 0, 0, 16, 0, 0, 0xff, 0xff, 10, 0, 0, 9, 10, 0, 0, 1]),
            selectors(1, &[7, 0, 0, 200, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 10, 0, 0, 9]),
            selectors(1, &[8, 0, 0, 16, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 10, 0, 0, 9]),
            selectors(2, &[7, 0, 0, 16, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 10, 0, 0, 9]),
            selectors(0, &[]),
        ] {
            let mut chain = Vec::new();
            let kind =
                emit_chain(&[Payload::Sa(esp_offer()), Payload::Nonce(vec![3; 32])], &mut chain);
            // The nonce is the last payload so far: the selectors follow it.
            let nonce = chain.len() - 36;
            chain[nonce] = TSI;
            chain.extend(&body);
            let answer = client.request_chain(ExchangeType::CREATE_CHILD_SA, kind, &chain);
            let alive = answer.is_none() || error(&answer);
            assert!(alive, "{body:?}: {answer:?}");
            if answer.is_none() {
                client = connect(net);
            }
        }

        // An unknown critical payload, deletes of what is not there, a request of another message
        // id, and a hundred payloads.
        let mut chain = vec![0, 0x80, 0, 4];
        let answer = client.request_chain(ExchangeType::INFORMATIONAL, 200, &chain);
        assert!(error(&answer), "UNSUPPORTED_CRITICAL_PAYLOAD: {answer:?}");
        chain.clear();
        let deletes = [
            Payload::Delete { protocol: ProtocolId::ESP, spis: vec![vec![1, 2, 3, 4]; 200] },
            Payload::Delete { protocol: ProtocolId(77), spis: Vec::new() },
        ];
        let _ = client.request(ExchangeType::INFORMATIONAL, &deletes);
        net.counted("outside_window", 1, |_| {
            let far = client.seal(ExchangeType::INFORMATIONAL, 5000, 0, &[]);
            client.send(&far);
        });

        // Payloads that nobody knows, in as many fragments as a message may have, in one more, in
        // all but one, and backwards; the peer is answered afterwards.
        let mut client = connect(net);
        let unknown: Vec<u8> = (0..FRAGMENTS).flat_map(|_| [200, 0, 0, 8, 1, 2, 3, 4]).collect();
        for (total, skipped, order) in
            [(FRAGMENTS, 0, 1), (FRAGMENTS + 1, 0, 1), (FRAGMENTS, 1, 1), (FRAGMENTS, 0, -1)]
        {
            let id = client.next_id;
            let mut datagrams: Vec<Vec<u8>> = (1..=total - skipped)
                .map(|number| {
                    let at = usize::from(number - 1) * 8;
                    let last = [0, 0, 0, 8, 1, 2, 3, 4];
                    let piece = if number < total { &unknown[at..at + 8] } else { &last };
                    let exchange = ExchangeType::INFORMATIONAL;
                    client.seal_fragment(exchange, id, (number, total), 200, piece)
                })
                .collect();
            if order < 0 {
                datagrams.reverse();
            }
            datagrams.iter().for_each(|datagram| client.send(datagram));
            let answer = client.receive();
            assert_eq!(answer.is_some(), total == FRAGMENTS && skipped == 0, "{total} {skipped}");
            client.next_id += u32::from(answer.is_some());
            assert_eq!(client.request(ExchangeType::INFORMATIONAL, &[]), Some(Vec::new()));
        }

        // Its own tunnel is there again when it wants it.
        let mut client = connect(net);
        assert_eq!(client.request(ExchangeType::INFORMATIONAL, &[]), Some(Vec::new()));
    });
}

#[test]
fn esp_that_is_replayed_forged_or_cut_is_counted_and_not_delivered() {
    beside_a_ping(|net| {
        let router = net.world.internet.clone();
        let seen = wire::capture_esp(&router, net.outside(0), 40);
        let sender = RawSender::new(&net.attacker);
        let delivered = net.tunnels(Side::Vgw)[0]["packets_in"].as_u64().unwrap();

        net.counted("replayed", 40, |_| {
            seen.iter().for_each(|(from, to, octets)| sender.send(*from, *to, octets));
        });
        net.counted("icv_mismatch", 40, |_| {
            for (from, to, octets) in &seen {
                // A number that was not seen, so that the ICV decides.
                let mut forged = octets.clone();
                let number = u32::from_be_bytes([octets[4], octets[5], octets[6], octets[7]]);
                forged[4..8].copy_from_slice(&(number + 100_000).to_be_bytes());
                sender.send(*from, *to, &forged);
            }
        });
        let (from, to, octets) = &seen[0];
        net.counted("icv_mismatch", 40, |_| {
            for at in 0..40 {
                let mut forged = octets.clone();
                forged[4..8].copy_from_slice(&0x0fff_0000_u32.to_be_bytes());
                let last = forged.len() - 1 - at;
                forged[last] ^= 1;
                sender.send(*from, *to, &forged);
            }
        });
        net.counted("esp_malformed", 20, |_| {
            (8..28).for_each(|cut| sender.send(*from, *to, &octets[..cut]));
        });
        net.counted("unknown_spi", 1, |_| {
            let mut other = octets.clone();
            other[..4].copy_from_slice(&[0x77; 4]);
            sender.send(*from, *to, &other);
        });
        // From somewhere else: the peer does not move because of it.
        let elsewhere = SocketAddrV4::new([11, 1, 2, 3].into(), 4500);
        net.counted("icv_mismatch", 1, |_| {
            let mut forged = octets.clone();
            forged[4..8].copy_from_slice(&0x0fff_0000_u32.to_be_bytes());
            sender.send(elsewhere, *to, &forged);
        });
        let peer = net.tunnels(Side::Vgw)[0]["peer"].as_str().unwrap().to_owned();
        assert!(peer.starts_with("203.0.113.2:"), "{peer}");
        let more = net.tunnels(Side::Vgw)[0]["packets_in"].as_u64().unwrap() - delivered;
        assert!(more > 0);
    });
}
