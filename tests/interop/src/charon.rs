//! strongSwan's charon with ESP in user space (`kernel-libipsec`), in a host of the lab.

use crate::connection::{Connection, swanctl_conf};
use crate::raw::Section;
use crate::wait::{self, LIMIT};
use anyhow::{Context, Result};
use lab::netns::Host;
use lab::process::{Process, Program};
use std::sync::Arc;
use std::time::Duration;

const FOLDER: &str = "/run/swan";
const LOG: &str = "/run/swan/log";
const VICI: &str = "unix:///run/swan/vici";

/// What the host needs beside charon's configuration. charon marks its own packets, so that they
/// are not routed into its own device.
const SETTINGS: &str = "charon {
  load_modular = no
  load = random nonce aes sha1 sha2 hmac kdf gcm openssl curve25519 chapoly pem pkcs1 x509 pubkey kernel-libipsec kernel-netlink socket-default vici updown
  install_routes = no
  install_virtual_ip = no
  dos_protection = no
  retransmit_timeout = 2.0
  EXTRA
  plugins {
    vici {
      socket = VICI
    }
    kernel-netlink {
      fwmark = !0x42
    }
    socket-default {
      fwmark = 0x42
    }
  }
  filelog {
    file {
      path = LOG
      default = 1
      flush_line = yes
      time_format = %H:%M:%S
      time_precision = ms
      esp = 1
    }
  }
}
";

/// The Debian packages of the plugins.
const PACKAGES: &str =
    "libstrongswan-standard-plugins, libcharon-extra-plugins and libstrongswan-extra-plugins";

/// A running charon. Dropping it kills it.
#[derive(Debug)]
pub struct Charon {
    host: Arc<Host>,
    process: Process,
}

impl Charon {
    /// Starts it without connections. `extra` are more lines of the section `charon`.
    pub fn start(host: &Arc<Host>, extra: &str) -> Result<Charon> {
        let settings = SETTINGS.replace("EXTRA", extra).replace("VICI", VICI).replace("LOG", LOG);
        host.write(format!("{FOLDER}/strongswan.conf"), &settings, 0o600)?;
        let program = Program::new("charon")
            .env("STRONGSWAN_CONF", format!("{FOLDER}/strongswan.conf"))
            .env("LEAK_DETECTIVE_DISABLE", "1");
        let mut charon = Charon { host: host.clone(), process: host.spawn(program)? };
        wait::until("charon's control socket", LIMIT, || {
            charon.check_plugins()?;
            if let Some(status) = charon.process.ended() {
                anyhow::bail!("charon ended by itself ({status}):\n{}", charon.last_lines(20));
            }
            let asked = charon.swanctl(&["--version", "--daemon"]);
            Ok(asked.map(drop).map_err(|error| error.to_string()))
        })?;
        charon.check_plugins()?;
        Ok(charon)
    }

    fn check_plugins(&self) -> Result<()> {
        match self.log().lines().find(|line| line.contains("failed to load -")) {
            None => Ok(()),
            Some(line) => {
                anyhow::bail!(
                    "charon lacks a plugin: install the Debian packages {PACKAGES}: {line}"
                )
            }
        }
    }

    /// Starts it with connections.
    pub fn with(host: &Arc<Host>, extra: &str, connections: &[Connection]) -> Result<Charon> {
        let charon = Charon::start(host, extra)?;
        charon.load(connections)?;
        Ok(charon)
    }

    /// Ends it at once, as a machine ends that loses its power.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Where it runs.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Makes its connections and keys exactly these.
    pub fn load(&self, connections: &[Connection]) -> Result<()> {
        self.load_text(&swanctl_conf(connections))
    }

    /// Makes its connections and keys exactly those of a `swanctl.conf`.
    pub fn load_text(&self, text: &str) -> Result<()> {
        let path = format!("{FOLDER}/swanctl.conf");
        self.host.write(&path, text, 0o600)?;
        self.swanctl(&["--load-all", "--file", &path]).map(drop)
    }

    /// Routes networks into its TUN device, which libipsec makes when it starts. Its queue is made
    /// long enough for a charon that has to wait for a processor.
    pub fn route(&self, networks: &[&str]) -> Result<()> {
        self.host.ip("link set ipsec0 txqueuelen 5000")?;
        let lines: Vec<String> =
            networks.iter().map(|net| format!("route replace {net} dev ipsec0")).collect();
        Ok(self.host.ip(&lines.join("\n"))?)
    }

    /// Runs `swanctl` and returns what it printed.
    pub fn swanctl(&self, words: &[&str]) -> Result<String> {
        let program = Program::new("swanctl").args(words).args(["--uri", VICI]);
        let output = self.host.command(program.limit(Duration::from_secs(40)))?;
        Ok(output.stdout)
    }

    /// Brings a Child SA up, and its IKE SA with it.
    pub fn initiate(&self, name: &str) -> Result<()> {
        let said = self.swanctl(&["--initiate", "--child", name, "--timeout", "20"]);
        said.map(drop).with_context(|| format!("charon:\n{}", self.last_lines(20)))
    }

    /// Brings a Child SA up that will not come up, and returns what charon said of it.
    pub fn initiate_in_vain(&self, name: &str) -> Result<String> {
        let program = Program::new("swanctl")
            .args(["--initiate", "--child", name, "--timeout", "20", "--uri", VICI])
            .limit(Duration::from_secs(40));
        let output = self.host.output(program)?;
        anyhow::ensure!(!output.success(), "charon brought {name} up:\n{}", output.stdout);
        Ok(output.stdout + &output.stderr)
    }

    /// `--rekey` of a `child` or an `ike`.
    pub fn rekey(&self, what: &str, name: &str) -> Result<()> {
        self.swanctl(&["--rekey", &format!("--{what}"), name]).map(drop)
    }

    /// `--terminate` of a `child` or an `ike`; waits until it is gone.
    pub fn terminate(&self, what: &str, name: &str) -> Result<()> {
        self.swanctl(&["--terminate", &format!("--{what}"), name]).map(drop)
    }

    /// All its IKE SAs.
    pub fn sas(&self) -> Result<Vec<Sa>> {
        let text = self.swanctl(&["--list-sas", "--raw"])?;
        let messages = text.lines().filter(|line| line.contains("list-sa event"));
        let mut sas = Vec::new();
        for line in messages {
            let message =
                Section::parse(line).with_context(|| format!("swanctl printed {line}"))?;
            sas.extend(
                message.sections().map(|(name, ike)| Sa { name: name.into(), ike: ike.clone() }),
            );
        }
        Ok(sas)
    }

    /// The IKE SAs of a connection.
    pub fn sas_of(&self, name: &str) -> Result<Vec<Sa>> {
        Ok(self.sas()?.into_iter().filter(|sa| sa.name == name).collect())
    }

    /// Waits until a connection has one IKE SA and one Child SA, and returns it.
    pub fn await_established(&self, name: &str) -> Result<Sa> {
        wait::until(&format!("charon: {name} established"), LIMIT, || {
            let sas = self.sas_of(name)?;
            Ok(match <[Sa; 1]>::try_from(sas) {
                Ok([sa]) if sa.is_settled() => Ok(sa),
                Ok(sas) => Err(format!("{sas:?}")),
                Err(sas) => Err(format!("{} IKE SAs: {sas:?}", sas.len())),
            })
        })
    }

    /// Waits until a connection has no IKE SA.
    pub fn await_gone(&self, name: &str) -> Result<()> {
        wait::until(&format!("charon: {name} gone"), LIMIT, || {
            let sas = self.sas_of(name)?;
            Ok(if sas.is_empty() { Ok(()) } else { Err(format!("{sas:?}")) })
        })
    }

    /// Its log.
    pub fn log(&self) -> String {
        // It is not there before charon has said its first word.
        self.host.read(LOG).unwrap_or_default()
    }

    /// Waits for a line of its log.
    pub fn await_line(&self, text: &str) -> Result<()> {
        wait::until(&format!("charon's log with `{text}`"), LIMIT, || {
            Ok(if self.log().contains(text) { Ok(()) } else { Err(self.last_lines(10)) })
        })
    }

    /// The last lines of its log.
    pub fn last_lines(&self, count: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// An IKE SA of charon.
#[derive(Clone, Debug)]
pub struct Sa {
    /// The connection.
    pub name: String,
    /// What `--list-sas` says of it.
    pub ike: Section,
}

impl Sa {
    /// Its Child SAs.
    pub fn children(&self) -> Vec<&Section> {
        let children = self.ike.section("child-sas");
        children.into_iter().flat_map(Section::sections).map(|(_, child)| child).collect()
    }

    /// The Child SA that carries traffic; those that a rekey replaced stay for some seconds.
    pub fn installed(&self) -> Option<&Section> {
        let children = self.children();
        let mut installed = children.into_iter().filter(|c| c.text("state") == "INSTALLED");
        installed.next().filter(|_| installed.next().is_none())
    }

    /// Established, with one Child SA installed.
    pub fn is_settled(&self) -> bool {
        self.ike.text("state") == "ESTABLISHED" && self.installed().is_some()
    }

    /// Its suite as charon names it: `AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519`.
    pub fn ike_suite(&self) -> String {
        suite(&self.ike, &["prf-alg", "dh-group"])
    }
}

/// The suite of a Child SA, without the group of its rekey.
pub fn esp_suite(child: &Section) -> String {
    suite(child, &[])
}

fn suite(section: &Section, more: &[&str]) -> String {
    let size = section.text("encr-keysize");
    let mut text = section.text("encr-alg").to_owned();
    if !size.is_empty() {
        text = format!("{text}-{size}");
    }
    for key in ["integ-alg"].iter().chain(more) {
        let value = section.text(key);
        if !value.is_empty() {
            text = format!("{text}/{value}");
        }
    }
    text
}
