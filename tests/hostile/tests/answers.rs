//! What answers an agent that begins: a responder that is not the VGW, or one that has lost its mind.
//! The agent must neither die nor believe it, and connect as soon as the true VGW is there. Needs
//! root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hostile::client::plain_chain;
use hostile::{Net, SCENARIO, Side};
use ike::crypto::KeyExchange;
use ike::message::{
    ExchangeType, HEADER_LEN, Header, NotifyType, Payload, emit_chain, parse_message,
};
use ike::suite::{IkeProposals, KeGroup};
use rand_core::{OsRng, RngCore};

/// KiB that an agent may grow by under everything here.
const MAY_GROW: u64 = 8 * 1024;

/// An answer to `request` with these payloads.
fn answer(request: &Header, responder: u64, payloads: &[Payload]) -> Vec<u8> {
    let mut chain = Vec::new();
    let first = emit_chain(payloads, &mut chain);
    answer_chain(request, responder, first, &chain)
}

fn answer_chain(request: &Header, responder: u64, first: u8, chain: &[u8]) -> Vec<u8> {
    let header = Header {
        responder_spi: responder,
        next_payload: first,
        initiator: false,
        response: true,
        ..*request
    };
    let mut out = Vec::new();
    header.emit(HEADER_LEN + chain.len(), &mut out);
    out.extend(chain);
    out
}

/// Everything that is wrong with an answer to IKE_SA_INIT, one after the other.
fn wrong_answers(request: &[u8]) -> Vec<Vec<u8>> {
    let header = Header::parse(request).unwrap();
    let key = KeyExchange::generate(KeGroup::X25519, &mut OsRng).unwrap();
    let chosen = |group: KeGroup| {
        let offer = IkeProposals { groups: vec![group], ..IkeProposals::default() };
        Payload::Sa(offer.offer(&[]))
    };
    let good = [
        chosen(KeGroup::X25519),
        Payload::Ke { group: 31, data: key.public().to_vec() },
        Payload::Nonce(vec![6; 32]),
    ];
    let with = |at: usize, payload: Payload| {
        let mut payloads = good.to_vec();
        payloads[at] = payload;
        answer(&header, 77, &payloads)
    };
    let mut all = Vec::new();
    let whole = answer(&header, 77, &good);
    all.extend((0..whole.len()).step_by(7).map(|cut| whole[..cut].to_vec()));
    let mut noise = vec![0; 1200];
    OsRng.fill_bytes(&mut noise);
    all.push([&request[..8], &noise].concat());
    for data in [vec![0; 32], vec![9; 31], Vec::new(), vec![1; 1100]] {
        all.push(with(1, Payload::Ke { group: 31, data }));
    }
    all.push(with(1, Payload::Ke { group: 0xffff, data: vec![1; 32] }));
    all.push(with(0, chosen(KeGroup::Modp4096)));
    all.push(with(0, Payload::Sa(Vec::new())));
    all.push(with(2, Payload::Nonce(Vec::new())));
    all.push(with(2, Payload::Nonce(vec![1; 900])));
    all.push(answer(&header, 0, &good));
    all.push(answer(&header, 77, &[]));
    all.push(answer(&header, 77, &vec![Payload::VendorId(Vec::new()); 300]));
    all.push(answer_chain(&header, 77, 200, &[200, 0x80, 0, 4, 0, 0x80, 0, 4]));
    all.push(answer_chain(&header, 77, 33, &[0, 0, 0, 3]));
    for (kind, data) in [
        (NotifyType::NO_PROPOSAL_CHOSEN, b"$(reboot)\x1b[2J%n%s".to_vec()),
        (NotifyType::INVALID_KE_PAYLOAD, vec![0xff, 0xff]),
        (NotifyType::INVALID_KE_PAYLOAD, Vec::new()),
        (NotifyType::AUTHENTICATION_FAILED, Vec::new()),
        (NotifyType::INVALID_SYNTAX, vec![1; 1000]),
        (NotifyType::COOKIE, Vec::new()),
        (NotifyType::COOKIE, vec![1; 65]),
        (NotifyType::COOKIE, vec![1; 1100]),
        (NotifyType(16407), vec![1, 4, 192, 0, 2, 9]),
    ] {
        all.push(answer(&header, 77, &[Payload::notify(kind, data)]));
    }
    all.push(plain_chain((1, 2), ExchangeType::IKE_SA_INIT, 0, 0, &[]));
    all
}

/// A right answer, of somebody who does not know the key.
fn believed(message: &[u8], header: &Header, send: impl Fn(&[u8])) {
    let offered = parse_message(message).unwrap().payloads;
    let group = offered.iter().find_map(|payload| match payload {
        Payload::Ke { group, .. } => KeGroup::from_id(*group),
        _ => None,
    });
    let key = KeyExchange::generate(group.unwrap(), &mut OsRng).unwrap();
    let chosen = offered.iter().find_map(|payload| match payload {
        Payload::Sa(proposals) => {
            let (suite, offer) = IkeProposals::default().choose(proposals)?;
            Some(suite.answer(offer.number, &[]))
        }
        _ => None,
    });
    send(&answer(
        header,
        OsRng.next_u64() | 1,
        &[
            Payload::Sa(vec![chosen.unwrap()]),
            Payload::Ke { group: key.group().id(), data: key.public().to_vec() },
            Payload::Nonce(vec![5; 32]),
        ],
    ));
}

#[test]
fn an_agent_survives_what_answers_it_and_connects_to_the_true_vgw() {
    let mut net = Net::build(SCENARIO);
    let outside = net.layout.outside;
    let host = net.world.vpc.gateway.clone();
    let sockets: Vec<UdpSocket> = [500, 4500]
        .into_iter()
        .flat_map(|port| outside.map(|address| SocketAddr::new(address, port)))
        .map(|local| host.run(move || UdpSocket::bind(local)).unwrap())
        .collect();
    for socket in &sockets {
        socket.set_nonblocking(true).unwrap();
    }
    net.agent.start().unwrap();

    // A true key exchange and then garbage under no key, a cookie for every request, and all the
    // rest, in turn: whatever the agent asks is answered.
    let (mut asked, mut begun, mut said, mut cookies, mut protected) = (0, 0, 0, 0_u64, 0);
    let mut memory = 0;
    let begin = Instant::now();
    let mut buffer = vec![0; 4096];
    while begin.elapsed() < Duration::from_secs(25) && protected < 6 {
        for socket in &sockets {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let marked = socket.local_addr().unwrap().port() == 4500;
            let message = if marked { buffer.get(4..length) } else { buffer.get(..length) };
            let Some(message) = message.filter(|m| Header::parse(m).is_ok()).map(<[u8]>::to_vec)
            else {
                continue;
            };
            let send = |answer: &[u8]| {
                let marker: &[u8] = if marked { &[0; 4] } else { &[] };
                let _ = socket.send_to(&[marker, answer].concat(), from);
            };
            let header = Header::parse(&message).unwrap();
            asked += 1;
            if header.exchange != ExchangeType::IKE_SA_INIT {
                // The agent believed a key exchange: what follows is under no key.
                protected += 1;
                let mut noise = vec![0; 300];
                OsRng.fill_bytes(&mut noise);
                noise[..4].copy_from_slice(&[36, 0, 1, 44]);
                send(&answer_chain(&header, header.responder_spi, 46, &noise));
                send(&answer_chain(&header, header.responder_spi, 36, &noise));
                continue;
            }
            begun += 1;
            match begun % 4 {
                _ if begun > 12 => believed(&message, &header, send),
                0 => {
                    cookies += 1;
                    let cookie =
                        Payload::notify(NotifyType::COOKIE, cookies.to_be_bytes().to_vec());
                    send(&answer(&header, 0, &[cookie]));
                }
                _ => {
                    for wrong in wrong_answers(&message) {
                        said += 1;
                        send(&wrong);
                    }
                }
            }
        }
        if memory == 0 && asked > 0 {
            memory = net.most_memory(Side::Agent);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("{asked} requests, {said} wrong answers, {cookies} cookies, {protected} in IKE_AUTH");
    assert!(said > 50 && cookies > 0 && protected > 0);
    let grown = net.most_memory(Side::Agent) - memory;
    assert!(grown < MAY_GROW, "{grown} KiB");
    net.agent.check_running().unwrap();
    assert!(net.ike(Side::Agent, "malformed") > 10);
    assert!(net.tunnels(Side::Agent).iter().all(|tunnel| tunnel["state"] == "DOWN"));

    drop(sockets);
    net.vgw.start().unwrap();
    net.await_up();
}
