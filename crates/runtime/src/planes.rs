//! The data plane of a daemon: both workers, their counters and their channels.

use std::net::IpAddr;
use std::sync::Arc;

use control::config::Config;
use dataplane::{Counters, IcmpSource, Inbound, InboundCommand, Outbound, OutboundCommand};
use ipnet::IpNet;
use netio::tun::Tun;
use netio::udp::{UdpReceiver, UdpSender};
use tokio::sync::mpsc;

use crate::RunError;
use crate::device::own_address;
use crate::sockets::Sockets;
use crate::worker::{
    InboundWorker, IoCounters, IoDrop, Merging, Notice, OutboundWorker, SlowDatagram, Worker,
    carry_out,
};

/// IKE messages that wait for the control thread. Retransmission makes further ones good; the
/// bound keeps a flood from growing memory.
const SLOW: usize = 512;
/// Notices that wait for the control thread; further ones wait in the data plane.
const NOTICES: usize = 1024;

/// The two workers.
pub(crate) struct Planes {
    pub(crate) inbound: Worker<InboundCommand>,
    pub(crate) outbound: Worker<OutboundCommand>,
    io: [Arc<IoCounters>; 2],
    pub(crate) merging: Arc<Merging>,
    /// Whether the workers have real-time priority.
    pub(crate) realtime: bool,
}

/// What the workers say.
pub(crate) struct Inbox {
    pub(crate) slow: mpsc::Receiver<SlowDatagram>,
    pub(crate) notices: mpsc::Receiver<Notice>,
}

impl Planes {
    pub(crate) fn start(
        config: &Config,
        sockets: &Sockets,
        tun: &Tun,
        counters: &(Arc<Counters>, Arc<Counters>),
        realtime: bool,
    ) -> Result<(Self, Inbox), RunError> {
        let (slow_in, slow) = mpsc::channel(SLOW);
        let (notices_in, notices) = mpsc::channel(NOTICES);
        let io = [Arc::<IoCounters>::default(), Arc::default()];
        let merging = Arc::<Merging>::default();
        let mut writer = tun.writer();
        writer.limit(config.offloads.tun_tcp, config.offloads.tun_udp);
        let mut sender = UdpSender::new(Arc::clone(&sockets.nat_t));
        sender.set_segmentation(config.offloads.udp_gso);
        let mut replies = UdpSender::new(Arc::clone(&sockets.nat_t));
        replies.set_segmentation(config.offloads.udp_gso);
        let inbound = InboundWorker {
            udp: sockets.nat_t.iter().map(|s| UdpReceiver::new(Arc::clone(s))).collect(),
            tun: writer,
            replies,
            plane: Inbound::new(Arc::clone(&counters.0)),
            counters: Arc::clone(&io[0]),
            merging: Arc::clone(&merging),
            slow: slow_in,
            notices: notices_in.clone(),
        };
        let outbound = OutboundWorker {
            tun: tun.reader(),
            back: tun.writer(),
            udp: sender,
            plane: Outbound::new(Arc::clone(&counters.1), icmp_source(config)),
            counters: Arc::clone(&io[1]),
            merging: Arc::clone(&merging),
            notices: notices_in,
        };
        let planes = Self {
            inbound: inbound.spawn(realtime).map_err(RunError::system("start a thread"))?,
            outbound: outbound.spawn(realtime).map_err(RunError::system("start a thread"))?,
            io,
            merging,
            realtime,
        };
        Ok((planes, Inbox { slow, notices }))
    }

    /// Lets the workers carry out what is queued for them, and waits for that if messages follow.
    pub(crate) async fn carry_out(&self, inbound: bool, outbound: bool, messages: bool) {
        carry_out(inbound.then_some(&self.inbound), outbound.then_some(&self.outbound), messages)
            .await;
    }

    /// What was lost between the system and the data plane; only reasons that happened.
    pub(crate) fn drops(&self) -> impl Iterator<Item = (String, u64)> {
        IoDrop::ALL.iter().filter_map(|reason| {
            let count: u64 = self.io.iter().map(|counters| counters.dropped(*reason)).sum();
            (count > 0).then(|| (reason.name().to_owned(), count))
        })
    }
}

/// ICMP errors come from an address of this host in its own network, which every peer lets in
/// through selectors or routes; or else from one inside a tunnel.
fn icmp_source(config: &Config) -> IcmpSource {
    let tunnels = || config.connections.iter().flat_map(|connection| &connection.tunnels);
    let inside = || config.wireguard.iter().flat_map(|c| &c.inside_addresses).map(IpNet::addr);
    let v4 = || tunnels().map(|tunnel| tunnel.inside_v4.0.into()).chain(inside());
    let v6 = || tunnels().filter_map(|t| Some(t.inside_v6?.0.into())).chain(inside());
    let own = |v4| own_address(&config.own_cidrs, v4).into_iter();
    IcmpSource {
        v4: own(true).chain(v4()).find_map(|a| if let IpAddr::V4(a) = a { Some(a) } else { None }),
        v6: own(false).chain(v6()).find_map(|a| if let IpAddr::V6(a) = a { Some(a) } else { None }),
    }
}
