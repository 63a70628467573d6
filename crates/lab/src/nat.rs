//! Network address translation by nftables.

use crate::error::Result;
use crate::topology::{End, route};
use std::net::IpAddr;

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "ip6" } else { "ip" }
}

/// Rewrites the source of what `inside` sends out of an interface to the address of that
/// interface, with new ports: nothing behind it can be reached unless it spoke first.
pub fn masquerade(outside: End<'_>, inside: IpAddr) -> Result<()> {
    let family = family(inside);
    outside.host.nft(&format!(
        "add table {family} lab\n\
         add chain {family} lab source {{ type nat hook postrouting priority 100 ; }}\n\
         add rule {family} lab source oifname \"{}\" {family} saddr {inside} masquerade fully-random\n",
        outside.interface
    ))
}

/// Gives `inside` a public address of its own for UDP `ports`, both ways; everything else that
/// comes for the public address is not forwarded.
pub fn forward_ports(
    outside: End<'_>,
    public: IpAddr,
    inside: IpAddr,
    ports: &[u16],
) -> Result<()> {
    let family = family(inside);
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    outside.host.nft(&format!(
        "add table {family} lab\n\
         add chain {family} lab destination {{ type nat hook prerouting priority -100 ; }}\n\
         add chain {family} lab source {{ type nat hook postrouting priority 100 ; }}\n\
         add rule {family} lab destination iifname \"{out}\" {family} daddr {public} udp dport {{ {} }} dnat to {inside}\n\
         add rule {family} lab source oifname \"{out}\" {family} saddr {inside} snat to {public}\n",
        ports.join(", "),
        out = outside.interface,
    ))
}

/// Forgets all translations made by [`masquerade`], as a NAT does that restarts: the kernel drops
/// those of an interface that goes down. `next_hop` is where the NAT's default route leads.
pub fn forget(outside: End<'_>, next_hop: IpAddr) -> Result<()> {
    let interface = outside.interface;
    outside.host.sysctl(&format!("net/ipv6/conf/{interface}/keep_addr_on_down"), "1")?;
    outside.host.ip(&format!("link set {interface} down\nlink set {interface} up"))?;
    route(outside.host, "default", next_hop)
}
