//! NAT detection (RFC 7296 section 2.23).

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::digest;
use sa::Path;

use crate::event::Nat;
use crate::message::{Notify, NotifyType, Payload};

/// `SHA-1(SPIi | SPIr | address | port)`.
pub(crate) fn hash(spis: (u64, u64), socket: SocketAddr) -> Vec<u8> {
    let mut data = [spis.0.to_be_bytes(), spis.1.to_be_bytes()].concat();
    match socket.ip() {
        IpAddr::V4(a) => data.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => data.extend_from_slice(&a.octets()),
    }
    data.extend_from_slice(&socket.port().to_be_bytes());
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &data).as_ref().to_vec()
}

/// The two notifications for a message that leaves on `path`. With `force` the source hash is of
/// a port that cannot be, so that the peer sees a NAT before us.
pub(crate) fn notifies(spis: (u64, u64), path: Path, force: bool) -> [Payload; 2] {
    let mut source = path.local;
    if force {
        source.set_port(0);
    }
    [
        Payload::notify(NotifyType::NAT_DETECTION_SOURCE_IP, hash(spis, source)),
        Payload::notify(NotifyType::NAT_DETECTION_DESTINATION_IP, hash(spis, path.remote)),
    ]
}

/// Where the peer sees us, as a hash that it made; `None` if it does not say.
pub(crate) fn seen_at(notifies: &[Notify]) -> Option<&[u8]> {
    let said = notifies.iter().find(|n| n.kind == NotifyType::NAT_DETECTION_DESTINATION_IP);
    said.map(|n| n.data.as_slice())
}

/// What the peer's notifications say about a message that came on `path`; `None` if it sent none
/// and so does not do NAT traversal.
pub(crate) fn detect(spis: (u64, u64), path: Path, notifies: &[Notify]) -> Option<Nat> {
    let of = |kind| notifies.iter().filter(move |n| n.kind == kind).map(|n| &n.data);
    let mut sources = of(NotifyType::NAT_DETECTION_SOURCE_IP).peekable();
    let mut destinations = of(NotifyType::NAT_DETECTION_DESTINATION_IP).peekable();
    sources.peek()?;
    destinations.peek()?;
    let (theirs, ours) = (hash(spis, path.remote), hash(spis, path.local));
    Some(Nat { remote: !sources.any(|h| *h == theirs), local: !destinations.any(|h| *h == ours) })
}
