//! A daemon from start to stop, in a namespace of its own: needs root. One test, because signals
//! belong to the process.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::{block_on, enter_fresh_namespace};
use control::config::Role;
use control::{Request, TunnelVerb};
use netio::netlink::Link;
use nix::sys::signal::{Signal, raise};
use runtime::RunError;
use runtime::client::{Response, ask};

const CONFIG: &str = r#"
[customer_gateway]
id = "site-1"
identity = "site-1.example"
onprem_cidrs = ["192.168.0.0/16"]
listen = ["127.0.0.1"]
ike_port = 5500
nat_t_port = 5501
control_socket = "FOLDER/run/agent.sock"
[customer_gateway.tun]
name = "cgw-test"
[[vpn_connection]]
id = "vpn-1"
vpc_cidrs = ["10.1.0.0/16"]
[[vpn_connection.tunnel]]
outside_address = "127.0.0.2"
tunnel_inside_cidr = "169.254.10.0/30"
pre_shared_key_file = "psk"
[[vpn_connection.tunnel]]
outside_address = "127.0.0.3"
tunnel_inside_cidr = "169.254.11.0/30"
pre_shared_key_file = "psk"
[customer_gateway.offloads]
tun_udp = false
udp_gso = false
"#;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("vgw-daemon-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        folder.write("psk", "a.fine.key_1\n", 0o600);
        folder.configure(CONFIG);
        folder
    }

    fn configure(&self, text: &str) {
        self.write("agent.toml", &text.replace("FOLDER", &self.0.display().to_string()), 0o644);
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.0.join("agent.toml")
    }

    fn socket(&self) -> PathBuf {
        self.0.join("run/agent.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn status(socket: &Path) -> control::status::Status {
    match ask(socket, &Request::Status).unwrap() {
        Response::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(10), "it never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Routes of this namespace through the device.
fn routes() -> String {
    let output =
        std::process::Command::new("ip").args(["route", "show", "dev", "cgw-test"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn a_daemon_from_start_to_stop() {
    enter_fresh_namespace();
    let folder = Folder::new();
    let (config, socket) = (folder.config(), folder.socket());
    let error = ask(&socket, &Request::Status).unwrap_err();
    assert!(matches!(error, RunError::NotRunning { .. }), "{error}");
    assert!(error.to_string().ends_with("is the daemon running?"), "{error}");

    let path = config.clone();
    let daemon = thread::spawn(move || runtime::run(Role::Agent, &path));
    wait_until("the control socket answers", || ask(&socket, &Request::Status).is_ok());
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the control socket is its owner's");
    let first = status(&socket);
    assert_eq!((first.daemon.as_str(), first.id.as_str()), ("cgw-agent", "site-1"));
    assert_eq!(first.connections[0].tunnels[0].state, "DOWN");
    assert!(first.engine.contains_key("aead"), "{:?}", first.engine);
    let merged: Vec<&str> = first.engine["offloads"].split(' ').collect();
    for (name, on) in [("tun-tcp", true), ("tun-udp", false), ("udp-gso", false), ("udp-gro", true)]
    {
        assert_eq!(merged.contains(&name), on, "{name} in {merged:?}");
    }
    let through = routes();
    assert!(through.contains("10.1.0.0/16"), "{through}");
    assert!(through.contains("169.254.10.0/30"), "{through}");

    // What is taken is refused with the culprit's name, and nothing of the first daemon changes.
    let second = runtime::run(Role::Agent, &config).unwrap_err().to_string();
    assert!(second.starts_with("UDP port 5501 on 127.0.0.1 is already in use by "), "{second}");

    // A request that means nothing gets an answer; so does one for a tunnel that is not there.
    let verb = TunnelVerb::Up;
    let wrong = Request::Tunnel { connection: "vpn-9".into(), number: 1, verb };
    let error = ask(&socket, &wrong).unwrap_err();
    assert!(matches!(&error, RunError::Refused(_)), "{error}");
    assert!(error.to_string().contains("vpn-9"), "{error}");

    // A bad file changes nothing and says why, by either way; a good one is taken.
    folder.configure(&CONFIG.replace("10.1.0.0/16", "10.1.0.0/99"));
    let error = ask(&socket, &Request::Reload).unwrap_err().to_string();
    assert!(error.contains("agent.toml:14: "), "{error}");
    assert!(routes().contains("10.1.0.0/16"));
    folder.configure(&CONFIG.replace("10.1.0.0/16", "10.2.0.0/16"));
    assert!(matches!(ask(&socket, &Request::Reload).unwrap(), Response::Done));
    assert!(routes().contains("10.2.0.0/16") && !routes().contains("10.1.0.0/16"), "{}", routes());
    folder.configure(CONFIG);
    raise(Signal::SIGHUP).unwrap();
    wait_until("SIGHUP reloads", || routes().contains("10.1.0.0/16"));
    folder.configure(&CONFIG.replace("5501", "5502"));
    let error = ask(&socket, &Request::Reload).unwrap_err().to_string();
    assert!(error.contains("nat_t_port"), "{error}");

    raise(Signal::SIGTERM).unwrap();
    daemon.join().unwrap().unwrap();
    assert!(!socket.exists(), "the control socket is gone");
    block_on(async { assert!(Link::find("cgw-test").is_err(), "the device is gone") });

    // A socket that a killed daemon left behind is in nobody's way; a file is not removed.
    let left = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    drop(left);
    assert!(socket.exists());
    let path = config.clone();
    folder.configure(CONFIG);
    let daemon = thread::spawn(move || runtime::run(Role::Agent, &path));
    wait_until("it starts again", || ask(&socket, &Request::Status).is_ok());
    raise(Signal::SIGINT).unwrap();
    daemon.join().unwrap().unwrap();
    fs::write(&socket, "mine").unwrap();
    let error = runtime::run(Role::Agent, &config).unwrap_err().to_string();
    assert!(error.ends_with("there is a file of this name that is no socket"), "{error}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "mine");

    // Everything else that can be missing, one line each.
    for (from, to, line) in [
        (
            "listen = [\"127.0.0.1\"]",
            "listen = [\"192.0.2.1\"]",
            "address 192.0.2.1 is not configured on this host: add it to an interface, or change `listen`",
        ),
        ("cgw-test", "lo", "cannot create TUN device lo: Invalid argument (os error 22)"),
    ] {
        folder.configure(&CONFIG.replace(from, to));
        let error = runtime::run(Role::Agent, &config).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (line, 1));
    }
    folder.write("psk", "a.fine.key_1", 0o644);
    let error = runtime::run(Role::Agent, &config).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("mode 0644 lets others read"), "{error}");
}
