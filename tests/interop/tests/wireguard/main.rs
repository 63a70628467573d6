//! Our daemons and Debian's wireguard-go, in network namespaces. Needs root, and the packages
//! wireguard-go and wireguard-tools.

mod go;
mod keys;
mod traffic;
mod upset;
mod world;
