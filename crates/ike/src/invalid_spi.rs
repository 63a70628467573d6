//! INVALID_SPI outside of any IKE SA (RFC 7296 1.5): how a host that restarted tells its peer that
//! it knows the peer's ESP no more. Nothing protects the message, so it is a hint: the peer asks
//! whether the host lives, and learns that the IKE SA is gone, too.

use sa::{Path, Spi};

use crate::endpoint::Endpoint;
use crate::link::emit_plain;
use crate::message::{ExchangeType, Header, Message, Notify, NotifyType, Payload};

impl Endpoint {
    /// Tells the sender of ESP that its SPI is unknown.
    pub(crate) fn tell_invalid_spi(&mut self, spi: Spi, path: Path, octets: usize) {
        if !self.ctx.admit_stranger() {
            return;
        }
        let header = Header {
            initiator_spi: self.ctx.rng.next_u64(),
            responder_spi: 0,
            next_payload: 0,
            exchange: ExchangeType::INFORMATIONAL,
            initiator: true,
            response: false,
            message_id: 0,
        };
        let notify = Notify::new(NotifyType::INVALID_SPI, spi.to_be_bytes().to_vec());
        let message = emit_plain(header, &[Payload::Notify(notify)]);
        // The non-ESP marker counts, too.
        if message.len() + 4 <= octets {
            self.ctx.transmit(path, message);
        }
    }

    /// Whether `message` is such a hint. One about an SA of ours makes us ask its peer.
    pub(crate) fn handle_invalid_spi(&mut self, path: Path, message: &Message) -> bool {
        let header = &message.header;
        let informational = header.exchange == ExchangeType::INFORMATIONAL && !header.response;
        if !informational || message.encrypted.is_some() {
            return false;
        }
        let spi = message.payloads.iter().find_map(|payload| match payload {
            Payload::Notify(n) if n.kind == NotifyType::INVALID_SPI => {
                <[u8; 4]>::try_from(n.data.as_slice()).ok().map(Spi::from_be_bytes)
            }
            _ => None,
        });
        let Some(spi) = spi else { return false };
        self.ctx.counters.hints += 1;
        let from = |own: &u64| {
            self.sas.get(own).is_some_and(|sa| sa.link.path.remote.ip() == path.remote.ip())
        };
        let found = self.index.sending(spi).find(from);
        if let Some(own) = found {
            self.with(own, |sa, ctx| sa.ask_whether_alive(ctx));
            self.settle();
        }
        true
    }
}
