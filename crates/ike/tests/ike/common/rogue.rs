//! A peer made by hand: it knows the protocol's keys and sends whatever a test wants under them.

use std::net::SocketAddr;

use ike::crypto::{KeyExchange, SaKeys, SkCipher, psk_auth};
use ike::message::{
    ExchangeType, HEADER_LEN, Header, Identity, NotifyType, Payload, Proposal, ProtocolId,
    emit_chain, parse_chain, parse_message,
};
use ike::suite::{
    ChosenIke, EspEncryption, EspProposals, Hash, IkeEncryption, IkeProposals, KeGroup,
};
use ike::{PeerConfig, TransmitPayload};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sa::{Bits, Path, Secret, Spi, TunnelId};

use super::{A, B, Pair, nets, peers};

pub const ROGUE: TunnelId = TunnelId(9);
pub const KEY: &[u8] = b"what the rogue knows";

/// What host B has for it: any address, its own key.
pub fn config() -> PeerConfig {
    let [_, mut peer] = peers();
    peer.tunnel = ROGUE;
    peer.name = "rogue".into();
    peer.remote = None;
    peer.remote_id = Some("rogue.example".parse().unwrap());
    peer.psk = Secret::new(KEY.to_vec());
    peer.remote_selectors = nets(&["172.16.0.0/12"]);
    peer
}

/// A pair whose tunnel is up, and a third tunnel at B for the rogue.
pub fn beside_a_tunnel() -> Pair {
    let mut pair = Pair::up(peers(), 1);
    pair.hosts[B].endpoint.add_peer(config());
    pair
}

/// See the module. It is the initiator of an IKE SA with host B.
pub struct Rogue {
    pub path: Path,
    pub suite: ChosenIke,
    pub spis: (u64, u64),
    pub id: u32,
    pub rng: ChaCha8Rng,
    seal: SkCipher,
    open: SkCipher,
    pub keys: SaKeys,
    nonces: (Vec<u8>, Vec<u8>),
    request: Vec<u8>,
}

/// Of everything that host `B` sent since `before`, the IKE datagrams.
pub fn answers(pair: &Pair, before: usize) -> Vec<Vec<u8>> {
    let sent = pair.hosts[B].sent[before..].iter();
    sent.filter_map(|t| match &t.payload {
        TransmitPayload::Ike(octets) => Some(octets.clone()),
        TransmitPayload::NatKeepalive => None,
    })
    .collect()
}

pub fn esp_offer(spi: Spi, group: Option<KeGroup>) -> Payload {
    let esp = EspProposals {
        encryption: vec![EspEncryption::AesGcm16(Bits::B256)],
        integrity: vec![],
        groups: group.into_iter().collect(),
        esn: vec![false],
    };
    Payload::Sa(esp.offer(spi, group.is_some()))
}

pub fn ike_offer(group: KeGroup, spi: &[u8]) -> Vec<Proposal> {
    let ike = IkeProposals {
        encryption: vec![IkeEncryption::AesGcm16(Bits::B256)],
        integrity: vec![],
        prf: vec![Hash::Sha256],
        groups: vec![group],
    };
    ike.offer(spi)
}

impl Rogue {
    /// IKE_SA_INIT is done; nothing is authenticated.
    pub fn init(pair: &mut Pair, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let ke = KeyExchange::generate(KeGroup::X25519, &mut rng).unwrap();
        let mut ni = vec![0; 32];
        rng.fill_bytes(&mut ni);
        let spi_i = rng.next_u64();
        let payloads = [
            Payload::Sa(ike_offer(KeGroup::X25519, &[])),
            Payload::Ke { group: 31, data: ke.public().to_vec() },
            Payload::Nonce(ni.clone()),
            Payload::notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, vec![]),
            Payload::VendorId(vec![0; 60]),
        ];
        let request = plain((spi_i, 0), ExchangeType::IKE_SA_INIT, 0, &payloads);
        let remote = SocketAddr::from(([203, 0, 113, 99], 4500));
        let path = Path { local: SocketAddr::new(super::address(B), 4500), remote };
        let before = pair.hosts[B].sent.len();
        pair.inject(B, path, &request);
        let answer = answers(pair, before).pop().expect("IKE_SA_INIT is answered");
        let message = parse_message(&answer).unwrap();
        let spis = (spi_i, message.header.responder_spi);
        let (mut nr, mut public) = (vec![], vec![]);
        for payload in message.payloads {
            match payload {
                Payload::Nonce(n) => nr = n,
                Payload::Ke { data, .. } => public = data,
                _ => {}
            }
        }
        let suite = ChosenIke {
            encryption: IkeEncryption::AesGcm16(Bits::B256),
            integrity: None,
            prf: Hash::Sha256,
            group: KeGroup::X25519,
        };
        let keys = SaKeys::initial(&suite, &ke.agree(&public).unwrap(), &ni, &nr, spis);
        let seal = SkCipher::new(&suite, &keys.ei, &keys.ai).unwrap();
        let open = SkCipher::new(&suite, &keys.er, &keys.ar).unwrap();
        Self { path, suite, spis, id: 1, rng, seal, open, keys, nonces: (ni, nr), request }
    }

    /// IDi and AUTH with this key.
    pub fn identity(&self, psk: &[u8]) -> [Payload; 2] {
        let id: Identity = "rogue.example".parse().unwrap();
        let psk = Secret::new(psk.to_vec());
        let auth = psk_auth(
            self.suite.prf,
            &psk,
            &self.keys.pi,
            &self.request,
            &self.nonces.1,
            &id.emit(),
        );
        [Payload::IdI(id), Payload::Auth { method: 2, data: auth.expose().to_vec() }]
    }

    /// SA, TSi and TSr of an acceptable Child SA.
    pub fn child(spi: Spi) -> [Payload; 3] {
        let tsi = Payload::TsI(nets(&["172.16.0.0/12"]));
        [esp_offer(spi, None), tsi, Payload::TsR(nets(&["10.0.0.0/16"]))]
    }

    /// IKE_AUTH is done as well, with a Child SA.
    pub fn up(pair: &mut Pair, seed: u64) -> Self {
        let mut rogue = Self::init(pair, seed);
        let mut payloads = rogue.identity(KEY).to_vec();
        payloads.extend(Self::child(Spi(0x9000 + seed as u32)));
        let answer = rogue.ask(pair, ExchangeType::IKE_AUTH, &payloads).expect("answered");
        assert!(answer.iter().any(|p| matches!(p, Payload::Auth { .. })), "{answer:?}");
        assert!(answer.iter().any(|p| matches!(p, Payload::TsI(_))), "{answer:?}");
        rogue
    }

    fn head(&self, exchange: ExchangeType, id: u32, kind: u8, length: usize) -> Vec<u8> {
        let header = Header {
            initiator_spi: self.spis.0,
            responder_spi: self.spis.1,
            next_payload: kind,
            exchange,
            initiator: true,
            response: false,
            message_id: id,
        };
        let mut out = Vec::new();
        header.emit(HEADER_LEN + length, &mut out);
        out
    }

    /// A request under our keys with `plain` inside, whatever that is.
    pub fn sealed(&mut self, exchange: ExchangeType, id: u32, inner: u8, plain: &[u8]) -> Vec<u8> {
        let length = 4 + plain.len() + self.seal.overhead(plain.len());
        let mut out = self.head(exchange, id, 46, length);
        out.extend_from_slice(&[inner, 0]);
        out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        self.seal.seal(&mut out, plain, &mut self.rng);
        out
    }

    /// One fragment under our keys.
    pub fn fragment(
        &mut self,
        exchange: ExchangeType,
        (number, total): (u16, u16),
        inner: u8,
        plain: &[u8],
    ) -> Vec<u8> {
        let length = 8 + plain.len() + self.seal.overhead(plain.len());
        let mut out = self.head(exchange, self.id, 53, length);
        out.extend_from_slice(&[inner, 0]);
        out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&total.to_be_bytes());
        self.seal.seal(&mut out, plain, &mut self.rng);
        out
    }

    /// A response under our keys to a request of B's.
    pub fn response(&mut self, exchange: ExchangeType, id: u32, payloads: &[Payload]) -> Vec<u8> {
        let mut plain = Vec::new();
        let inner = emit_chain(payloads, &mut plain);
        self.sealed_response(exchange, id, inner, &plain)
    }

    pub fn sealed_response(
        &mut self,
        exchange: ExchangeType,
        id: u32,
        inner: u8,
        plain: &[u8],
    ) -> Vec<u8> {
        let length = 4 + plain.len() + self.seal.overhead(plain.len());
        let mut out = self.head(exchange, id, 46, length);
        out[19] |= 0x20;
        out.extend_from_slice(&[inner, 0]);
        out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        self.seal.seal(&mut out, plain, &mut self.rng);
        out
    }

    /// The payloads of a message of B's.
    pub fn opened(&self, datagram: &[u8]) -> Vec<Payload> {
        let message = parse_message(datagram).unwrap();
        let encrypted = message.encrypted.expect("protected");
        let plain = self.open.open(datagram, encrypted.body).expect("under the right keys");
        parse_chain(encrypted.inner, &plain).unwrap()
    }

    /// Sends octets, and opens what comes back.
    pub fn send(&mut self, pair: &mut Pair, octets: &[u8]) -> Option<Vec<Payload>> {
        let before = pair.hosts[B].sent.len();
        pair.inject(B, self.path, octets);
        let response = |o: &Vec<u8>| o[19] & 0x20 != 0 && o[..8] == self.spis.0.to_be_bytes();
        let answer = answers(pair, before).into_iter().find(response)?;
        Some(self.opened(&answer))
    }

    /// A whole exchange with the next message id.
    pub fn ask(
        &mut self,
        pair: &mut Pair,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) -> Option<Vec<Payload>> {
        let mut plain = Vec::new();
        let inner = emit_chain(payloads, &mut plain);
        self.ask_raw(pair, exchange, inner, &plain)
    }

    pub fn ask_raw(
        &mut self,
        pair: &mut Pair,
        exchange: ExchangeType,
        inner: u8,
        plain: &[u8],
    ) -> Option<Vec<Payload>> {
        let request = self.sealed(exchange, self.id, inner, plain);
        let answer = self.send(pair, &request)?;
        self.id += 1;
        Some(answer)
    }

    /// The IKE SA still answers.
    pub fn assert_alive(&mut self, pair: &mut Pair) {
        let answer = self.ask(pair, ExchangeType::INFORMATIONAL, &[]);
        assert_eq!(answer, Some(vec![]), "a liveness request is answered");
    }
}

/// The error notification of an answer that holds nothing else.
pub fn error(answer: Option<Vec<Payload>>) -> NotifyType {
    match answer.as_deref() {
        Some([Payload::Notify(n)]) if n.kind.is_error() => n.kind,
        other => panic!("not a lone error: {other:?}"),
    }
}

/// How many inbound SAs host B has for the rogue.
pub fn inbound(pair: &Pair) -> usize {
    let events = pair.hosts[B].events.iter();
    let changes = events.map(|event| match event {
        ike::Event::InstallInbound(sa) if sa.tunnel == ROGUE => 1,
        ike::Event::RemoveInbound { tunnel, .. } if *tunnel == ROGUE => -1,
        _ => 0_isize,
    });
    usize::try_from(changes.sum::<isize>()).unwrap()
}

/// The tunnel of hosts A and B is untouched by what the rogue did.
pub fn assert_untouched(pair: &mut Pair) {
    pair.traffic();
    for host in [A, B] {
        let down = pair.hosts[host].events.iter().any(|e| {
            matches!(e, ike::Event::ChildDown { tunnel, .. } | ike::Event::IkeDown { tunnel, .. }
                if *tunnel == super::TUNNEL)
        });
        assert!(!down, "host {host}");
    }
}

pub fn plain(spis: (u64, u64), exchange: ExchangeType, id: u32, payloads: &[Payload]) -> Vec<u8> {
    let mut chain = Vec::new();
    let header = Header {
        initiator_spi: spis.0,
        responder_spi: spis.1,
        next_payload: emit_chain(payloads, &mut chain),
        exchange,
        initiator: true,
        response: false,
        message_id: id,
    };
    let mut out = Vec::new();
    header.emit(HEADER_LEN + chain.len(), &mut out);
    out.extend(chain);
    out
}

/// A payload whose body is written by hand.
pub fn raw(kind: u8, body: &[u8]) -> Payload {
    Payload::Other { kind, body: body.to_vec() }
}

pub fn ike_delete() -> Payload {
    Payload::Delete { protocol: ProtocolId::IKE, spis: vec![] }
}
