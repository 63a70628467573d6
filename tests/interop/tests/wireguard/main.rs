//! Our daemons and Debian's wireguard-go, in network namespaces. Needs root, and the packages
//! wireguard-go and wireguard-tools.

mod keys;
mod soak;
mod traffic;
mod upset;
