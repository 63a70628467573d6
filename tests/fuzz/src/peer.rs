//! A peer made by hand that knows the keys, and the endpoint that it speaks to.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ike::crypto::{KeyExchange, SaKeys, SkCipher, psk_auth};
use ike::message::{
    ExchangeType, HEADER_LEN, Header, Identity, NotifyType, Payload, emit_chain, parse_chain,
    parse_message,
};
use ike::suite::{
    ChosenIke, EspEncryption, EspProposals, Hash, IkeEncryption, IkeProposals, KeGroup,
};
use ike::{Command, Endpoint, EndpointConfig, PeerConfig, TransmitPayload};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sa::{Bits, Path, Secret, Spi, TunnelId};

const KEY: &[u8] = b"the key of both";
pub(crate) const TUNNEL: TunnelId = TunnelId(1);
/// IKE SAs that one authenticated peer may leave behind, whatever it sends in one input.
const MOST: usize = 24;

pub(crate) fn path() -> Path {
    Path {
        local: SocketAddr::from(([198, 51, 100, 10], 4500)),
        remote: SocketAddr::from(([203, 0, 113, 2], 4500)),
    }
}

fn identity() -> Identity {
    Identity::Fqdn("branch.example".into())
}

/// An endpoint with one tunnel to the peer.
pub(crate) fn endpoint(now: Instant) -> Endpoint {
    let rng = Box::new(ChaCha8Rng::seed_from_u64(7));
    let mut endpoint = Endpoint::new(EndpointConfig::default(), rng, now);
    let ours = Identity::Fqdn("vgw.example".into());
    let mut peer = PeerConfig::new(TUNNEL, ours, Some(identity()), Secret::new(KEY.to_vec()));
    peer.remote = Some(path().remote.ip());
    peer.ike = ike_proposals();
    peer.esp = esp_proposals();
    endpoint.add_peer(peer);
    endpoint
}

fn ike_proposals() -> IkeProposals {
    IkeProposals {
        encryption: vec![IkeEncryption::AesGcm16(Bits::B256)],
        integrity: vec![],
        prf: vec![Hash::Sha256],
        groups: vec![KeGroup::X25519],
    }
}

fn esp_proposals() -> EspProposals {
    EspProposals {
        encryption: vec![EspEncryption::AesGcm16(Bits::B256)],
        integrity: vec![],
        groups: vec![KeGroup::X25519],
        esn: vec![true, false],
    }
}

/// Takes everything that the endpoint has to say; returns its IKE messages.
pub(crate) fn drain(endpoint: &mut Endpoint) -> Vec<Vec<u8>> {
    while endpoint.poll_event().is_some() {}
    let mut out = Vec::new();
    while let Some(transmit) = endpoint.poll_transmit() {
        if let TransmitPayload::Ike(octets) = transmit.payload {
            out.push(octets);
        }
    }
    assert!(endpoint.ike_sas() <= MOST, "{} IKE SAs", endpoint.ike_sas());
    out
}

/// Lets the endpoint do what is due in the next minutes.
pub(crate) fn pass_time(endpoint: &mut Endpoint, mut now: Instant) {
    let end = now + Duration::from_secs(200);
    for _ in 0..200 {
        let Some((at, _)) = endpoint.poll_timeout().filter(|(at, _)| *at <= end) else { return };
        now = now.max(at);
        endpoint.handle_timeout(now);
        drain(endpoint);
    }
}

/// See the module. It is the initiator.
pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Instant,
    spis: (u64, u64),
    rng: ChaCha8Rng,
    seal: SkCipher,
    open: SkCipher,
    id: u32,
}

fn begin(spi: u64, ke: &KeyExchange, ni: &[u8]) -> Vec<u8> {
    let payloads = [
        Payload::Sa(ike_proposals().offer(&[])),
        Payload::Ke { group: 31, data: ke.public().to_vec() },
        Payload::Nonce(ni.to_vec()),
        Payload::notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, vec![]),
        Payload::VendorId(vec![0; 60]),
    ];
    let mut chain = Vec::new();
    let header = Header {
        initiator_spi: spi,
        responder_spi: 0,
        next_payload: emit_chain(&payloads, &mut chain),
        exchange: ExchangeType::IKE_SA_INIT,
        initiator: true,
        response: false,
        message_id: 0,
    };
    let mut out = Vec::new();
    header.emit(HEADER_LEN + chain.len(), &mut out);
    out.extend(chain);
    out
}

impl Peer {
    /// IKE_SA_INIT is done, and with `up` IKE_AUTH with a Child SA, too. `None` is a fault of the
    /// target.
    pub(crate) fn new(now: Instant, up: bool) -> Option<Self> {
        let mut endpoint = endpoint(now);
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let ke = KeyExchange::generate(KeGroup::X25519, &mut rng).ok()?;
        let mut ni = vec![0; 32];
        rng.fill_bytes(&mut ni);
        let spi = rng.next_u64();
        let request = begin(spi, &ke, &ni);
        endpoint.handle_datagram(path(), &request, now);
        let answer = drain(&mut endpoint).pop()?;
        let message = parse_message(&answer).ok()?;
        let spis = (spi, message.header.responder_spi);
        let (mut nr, mut public) = (vec![], vec![]);
        for payload in message.payloads {
            match payload {
                Payload::Nonce(nonce) => nr = nonce,
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
        let keys = SaKeys::initial(&suite, &ke.agree(&public).ok()?, &ni, &nr, spis);
        let seal = SkCipher::new(&suite, &keys.ei, &keys.ai)?;
        let open = SkCipher::new(&suite, &keys.er, &keys.ar)?;
        let mut peer = Self { endpoint, now, spis, rng, seal, open, id: 1 };
        if up {
            let psk = Secret::new(KEY.to_vec());
            let id = identity();
            let auth = psk_auth(suite.prf, &psk, &keys.pi, &request, &nr, &id.emit());
            let everything = PeerConfig::new(TUNNEL, id.clone(), None, psk).local_selectors;
            let mut plain = Vec::new();
            let payloads = [
                Payload::IdI(id),
                Payload::Auth { method: 2, data: auth.expose().to_vec() },
                Payload::Sa(esp_proposals().offer(Spi(0x9000), false)),
                Payload::TsI(everything.clone()),
                Payload::TsR(everything),
            ];
            let inner = emit_chain(&payloads, &mut plain);
            peer.send(ExchangeType::IKE_AUTH, false, inner, &plain);
            peer.endpoint.child_info(TUNNEL)?;
        }
        Some(peer)
    }

    fn head(&self, exchange: ExchangeType, response: bool, kind: u8, length: usize) -> Vec<u8> {
        let header = Header {
            initiator_spi: self.spis.0,
            responder_spi: self.spis.1,
            next_payload: kind,
            exchange,
            initiator: true,
            response,
            message_id: if response { 0 } else { self.id },
        };
        let mut out = Vec::new();
        header.emit(HEADER_LEN + length, &mut out);
        out
    }

    /// Sends a message under the keys, with anything inside. What comes back must be under the
    /// keys as well and make sense.
    pub(crate) fn send(&mut self, exchange: ExchangeType, response: bool, inner: u8, plain: &[u8]) {
        let length = 4 + plain.len() + self.seal.overhead(plain.len());
        let mut out = self.head(exchange, response, 46, length);
        out.extend([inner, 0]);
        out.extend((length as u16).to_be_bytes());
        self.seal.seal(&mut out, plain, &mut self.rng);
        self.deliver(&out);
    }

    /// The same for one fragment.
    pub(crate) fn send_fragment(
        &mut self,
        exchange: ExchangeType,
        (number, total): (u16, u16),
        inner: u8,
        plain: &[u8],
    ) {
        let length = 8 + plain.len() + self.seal.overhead(plain.len());
        let mut out = self.head(exchange, false, 53, length);
        out.extend([inner, 0]);
        out.extend((length as u16).to_be_bytes());
        out.extend(number.to_be_bytes());
        out.extend(total.to_be_bytes());
        self.seal.seal(&mut out, plain, &mut self.rng);
        self.deliver(&out);
    }

    fn deliver(&mut self, datagram: &[u8]) {
        self.endpoint.handle_datagram(path(), datagram, self.now);
        let ours = self.spis.0.to_be_bytes();
        for answer in drain(&mut self.endpoint) {
            let message = parse_message(&answer);
            let Ok(message) = message else { panic!("an answer that does not parse") };
            if !answer.starts_with(&ours) {
                continue;
            }
            let Some(encrypted) = message.encrypted else {
                // An earlier message of ours ended the IKE SA (RFC 7296 2.21.4).
                let [Payload::Notify(notify)] = message.payloads.as_slice() else {
                    panic!("an answer in clear")
                };
                assert_eq!(notify.kind, NotifyType::INVALID_IKE_SPI);
                assert!(message.header.response && answer.len() <= datagram.len());
                continue;
            };
            let Ok(plain) = self.open.open(&answer, encrypted.body) else {
                panic!("an answer under other keys")
            };
            if message.header.next_payload == 46 {
                assert!(parse_chain(encrypted.inner, &plain).is_ok());
            }
            if message.header.response && message.header.message_id == self.id {
                self.id += 1;
            }
        }
    }

    /// A user's wish, so that requests of the endpoint's own are in flight.
    pub(crate) fn command(&mut self, which: u8) {
        let command = match which % 5 {
            0 => Command::RekeyChild(TUNNEL),
            1 => Command::RekeyIke(TUNNEL),
            2 => Command::Liveness(TUNNEL),
            3 => Command::DeleteChild(TUNNEL),
            _ => Command::Delete(TUNNEL),
        };
        self.endpoint.handle_command(command, self.now);
        drain(&mut self.endpoint);
    }
}

/// The first message that a peer sends: what inputs are made from.
pub(crate) fn first_message() -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let Ok(ke) = KeyExchange::generate(KeGroup::X25519, &mut rng) else { return Vec::new() };
    begin(1, &ke, &[5; 32])
}
