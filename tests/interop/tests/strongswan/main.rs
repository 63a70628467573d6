//! Our daemons and strongSwan, in network namespaces. Needs root, and the Debian packages
//! strongswan-charon, strongswan-swanctl, libstrongswan-standard-plugins, libcharon-extra-plugins
//! and libstrongswan-extra-plugins.

mod delete;
mod diagnosis;
mod duplicates;
mod handshake;
mod identity;
mod limits;
mod liveness;
mod matrix;
mod moves;
mod path;
mod readme;
mod rekey;
mod selectors;
