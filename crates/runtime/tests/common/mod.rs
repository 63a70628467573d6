//! Network namespaces for tests, and two data planes between them.
#![allow(dead_code, reason = "not every test file needs all of it")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::net::SocketAddr;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use dataplane::{
    Counters, IcmpSource, Inbound, InboundCommand, Outbound, OutboundCommand, Route, RouteTarget,
};
use netio::netlink::Link;
use netio::tun::{Tun, TunMode};
use netio::udp::{UdpOptions, UdpReceiver, UdpSender, UdpSocket};
use runtime::worker::{InboundWorker, IoCounters, Notice, OutboundWorker, SlowDatagram, Worker};
use sa::{EspSuite, InboundSa, Lifetime, OutboundSa, Path, Secret, SelectorSet, Spi, TunnelId};
use tokio::sync::mpsc;

pub const TUNNEL: TunnelId = TunnelId(7);

/// Moves the calling thread into an empty network namespace with loopback up.
pub fn enter_fresh_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap_or_else(|errno| {
        panic!("this test makes a network namespace and needs root (CAP_SYS_ADMIN): {errno}")
    });
    block_on(async { Link::find("lo").unwrap().set_up().await.unwrap() });
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A host of its own: a thread in a fresh namespace that runs what it is given.
pub struct Host {
    jobs: std_mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Host {
    pub fn new() -> Self {
        let (jobs, queue) = std_mpsc::channel::<Box<dyn FnOnce() + Send>>();
        thread::spawn(move || {
            enter_fresh_namespace();
            queue.into_iter().for_each(|job| job());
        });
        Self { jobs }
    }

    /// Runs `job` there and waits for its result.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = std_mpsc::channel();
        self.jobs.send(Box::new(move || drop(done.send(job())))).unwrap();
        result.recv().expect("the host's thread panicked")
    }
}

/// One gateway's data path: a device in its host's namespace, workers, and a socket on the wire.
pub struct Gateway {
    pub inbound: Worker<InboundCommand>,
    pub outbound: Worker<OutboundCommand>,
    pub slow: mpsc::Receiver<SlowDatagram>,
    pub notices: mpsc::Receiver<Notice>,
    pub counters: [Arc<Counters>; 2],
    pub io: [Arc<IoCounters>; 2],
    pub tun: Tun,
    pub outer: SocketAddr,
}

impl Gateway {
    /// `wire` is the host in whose namespace the socket is; `address` the device's own, in a
    /// network that it routes.
    pub fn new(
        host: &Host,
        wire: &Host,
        mode: TunMode,
        addresses: &'static [&'static str],
    ) -> Self {
        let tun = host.run(move || {
            let tun = Tun::open("t0", mode).unwrap();
            block_on(async {
                let link = Link::find("t0").unwrap();
                link.set_mtu(1400).await.unwrap();
                link.set_up().await.unwrap();
                for address in addresses {
                    link.add_address(address.parse().unwrap()).await.unwrap();
                }
            });
            tun
        });
        let socket = wire.run(|| {
            UdpSocket::bind("127.0.0.1:0".parse().unwrap(), UdpOptions::default()).unwrap()
        });
        let socket = Arc::new(socket);
        let outer = socket.local();
        let (slow_in, slow) = mpsc::channel(4);
        let (notices_in, notices) = mpsc::channel(64);
        let counters = [Arc::<Counters>::default(), Arc::default()];
        let io = [Arc::<IoCounters>::default(), Arc::default()];
        let inbound = InboundWorker {
            udp: vec![UdpReceiver::new(Arc::clone(&socket))],
            tun: tun.writer(),
            replies: UdpSender::new(vec![Arc::clone(&socket)].into()),
            plane: Inbound::new(Arc::clone(&counters[0])),
            counters: Arc::clone(&io[0]),
            merging: Arc::default(),
            slow: slow_in,
            notices: notices_in.clone(),
        };
        let outbound = OutboundWorker {
            tun: tun.reader(),
            back: tun.writer(),
            udp: UdpSender::new(vec![socket].into()),
            plane: Outbound::new(Arc::clone(&counters[1]), IcmpSource::default()),
            counters: Arc::clone(&io[1]),
            merging: Arc::default(),
            notices: notices_in,
        };
        let inbound = inbound.spawn(false).unwrap();
        let outbound = outbound.spawn(false).unwrap();
        Self { inbound, outbound, slow, notices, counters, io, tun, outer }
    }

    /// Sends everything into the tunnel, to `peer`, under keys that `seed` names.
    pub fn send_to(&self, peer: SocketAddr, suite: EspSuite, seed: u8) {
        self.outbound.apply(OutboundCommand::SetLinkMtu { tunnel: TUNNEL, mtu: 1500 });
        self.outbound.apply(OutboundCommand::Install(Box::new(OutboundSa {
            tunnel: TUNNEL,
            spi: Spi(0x7000_0000 + u32::from(seed)),
            suite,
            esn: true,
            encryption: key(suite.encryption_keymat_len(), seed),
            integrity: key(suite.integrity_keymat_len(), seed),
            local_selectors: everything(),
            remote_selectors: everything(),
            path: Path { local: self.outer, remote: peer },
            lifetime: LIFETIME,
        })));
        let target = RouteTarget::Tunnel(TUNNEL);
        let routes = ["0.0.0.0/0", "::/0"];
        self.outbound.apply(OutboundCommand::SetRoutes(
            routes.map(|prefix| Route { prefix: prefix.parse().unwrap(), target }).to_vec(),
        ));
    }

    /// Receives what the other side sends under the keys that `seed` names.
    pub fn receive(&self, suite: EspSuite, seed: u8) {
        self.inbound.apply(InboundCommand::Install(Box::new(InboundSa {
            tunnel: TUNNEL,
            spi: Spi(0x7000_0000 + u32::from(seed)),
            suite,
            esn: true,
            encryption: key(suite.encryption_keymat_len(), seed),
            integrity: key(suite.integrity_keymat_len(), seed),
            replay_window: 8192,
            remote_selectors: everything(),
            local_selectors: everything(),
            lifetime: LIFETIME,
        })));
    }

    pub fn lost(&self) -> Vec<(&'static str, u64)> {
        let io = self.io.iter().flat_map(|counters| {
            let all = runtime::worker::IoDrop::ALL.iter();
            all.map(|reason| (reason.name(), counters.dropped(*reason)))
        });
        let plane = self.counters.iter().flat_map(|counters| {
            let all = dataplane::DropReason::ALL.iter();
            all.map(|reason| (reason.name(), counters.dropped(*reason)))
        });
        io.chain(plane).filter(|(_, count)| *count > 0).collect()
    }
}

const LIFETIME: Lifetime = Lifetime { time: Duration::from_secs(3600), bytes: None, packets: None };

fn key(len: usize, seed: u8) -> Secret {
    Secret::new((0..len).map(|i| seed.wrapping_add(i as u8)).collect())
}

fn everything() -> SelectorSet {
    SelectorSet::nets(&["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()])
}
