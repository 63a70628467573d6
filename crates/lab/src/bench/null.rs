//! The null relay: our own I/O with nothing in between, to show what the I/O alone allows.
//!
//! It carries what the TUN device gives, super-packets uncut, as frames: twelve octets of header
//! and the packet. A frame that is larger than a datagram leaves as one send with `UDP_SEGMENT`;
//! frames of one size leave together. There is no key, no peer to negotiate with and no check of
//! who sends: it exists in the benchmark only.

mod frame;

use crate::error::{LabError, Result};
use frame::{Deframer, Framer};
use netio::tun::{Tun, TunMode, TunReader, TunWriter};
use netio::udp::{UdpOptions, UdpReceiver, UdpSender, UdpSocket};
use netio::wait;
use packet::{DatagramBatch, InnerBatch, WireBatch};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Makes the device, and relays between it and the other end until a descriptor fails or the
/// process is ended: one thread for each direction, as our gateways have.
pub fn relay(device: &str, local: SocketAddr, remote: SocketAddr) -> Result<()> {
    let tun = Tun::open(device, TunMode::Auto)
        .map_err(|error| LabError::Unexpected(format!("null relay: {error}")))?;
    let socket = UdpSocket::bind(local, UdpOptions::default())
        .map_err(|error| LabError::Unexpected(format!("null relay: {error}")))?;
    let socket = Arc::new(socket);
    let (reader, sender) = (tun.reader(), UdpSender::new(vec![socket.clone()].into()));
    let (writer, receiver) = (tun.writer(), UdpReceiver::new(socket));
    let out = std::thread::Builder::new()
        .name("null-out".into())
        .spawn(move || outbound(reader, sender, Framer::new(local, remote)))
        .map_err(LabError::io("null relay: a thread"))?;
    inbound(receiver, writer).map_err(LabError::io("null relay: UDP to TUN"))?;
    match out.join() {
        Ok(result) => result.map_err(LabError::io("null relay: TUN to UDP")),
        Err(_) => Err(LabError::Unexpected("null relay: a thread panicked".into())),
    }
}

fn outbound(mut tun: TunReader, mut udp: UdpSender, framer: Framer) -> io::Result<()> {
    let (mut inner, mut wire) = (InnerBatch::default(), WireBatch::default());
    loop {
        let report = tun.read(&mut inner)?;
        if report.packets > 0 {
            framer.frame(&inner, &mut wire);
            // What the kernel does not take is lost, as on any line.
            udp.send(&wire);
        }
        if !report.more {
            wait::readable(&[tun.as_fd()], None)?;
        }
    }
}

fn inbound(mut udp: UdpReceiver, mut tun: TunWriter) -> io::Result<()> {
    let (mut datagrams, mut inner) = (DatagramBatch::default(), InnerBatch::default());
    let mut deframer = Deframer::default();
    loop {
        let report = udp.receive(&mut datagrams)?;
        if report.messages > 0 {
            deframer.deframe(&mut datagrams, &mut inner, |batch| {
                tun.write(batch);
            });
        }
        if !report.more {
            wait::readable(&[udp.socket().as_fd()], None)?;
        }
    }
}
