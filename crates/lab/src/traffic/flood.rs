//! UDP as fast as the sender goes, counted where it arrives.

use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::traffic::load::{Counters, Load};
use crate::traffic::tcp::Pair;
use netio::udp::{UdpOptions, UdpReceiver, UdpSender, UdpSocket};
use netio::wait;
use packet::{DatagramBatch, Run, WireBatch};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Sends between two looks at whether to stop: a multiple of the twelve datagrams of an IMIX.
const BATCH: usize = 60;

/// Segments of one send with `UDP_SEGMENT`: as many datagrams of 1400 octets as fit 65,507 octets.
const SEGMENTS: usize = 46;

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Octets of payload of each datagram, over and over.
    pub payloads: Vec<usize>,
    /// Whether equal datagrams leave together with `UDP_SEGMENT`; otherwise the kernel gets them
    /// one by one (`sendmmsg` saves system calls, and nothing else).
    pub segmented: bool,
}

/// Starts to send from the client to the server.
pub fn udp(pair: Pair<'_>, shape: &Shape) -> Result<Load> {
    let mut load = Load::new();
    let server = Arc::new(bind(pair.server, pair.address, true)?);
    let any: IpAddr = if pair.address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = Arc::new(bind(pair.client, pair.source.unwrap_or(any), false)?);
    let wire = batch(&client, server.local(), shape);
    let (stop, counters) = (load.stop.clone(), load.counters.clone());
    load.add(pair.server.thread("udp-count", move || receive(&server, &stop, &counters))?);
    let (stop, counters) = (load.stop.clone(), load.counters.clone());
    load.add(pair.client.thread("udp-load", move || {
        let mut sender = UdpSender::new(vec![client].into());
        while !stop.load(Relaxed) {
            let report = sender.send(&wire);
            counters.sent.fetch_add(report.datagrams + lost(&report), Relaxed);
        }
    })?);
    Ok(load)
}

/// What the sender's own kernel dropped counts as sent and lost.
fn lost(report: &netio::udp::SendReport) -> u64 {
    report.dropped_full + report.dropped_too_big + report.dropped_unreachable + report.dropped_other
}

fn bind(host: &Host, address: IpAddr, gro: bool) -> Result<UdpSocket> {
    let options = UdpOptions { gro, ..UdpOptions::default() };
    host.run(move || UdpSocket::bind(SocketAddr::new(address, 0), options))
        .map_err(|error| LabError::Unexpected(format!("{}: {error}", host.name())))
}

/// One batch, sent again and again.
fn batch(client: &UdpSocket, remote: SocketAddr, shape: &Shape) -> WireBatch {
    let mut wire = WireBatch::default();
    let local = client.local();
    for payload in shape.payloads.iter().copied().cycle().take(BATCH) {
        let count = if shape.segmented { SEGMENTS } else { 1 };
        let start = wire.bytes.len();
        wire.bytes.resize(start + payload * count, 0x5a);
        wire.runs.push(Run {
            local,
            remote,
            range: start..wire.bytes.len(),
            segment: payload,
            tos: 0,
        });
    }
    wire
}

fn receive(socket: &Arc<UdpSocket>, stop: &AtomicBool, counters: &Counters) {
    let mut receiver = UdpReceiver::new(socket.clone());
    let mut batch = DatagramBatch::default();
    while !stop.load(Relaxed) {
        match receiver.receive(&mut batch) {
            Ok(report) if report.messages > 0 => {
                let octets: usize = batch.datagrams.iter().map(|d| d.range.len()).sum();
                // A coalesced message counts as the datagrams that it is made of.
                let packets: usize =
                    batch.datagrams.iter().map(|d| d.range.len().div_ceil(d.segment.max(1))).sum();
                counters.octets.fetch_add(octets as u64, Relaxed);
                counters.packets.fetch_add(packets as u64, Relaxed);
            }
            // ICMP errors are reported here too; they deliver nothing.
            _ => {
                let _ = wait::readable(&[socket.as_fd()], Some(Duration::from_millis(20)));
            }
        }
    }
}
