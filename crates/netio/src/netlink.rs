//! The TUN device in the system: up, MTU, queue, addresses and routes, by rtnetlink.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, RouteMessageBuilder};
use thiserror::Error;

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
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| {
            fault("open netlink", nix::Error::from_raw(e.raw_os_error().unwrap_or_default()))
        })?;
        let driver = tokio::spawn(connection);
        Ok(Self { name: name.to_owned(), index, handle, driver })
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
        let mut request =
            self.handle.address().add(self.index, address.addr(), address.prefix_len());
        // No neighbour can have it on a tunnel; without this an IPv6 address stays tentative for a
        // while, and nothing can be sent from it.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        let result = request.replace().execute().await;
        result.map_err(|e| self.fault(format!("add address {address}"), e))
    }

    /// Removes `address`. Absent already is fine.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_address(&self, address: IpNet) -> Result<(), NetlinkError> {
        let message = address_message(self.index, address);
        match self.handle.address().del(message).execute().await {
            Ok(()) => Ok(()),
            Err(e) if code_of(&e) == Some(libc::EADDRNOTAVAIL) => Ok(()),
            Err(e) => Err(self.fault(format!("remove address {address}"), e)),
        }
    }

    /// Routes `net` through the device, with `source` as the preferred source address of what this
    /// host sends itself.
    ///
    /// # Errors
    /// The kernel refuses: the device is down, `source` is not an address of this host, or there
    /// is a route to exactly `net` already ([`NetlinkError::already_exists`]), which is never
    /// replaced because it may be somebody else's.
    pub async fn add_route(&self, net: IpNet, source: Option<IpAddr>) -> Result<(), NetlinkError> {
        let mut route = self.route(net)?;
        if let Some(source) = source.filter(|source| source.is_ipv4() == net.addr().is_ipv4()) {
            route
                .attributes
                .push(rtnetlink::packet_route::route::RouteAttribute::PrefSource(source.into()));
        }
        let result = self.handle.route().add(route).execute().await;
        result.map_err(|e| self.fault(format!("add route {net}"), e))
    }

    /// Removes the route to `net` through the device. Absent already is fine.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_route(&self, net: IpNet) -> Result<(), NetlinkError> {
        let route = self.route(net)?;
        match self.handle.route().del(route).execute().await {
            Ok(()) => Ok(()),
            Err(e) if code_of(&e) == Some(libc::ESRCH) => Ok(()),
            Err(e) => Err(self.fault(format!("remove route {net}"), e)),
        }
    }

    fn route(&self, net: IpNet) -> Result<RouteMessage, NetlinkError> {
        let builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .map_err(|_| NetlinkError {
                action: format!("describe route {net}"),
                device: self.name.clone(),
                reason: "not a valid network".to_owned(),
                code: None,
            })?
            .output_interface(self.index);
        // An IPv4 route without a gateway is of link scope; for IPv6 the kernel ignores it.
        let scope = if net.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
        Ok(builder.scope(scope).build())
    }

    fn fault(&self, action: String, error: rtnetlink::Error) -> NetlinkError {
        let code = code_of(&error);
        let reason = match code {
            Some(libc::EPERM) => "not permitted; CAP_NET_ADMIN is needed".to_owned(),
            Some(code) => nix::Error::from_raw(code).desc().to_owned(),
            None => error.to_string(),
        };
        NetlinkError { action, device: self.name.clone(), reason, code }
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
        IpNet::V4(net) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => AddressMessageBuilder::<std::net::Ipv6Addr>::new()
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
