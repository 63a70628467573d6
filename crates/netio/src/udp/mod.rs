//! UDP sockets of the outer side: one for each address and port, shared by the threads that
//! receive, send sealed runs, and send IKE messages.

mod control;
mod holder;
mod receive;
mod send;
mod socket;
mod watch;

pub use holder::{Holder, holder};
pub use receive::{ReceiveReport, UdpReceiver};
pub use send::{SendReport, UdpSender};
pub use socket::{BindError, UdpOptions, UdpSocket, path_mtu, source_for};
pub use watch::AsyncReceiver;
