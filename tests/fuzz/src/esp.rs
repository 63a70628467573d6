//! ESP under keys that the sender of the input knows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{Counters, Inbound, InboundCommand};
use packet::{DatagramBatch, InnerBatch, IpView};
use sa::{Bits, CbcIntegrity, EspSuite, InboundSa, Lifetime, Secret, SelectorSet, Spi, TunnelId};
use simd_aead::{Aad, Algorithm, Key, SealJob, seal_batch};

use crate::demux::drops;
use crate::input::Input;
use crate::peer::path;

const TUNNEL: TunnelId = TunnelId(3);
const SUITES: [EspSuite; 4] = [
    EspSuite::AesGcm16(Bits::B128),
    EspSuite::AesGcm16(Bits::B256),
    EspSuite::ChaCha20Poly1305,
    EspSuite::AesCbc(Bits::B128, CbcIntegrity::Sha256),
];

fn spi(suite: usize) -> Spi {
    Spi(0x5000_0000 + suite as u32)
}

fn everything() -> SelectorSet {
    let psk = Secret::new(vec![1]);
    let id = ike::Identity::Fqdn("a".into());
    ike::PeerConfig::new(TUNNEL, id, None, psk).local_selectors
}

fn sa(number: usize, suite: EspSuite, esn: bool) -> InboundSa {
    InboundSa {
        tunnel: TUNNEL,
        spi: spi(number),
        suite,
        esn,
        encryption: Secret::new(vec![7; suite.encryption_keymat_len()]),
        integrity: Secret::new(vec![9; suite.integrity_keymat_len()]),
        replay_window: 64,
        remote_selectors: everything(),
        local_selectors: everything(),
        lifetime: Lifetime { time: Duration::from_secs(60), bytes: Some(400), packets: Some(5) },
    }
}

fn sealed(number: usize, esn: bool, sequence: u32, plain: &[u8]) -> Option<Vec<u8>> {
    let (algorithm, length) = match SUITES.get(number)? {
        EspSuite::AesGcm16(Bits::B128) => (Algorithm::Aes128Gcm, 16),
        EspSuite::AesGcm16(Bits::B256) => (Algorithm::Aes256Gcm, 32),
        EspSuite::ChaCha20Poly1305 => (Algorithm::ChaCha20Poly1305, 32),
        EspSuite::AesCbc(..) => return None,
    };
    let key = Key::new(algorithm, &vec![7; length]).ok()?;
    let mut out = spi(number).to_be_bytes().to_vec();
    out.extend(sequence.to_be_bytes());
    let high: &[u8] = if esn { &[0; 4] } else { &[] };
    let aad = [&out[..4], high, &out[4..8]].concat();
    let iv = u64::from(sequence).to_be_bytes();
    out.extend(iv);
    let dst = out.len();
    out.extend(plain);
    out.resize(dst + plain.len() + 16, 0);
    let mut nonce = [7; 12];
    nonce[4..].copy_from_slice(&iv);
    let aad = Aad::new(&aad)?;
    let job = SealJob {
        key: 0,
        nonce,
        aad,
        dst,
        prefix: plain.len(),
        body: 0..0,
        suffix: 0,
        checksum: None,
    };
    seal_batch(&[&key], &[], &mut out, &[job]).ok()?;
    Some(out)
}

/// Packets: flags, sequence number, length, octets. Flags: suite, and whether the octets are the
/// whole datagram or what is sealed into one. What comes out is an IP packet of the length that its
/// header says, and every datagram has one fate.
pub(crate) fn run(input: &[u8]) {
    let mut input = Input(input);
    let counters = Arc::<Counters>::default();
    let mut inbound = Inbound::new(Arc::clone(&counters));
    let esn = input.octet() & 1 != 0;
    for (number, suite) in SUITES.into_iter().enumerate() {
        inbound.apply(InboundCommand::Install(Box::new(sa(number, suite, esn))));
    }
    let mut batch = DatagramBatch::default();
    while !input.is_empty() && batch.datagrams.len() < 16 {
        let flags = input.octet();
        let sequence = u32::from(input.word());
        let tos = input.octet();
        let octets = input.part();
        let number = usize::from(flags & 3);
        let datagram = match sealed(number, esn, sequence, octets) {
            Some(sealed) if flags & 4 == 0 => sealed,
            _ => {
                let mut raw = spi(number).to_be_bytes().to_vec();
                raw.extend(octets);
                raw
            }
        };
        batch.push(path().local, path().remote, tos, &datagram);
    }
    let (mut inner, mut slow) = (InnerBatch::default(), DatagramBatch::default());
    inbound.open(&batch, Instant::now(), &mut inner, &mut slow);
    assert!(slow.datagrams.is_empty());
    for packet in &inner.packets {
        let octets = inner.octets(packet);
        let Some(view) = IpView::parse(octets) else { panic!("no IP packet comes out") };
        assert_eq!(view.length, octets.len());
    }
    let mut answers = 0;
    while let Some(event) = inbound.poll_event() {
        answers += u64::from(matches!(event, dataplane::DataEvent::ProbeAnswered { .. }));
    }
    let came = inner.packets.len() as u64;
    assert_eq!(counters.tunnel(TUNNEL).packets(), came);
    assert_eq!(batch.datagrams.len() as u64, came + answers + drops(&counters));
}
