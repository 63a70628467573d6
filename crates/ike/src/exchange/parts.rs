//! The payloads of one message by kind: the first of each, all notifications and deletes.

use sa::{SelectorSet, Spi};

use crate::message::{Identity, Notify, NotifyType, Payload, Proposal, ProtocolId};

#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) sa: Option<Vec<Proposal>>,
    pub(crate) ke: Option<(u16, Vec<u8>)>,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) idi: Option<Identity>,
    pub(crate) idr: Option<Identity>,
    pub(crate) auth: Option<(u8, Vec<u8>)>,
    pub(crate) tsi: Option<SelectorSet>,
    pub(crate) tsr: Option<SelectorSet>,
    pub(crate) notifies: Vec<Notify>,
    pub(crate) deletes: Vec<(ProtocolId, Vec<Vec<u8>>)>,
}

impl From<Vec<Payload>> for Parts {
    fn from(payloads: Vec<Payload>) -> Self {
        let mut parts = Self::default();
        for payload in payloads {
            match payload {
                Payload::Sa(p) => _ = parts.sa.get_or_insert(p),
                Payload::Ke { group, data } => _ = parts.ke.get_or_insert((group, data)),
                Payload::Nonce(n) => _ = parts.nonce.get_or_insert(n),
                Payload::IdI(id) => _ = parts.idi.get_or_insert(id),
                Payload::IdR(id) => _ = parts.idr.get_or_insert(id),
                Payload::Auth { method, data } => _ = parts.auth.get_or_insert((method, data)),
                Payload::TsI(set) => _ = parts.tsi.get_or_insert(set),
                Payload::TsR(set) => _ = parts.tsr.get_or_insert(set),
                Payload::Notify(n) => parts.notifies.push(n),
                Payload::Delete { protocol, spis } => parts.deletes.push((protocol, spis)),
                Payload::VendorId(_) | Payload::Other { .. } => {}
            }
        }
        parts
    }
}

impl Parts {
    /// The first notification of a kind.
    pub(crate) fn notify(&self, kind: NotifyType) -> Option<&Notify> {
        self.notifies.iter().find(|n| n.kind == kind)
    }

    pub(crate) fn has(&self, kind: NotifyType) -> bool {
        self.notify(kind).is_some()
    }

    /// The first error notification.
    pub(crate) fn error(&self) -> Option<&Notify> {
        self.notifies.iter().find(|n| n.kind.is_error())
    }

    /// The ESP SPIs of all Delete payloads.
    pub(crate) fn deleted_esp(&self) -> Vec<Spi> {
        self.deletes
            .iter()
            .filter(|(protocol, _)| *protocol == ProtocolId::ESP)
            .flat_map(|(_, spis)| spis)
            .filter_map(|spi| <[u8; 4]>::try_from(spi.as_slice()).ok())
            .map(Spi::from_be_bytes)
            .collect()
    }

    /// Whether the IKE SA itself is deleted.
    pub(crate) fn deletes_ike(&self) -> bool {
        self.deletes.iter().any(|(protocol, _)| *protocol == ProtocolId::IKE)
    }
}

/// The group that an INVALID_KE_PAYLOAD notification asks for.
pub(crate) fn wanted_group(notify: &Notify) -> Option<crate::suite::KeGroup> {
    let id = <[u8; 2]>::try_from(notify.data.as_slice()).ok()?;
    crate::suite::KeGroup::from_id(u16::from_be_bytes(id))
}
