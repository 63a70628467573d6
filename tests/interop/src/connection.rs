//! One connection as both sides are told of it.

use std::fmt::Write as _;

/// A connection between a charon and one of our daemons. Each side's part of the configuration is
/// made of it; a test changes a field on the way to tell one side something else.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name on both sides; the Child SA has the same.
    pub name: String,
    /// charon's outside address; empty: any.
    pub peer_address: String,
    /// The outside address at which charon finds us; empty: any.
    pub our_address: String,
    /// The port from and to which charon sends its first message: 500 or 4500.
    pub our_port: u16,
    /// charon's identity.
    pub peer_id: String,
    /// Our identity.
    pub our_id: String,
    /// The pre-shared key.
    pub psk: String,
    /// charon's IKE proposals.
    pub ike: String,
    /// charon's ESP proposals.
    pub esp: String,
    /// The networks behind charon.
    pub peer_networks: String,
    /// The networks behind us.
    pub our_networks: String,
    /// More lines of charon's connection.
    pub swan: String,
    /// More lines of charon's Child SA.
    pub swan_child: String,
    /// More lines of our `[[vpn_connection]]`.
    pub options: String,
    /// More lines of our tunnel 1.
    pub tunnel: String,
}

impl Connection {
    /// A connection that works: one suite, lifetimes longer than any test.
    pub fn new(name: &str, peer_address: &str, our_address: &str) -> Connection {
        Connection {
            name: name.into(),
            peer_address: peer_address.into(),
            our_address: our_address.into(),
            our_port: 4500,
            peer_id: "swan.example".into(),
            our_id: "ours.example".into(),
            psk: "a.key_of_the_tests".into(),
            ike: "aes256gcm16-prfsha384-x25519".into(),
            esp: "aes256gcm16-x25519".into(),
            peer_networks: "192.168.0.0/16".into(),
            our_networks: "10.0.0.0/16".into(),
            swan: String::new(),
            swan_child: String::new(),
            options: String::new(),
            tunnel: String::new(),
        }
    }

    /// charon's half of it, for `connections {}` of `swanctl.conf`. `encap = yes`, because libipsec
    /// speaks ESP in UDP only.
    pub fn swanctl(&self) -> String {
        let mut text = format!(
            "  {name} {{\n    version = 2\n    encap = yes\n    unique = replace\n    \
             proposals = {ike}\n    local {{\n      auth = psk\n      id = \"{peer}\"\n    }}\n    \
             remote {{\n      auth = psk\n      id = \"{our}\"\n    }}\n",
            name = self.name,
            ike = self.ike,
            peer = self.peer_id,
            our = self.our_id,
        );
        for (key, value) in
            [("local_addrs", &self.peer_address), ("remote_addrs", &self.our_address)]
        {
            if !value.is_empty() {
                let _ = writeln!(text, "    {key} = {value}");
            }
        }
        // charon puts the non-ESP marker before a message only when neither port is 500.
        let _ = write!(text, "    local_port = {0}\n    remote_port = {0}\n", self.our_port);
        for line in self.swan.lines() {
            let _ = writeln!(text, "    {line}");
        }
        let _ = write!(
            text,
            "    children {{\n      {name} {{\n        local_ts = {peer}\n        remote_ts = {our}\n        \
             esp_proposals = {esp}\n",
            name = self.name,
            peer = self.peer_networks,
            our = self.our_networks,
            esp = self.esp,
        );
        for line in self.swan_child.lines() {
            let _ = writeln!(text, "        {line}");
        }
        text + "      }\n    }\n  }\n"
    }

    /// Its key, for `secrets {}` of `swanctl.conf`.
    pub fn secret(&self) -> String {
        format!(
            "  ike-{} {{\n    id-1 = \"{}\"\n    id-2 = \"{}\"\n    secret = \"{}\"\n  }}\n",
            self.name, self.peer_id, self.our_id, self.psk
        )
    }
}

/// A whole `swanctl.conf`.
pub fn swanctl_conf(connections: &[Connection]) -> String {
    let all: String = connections.iter().map(Connection::swanctl).collect();
    let secrets: String = connections.iter().map(Connection::secret).collect();
    format!("connections {{\n{all}}}\nsecrets {{\n{secrets}}}\n")
}
