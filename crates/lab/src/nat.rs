//! Network address translation by nftables.

use crate::error::Result;
use crate::topology::End;
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

/// Forgets all translations, as a NAT does that restarts. `lab` tables are rebuilt by the caller.
pub fn forget(outside: End<'_>) -> Result<()> {
    outside.host.nft("flush ruleset\n")
}
