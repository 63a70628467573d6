//! A peer that negotiates by hand and says what it likes at any point.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ike::Identity;
use ike::crypto::{KeyExchange, SaKeys, SkCipher, psk_auth};
use ike::message::{
    ExchangeType, HEADER_LEN, Header, NotifyType, Payload, Proposal, emit_chain, parse_chain,
    parse_message,
};
use ike::suite::{ChosenIke, EspProposals, IkeProposals, KeGroup};
use lab::netns::Host;
use rand_core::{OsRng, RngCore};
use sa::{Secret, SelectorSet, Spi};

/// Type of the SK payload.
const SK: u8 = 46;
/// Type of the SKF payload.
const SKF: u8 = 53;

/// See the module.
pub struct Client {
    socket: UdpSocket,
    remote: SocketAddr,
    psk: Secret,
    pub spis: (u64, u64),
    session: Option<Session>,
    pub next_id: u32,
    /// How often an answer is waited for, 300 ms each.
    pub waits: u32,
    /// After how many waits the request is sent again.
    pub again: u32,
}

struct Session {
    suite: ChosenIke,
    keys: SaKeys,
    seal: SkCipher,
    open: SkCipher,
    ni: Vec<u8>,
    nr: Vec<u8>,
    request: Vec<u8>,
}

/// An IKE_SA_INIT under way.
pub struct Initiating {
    key: KeyExchange,
    ni: Vec<u8>,
    more: Vec<Payload>,
    request: Vec<u8>,
}

/// What makes a responder believe in a NAT on both sides, as it is before most peers.
pub fn behind_nat() -> Vec<Payload> {
    let kinds = [NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP];
    kinds.map(|kind| Payload::notify(kind, vec![0; 20])).into()
}

/// An IKE_SA_INIT request with a true key exchange value.
pub fn init_request(spi: u64, key: &KeyExchange, nonce: &[u8], cookie: Option<Vec<u8>>) -> Vec<u8> {
    init_request_with(spi, key, nonce, cookie, &[])
}

fn init_request_with(
    spi: u64,
    key: &KeyExchange,
    nonce: &[u8],
    cookie: Option<Vec<u8>>,
    more: &[Payload],
) -> Vec<u8> {
    let offer = IkeProposals { groups: vec![KeGroup::X25519], ..IkeProposals::default() };
    let mut payloads: Vec<Payload> =
        cookie.into_iter().map(|c| Payload::notify(NotifyType::COOKIE, c)).collect();
    payloads.extend([
        Payload::Sa(offer.offer(&[])),
        Payload::Ke { group: KeGroup::X25519.id(), data: key.public().to_vec() },
        Payload::Nonce(nonce.to_vec()),
    ]);
    payloads.extend_from_slice(more);
    plain((spi, 0), ExchangeType::IKE_SA_INIT, 0, &payloads)
}

/// A message in clear.
pub fn plain(spis: (u64, u64), exchange: ExchangeType, id: u32, payloads: &[Payload]) -> Vec<u8> {
    let mut chain = Vec::new();
    let first = emit_chain(payloads, &mut chain);
    plain_chain(spis, exchange, id, first, &chain)
}

/// A message in clear with any octets behind its header.
pub fn plain_chain(
    spis: (u64, u64),
    exchange: ExchangeType,
    message_id: u32,
    first: u8,
    chain: &[u8],
) -> Vec<u8> {
    let header = header(spis, exchange, message_id, first);
    let mut out = Vec::new();
    header.emit(HEADER_LEN + chain.len(), &mut out);
    out.extend(chain);
    out
}

fn header(spis: (u64, u64), exchange: ExchangeType, message_id: u32, next_payload: u8) -> Header {
    Header {
        initiator_spi: spis.0,
        responder_spi: spis.1,
        next_payload,
        exchange,
        initiator: true,
        response: false,
        message_id,
    }
}

impl Client {
    /// A client in `host`, from `local`.
    pub fn new(host: &Arc<Host>, local: SocketAddr, remote: SocketAddr, psk: &str) -> Self {
        let socket = host.run(move || UdpSocket::bind(local)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let psk = Secret::new(psk.as_bytes().to_vec());
        Self { socket, remote, psk, spis: (0, 0), session: None, next_id: 0, waits: 10, again: 1 }
    }

    /// Sends an IKE message, behind the non-ESP marker.
    pub fn send(&self, message: &[u8]) {
        self.send_raw(&[&[0; 4], message].concat());
    }

    /// Sends any datagram.
    pub fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.remote).unwrap();
    }

    /// The next datagram, without the marker; nothing if none comes within 300 ms.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        loop {
            let (length, _) = self.socket.recv_from(&mut buffer).ok()?;
            if length > 4 && buffer[..4] == [0; 4] {
                return Some(buffer[4..length].to_vec());
            }
        }
    }

    /// IKE_SA_INIT, with a cookie if one is asked for. Returns whether it was answered.
    pub fn init(&mut self) -> bool {
        let initiating = self.begin(Vec::new());
        self.finish(initiating)
    }

    /// Sends IKE_SA_INIT, with `more` payloads, and does not wait.
    pub fn begin(&mut self, more: Vec<Payload>) -> Initiating {
        let key = KeyExchange::generate(KeGroup::X25519, &mut OsRng).unwrap();
        let mut ni = vec![0; 32];
        OsRng.fill_bytes(&mut ni);
        self.spis = (OsRng.next_u64() | 1, 0);
        let request = init_request_with(self.spis.0, &key, &ni, None, &more);
        self.send(&request);
        Initiating { key, ni, more, request }
    }

    /// Waits for the answer to [`Self::begin`]. Returns whether it came.
    pub fn finish(&mut self, initiating: Initiating) -> bool {
        let Initiating { key, ni, more, mut request } = initiating;
        for wait in 1..=self.waits {
            let Some(answer) = self.receive() else {
                if wait % self.again == 0 {
                    self.send(&request);
                }
                continue;
            };
            let message = parse_message(&answer).unwrap();
            if message.header.initiator_spi != self.spis.0 {
                continue;
            }
            let cookie = message.payloads.iter().find_map(|payload| match payload {
                Payload::Notify(n) if n.kind == NotifyType::COOKIE => Some(n.data.clone()),
                _ => None,
            });
            if let Some(cookie) = cookie {
                request = init_request_with(self.spis.0, &key, &ni, Some(cookie), &more);
                self.send(&request);
                continue;
            }
            self.spis.1 = message.header.responder_spi;
            self.session = self.session(&key, ni, request, &message.payloads);
            self.next_id = 1;
            return self.session.is_some();
        }
        false
    }

    fn session(
        &self,
        key: &KeyExchange,
        ni: Vec<u8>,
        request: Vec<u8>,
        answer: &[Payload],
    ) -> Option<Session> {
        let (mut sa, mut nr, mut public) = (None, None, None);
        for payload in answer {
            match payload {
                Payload::Sa(proposals) => sa = Some(proposals),
                Payload::Nonce(nonce) => nr = Some(nonce.clone()),
                Payload::Ke { data, .. } => public = Some(data),
                _ => {}
            }
        }
        let (suite, _) = IkeProposals::default().choose(sa?)?;
        let (nr, secret) = (nr?, key.agree(public?).ok()?);
        let keys = SaKeys::initial(&suite, &secret, &ni, &nr, self.spis);
        let seal = SkCipher::new(&suite, &keys.ei, &keys.ai)?;
        let open = SkCipher::new(&suite, &keys.er, &keys.ar)?;
        Some(Session { suite, keys, seal, open, ni, nr, request })
    }

    /// A protected message with any octets as its chain of payloads.
    pub fn seal(&mut self, exchange: ExchangeType, id: u32, first: u8, chain: &[u8]) -> Vec<u8> {
        let spis = self.spis;
        let session = self.session.as_mut().expect("IKE_SA_INIT comes first");
        let body = chain.len() + session.seal.overhead(chain.len());
        let mut out = Vec::new();
        header(spis, exchange, id, SK).emit(HEADER_LEN + 4 + body, &mut out);
        out.extend([first, 0]);
        out.extend(u16::try_from(4 + body).unwrap().to_be_bytes());
        session.seal.seal(&mut out, chain, &mut OsRng);
        out
    }

    /// One fragment of a protected message (RFC 7383 2.5).
    pub fn seal_fragment(
        &mut self,
        exchange: ExchangeType,
        id: u32,
        (number, total): (u16, u16),
        first: u8,
        piece: &[u8],
    ) -> Vec<u8> {
        let spis = self.spis;
        let session = self.session.as_mut().expect("IKE_SA_INIT comes first");
        let body = 4 + piece.len() + session.seal.overhead(piece.len());
        let mut out = Vec::new();
        header(spis, exchange, id, SKF).emit(HEADER_LEN + 4 + body, &mut out);
        out.extend([if number == 1 { first } else { 0 }, 0]);
        out.extend(u16::try_from(4 + body).unwrap().to_be_bytes());
        out.extend(number.to_be_bytes());
        out.extend(total.to_be_bytes());
        session.seal.seal(&mut out, piece, &mut OsRng);
        out
    }

    /// Opens an answer.
    pub fn open(&self, answer: &[u8]) -> Option<Vec<Payload>> {
        let message = parse_message(answer).ok()?;
        let encrypted = message.encrypted?;
        let chain = self.session.as_ref()?.open.open(answer, encrypted.body).ok()?;
        parse_chain(encrypted.inner, &chain).ok()
    }

    /// Sends a protected request and waits for its answer.
    pub fn request(
        &mut self,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) -> Option<Vec<Payload>> {
        let mut chain = Vec::new();
        let first = emit_chain(payloads, &mut chain);
        self.request_chain(exchange, first, &chain)
    }

    /// The same with any octets as the chain of payloads. The message id is used up if there is an
    /// answer.
    pub fn request_chain(
        &mut self,
        exchange: ExchangeType,
        first: u8,
        chain: &[u8],
    ) -> Option<Vec<Payload>> {
        let id = self.next_id;
        let request = self.seal(exchange, id, first, chain);
        self.send(&request);
        loop {
            let answer = self.receive()?;
            let header = Header::parse(&answer).ok()?;
            if header.response && header.message_id == id {
                self.next_id = id + 1;
                return self.open(&answer);
            }
        }
    }

    /// Sends IKE_AUTH for the traffic between `nets`, ours first, and does not wait. Returns what
    /// was sent.
    pub fn begin_auth(
        &mut self,
        own: &Identity,
        peer: &Identity,
        nets: [SelectorSet; 2],
    ) -> Vec<u8> {
        let mut chain = Vec::new();
        let payloads = self.auth_payloads_for(own, peer, nets);
        let first = emit_chain(&payloads, &mut chain);
        let request = self.seal(ExchangeType::IKE_AUTH, self.next_id, first, &chain);
        self.send(&request);
        request
    }

    /// Waits for the answer to [`Self::begin_auth`]. Returns whether it brought a Child SA.
    pub fn finish_auth(&mut self, request: &[u8]) -> bool {
        for wait in 1..=self.waits {
            let Some(answer) = self.receive() else {
                if wait % self.again == 0 {
                    self.send(request);
                }
                continue;
            };
            let header = Header::parse(&answer).unwrap();
            if header.response && header.message_id == self.next_id {
                self.next_id += 1;
                let payloads = self.open(&answer).unwrap_or_default();
                return payloads.iter().any(|p| matches!(p, Payload::Sa(_)));
            }
        }
        false
    }

    /// The payloads of a right IKE_AUTH request.
    pub fn auth_payloads(&self, own: &Identity, peer: &Identity) -> Vec<Payload> {
        let everything = SelectorSet::nets(&["0.0.0.0/0".parse().unwrap()]);
        self.auth_payloads_for(own, peer, [everything.clone(), everything])
    }

    fn auth_payloads_for(
        &self,
        own: &Identity,
        peer: &Identity,
        [ours, theirs]: [SelectorSet; 2],
    ) -> Vec<Payload> {
        let session = self.session.as_ref().expect("IKE_SA_INIT comes first");
        let auth = psk_auth(
            session.suite.prf,
            &self.psk,
            &session.keys.pi,
            &session.request,
            &session.nr,
            &own.emit(),
        );
        vec![
            Payload::IdI(own.clone()),
            Payload::IdR(peer.clone()),
            Payload::Auth { method: 2, data: auth.expose().to_vec() },
            Payload::Sa(esp_offer()),
            Payload::TsI(ours),
            Payload::TsR(theirs),
        ]
    }

    /// IKE_AUTH. Returns whether it brought a Child SA.
    pub fn auth(&mut self, own: &Identity, peer: &Identity) -> bool {
        let payloads = self.auth_payloads(own, peer);
        let answer = self.request(ExchangeType::IKE_AUTH, &payloads);
        answer.is_some_and(|answer| answer.iter().any(|p| matches!(p, Payload::Sa(_))))
    }

    /// The nonce of our first request.
    pub fn nonce(&self) -> &[u8] {
        self.session.as_ref().map_or(&[], |session| &session.ni)
    }
}

/// What we offer for a Child SA.
pub fn esp_offer() -> Vec<Proposal> {
    let offer = EspProposals { groups: Vec::new(), ..EspProposals::default() };
    offer.offer(Spi(OsRng.next_u32() | 0x8000_0000), false)
}
