//! What is measured.

use crate::traffic::flood::Shape;
use clap::ValueEnum;
use std::fmt;

/// Octets of an IPv4 and a UDP header: sizes of workloads are those of the inner IP packet.
const HEADERS: usize = 20 + 8;

/// Octets of the largest inner packet of the UDP workloads. Every contender's tunnel takes it
/// without fragments when the link outside has an MTU of 1500.
const LARGE: usize = 1400;

/// The rate of `rate1250`, in bits a second: what AWS promises for one tunnel.
pub const FIXED_RATE: f64 = 1.25e9;

/// A workload, by its name on the command line and in the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Workload {
    /// One TCP flow
    #[value(name = "tcp1")]
    Tcp1,
    /// Eight TCP flows
    #[value(name = "tcp8")]
    Tcp8,
    /// Sixty-four TCP flows
    #[value(name = "tcp64")]
    Tcp64,
    /// UDP, 1400 octets, sent one by one
    #[value(name = "udp1400")]
    Udp1400,
    /// UDP, 1400 octets, sent with UDP_SEGMENT
    #[value(name = "udp1400-gso")]
    Udp1400Gso,
    /// UDP, 64 octets
    #[value(name = "udp64")]
    Udp64,
    /// UDP, 64, 576 and 1400 octets, 7 to 4 to 1
    #[value(name = "imix")]
    Imix,
    /// Ping with nothing else on the way
    #[value(name = "ping-idle")]
    PingIdle,
    /// Ping beside one TCP flow
    #[value(name = "ping-load")]
    PingLoad,
    /// One TCP flow of 1.25 Gbit/s, by its CPU cost
    #[value(name = "rate1250")]
    Rate1250,
}

/// Which way round a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

impl Workload {
    /// The unit of its figures.
    pub fn unit(self) -> &'static str {
        match self {
            Workload::Tcp1 | Workload::Tcp8 | Workload::Tcp64 => "Gbit/s",
            Workload::Udp1400 | Workload::Udp1400Gso | Workload::Udp64 | Workload::Imix => {
                "packets/s"
            }
            Workload::PingIdle | Workload::PingLoad => "ms",
            Workload::Rate1250 => "CPU-s/GB",
        }
    }

    /// Which way round its figures are good.
    pub fn better(self) -> Better {
        match self {
            Workload::PingIdle | Workload::PingLoad | Workload::Rate1250 => Better::Lower,
            _ => Better::Higher,
        }
    }

    /// How many flows a TCP workload has.
    pub fn flows(self) -> Option<usize> {
        match self {
            Workload::Tcp1 => Some(1),
            Workload::Tcp8 => Some(8),
            Workload::Tcp64 => Some(64),
            _ => None,
        }
    }

    /// What a UDP workload sends.
    pub fn shape(self) -> Option<Shape> {
        let single = |packet: usize| vec![packet - HEADERS];
        match self {
            Workload::Udp1400 => Some(Shape { payloads: single(LARGE), segmented: false }),
            Workload::Udp1400Gso => Some(Shape { payloads: single(LARGE), segmented: true }),
            Workload::Udp64 => Some(Shape { payloads: single(64), segmented: false }),
            Workload::Imix => {
                let sizes = [64, 576, 64, 576, 64, 1400, 64, 576, 64, 576, 64, 64];
                let payloads = sizes.iter().map(|packet| packet - HEADERS).collect();
                Some(Shape { payloads, segmented: false })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.pad(name.as_ref().map_or("", |value| value.get_name()))
    }
}
