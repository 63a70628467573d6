//! The pair of outer addresses that a tunnel's datagrams use.

use std::fmt;
use std::net::SocketAddr;

/// Our outer address and port, and the peer's, as this host sees them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Path {
    /// The address and port of our socket.
    pub local: SocketAddr,
    /// The address and port that the peer's datagrams come from (after any NAT).
    pub remote: SocketAddr,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.local, self.remote)
    }
}
