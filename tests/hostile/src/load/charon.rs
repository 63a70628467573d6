//! strongSwan's charon in the place of our gateway, with ESP in user space as ours
//! (`kernel-libipsec`), and set up for many peers as its documentation recommends: a large table of
//! IKE SAs, no search for duplicates, hardly any log.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::netns::Host;
use lab::process::{Process, Program};

use super::{KEY, OUTSIDE, site};

const FOLDER: &str = "/run/swan";
const VICI: &str = "unix:///run/swan/vici";
const PATIENCE: Duration = Duration::from_secs(180);

const SETTINGS: &str = "charon {
  load_modular = no
  load = random nonce aes sha1 sha2 hmac kdf gcm openssl curve25519 pem pkcs1 x509 pubkey kernel-libipsec kernel-netlink socket-default vici updown
  install_routes = no
  install_virtual_ip = no
  dos_protection = no
  ikesa_table_size = 4096
  ikesa_table_segments = 16
  plugins {
    vici {
      socket = unix:///run/swan/vici
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
      path = /run/swan/log
      default = 0
    }
  }
}
";

/// How charon knows its peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// One connection for everyone who has the key.
    Together,
    /// A connection for each tunnel, as ours has.
    Apart,
}

/// A running charon.
pub struct Charon {
    host: Arc<Host>,
    process: Process,
    /// How long its connections took to load.
    pub loaded: Duration,
}

fn connection(name: &str, local: &str, remote_id: &str) -> String {
    format!(
        "  {name} {{\n    version = 2\n    local_addrs = {local}\n    encap = yes\n    unique = never\n    \
         proposals = aes256gcm16-prfsha256-x25519\n    \
         local {{\n      auth = psk\n      id = {local}\n    }}\n    \
         remote {{\n      auth = psk\n{remote_id}    }}\n    \
         children {{\n      net {{\n        local_ts = 10.0.0.0/8\n        \
         remote_ts = 172.16.0.0/12\n        esp_proposals = aes256gcm16\n      }}\n    }}\n  }}\n"
    )
}

fn swanctl(known: Known, tunnels: usize) -> String {
    let mut text = String::from("connections {\n");
    match known {
        Known::Together => {
            for (name, local) in ["one", "two"].iter().zip(OUTSIDE) {
                text += &connection(name, local, "");
            }
        }
        Known::Apart => {
            for number in 0..tunnels {
                let id = format!("      id = {}\n", site(number));
                text += &connection(&format!("c{number}"), OUTSIDE[number % 2], &id);
            }
        }
    }
    let _ = write!(text, "}}\nsecrets {{\n  ike-all {{\n    secret = \"{KEY}\"\n  }}\n}}\n");
    text
}

impl Charon {
    /// Starts it with connections for so many tunnels.
    pub fn start(host: &Arc<Host>, known: Known, tunnels: usize) -> Self {
        host.write(format!("{FOLDER}/strongswan.conf"), SETTINGS, 0o600).unwrap();
        // libipsec wants an address of its own among those that it serves.
        host.ip("address replace 10.0.0.1/32 dev lo").unwrap();
        let path = format!("{FOLDER}/swanctl.conf");
        host.write(&path, &swanctl(known, tunnels), 0o600).unwrap();
        let program = Program::new("charon")
            .env("STRONGSWAN_CONF", format!("{FOLDER}/strongswan.conf"))
            .env("LEAK_DETECTIVE_DISABLE", "1");
        let process = host.spawn(program).unwrap();
        let mut charon = Self { host: Arc::clone(host), process, loaded: Duration::ZERO };
        let begin = Instant::now();
        while charon.ask(&["--version", "--daemon"]).is_none() {
            assert!(charon.process.ended().is_none(), "charon ended: are all plugins there?");
            assert!(begin.elapsed() < PATIENCE, "charon never answers");
            std::thread::sleep(Duration::from_millis(50));
        }
        let begin = Instant::now();
        charon.ask(&["--load-all", "--file", &path]).expect("swanctl --load-all");
        charon.loaded = begin.elapsed();
        charon
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its IKE SAs.
    pub fn up(&self) -> usize {
        let text = self.ask(&["--stats"]).expect("swanctl --stats");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("IKE_SAs:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    }

    fn ask(&self, words: &[&str]) -> Option<String> {
        let program = Program::new("swanctl").args(words).args(["--uri", VICI]).limit(PATIENCE);
        let output = self.host.output(program).unwrap();
        output.success().then_some(output.stdout)
    }
}
