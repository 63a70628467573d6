//! One of our two daemons, configured for connections with charon.

use crate::binaries;
use crate::connection::Connection;
use crate::wait::{self, LIMIT};
use anyhow::{Context, Result};
use lab::daemon::{Daemon, Kind};
use lab::netns::Host;
use lab::process::Program;
use lab::settings::{FOLDER, File};
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Our identity in every tunnel 2 of `vgw`: charon chooses its key by identities.
pub const SECOND_ID: &str = "second.example";
/// The key of every tunnel 2.
pub const SECOND_KEY: &str = "the.key_of_tunnel_2";

/// One of our daemons in a host of the lab.
#[derive(Debug)]
pub struct Ours {
    daemon: Daemon,
}

/// What one of our daemons is told beside its connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which one.
    pub kind: Kind,
    /// The addresses that it listens on: that of tunnel 1, and for `vgw` that of tunnel 2.
    /// Empty ones: on all.
    pub listen: Vec<String>,
    /// The networks behind it.
    pub networks: Vec<String>,
    /// More lines of its own table.
    pub extra: String,
}

impl Settings {
    fn text(&self, connections: &[Connection]) -> String {
        let quoted = |items: &[String]| {
            let items = items.iter().filter(|item| !item.is_empty());
            let items: Vec<String> = items.map(|item| format!("\"{item}\"")).collect();
            items.join(", ")
        };
        let (listen, networks) = (quoted(&self.listen), quoted(&self.networks));
        let mut text = match self.kind {
            Kind::Vgw => format!("[vpn_gateway]\nid = \"ours\"\nvpc_cidrs = [{networks}]\n"),
            Kind::Agent => {
                let id = connections.first().map_or("ours.example", |c| c.our_id.as_str());
                format!(
                    "[customer_gateway]\nid = \"ours\"\nidentity = \"{id}\"\nonprem_cidrs = [{networks}]\n"
                )
            }
        };
        let _ = writeln!(text, "listen = [{listen}]\nrelaxed_limits = true\n{}", self.extra);
        for (number, connection) in connections.iter().enumerate() {
            self.connection(&mut text, number, connection);
        }
        text
    }

    fn connection(&self, text: &mut String, number: usize, c: &Connection) {
        let routes: Vec<String> =
            c.peer_networks.split(',').map(|net| format!("\"{}\"", net.trim())).collect();
        let routes = routes.join(", ");
        let name = &c.name;
        if self.kind == Kind::Vgw {
            let _ = write!(text, "\n[[customer_gateway]]\nid = \"cgw-{name}\"\n");
            if !c.peer_id.is_empty() {
                let _ = writeln!(text, "identity = \"{}\"", c.peer_id);
            }
            if !c.peer_address.is_empty() {
                let _ = writeln!(text, "ip_address = \"{}\"", c.peer_address);
            }
        }
        let _ = write!(text, "\n[[vpn_connection]]\nid = \"{name}\"\n");
        let _ = match self.kind {
            Kind::Vgw => {
                write!(text, "customer_gateway = \"cgw-{name}\"\nstatic_routes = [{routes}]\n")
            }
            Kind::Agent => writeln!(text, "vpc_cidrs = [{routes}]"),
        };
        let _ = writeln!(text, "{}", c.options);
        for tunnel in 0..2 {
            let block = (number * 2 + tunnel) * 4;
            let _ = write!(
                text,
                "\n[[vpn_connection.tunnel]]\ntunnel_inside_cidr = \"169.254.{}.{}/30\"\n\
                 pre_shared_key_file = \"psk-{}-{tunnel}\"\n",
                16 + block / 256,
                block % 256,
                number,
            );
            let _ = match self.kind {
                Kind::Vgw => {
                    let at = self.listen.get(tunnel).map_or("192.0.2.254", String::as_str);
                    let id = if tunnel == 0 { c.our_id.as_str() } else { SECOND_ID };
                    write!(text, "outside_address = \"{at}\"\nidentity = \"{id}\"\n")
                }
                // Nobody is at the address of tunnel 2, which waits for it.
                Kind::Agent if tunnel == 0 => write!(
                    text,
                    "outside_address = \"{}\"\nremote_identity = \"{}\"\n",
                    c.peer_address, c.peer_id
                ),
                Kind::Agent => writeln!(text, "outside_address = \"192.0.2.254\""),
            };
            let second = "startup_action = \"add\"";
            let _ = writeln!(text, "{}", if tunnel == 0 { &c.tunnel } else { second });
        }
    }

    /// The configuration file and the key files.
    pub fn files(&self, connections: &[Connection]) -> Vec<File> {
        let mut files = vec![File {
            path: format!("{FOLDER}/{}.toml", self.kind.name()),
            text: self.text(connections),
            secret: false,
        }];
        for (number, connection) in connections.iter().enumerate() {
            for (tunnel, key) in [connection.psk.as_str(), SECOND_KEY].iter().enumerate() {
                let path = format!("{FOLDER}/psk-{number}-{tunnel}");
                files.push(File { path, text: format!("{key}\n"), secret: true });
            }
        }
        files
    }
}

impl Ours {
    /// Starts a daemon with connections.
    pub fn start(
        host: &Arc<Host>,
        settings: &Settings,
        connections: &[Connection],
    ) -> Result<Ours> {
        let folder = binaries::folder()?;
        let files = settings.files(connections);
        let mut daemon = Daemon::new(host, settings.kind, &folder, &files)?;
        daemon.start().with_context(|| format!("with this configuration:\n{}", files[0].text))?;
        let mut ours = Ours { daemon };
        wait::until("our control socket", LIMIT, || {
            ours.daemon.check_running().with_context(|| ours.last_lines(20))?;
            Ok(ours.status().map(drop).map_err(|error| error.to_string()))
        })?;
        Ok(ours)
    }

    /// The daemon as the lab runs it.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// SIGKILL, and starts it again with the same configuration.
    pub fn restart(&mut self) -> Result<()> {
        if let Some(process) = self.daemon.process() {
            process.kill();
        }
        Ok(self.daemon.start()?)
    }

    /// Where it runs.
    pub fn host(&self) -> &Arc<Host> {
        self.daemon.host()
    }

    /// `status --json`.
    pub fn status(&self) -> Result<Value> {
        let program: Program = self.daemon.line(&["status", "--json"]);
        let output = self.host().command(program.limit(Duration::from_secs(10)))?;
        serde_json::from_str(&output.stdout).context("status --json")
    }

    /// Tunnel 1 of every connection, by name.
    pub fn tunnels(&self) -> Result<Vec<(String, Tunnel)>> {
        let status = self.status()?;
        let connections = status["connections"].as_array().context("connections")?;
        let tunnels = connections.iter().map(|connection| {
            let name = connection["id"].as_str().unwrap_or_default().to_owned();
            (name, Tunnel(connection["tunnels"][0].clone()))
        });
        Ok(tunnels.collect())
    }

    /// Tunnel 1 of a connection.
    pub fn tunnel(&self, name: &str) -> Result<Tunnel> {
        let found = self.tunnels()?.into_iter().find(|(id, _)| id == name);
        Ok(found.with_context(|| format!("no connection {name} in status"))?.1)
    }

    /// Waits until tunnel 1 is as wanted.
    pub fn await_tunnel(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Tunnel) -> bool,
    ) -> Result<Tunnel> {
        wait::until(&format!("ours: {name} {what}"), LIMIT, || {
            let tunnel = self.tunnel(name)?;
            Ok(if wanted(&tunnel) { Ok(tunnel) } else { Err(format!("{tunnel:?}")) })
        })
        .with_context(|| format!("our log:\n{}", self.last_lines(30)))
    }

    /// Waits until a tunnel of a connection carries its traffic, and every other one is as wanted.
    pub fn await_active(&self, name: &str, number: usize, others_up: bool) -> Result<()> {
        wait::until(&format!("ours: tunnel {number} of {name} active"), LIMIT, || {
            let status = self.status()?;
            let connections = status["connections"].as_array().context("connections")?;
            let found = connections.iter().find(|c| c["id"] == name).context("the connection")?;
            let tunnels = found["tunnels"].as_array().context("tunnels")?;
            let right = tunnels.iter().enumerate().all(|(i, t)| {
                let here = i + 1 == number;
                t["active"] == here && (t["state"] == "UP") == (here || others_up)
            });
            Ok(if right { Ok(()) } else { Err(found.to_string()) })
        })
    }

    /// Waits until tunnel 1 is UP.
    pub fn await_up(&self, name: &str) -> Result<Tunnel> {
        self.await_tunnel(name, "UP", Tunnel::is_up)
    }

    /// `tunnel NAME 1 VERB`.
    pub fn verb(&self, name: &str, verb: &str) -> Result<()> {
        Ok(self.daemon.tunnel(name, 1, verb)?)
    }

    /// Waits for a line of the log with this text.
    pub fn await_line(&mut self, text: &str) -> Result<String> {
        wait::until(&format!("our log with `{text}`"), LIMIT, || {
            let lines = self.lines();
            let found = lines.iter().rev().find(|line| line.contains(text));
            Ok(found.cloned().ok_or_else(|| self.last_lines(10)))
        })
    }

    /// The log.
    pub fn lines(&mut self) -> Vec<String> {
        self.daemon.process().map(|process| process.log().lines()).unwrap_or_default()
    }

    /// The last lines of the log.
    pub fn last_lines(&self, count: usize) -> String {
        self.daemon.last_lines(count).join("\n")
    }
}

/// A tunnel of `status --json`.
#[derive(Clone, Debug)]
pub struct Tunnel(pub Value);

impl Tunnel {
    /// A text, or an empty one where there is none.
    pub fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// A number, or 0 where there is none.
    pub fn number(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap_or_default()
    }

    /// Whether it is UP.
    pub fn is_up(&self) -> bool {
        self.text("state") == "UP"
    }
}
