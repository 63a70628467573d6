//! One tunnel from its table: addresses, identities, selectors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ike::message::Identity;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sa::{SelectorSet, TunnelId};

use super::error::Source;
use super::raw::{self, S};
use super::{ConfigError, Options, Role, Tunnel};

/// The /30 blocks of 169.254.0.0/16 that AWS keeps for itself, by their third and fourth octet.
const RESERVED: [(u8, u8); 7] = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (169, 252)];

/// Where inside /30 blocks may lie with `relaxed_limits`, besides 169.254.0.0/16 with its room for
/// 8,188 connections: private use (RFC 1918) and shared address space (RFC 6598).
const PRIVATE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];

pub(super) struct Builder<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) role: Role,
    pub(super) relaxed: bool,
    pub(super) connection: &'a str,
    /// Number of the first of both tunnels.
    pub(super) first: u32,
    /// The addresses that we listen on.
    pub(super) listen: &'a [IpAddr],
    /// Our identity where the tunnel names none.
    pub(super) own_identity: Option<Identity>,
    /// Address and identity of the peer where the tunnel does not say.
    pub(super) peer: (Option<IpAddr>, Option<Identity>),
    /// Whether outside addresses may change under the SAs.
    pub(super) mobike: bool,
    /// Ours and the peer's.
    pub(super) selectors: (SelectorSet, SelectorSet),
}

impl Builder<'_> {
    pub(super) fn both(
        &self,
        id: &S<String>,
        tunnels: Vec<raw::Tunnel>,
    ) -> Result<[Tunnel; 2], ConfigError> {
        let count = tunnels.len();
        let mut built = Vec::new();
        for (tunnel, number) in tunnels.into_iter().zip(1..) {
            built.push(self.one(number, tunnel)?);
        }
        built.try_into().map_err(|_| {
            let text = format!(
                "{}: a connection has exactly two [[vpn_connection.tunnel]], and this has {count}",
                self.connection
            );
            self.source.error(&id.span(), text)
        })
    }

    fn one(&self, number: u32, t: raw::Tunnel) -> Result<Tunnel, ConfigError> {
        let options = Options::new(self.source, self.role, self.relaxed, self.mobike, &t)?;
        let outside = *t.outside_address.get_ref();
        let (vgw_v4, cgw_v4) = self.inside_v4(&t.tunnel_inside_cidr)?;
        let inside_v6 = t.tunnel_inside_ipv6_cidr.map(|cidr| self.inside_v6(&cidr)).transpose()?;
        let identity_of = |text: &Option<S<String>>| {
            text.as_ref().map(|text| identity(self.source, text)).transpose()
        };
        let (own, theirs) = (identity_of(&t.identity)?, identity_of(&t.remote_identity)?);
        let (local, remote, local_id, remote_id) = match self.role {
            Role::Vgw => (
                Some(outside),
                self.peer.0,
                own.unwrap_or_else(|| outside.into()),
                theirs.or_else(|| self.peer.1.clone()),
            ),
            Role::Agent => {
                let Some(own) = own.or_else(|| self.own_identity.clone()) else {
                    let text = format!(
                        "{}/tunnel {number}: `identity` of [customer_gateway] is missing, and without `listen` there is no address to take instead",
                        self.connection
                    );
                    return Err(self.source.error(&t.outside_address.span(), text));
                };
                let local = self.listen.iter().find(|a| a.is_ipv4() == outside.is_ipv4());
                let theirs = theirs.unwrap_or_else(|| outside.into());
                (local.copied(), Some(outside), own, Some(theirs))
            }
        };
        let vgw = self.role == Role::Vgw;
        Ok(Tunnel {
            id: TunnelId(self.first + number - 1),
            name: format!("{}/tunnel {number}", self.connection),
            local,
            remote,
            remote_port: t.remote_port.unwrap_or(4500),
            local_id,
            remote_id,
            pre_shared_key_file: t.pre_shared_key_file,
            inside_v4: if vgw { (vgw_v4, cgw_v4) } else { (cgw_v4, vgw_v4) },
            inside_v6: inside_v6.map(|(v, c)| if vgw { (v, c) } else { (c, v) }),
            local_selectors: self.selectors.0.clone(),
            remote_selectors: self.selectors.1.clone(),
            options,
        })
    }

    /// The first host of the /30 is the VGW, the second the customer gateway.
    fn inside_v4(&self, cidr: &S<Ipv4Net>) -> Result<(Ipv4Addr, Ipv4Addr), ConfigError> {
        let net = *cidr.get_ref();
        let [a, b, c, d] = net.addr().octets();
        let link_local = (a, b) == (169, 254) && !RESERVED.contains(&(c, d));
        let within = |(range, len): &(Ipv4Addr, u8)| {
            Ipv4Net::new(*range, *len).is_ok_and(|range| range.contains(&net))
        };
        let right = link_local || (self.relaxed && PRIVATE.iter().any(within));
        if !right || net.prefix_len() != 30 || net.addr() != net.network() {
            let text = format!(
                "tunnel_inside_cidr = \"{net}\": must be a /30 in 169.254.0.0/16 other than 169.254.0.0 to 169.254.5.0 and 169.254.169.252 (relaxed_limits = true allows private ranges, too)"
            );
            return Err(self.source.error(&cidr.span(), text));
        }
        let base = u32::from(net.network());
        Ok((Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2)))
    }

    fn inside_v6(&self, cidr: &S<Ipv6Net>) -> Result<(Ipv6Addr, Ipv6Addr), ConfigError> {
        let net = *cidr.get_ref();
        let right = net.prefix_len() == 126 && net.addr().octets()[0] == 0xfd;
        if !right || net.addr() != net.network() {
            let text = format!("tunnel_inside_ipv6_cidr = \"{net}\": must be a /126 in fd00::/8");
            return Err(self.source.error(&cidr.span(), text));
        }
        let base = u128::from(net.network());
        Ok((Ipv6Addr::from(base + 1), Ipv6Addr::from(base + 2)))
    }
}

pub(super) fn identity(source: &Source<'_>, text: &S<String>) -> Result<Identity, ConfigError> {
    text.get_ref().parse().map_err(|error| source.error(&text.span(), format!("identity: {error}")))
}

/// Selectors of our side and of the peer's. AWS's `local` is the on-premises side. Without any
/// IPv6 member, IPv6 is not negotiated.
pub(super) fn selectors(
    local_v4: Option<Ipv4Net>,
    remote_v4: Option<Ipv4Net>,
    local_v6: Option<Ipv6Net>,
    remote_v6: Option<Ipv6Net>,
    role: Role,
) -> (SelectorSet, SelectorSet) {
    let any_v6 = local_v6.is_some() || remote_v6.is_some();
    let set = |v4: Option<Ipv4Net>, v6: Option<Ipv6Net>| {
        let mut nets = vec![IpNet::V4(v4.unwrap_or_default())];
        if any_v6 {
            nets.push(IpNet::V6(v6.unwrap_or_default()));
        }
        SelectorSet::nets(&nets)
    };
    let (onprem, cloud) = (set(local_v4, local_v6), set(remote_v4, remote_v6));
    match role {
        Role::Vgw => (cloud, onprem),
        Role::Agent => (onprem, cloud),
    }
}
