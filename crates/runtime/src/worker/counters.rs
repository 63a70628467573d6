//! What the data threads dropped before or behind the data plane. Each counter has one writer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! io_drops {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Why a packet was lost between the system and the data plane.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum IoDrop { $($(#[$doc])* $name,)* }

        impl IoDrop {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A stable name for `status`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

io_drops! {
    /// A `virtio_net_hdr` that cannot be right.
    TunReadHeader => "tun_read_header",
    /// The kernel had no room for a packet towards the TUN device.
    TunWriteFull => "tun_write_full",
    /// The kernel refused a packet towards the TUN device.
    TunWriteRefused => "tun_write_refused",
    /// The TUN device is down.
    TunWriteDown => "tun_write_down",
    /// The UDP socket's buffer stayed full.
    UdpSendFull => "udp_send_full",
    /// A sealed datagram was larger than the path MTU.
    UdpSendTooBig => "udp_send_too_big",
    /// No route to the peer, or a filter forbids it.
    UdpSendUnreachable => "udp_send_unreachable",
    /// The kernel refused a sealed datagram for another reason.
    UdpSendOther => "udp_send_other",
    /// A received datagram did not fit, or had no address.
    UdpReceiveTruncated => "udp_receive_truncated",
    /// The control plane did not take IKE messages fast enough.
    IkeQueueFull => "ike_queue_full",
}

/// One counter for each [`IoDrop`].
#[derive(Debug)]
pub struct IoCounters {
    drops: Box<[AtomicU64]>,
}

impl Default for IoCounters {
    fn default() -> Self {
        Self { drops: IoDrop::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl IoCounters {
    /// How many packets were lost for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: IoDrop) -> u64 {
        self.drops.get(reason as usize).map_or(0, |counter| counter.load(Relaxed))
    }

    /// Counts. Only the thread that owns this set calls it: a load and a store are enough.
    pub(crate) fn count(&self, reason: IoDrop, packets: u64) {
        if packets > 0
            && let Some(counter) = self.drops.get(reason as usize)
        {
            counter.store(counter.load(Relaxed).wrapping_add(packets), Relaxed);
        }
    }

    pub(crate) fn count_write(&self, report: &netio::tun::WriteReport) {
        self.count(IoDrop::TunWriteFull, report.dropped_full);
        self.count(IoDrop::TunWriteRefused, report.dropped_refused);
        self.count(IoDrop::TunWriteDown, report.dropped_down);
    }

    pub(crate) fn count_send(&self, report: &netio::udp::SendReport) {
        self.count(IoDrop::UdpSendFull, report.dropped_full);
        self.count(IoDrop::UdpSendTooBig, report.dropped_too_big);
        self.count(IoDrop::UdpSendUnreachable, report.dropped_unreachable);
        self.count(IoDrop::UdpSendOther, report.dropped_other);
    }
}
