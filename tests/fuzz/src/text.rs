//! Configuration files of the daemons, and scenarios of the lab.

use control::Gateway;
use control::config::{Config, Role};

/// Both daemons read the same text; what one accepts has the shape that the rest relies on.
pub(crate) fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for role in [Role::Vgw, Role::Agent] {
        let Ok(config) = Config::parse(role, text, "fuzz.toml") else { continue };
        let interface = Gateway::interface(&config);
        assert!(interface.addresses.len() >= 2 * config.connections.len());
        for tunnel in config.connections.iter().flat_map(|c| &c.tunnels) {
            assert!(tunnel.options.phase2_lifetime.time <= tunnel.options.phase1_lifetime);
            assert!(tunnel.options.rekey_margin <= tunnel.options.phase2_lifetime.time);
            assert_ne!(tunnel.inside_v4.0, tunnel.inside_v4.1);
        }
    }
}

/// What is accepted can be asked for everything that building the lab asks.
pub(crate) fn scenario(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = lab::scenario::Scenario::parse(text, "fuzz.toml");
}
