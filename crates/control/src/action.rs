//! What the runtime must do: the commands of each plane in order, and all of them before the
//! messages that come later.

use std::net::IpAddr;

use dataplane::{InboundCommand, OutboundCommand};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One thing to do. An inbound command must be carried out before any later transmit is sent;
/// transmits may wait for commands that come after them.
#[derive(Clone, Debug)]
pub enum Action {
    /// For the receiving half of the data plane.
    Inbound(InboundCommand),
    /// For the sending half of the data plane.
    Outbound(OutboundCommand),
    /// A datagram to send.
    Transmit(ike::Transmit),
    /// A line for the log.
    Log(Severity, String),
    /// The TUN device's MTU.
    SetTunMtu(u16),
    /// The addresses and routes of the TUN device, whole, after a reload: what is not in it goes.
    Interface(Interface),
    /// Whether the UDP sockets refuse what is larger than ICMP says that its path takes, as the system
    /// remembers it. They do until this says otherwise.
    BelieveIcmp(bool),
    /// All SAs are deleted, or were given up: the process may end.
    Stopped,
}

/// How much a line of the log matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// Something went as it should.
    Info,
    /// Something needs attention.
    Warning,
}

/// What a user asks for through the control socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The status document.
    Status,
    /// Read the configuration again. The runtime reads the files and calls
    /// [`Gateway::handle_reload`](crate::Gateway::handle_reload).
    Reload,
    /// Something about one tunnel.
    Tunnel {
        /// The connection's id.
        connection: String,
        /// 1 or 2.
        number: u8,
        /// What.
        verb: TunnelVerb,
    },
}

/// What can be done to a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelVerb {
    /// Take it down, and keep it down.
    Down,
    /// Let it come up again.
    Up,
    /// Rekey its Child SA now.
    RekeyChild,
    /// Rekey its IKE SA now.
    RekeyIke,
}

/// The addresses and prefixes of the TUN device, fixed by the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// Addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Prefixes routed into the device.
    pub routes: Vec<IpNet>,
}
