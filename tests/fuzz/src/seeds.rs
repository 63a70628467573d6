//! First inputs that are made rather than found.

use ike::message::{NotifyType, Payload, ProtocolId, emit_chain};
use ike::suite::{EspEncryption, EspProposals, KeGroup};
use sa::{Bits, Secret, Spi};

use crate::peer::{TUNNEL, first_message};

/// A target, a name, an input.
pub(crate) type Seed = (&'static str, String, Vec<u8>);

fn part(octets: &[u8]) -> Vec<u8> {
    [&(octets.len() as u16).to_be_bytes(), octets].concat()
}

fn chains() -> Vec<(&'static str, u8, Vec<Payload>)> {
    let esp = |group: Option<KeGroup>| EspProposals {
        encryption: vec![EspEncryption::AesGcm16(Bits::B256)],
        integrity: vec![],
        groups: group.into_iter().collect(),
        esn: vec![false],
    };
    let id = ike::Identity::Fqdn("branch.example".into());
    let all = ike::PeerConfig::new(TUNNEL, id, None, Secret::new(vec![1])).local_selectors;
    let child = |rekey: bool| {
        let group = rekey.then_some(KeGroup::X25519);
        let mut out = vec![
            Payload::Sa(esp(group).offer(Spi(0x9001), rekey)),
            Payload::Nonce(vec![5; 32]),
            Payload::TsI(all.clone()),
            Payload::TsR(all.clone()),
        ];
        if rekey {
            let notify = ike::message::Notify::esp(NotifyType::REKEY_SA, Spi(0x9000));
            out.insert(0, Payload::Notify(notify));
            out.insert(3, Payload::Ke { group: 31, data: vec![9; 32] });
        }
        out
    };
    let delete = |protocol, spis| vec![Payload::Delete { protocol, spis }];
    vec![
        ("child", 0, child(false)),
        ("rekey", 0, child(true)),
        ("delete-child", 1, delete(ProtocolId::ESP, vec![vec![0, 0, 0x90, 0]])),
        ("delete-ike", 1, delete(ProtocolId::IKE, vec![])),
        ("liveness", 1, vec![]),
        ("notify", 1, vec![Payload::notify(NotifyType::INITIAL_CONTACT, vec![])]),
        ("answer-child", 0xc0, child(false)),
    ]
}

/// An IPv4 packet of UDP, and its ESP trailer.
fn ip_packet() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 192, 168, 0, 1];
    packet.extend([0x30, 0x39, 0x30, 0x39, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    packet
}

pub(crate) fn all() -> Vec<Seed> {
    let init = first_message();
    let mut out = vec![
        ("ike_message", "init".into(), init.clone()),
        ("ike_message", "two".into(), [part(&init), part(&init)].concat()),
    ];
    for (name, flags, payloads) in chains() {
        let mut plain = Vec::new();
        let first = emit_chain(&payloads, &mut plain);
        let message = [&[0, flags, first][..], &part(&plain)].concat();
        out.push(("payloads", name.into(), message.clone()));
        out.push(("payloads", format!("{name}-early"), [&[1], &message[1..]].concat()));
        let (head, tail) = plain.split_at(plain.len() / 2);
        let one = [&[0, flags, 1, 2, first][..], &part(head)].concat();
        let two = [&[flags, 2, 2, 0][..], &part(tail)].concat();
        out.push(("fragments", name.into(), [one, two].concat()));
    }
    let packet = ip_packet();
    let trailer = [&packet[..], &[1, 2, 2, 4]].concat();
    for suite in 0..4 {
        let one = [&[suite, 0, 1, 0][..], &part(&trailer)].concat();
        let raw = [&[suite | 4, 0, 2, 3][..], &part(&trailer)].concat();
        out.push(("esp", format!("suite-{suite}"), [&[0][..], &one, &raw, &one].concat()));
    }
    for kind in 0..4 {
        let one = [&[kind, 0, 8, 20, 6][..], &part(&packet)].concat();
        out.push(("inner", format!("kind-{kind}"), [&[3, 0xdc][..], &one, &one].concat()));
    }
    let plain = [1, 0, 0, 0, 0, 2, 0, 0, 0, 0];
    out.push(("wireguard", "handshake".into(), plain.to_vec()));
    out.push(("wireguard", "changed".into(), vec![1, 0, 9, 0, 2, 1, 2, 2, 0, 0, 0, 0]));
    out.push(("wireguard", "raw".into(), [&[0, 0, 0][..], &part(&[4; 40])].concat()));
    out
}
