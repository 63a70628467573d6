//! The command line of `vgw-lab bench`.

use crate::bench::contender::{Contender, parse_peer};
use crate::bench::rig::Link;
use crate::bench::workload::Workload;
use crate::bench::{Plan, bench, plot};
use crate::error::{LabError, Result};
use crate::stop::Stop;
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the figures mean, for `--help`.
pub const HELP: &str = "\
How it measures:
  client -- gateway A == WAN == gateway B -- server, each in a network namespace; every link is a
  veth with an MTU of 1500. Rounds are interleaved (A B C, A B C). Every contender is first shown
  to send its traffic through its tunnel and in nothing but UDP, and in each measurement the WAN's
  counters must show what arrived. All sizes are those of the inner IP packet.

  tcp1 tcp8 tcp64   Gbit/s of payload that arrived, client to server and then server to client;
                    the figure is the mean of both
  udp1400 udp64     packets a second that arrived, client to server, of 1400 or 64 octets, while
                    the sender offers as many as it can (sendmmsg, one packet each); the highest
                    rate is what gets through then, and the loss is what did not
  udp1400-gso       the same with sender GSO: UDP_SEGMENT, 46 packets a send
  imix              packets of 64, 576 and 1400 octets, 7 to 4 to 1
  ping-idle         median and 99th percentile of the round trip in ms, a ping every 5 ms
  ping-load         the same beside one TCP flow from client to server
  rate1250          CPU-seconds per GB at one TCP flow of 1.25 Gbit/s, an AWS tunnel

  CPU-s/GB is the processor time of both gateways' processes, with what the kernel does for them,
  and of the kernel's packet threads (ksoftirqd; all interrupt time where the kernel keeps that
  apart), for 10^9 octets of payload that arrived. What the kernel forwards while a system call of
  client or server lasts is not in it, so plain routing seems to cost nothing.

  JSON is a list of {workload, contender, median, min, max, unit, cpu_s_per_gb}. UDP adds `loss`
  (0 to 1), ping adds `p99_ms`, and rows over wire-like links add `\"link\": \"wire\"`.

Peers, and what installs them:
  wireguard-go      apt-get install wireguard-go wireguard-tools   (Debian's is of 2022; name a
                    newer one with --peer wireguard-go=PATH)
  gotatun           cargo install gotatun-cli                      (and wireguard-tools)
  boringtun-cli     cargo install boringtun-cli                    (and wireguard-tools)
  charon-libipsec   apt-get install strongswan-charon strongswan-swanctl libcharon-extra-plugins
                    libstrongswan-extra-plugins
  openvpn           apt-get install openvpn openssl
  wire-like links   apt-get install ethtool
A peer that is not on the machine is reported as absent.";

/// Options of `vgw-lab bench`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct Arguments {
    /// Workloads, separated by commas [default: all]
    #[arg(long = "workload", value_name = "W,...", value_enum, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// Contenders, separated by commas [default: all]
    #[arg(long = "contender", value_name = "C,...", value_enum, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// A program of a peer that is not in PATH, or another version of it
    #[arg(long = "peer", value_name = "NAME=PATH", value_parser = parse_peer)]
    peers: Vec<(Contender, PathBuf)>,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// veth as it is, links that cut every packet like wires, or first one and then the other
    #[arg(long, value_enum, default_value_t = Links::Veth)]
    link: Links,
    /// Seconds of each measurement (TCP: in each direction)
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Write the figures as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the figures as SVG to this file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Where the binaries vgw and cgw-agent are [default: beside this one]
    #[arg(long, value_name = "FOLDER")]
    bin_dir: Option<PathBuf>,
}

/// Links that the user may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Links {
    /// veth as it is
    Veth,
    /// Wire-like
    Wire,
    /// Both
    Both,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is expected".to_owned())?;
    if (0.1..=600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("it must be from 0.1 to 600".into())
    }
}

impl Arguments {
    /// Measures, prints the tables and writes the files. Whether everything worked that is there.
    pub fn run(self, own_folder: PathBuf, stop: &Stop) -> Result<bool> {
        let (json, plot) = (self.json.clone(), self.plot.clone());
        let plan = self.plan(own_folder);
        let (figures, ended) = bench(&plan, stop);
        print!("{figures}");
        ended?;
        let rows = figures.rows();
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&rows)
                .map_err(|error| LabError::Unexpected(error.to_string()))?;
            write(&path, &(text + "\n"))?;
        }
        if let Some(path) = plot {
            write(&path, &plot::svg(&rows))?;
        }
        Ok(!figures.has_failures() && !rows.is_empty())
    }

    fn plan(self, own_folder: PathBuf) -> Plan {
        Plan {
            workloads: all_if_none(self.workloads),
            contenders: all_if_none(self.contenders),
            paths: self.peers.into_iter().collect(),
            links: match self.link {
                Links::Veth => vec![Link::Veth],
                Links::Wire => vec![Link::Wire],
                Links::Both => vec![Link::Veth, Link::Wire],
            },
            rounds: self.rounds,
            time: Duration::from_secs_f64(self.seconds),
            binaries: self.bin_dir.unwrap_or(own_folder),
        }
    }
}

/// Each value once, in the order of its first mention.
fn all_if_none<T: ValueEnum + PartialEq>(given: Vec<T>) -> Vec<T> {
    let mut all = Vec::new();
    let given = if given.is_empty() { T::value_variants().to_vec() } else { given };
    for value in given {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(LabError::io(format!("writing {}", path.display())))
}
