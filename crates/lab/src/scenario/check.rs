//! What the types alone cannot say about a scenario.

use super::{HostSpec, Scenario, SiteKind};
use crate::layout;
use ipnet::IpNet;
use std::net::IpAddr;
use std::ops::Range;
use toml::Spanned;

type Refused = (Range<usize>, String);

/// A host's thread shows its name, which the kernel cuts at 15 characters.
const NAME_LENGTH: usize = 10;

/// Sites get their addresses by number.
const SITES: usize = 16;

pub(super) fn check(scenario: &Scenario) -> Result<(), Refused> {
    let whole = 0..0;
    if scenario.sites.is_empty() {
        return Err((whole, "no [[site]]: describe at least one".into()));
    }
    if scenario.sites.len() > SITES {
        return Err((
            whole,
            format!("{} sites: the lab has addresses for {SITES}", scenario.sites.len()),
        ));
    }
    check_mtu(scenario, &scenario.internet.mtu)?;
    check_place("VPC", &scenario.vpc.cidrs, &scenario.vpc.hosts)?;
    let mut used: Vec<(&IpNet, String)> =
        scenario.vpc.cidrs.iter().map(|cidr| (cidr.get_ref(), "the VPC".into())).collect();
    for (index, site) in scenario.sites.iter().enumerate() {
        check_name(&site.name)?;
        let name = site.name.get_ref();
        if ["vpc", "vgw"].contains(&name.as_str())
            || scenario.sites[..index].iter().any(|other| other.name.get_ref() == name)
        {
            return Err((
                site.name.span(),
                format!("`{name}` is taken: give the site another name"),
            ));
        }
        if let Some(mtu) = &site.line.mtu {
            check_mtu(scenario, mtu)?;
        }
        if site.kind == SiteKind::Wireguard && !site.tunnel.is_empty() {
            return Err((
                site.name.span(),
                "`tunnel` is for sites of type \"ipsec\": write the keys of a WireGuard site under `connection`".into(),
            ));
        }
        check_place("site", &site.cidrs, &site.hosts)?;
        for reserved in ["cgw", "nat"] {
            if let Some(host) = site.hosts.iter().find(|host| host.name.get_ref() == reserved) {
                return Err((
                    host.name.span(),
                    format!("`{reserved}` is the name of a host that the lab adds"),
                ));
            }
        }
        for cidr in &site.cidrs {
            if let Some((other, whose)) =
                used.iter().find(|(other, _)| overlap(other, cidr.get_ref()))
            {
                return Err((
                    cidr.span(),
                    format!("{} overlaps {other} of {whose}", cidr.get_ref()),
                ));
            }
        }
        used.extend(site.cidrs.iter().map(|cidr| (cidr.get_ref(), format!("site {name}"))));
        let shared = [true, false]
            .iter()
            .any(|v4| has_family(&site.hosts, *v4) && has_family(&scenario.vpc.hosts, *v4));
        if !shared {
            return Err((
                site.name.span(),
                "its hosts share no address family with the hosts of the VPC".into(),
            ));
        }
    }
    Ok(())
}

fn has_family(hosts: &[HostSpec], v4: bool) -> bool {
    hosts
        .iter()
        .flat_map(|host| &host.addresses)
        .any(|address| address.get_ref().addr().is_ipv4() == v4)
}

fn check_mtu(scenario: &Scenario, mtu: &Spanned<u16>) -> Result<(), Refused> {
    let value = *mtu.get_ref();
    let inside_ipv6 = scenario.sites.iter().any(|site| has_family(&site.hosts, false));
    let (least, why) = match scenario.internet.family {
        super::Family::Ipv6 => (1400, "with IPv6 outside"),
        // The tunnel takes up to 100 octets, and IPv6 needs 1280.
        super::Family::Ipv4 if inside_ipv6 => (1380, "with IPv6 inside"),
        super::Family::Ipv4 => (600, "with IPv4"),
    };
    if (least..=9000).contains(&value) {
        return Ok(());
    }
    Err((mtu.span(), format!("an MTU of {value}: {why} it is from {least} to 9000")))
}

fn check_name(name: &Spanned<String>) -> Result<(), Refused> {
    let text = name.get_ref();
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !text.is_empty() && text.len() <= NAME_LENGTH && text.chars().all(good) {
        return Ok(());
    }
    Err((
        name.span(),
        format!("`{text}` is not a name: write 1 to {NAME_LENGTH} of a-z, 0-9 and -"),
    ))
}

fn check_place(what: &str, cidrs: &[Spanned<IpNet>], hosts: &[HostSpec]) -> Result<(), Refused> {
    for cidr in cidrs {
        let net = cidr.get_ref();
        if net.trunc() != *net {
            return Err((
                cidr.span(),
                format!("{net} has bits after its prefix: write {}", net.trunc()),
            ));
        }
        if let Some(own) =
            layout::RESERVED.iter().filter_map(|own| own.parse().ok()).find(|own| overlap(own, net))
        {
            return Err((cidr.span(), format!("{net} overlaps {own}, which the lab uses itself")));
        }
    }
    if hosts.is_empty() {
        return Err((
            cidrs.first().map_or(0..0, Spanned::span),
            format!("no host: a {what} needs at least one"),
        ));
    }
    let mut networks: Vec<IpNet> = Vec::new();
    let mut taken: Vec<IpAddr> = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        check_name(&host.name)?;
        let name = host.name.get_ref();
        if hosts[..index].iter().any(|other| other.name.get_ref() == name) {
            return Err((host.name.span(), format!("a second host named `{name}` at this place")));
        }
        if host.addresses.is_empty() {
            return Err((host.name.span(), format!("the host `{name}` has no address")));
        }
        for address in &host.addresses {
            check_address(address, cidrs, &mut networks, &mut taken)?;
        }
        let v4 = host.addresses.iter().filter(|address| address.get_ref().addr().is_ipv4()).count();
        if v4 > 1 || host.addresses.len() - v4 > 1 {
            return Err((
                host.name.span(),
                format!("`{name}` has two addresses of one family: write one of each"),
            ));
        }
    }
    Ok(())
}

fn check_address(
    address: &Spanned<IpNet>,
    cidrs: &[Spanned<IpNet>],
    networks: &mut Vec<IpNet>,
    taken: &mut Vec<IpAddr>,
) -> Result<(), Refused> {
    let (net, addr) = (address.get_ref(), address.get_ref().addr());
    let refuse = |message: String| Err((address.span(), message));
    if net.prefix_len() >= net.max_prefix_len() - 1 {
        return refuse(format!(
            "{net}: write the address with the prefix length of its network, such as {addr}/24"
        ));
    }
    if !cidrs.iter().any(|cidr| cidr.get_ref().contains(&addr)) {
        return refuse(format!("{addr} is outside of the `cidrs` of its place"));
    }
    let gateway = layout::nth(net, 1);
    if addr == gateway || addr == net.network() || (addr.is_ipv4() && addr == net.broadcast()) {
        return refuse(format!(
            "{addr} is the gateway's, or the network's own: use another address of {}",
            net.trunc()
        ));
    }
    if taken.contains(&addr) {
        return refuse(format!("{addr} is another host's"));
    }
    match networks.iter().find(|other| other.addr().is_ipv4() == addr.is_ipv4()) {
        Some(other) if *other != net.trunc() => {
            return refuse(format!(
                "{addr} is not in {other}: all hosts of a place are in one network of each family"
            ));
        }
        Some(_) => {}
        None => networks.push(net.trunc()),
    }
    taken.push(addr);
    Ok(())
}

fn overlap(left: &IpNet, right: &IpNet) -> bool {
    left.contains(right) || right.contains(left)
}
