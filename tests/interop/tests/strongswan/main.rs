//! Our daemons and strongSwan, in network namespaces. Needs root, and the Debian packages
//! strongswan-charon, strongswan-swanctl, libstrongswan-standard-plugins, libcharon-extra-plugins
//! and libstrongswan-extra-plugins.

mod delete;
mod diagnosis;
mod limits;
mod matrix;
mod path;
mod rekey;
mod selectors;
mod soak;
