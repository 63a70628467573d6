//! What the workers merge and cut at the moment, for `status`: an offload that the kernel or the way
//! to a peer refuses is given up by the worker that meets the refusal.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use netio::tun::TunOffloads;

/// Written by both workers, read by the control thread.
#[derive(Debug, Default)]
pub struct Merging {
    tun_tcp: AtomicBool,
    tun_udp: AtomicBool,
    udp_gso: AtomicBool,
    refusing: AtomicU32,
}

impl Merging {
    /// What is merged on the way into the TUN device.
    pub(crate) fn note_tun(&self, offloads: TunOffloads) {
        self.tun_tcp.store(offloads.tcp, Relaxed);
        self.tun_udp.store(offloads.udp, Relaxed);
    }

    /// Whether several datagrams leave by one send, and to how many peers they cannot.
    pub(crate) fn note_udp(&self, segments: bool, refusing: usize) {
        self.udp_gso.store(segments, Relaxed);
        self.refusing.store(u32::try_from(refusing).unwrap_or(u32::MAX), Relaxed);
    }

    /// In words, for `status`.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.tun_tcp.load(Relaxed) {
            names.push("tun-tcp".to_owned());
        }
        if self.tun_udp.load(Relaxed) {
            names.push("tun-udp".to_owned());
        }
        if self.udp_gso.load(Relaxed) {
            names.push(match self.refusing.load(Relaxed) {
                0 => "udp-gso".to_owned(),
                peers => format!("udp-gso (given up for {peers} peers)"),
            });
        }
        names
    }
}
