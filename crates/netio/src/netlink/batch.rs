//! Many changes by one system call: thousands of tunnels bring an address and a route each.

use std::io;

use futures_util::StreamExt;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::SocketAddr;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

/// Changes in one datagram. The kernel queues an answer to each before we read the first: of this
/// many there is room in a socket's buffer, and more bring nothing.
const CHANGES: usize = 64;

/// A netlink socket of its own, on which the acknowledgement of each change is seen.
#[derive(Debug)]
pub(super) struct Batches {
    handle: ConnectionHandle<RouteNetlinkMessage>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Batches {
    pub(super) fn open() -> io::Result<Self> {
        let (mut connection, handle, _) = proto::new_connection(NETLINK_ROUTE)?;
        connection.set_forward_ack(true);
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    /// Sends changes, each with its flags, and returns the kernel's error number for each; 0 where
    /// it has done it.
    pub(super) async fn carry_out(
        &self,
        changes: impl Iterator<Item = (RouteNetlinkMessage, u16)>,
    ) -> Vec<i32> {
        let mut changes = changes.peekable();
        let mut codes = Vec::new();
        while changes.peek().is_some() {
            let messages: Vec<_> = changes.by_ref().take(CHANGES).map(request).collect();
            let all = codes.len() + messages.len();
            // Answers come in the order of what they answer.
            if let Ok(mut answers) = self.handle.request_batch(messages, SocketAddr::new(0, 0)) {
                while let Some(answer) = answers.next().await {
                    if let NetlinkPayload::Error(message) = answer.payload {
                        codes.push(message.raw_code().abs());
                    }
                }
            }
            // A socket that is closed says nothing more.
            codes.resize(all, libc::ENOTCONN);
        }
        codes
    }
}

fn request((change, flags): (RouteNetlinkMessage, u16)) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut message = NetlinkMessage::from(change);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message
}
