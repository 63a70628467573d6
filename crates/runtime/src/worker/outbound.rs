//! The sending thread: TUN, seal, UDP.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use dataplane::{Outbound, OutboundCommand};
use netio::tun::{TunReader, TunWriter};
use netio::udp::{SendReport, UdpSender};
use netio::wait;
use packet::{InnerBatch, WireBatch};
use sa::Path;
use tokio::sync::mpsc;

use crate::often::News;

use super::pace::Pace;
use super::{BATCHES_IN_A_ROW, IoCounters, IoDrop, Merging, Notice, Orders, Worker, pass_events};

/// Everything that the sending thread owns.
#[derive(Debug)]
pub struct OutboundWorker {
    /// Where inner packets come from.
    pub tun: TunReader,
    /// Where ICMP errors about them go.
    pub back: TunWriter,
    /// Where sealed datagrams go.
    pub udp: UdpSender,
    /// The data plane's sending half.
    pub plane: Outbound,
    /// What is lost here; nobody else writes it.
    pub counters: Arc<IoCounters>,
    /// What is cut by the kernel at the moment.
    pub merging: Arc<Merging>,
    /// To the control thread.
    pub notices: mpsc::Sender<Notice>,
}

impl OutboundWorker {
    /// Starts the thread, in the network namespace of the caller; `realtime`: with the priority that
    /// [`netio::priority`] gives.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn spawn(self, realtime: bool) -> io::Result<Worker<OutboundCommand>> {
        Worker::spawn("packets-out", realtime, move |orders| self.run(&orders))
    }

    fn run(mut self, orders: &Orders<OutboundCommand>) -> io::Result<()> {
        let (mut inner, mut wire) = (InnerBatch::default(), WireBatch::default());
        let mut back = InnerBatch::default();
        let mut news = News::default();
        self.merging.note_udp(self.udp.segments(), 0);
        let mut pace = Pace::new();
        loop {
            pass_events(&self.notices, || self.plane.poll_event());
            let idle = pace.rest();
            let ready = wait::readable(&[orders.waker.as_fd(), self.tun.as_fd()], None)?;
            pace.begin(idle.elapsed());
            if ready & 1 != 0 {
                if !orders.carry_out(|command| self.plane.apply(command)) {
                    return Ok(());
                }
                self.send_probes(&mut wire, &mut news);
            }
            if ready & 2 == 0 {
                continue;
            }
            let mut more = true;
            for _ in 0..BATCHES_IN_A_ROW {
                let report = self.tun.read(&mut inner)?;
                pace.took(inner.packets.iter().map(|packet| (1, packet.range.len())));
                self.counters.count(IoDrop::TunReadHeader, report.bad_header);
                if report.packets > 0 {
                    self.forward(&inner, (&mut wire, &mut back), &mut news);
                }
                more = report.more;
                if !more {
                    break;
                }
            }
            if more {
                pace.leaves_some();
            }
        }
    }

    fn send_probes(&mut self, wire: &mut WireBatch, news: &mut News) {
        wire.clear();
        self.plane.seal_probes(false, wire);
        self.send(wire, news);
        wire.clear();
        self.plane.seal_probes(true, wire);
        if !wire.runs.is_empty() {
            let report = self.udp.send_probes(wire);
            self.note(&report, news);
        }
    }

    fn send(&mut self, wire: &WireBatch, news: &mut News) {
        if wire.runs.is_empty() {
            return;
        }
        let report = self.udp.send(wire);
        self.note(&report, news);
    }

    /// Counts what was lost, and tells what is news.
    fn note(&mut self, report: &SendReport, news: &mut News) {
        self.counters.count_send(report);
        if report.fallbacks > 0 {
            self.merging.note_udp(self.udp.segments(), self.udp.refusing().len());
        }
        // While a path takes less than what has to be sent, each batch says so: anybody can make the
        // system believe that, and the control thread has other things to do.
        if let Some((local, remote)) = report.too_big
            && news.admit(remote, Instant::now())
        {
            // If there is no room, the next one says the same.
            let _ = self.notices.try_send(Notice::TooBig(Path { local, remote }));
        }
    }

    fn forward(
        &mut self,
        inner: &InnerBatch,
        (wire, back): (&mut WireBatch, &mut InnerBatch),
        news: &mut News,
    ) {
        wire.clear();
        back.clear();
        self.plane.seal(inner, Instant::now(), wire, back);
        self.send(wire, news);
        if !back.packets.is_empty() {
            let report = self.back.write(back);
            self.counters.count_write(&report);
        }
    }
}
