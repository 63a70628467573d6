//! The TUN device in the system: up, MTU, queue, addresses and routes, by rtnetlink.

mod batch;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, RouteMessageBuilder};
use thiserror::Error;

use batch::Batches;

/// Why the system could not be changed: what was tried, on which device, what the kernel said.
#[derive(Debug, Error)]
#[error("cannot {action} on {device}: {reason}")]
pub struct NetlinkError {
    action: String,
    device: String,
    reason: String,
    code: Option<i32>,
}

impl NetlinkError {
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// Whether what was asked for exists already.
    #[must_use]
    pub fn already_exists(&self) -> bool {
        self.code == Some(libc::EEXIST)
    }
}

/// One network device, reached by netlink. Made and used within a tokio runtime, in the network
/// namespace of the thread that makes it.
#[derive(Debug)]
pub struct Link {
    name: String,
    index: u32,
    handle: Handle,
    driver: tokio::task::JoinHandle<()>,
    batches: Batches,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Finds the device `name`.
    ///
    /// # Errors
    /// No such device, or no netlink socket.
    pub fn find(name: &str) -> Result<Self, NetlinkError> {
        let fault = |action: &str, errno: nix::Error| NetlinkError {
            action: action.to_owned(),
            device: name.to_owned(),
            reason: errno.desc().to_owned(),
            code: Some(errno as i32),
        };
        let index = nix::net::if_::if_nametoindex(name).map_err(|e| fault("find the device", e))?;
        let closed = |e: std::io::Error| {
            fault("open netlink", nix::Error::from_raw(e.raw_os_error().unwrap_or_default()))
        };
        let (connection, handle, _) = rtnetlink::new_connection().map_err(closed)?;
        let batches = Batches::open().map_err(closed)?;
        let driver = tokio::spawn(connection);
        Ok(Self { name: name.to_owned(), index, handle, driver, batches })
    }

    /// Sets the length of the transmit queue, in packets: the kernel's 500 drop at a burst.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_queue(&self, packets: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index).txqueuelen(packets).build();
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|e| self.fault(format!("set txqueuelen {packets}"), e))
    }

    /// Sets the MTU in octets.
    ///
    /// # Errors
    /// The kernel refuses: below 68, or below 1280 with IPv6 addresses present.
    pub async fn set_mtu(&self, mtu: u16) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index).mtu(mtu.into()).build();
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|e| self.fault(format!("set MTU {mtu}"), e))
    }

    /// Sets the device up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_up(&self) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index).up().build();
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|e| self.fault("set the device up".to_owned(), e))
    }

    /// Adds `address`, with the network that is reached through it. Present already is fine.
    ///
    /// # Errors
    /// The kernel refuses (IPv6 may be switched off).
    pub async fn add_address(&self, address: IpNet) -> Result<(), NetlinkError> {
        self.add_addresses(&[address]).await.pop().unwrap_or(Ok(()))
    }

    /// The same for many, in few system calls; one result for each.
    pub async fn add_addresses(&self, addresses: &[IpNet]) -> Vec<Result<(), NetlinkError>> {
        let message = |address: &IpNet| {
            let (ip, len) = (address.addr(), address.prefix_len());
            let mut request = self.handle.address().add(self.index, ip, len);
            // No neighbour can have it on a tunnel; without this an IPv6 address stays tentative
            // for a while, and nothing can be sent from it.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            let message = RouteNetlinkMessage::NewAddress(request.message_mut().clone());
            (message, NLM_F_CREATE | NLM_F_REPLACE)
        };
        let codes = self.batches.carry_out(addresses.iter().map(message)).await;
        self.results(codes, addresses, |address| format!("add address {address}"), None)
    }

    /// Removes `address`. Absent already is fine.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_address(&self, address: IpNet) -> Result<(), NetlinkError> {
        self.remove_addresses(&[address]).await.pop().unwrap_or(Ok(()))
    }

    /// The same for many, in few system calls; one result for each.
    pub async fn remove_addresses(&self, addresses: &[IpNet]) -> Vec<Result<(), NetlinkError>> {
        let message = |address: &IpNet| {
            (RouteNetlinkMessage::DelAddress(address_message(self.index, *address)), 0)
        };
        let codes = self.batches.carry_out(addresses.iter().map(message)).await;
        let what = |address: &IpNet| format!("remove address {address}");
        self.results(codes, addresses, what, Some(libc::EADDRNOTAVAIL))
    }

    /// Routes `net` through the device, with `source` as the preferred source address of what this
    /// host sends itself.
    ///
    /// # Errors
    /// The kernel refuses: the device is down, `source` is not an address of this host, or there
    /// is a route to exactly `net` already ([`NetlinkError::already_exists`]), which is never
    /// replaced because it may be somebody else's.
    pub async fn add_route(&self, net: IpNet, source: Option<IpAddr>) -> Result<(), NetlinkError> {
        self.add_routes(&[(net, source)]).await.pop().unwrap_or(Ok(()))
    }

    /// The same for many, in few system calls; one result for each.
    pub async fn add_routes(
        &self,
        routes: &[(IpNet, Option<IpAddr>)],
    ) -> Vec<Result<(), NetlinkError>> {
        let message = |(net, source): &(IpNet, Option<IpAddr>)| {
            let mut route = self.route(*net);
            if let Some(source) = source.filter(|source| source.is_ipv4() == net.addr().is_ipv4()) {
                route.attributes.push(RouteAttribute::PrefSource(source.into()));
            }
            (RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
        };
        let codes = self.batches.carry_out(routes.iter().map(message)).await;
        self.results(codes, routes, |(net, _)| format!("add route {net}"), None)
    }

    /// Removes the route to `net` through the device. Absent already is fine.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_route(&self, net: IpNet) -> Result<(), NetlinkError> {
        self.remove_routes(&[net]).await.pop().unwrap_or(Ok(()))
    }

    /// The same for many, in few system calls; one result for each.
    pub async fn remove_routes(&self, nets: &[IpNet]) -> Vec<Result<(), NetlinkError>> {
        let message = |net: &IpNet| (RouteNetlinkMessage::DelRoute(self.route(*net)), 0);
        let codes = self.batches.carry_out(nets.iter().map(message)).await;
        self.results(codes, nets, |net| format!("remove route {net}"), Some(libc::ESRCH))
    }

    /// What the kernel answered to each of `subjects`; `fine` is an error that is none.
    fn results<T>(
        &self,
        codes: Vec<i32>,
        subjects: &[T],
        action: impl Fn(&T) -> String,
        fine: Option<i32>,
    ) -> Vec<Result<(), NetlinkError>> {
        let result = |(code, subject): (i32, &T)| match code {
            0 => Ok(()),
            code if Some(code) == fine => Ok(()),
            code => Err(self.refusal(action(subject), code)),
        };
        codes.into_iter().zip(subjects).map(result).collect()
    }

    fn refusal(&self, action: String, code: i32) -> NetlinkError {
        let reason = match code {
            libc::EPERM => "not permitted; CAP_NET_ADMIN is needed".to_owned(),
            code => nix::Error::from_raw(code).desc().to_owned(),
        };
        NetlinkError { action, device: self.name.clone(), reason, code: Some(code) }
    }

    fn route(&self, net: IpNet) -> RouteMessage {
        let mut route = match net {
            IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(self.index)
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(self.index)
                .build(),
        };
        // An IPv4 route without a gateway is of link scope; for IPv6 the kernel ignores it.
        route.header.scope =
            if net.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
        route
    }

    fn fault(&self, action: String, error: rtnetlink::Error) -> NetlinkError {
        match code_of(&error) {
            Some(code) => self.refusal(action, code),
            None => {
                let reason = error.to_string();
                NetlinkError { action, device: self.name.clone(), reason, code: None }
            }
        }
    }
}

fn code_of(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(message.raw_code().abs()),
        _ => None,
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = match address {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
    };
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message
}
