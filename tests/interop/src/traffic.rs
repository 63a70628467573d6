//! Inner traffic both ways, octet by octet the same at the other end.

use anyhow::{Context, Result, ensure};
use lab::netns::Host;
use lab::stop::Stop;
use lab::traffic::{ping, tcp};
use std::net::IpAddr;
use std::time::Duration;

/// An inner host: where it is, and its address.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'a> {
    /// The host of the lab.
    pub host: &'a Host,
    /// The inner address.
    pub address: IpAddr,
}

/// Pings and moves `octets` over TCP from each to the other. Every answer must come, and every
/// octet be the one that was sent.
pub fn both_ways(one: Inner<'_>, other: Inner<'_>, octets: u64) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        let way = || format!("{} to {}", from.address, to.address);
        let answers = ping::run(from.host, plan(from, to, Some(3), 5))?;
        ensure!(
            answers.lost() == 0 && answers.damaged == 0 && answers.duplicates == 0,
            "ping from {}: {answers:?}",
            way()
        );
    }
    tcp_both_ways(one, other, octets)
}

/// Moves `octets` over TCP from each to the other.
pub fn tcp_both_ways(one: Inner<'_>, other: Inner<'_>, octets: u64) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        let pair = tcp::Pair {
            client: from.host,
            source: Some(from.address),
            server: to.host,
            address: to.address,
        };
        tcp::transfer(pair, octets, 7, &Stop::new())
            .with_context(|| format!("TCP from {} to {}", from.address, to.address))?;
    }
    Ok(())
}

/// Echo requests from one to another, so many milliseconds apart.
pub fn plan(from: Inner<'_>, to: Inner<'_>, count: Option<u32>, apart: u64) -> ping::Plan {
    ping::Plan {
        source: Some(from.address),
        count,
        interval: Duration::from_millis(apart),
        patience: Duration::from_secs(15),
        ..ping::Plan::new(to.address)
    }
}
