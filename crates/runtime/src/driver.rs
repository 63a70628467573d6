//! The loop of the control thread: what happens goes into the gateway, what it wants is done.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use control::config::Role;
use control::gateway::Gateway;
use control::{Action, Request, Severity};
use ike::Transmit;
use netio::changes::Changes;
use netio::udp::{path_mtu, source_for};
use sa::TunnelId;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use crate::device::Device;
use crate::often::Often;
use crate::outbox::Outbox;
use crate::planes::{Inbox, Planes};
use crate::server::{Asked, Response};
use crate::service::{self, Watchdog};
use crate::sockets::{IkeReceiver, Sockets, name_local_addresses};
use crate::worker::{Notice, SlowDatagram};
use crate::{RunError, load};

/// Inputs that are taken in a row before what the gateway wants is done: under a flood of IKE
/// messages the waits for the workers are shared.
const IN_A_ROW: usize = 32;
/// How often the system is asked for our outside addresses (one route look-up for each tunnel) even if
/// it announces no change.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How often at the most, whatever it announces.
const ADDRESS_PAUSE: Duration = Duration::from_millis(20);

/// Lines a second about messages that could not be sent.
const UNSENT: u64 = 5;

/// Everything that the control thread owns.
pub(crate) struct Driver {
    role: Role,
    file: PathBuf,
    gateway: Gateway,
    planes: Planes,
    sockets: Sockets,
    outbox: Outbox,
    device: Device,
    /// When the system was asked for our outside addresses, and when it is again; never, if they are
    /// configured.
    looked: Instant,
    look_at: Option<Instant>,
    /// Messages that could not be sent: strangers' requests are answered to wherever they say that
    /// they come from.
    unsent: Often,
    stopping: bool,
    stopped: bool,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let on = |kind| signal(kind).map_err(RunError::system("handle signals"));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }
}

impl Driver {
    pub(crate) fn new(
        role: Role,
        file: &Path,
        gateway: Gateway,
        planes: Planes,
        sockets: Sockets,
        device: Device,
        roams: bool,
    ) -> Self {
        Self {
            role,
            file: file.to_owned(),
            gateway,
            planes,
            sockets,
            outbox: Outbox::default(),
            device,
            looked: Instant::now(),
            look_at: roams.then(Instant::now),
            unsent: Often::new(UNSENT),
            stopping: false,
            stopped: false,
        }
    }

    /// Runs until told to stop.
    pub(crate) async fn drive(
        &mut self,
        mut inbox: Inbox,
        ike: Vec<IkeReceiver>,
        mut requests: mpsc::Receiver<Asked>,
    ) -> Result<(), RunError> {
        let mut signals = Signals::new()?;
        let mut plain = plain_messages(ike);
        let mut watchdog = Watchdog::new(Instant::now());
        let mut changes = self.look_at.and_then(|_| watch_addresses());
        self.act().await;
        service::notify(NotifyState::Ready);
        while !self.stopped {
            let now = Instant::now();
            self.look_at_addresses(now);
            let due = self.look_at.into_iter().fold(self.gateway.poll_timeout(), Instant::min);
            let others = watchdog.feed(now).into_iter().chain(self.outbox.deadline());
            let wake = others.fold(due, Instant::min);
            // In this order: a flood of strangers' messages holds up nothing else.
            tokio::select! {
                biased;
                _ = signals.terminate.recv() => self.stop("SIGTERM"),
                _ = signals.interrupt.recv() => self.stop("SIGINT"),
                _ = signals.hang_up.recv() => drop(self.reload().await),
                cause = self.planes.inbound.failed() => {
                    return Err(RunError::Worker { thread: "receiving", cause });
                }
                cause = self.planes.outbound.failed() => {
                    return Err(RunError::Worker { thread: "sending", cause });
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    let now = Instant::now();
                    if now >= due {
                        self.gateway.handle_timeout(now);
                    }
                }
                Some((request, back)) = requests.recv() => {
                    let response = self.answer(request).await;
                    let _ = back.send(response);
                }
                Some(notice) = inbox.notices.recv() => {
                    self.take_notice(notice);
                    for _ in 1..IN_A_ROW {
                        let Ok(notice) = inbox.notices.try_recv() else { break };
                        self.take_notice(notice);
                    }
                }
                Some(message) = inbox.slow.recv() => self.take_messages(message, &mut inbox.slow),
                Some(message) = plain.recv() => self.take_messages(message, &mut plain),
                news = next_change(&mut changes) => match news {
                    Ok(()) => self.look_at = Some(self.looked + ADDRESS_PAUSE),
                    Err(error) => {
                        warn!(%error, "changes of addresses are noticed within a second only");
                        changes = None;
                    }
                },
            }
            self.act().await;
        }
        let rest = self.outbox.rest();
        self.transmit(rest);
        Ok(())
    }

    /// Notices that the WAN address of a customer gateway changed.
    fn look_at_addresses(&mut self, now: Instant) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        (self.looked, self.look_at) = (now, Some(now + ADDRESS_INTERVAL));
        let moved: BTreeMap<TunnelId, IpAddr> = self
            .gateway
            .outside_paths()
            .filter_map(|(id, local, remote)| {
                // Without a route there is nothing to move to.
                let source = source_for(remote).ok()?;
                (source != local).then_some((id, source))
            })
            .collect();
        if !moved.is_empty() {
            self.gateway.handle_outside_addresses(&moved, now);
        }
    }

    fn take_messages(&mut self, first: SlowDatagram, more: &mut mpsc::Receiver<SlowDatagram>) {
        let now = Instant::now();
        self.gateway.handle_ike(first.path, &first.message, now);
        for _ in 1..IN_A_ROW {
            let Ok(next) = more.try_recv() else { break };
            self.gateway.handle_ike(next.path, &next.message, now);
        }
    }

    fn take_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Data(event) => self.gateway.handle_data_event(event, Instant::now()),
            Notice::TooBig(path) => match path_mtu(path.local.ip(), path.remote) {
                Ok(mtu) => {
                    debug!(%path, mtu, "the system knows the path MTU");
                    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                    self.gateway.handle_path_mtu(path, mtu, Instant::now());
                }
                Err(error) => debug!(%path, %error, "the path MTU is unknown"),
            },
        }
    }

    /// Does everything that the gateway wants. Messages leave together, behind all commands: so
    /// there is one wait for a worker, however many handshakes came in a row.
    async fn act(&mut self) {
        let mut messages = Vec::new();
        let (mut inbound, mut outbound) = (false, false);
        let mut device = Vec::new();
        while let Some(action) = self.gateway.poll_action() {
            match action {
                Action::Inbound(command) => {
                    self.planes.inbound.queue(command);
                    inbound = true;
                }
                Action::Outbound(command) => {
                    self.outbox.note(&command);
                    self.planes.outbound.queue(command);
                    outbound = true;
                }
                Action::Transmit(transmit) => messages.push(transmit),
                Action::Log(Severity::Info, line) => info!("{line}"),
                Action::Log(Severity::Warning, line) => warn!("{line}"),
                Action::SetTunMtu(_) | Action::Interface(_) => device.push(action),
                Action::BelieveIcmp(believe) => self.sockets.believe_icmp(believe),
                Action::Stopped => self.stopped = true,
            }
        }
        self.planes.carry_out(inbound, outbound, !messages.is_empty()).await;
        let now = Instant::now();
        let mut leave = self.outbox.due(now);
        leave.extend(self.outbox.take(messages, now));
        self.transmit(leave);
        for action in device {
            match action {
                Action::SetTunMtu(mtu) => self.device.set_mtu(mtu).await,
                Action::Interface(interface) => {
                    if let Err(error) = self.device.configure(&interface).await {
                        error!("{error}");
                    }
                }
                _ => {}
            }
        }
    }

    fn transmit(&mut self, messages: Vec<Transmit>) {
        for transmit in messages {
            let Err(error) = self.sockets.transmit(&transmit) else { continue };
            if let Some(more) = self.unsent.admit(Instant::now()) {
                warn!(path = %transmit.path, %error, before = more, "an IKE message was not sent");
            }
        }
    }

    /// Deletes the SAs at the peers; a second signal does not wait for their answers.
    fn stop(&mut self, signal: &str) {
        if self.stopping {
            self.stopped = true;
            return;
        }
        info!("{signal}: stopping");
        self.stopping = true;
        service::notify(NotifyState::Stopping);
        self.gateway.handle_stop(Instant::now());
    }

    async fn answer(&mut self, request: Request) -> Response {
        let now = Instant::now();
        let result = match request {
            Request::Status => return Response::Status(Box::new(self.status(now))),
            Request::Reload => self.reload().await,
            Request::Tunnel { connection, number, verb } => {
                self.gateway.handle_tunnel(&connection, number, verb, now)
            }
        };
        match result {
            Ok(()) => Response::Done,
            Err(why) => Response::Error(why),
        }
    }

    fn status(&self, now: Instant) -> control::status::Status {
        let mut status = self.gateway.status(now);
        status.drops.extend(self.planes.drops());
        let offloads = self.device.tun.offloads();
        let names = [
            (offloads.checksum, "checksum"),
            (offloads.tcp, "tso"),
            (offloads.udp, "uso"),
            (self.sockets.nat_t.iter().all(|socket| socket.gro()), "udp-gro"),
        ];
        let on = names.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned());
        let on: Vec<String> = on.chain(self.planes.merging.names()).collect();
        status.engine.insert("aead".into(), dataplane::aead_backend().to_string());
        status.engine.insert("offloads".into(), on.join(" "));
        let priority = if self.planes.realtime { "real-time" } else { "normal" };
        status.engine.insert("priority".into(), priority.into());
        status.stamp(SystemTime::now());
        status
    }

    /// Reads the files again. A configuration that is refused changes nothing.
    async fn reload(&mut self) -> Result<(), String> {
        service::notify_reloading();
        let result = match load(self.role, &self.file) {
            Ok((mut config, secrets)) => {
                name_local_addresses(&mut config);
                self.device.set_own_networks(&config.own_cidrs);
                self.gateway.handle_reload(config, secrets, Instant::now()).map(drop)
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = &result {
            warn!("reload refused, nothing changed: {why}");
        }
        self.act().await;
        service::notify(NotifyState::Ready);
        result
    }

    /// Removes what this process added to the system.
    pub(crate) async fn take_down(mut self) {
        self.device.take_down().await;
    }
}

/// The system's news of addresses and routes. Without them, they are looked at each second.
fn watch_addresses() -> Option<Changes> {
    let changes = Changes::new();
    changes.inspect_err(|error| warn!(%error, "no news of changed addresses by netlink")).ok()
}

async fn next_change(changes: &mut Option<Changes>) -> io::Result<()> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

/// Reads the sockets without marker on the event loop, into one channel.
fn plain_messages(receivers: Vec<IkeReceiver>) -> mpsc::Receiver<SlowDatagram> {
    let (messages, inbox) = mpsc::channel(IN_A_ROW);
    for mut receiver in receivers {
        let messages = messages.clone();
        tokio::spawn(async move {
            while let Some(datagrams) = receiver.receive().await {
                for datagram in datagrams {
                    if messages.send(datagram).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
    inbox
}
