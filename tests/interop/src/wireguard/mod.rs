//! Our daemons against Debian's wireguard-go, and for long against it and against themselves.

pub mod go;
pub mod soak;
pub mod world;
