//! `status --json` of a daemon, as far as the lab looks at it.

use serde_json::Value;

/// The tunnels of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// All tunnels of all connections.
    pub tunnels: Vec<Tunnel>,
}

/// A tunnel of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The connection's id.
    pub connection: String,
    /// 1 or 2.
    pub number: usize,
    /// Whether it is UP.
    pub up: bool,
    /// Whether the connection's traffic goes through it.
    pub active: bool,
    /// Why it is in this state.
    pub why: String,
    /// The negotiated suites.
    pub suite: String,
    /// MTU inside.
    pub mtu: Option<u64>,
    /// Packets that came out of it.
    pub packets_in: u64,
    /// Packets that went into it.
    pub packets_out: u64,
}

impl Tunnel {
    /// One line for messages.
    pub fn line(&self) -> String {
        let state = if self.up { "UP" } else { "DOWN" };
        let why = if self.why.is_empty() { String::new() } else { format!(" ({})", self.why) };
        format!("{} tunnel {} {state}{why}", self.connection, self.number)
    }
}

impl Status {
    /// Reads what a daemon printed. The error names the first thing that is missing.
    pub fn parse(text: &str) -> Result<Status, String> {
        let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let connections = list(&document, "connections")?;
        let mut tunnels = Vec::new();
        for connection in connections {
            let id = text_of(connection, "id")?;
            for (index, tunnel) in list(connection, "tunnels")?.iter().enumerate() {
                tunnels.push(Tunnel {
                    connection: id.clone(),
                    number: index + 1,
                    up: text_of(tunnel, "state")? == "UP",
                    active: tunnel["active"].as_bool().unwrap_or(false),
                    why: tunnel["why"].as_str().unwrap_or("").to_owned(),
                    // A protocol with one suite needs no name for it.
                    suite: tunnel["esp_suite"]
                        .as_str()
                        .or(connection["kind"].as_str())
                        .unwrap_or("")
                        .to_owned(),
                    mtu: tunnel["mtu"].as_u64(),
                    packets_in: number_of(tunnel, "packets_in")?,
                    packets_out: number_of(tunnel, "packets_out")?,
                });
            }
        }
        Ok(Status { tunnels })
    }

    /// The tunnels of a connection.
    pub fn of<'a>(&'a self, connection: &'a str) -> impl Iterator<Item = &'a Tunnel> {
        self.tunnels.iter().filter(move |tunnel| tunnel.connection == connection)
    }

    /// One tunnel.
    pub fn tunnel(&self, connection: &str, number: usize) -> Option<&Tunnel> {
        self.tunnels
            .iter()
            .find(|tunnel| tunnel.connection == connection && tunnel.number == number)
    }

    /// The number of the tunnel that carries a connection's traffic.
    pub fn active(&self, connection: &str) -> Option<usize> {
        self.of(connection).find(|tunnel| tunnel.active).map(|tunnel| tunnel.number)
    }

    /// Whether there are tunnels and all are UP.
    pub fn all_up(&self) -> bool {
        !self.tunnels.is_empty() && self.tunnels.iter().all(|tunnel| tunnel.up)
    }

    /// Whether none is UP.
    pub fn all_down(&self) -> bool {
        self.tunnels.iter().all(|tunnel| !tunnel.up)
    }
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, String> {
    value[key].as_array().ok_or_else(|| format!("no list `{key}`"))
}

fn text_of(value: &Value, key: &str) -> Result<String, String> {
    value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no text `{key}`"))
}

fn number_of(value: &Value, key: &str) -> Result<u64, String> {
    value[key].as_u64().ok_or_else(|| format!("no number `{key}`"))
}
