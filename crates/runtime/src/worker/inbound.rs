//! The receiving thread: UDP, open, TUN.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use dataplane::{Inbound, InboundCommand};
use netio::tun::TunWriter;
use netio::udp::{UdpReceiver, UdpSender};
use netio::wait;
use packet::{DatagramBatch, InnerBatch};
use sa::Path;
use tokio::sync::mpsc;

use super::pace::Pace;
use super::{
    BATCHES_IN_A_ROW, IoCounters, IoDrop, Merging, Notice, Orders, SlowDatagram, Worker,
    pass_events,
};

/// Everything that the receiving thread owns.
#[derive(Debug)]
pub struct InboundWorker {
    /// The sockets with ESP on them; at most 31.
    pub udp: Vec<UdpReceiver>,
    /// Where opened packets go.
    pub tun: TunWriter,
    /// Where the answers of WireGuard go.
    pub replies: UdpSender,
    /// The data plane's receiving half.
    pub plane: Inbound,
    /// What is lost here; nobody else writes it.
    pub counters: Arc<IoCounters>,
    /// What is merged at the moment.
    pub merging: Arc<Merging>,
    /// IKE messages, to the control thread.
    pub slow: mpsc::Sender<SlowDatagram>,
    /// Everything else, to the control thread.
    pub notices: mpsc::Sender<Notice>,
}

/// What a batch passes through. Kept from batch to batch.
#[derive(Default)]
struct Buffers {
    datagrams: DatagramBatch,
    inner: InnerBatch,
    slow: DatagramBatch,
}

impl InboundWorker {
    /// Starts the thread, in the network namespace of the caller; `realtime`: with the priority that
    /// [`netio::priority`] gives.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn spawn(self, realtime: bool) -> io::Result<Worker<InboundCommand>> {
        Worker::spawn("packets-in", realtime, move |orders| self.run(&orders))
    }

    /// What the TUN device does not merge need not be summed.
    fn note_offloads(&mut self) {
        let offloads = self.tun.offloads();
        self.merging.note_tun(offloads);
        self.plane.want_sums(offloads.tcp || offloads.udp);
    }

    fn run(mut self, orders: &Orders<InboundCommand>) -> io::Result<()> {
        let mut buffers = Buffers::default();
        self.note_offloads();
        // The descriptors do not change; the sockets outlive the list.
        let sockets: Vec<_> = self.udp.iter().map(|udp| Arc::clone(udp.socket())).collect();
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![orders.waker.as_fd()];
        descriptors.extend(sockets.iter().map(|socket| socket.as_fd()));
        let mut pace = Pace::new();
        loop {
            pass_events(&self.notices, || self.plane.poll_event());
            let idle = pace.rest();
            let ready = wait::readable(&descriptors, None)?;
            pace.begin(idle.elapsed());
            if ready & 1 != 0 && !orders.carry_out(|command| self.plane.apply(command)) {
                return Ok(());
            }
            self.send_replies();
            for index in 0..self.udp.len() {
                if ready & (2 << index) != 0 {
                    self.drain(index, &mut buffers, &mut pace)?;
                }
            }
        }
    }

    /// Takes what one socket has, but not for ever: others and commands wait.
    fn drain(&mut self, index: usize, buffers: &mut Buffers, pace: &mut Pace) -> io::Result<()> {
        for _ in 0..BATCHES_IN_A_ROW {
            let Some(udp) = self.udp.get_mut(index) else { return Ok(()) };
            let report = udp.receive(&mut buffers.datagrams)?;
            self.counters.count(IoDrop::UdpReceiveTruncated, report.truncated);
            pace.took(buffers.datagrams.datagrams.iter().map(|datagram| {
                let octets = datagram.range.len();
                (octets.div_ceil(datagram.segment.max(1)), octets)
            }));
            if report.messages > 0 {
                self.forward(buffers);
            }
            if !report.more {
                return Ok(());
            }
        }
        pace.leaves_some();
        Ok(())
    }

    /// Handshakes and keepalives of WireGuard peers, and what waited for them.
    fn send_replies(&mut self) {
        let replies = self.plane.replies();
        if !replies.runs.is_empty() {
            let report = self.replies.send(replies);
            self.counters.count_send(&report);
            replies.clear();
        }
    }

    fn forward(&mut self, buffers: &mut Buffers) {
        let Buffers { datagrams, inner, slow } = buffers;
        inner.clear();
        slow.clear();
        self.plane.open(datagrams, Instant::now(), inner, slow);
        self.send_replies();
        if !inner.packets.is_empty() {
            let report = self.tun.write(inner);
            self.counters.count_write(&report);
            if report.fallbacks > 0 {
                self.note_offloads();
            }
        }
        for datagram in &slow.datagrams {
            let path = Path { local: datagram.local, remote: datagram.remote };
            let Some(octets) = slow.bytes.get(datagram.range.clone()) else { continue };
            match self.slow.try_reserve() {
                Ok(room) => room.send(SlowDatagram { path, message: octets.to_vec() }),
                Err(_) => self.counters.count(IoDrop::IkeQueueFull, 1),
            }
        }
    }
}
