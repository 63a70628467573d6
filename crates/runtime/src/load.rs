//! The configuration and its key files, from the file system.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use control::config::key::parse_secret;
use control::config::{Config, Role};
use sa::{Secret, TunnelId};
use zeroize::Zeroizing;

use crate::RunError;

/// The most octets that are read of a key file: a longer one is none.
const LONGEST_KEY_FILE: u64 = 4096;

/// Reads and checks a configuration and every key file that it names, each relative to the
/// configuration's folder. The secret of a WireGuard connection is our private key, followed by the
/// pre-shared key if there is one.
///
/// # Errors
/// [`RunError::Config`]: the first thing that is wrong, in one line.
pub fn load(role: Role, file: &Path) -> Result<(Config, BTreeMap<TunnelId, Secret>), RunError> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file)
        .map_err(|error| RunError::Config(format!("{name}: cannot be read: {error}")))?;
    let config = Config::parse(role, &text, &name).map_err(|e| RunError::Config(e.to_string()))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut secrets = BTreeMap::new();
    for tunnel in config.connections.iter().flat_map(|c| &c.tunnels) {
        let path = folder.join(&tunnel.pre_shared_key_file);
        let key = read_key(&path, check_key).map_err(|why| {
            let path = path.display();
            RunError::Config(format!("{name}: {}: pre_shared_key_file {path}: {why}", tunnel.name))
        })?;
        secrets.insert(tunnel.id, key);
    }
    for connection in &config.wireguard {
        let read = |key: &str, file: &str| {
            let path = folder.join(file);
            read_key(&path, parse_secret).map_err(|why| {
                let path = path.display();
                RunError::Config(format!("{name}: {}: {key} {path}: {why}", connection.id))
            })
        };
        let private = read("private_key_file", &connection.private_key_file)?;
        let preshared = connection.preshared_key_file.as_ref();
        let preshared = preshared.map(|file| read("preshared_key_file", file)).transpose()?;
        let both = [private.expose(), preshared.as_ref().map_or(&[], Secret::expose)].concat();
        secrets.insert(connection.tunnel, Secret::new(both));
    }
    Ok((config, secrets))
}

/// Reads a key file that only its owner may read; `parse` takes its one line.
pub(crate) fn read_key(
    path: &Path,
    parse: impl Fn(&str) -> Result<Secret, String>,
) -> Result<Secret, String> {
    // The mode is asked of what is read, not of what the name points to by then.
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is not a file".into());
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "mode {mode:04o} lets others read or change it; make it 0600 (chmod 600)"
        ));
    }
    if metadata.size() > LONGEST_KEY_FILE {
        return Err("is too long for a key file".into());
    }
    // Large enough from the start: a growing string leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_KEY_FILE as usize));
    let read = file.take(LONGEST_KEY_FILE).read_to_string(&mut text);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    parse(text.trim_end_matches(['\n', '\r']))
}

/// AWS's rules for a pre-shared key. The error never repeats the key.
fn check_key(key: &str) -> Result<Secret, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    if let Some(at) = key.chars().position(|c| !allowed(c)) {
        return Err(format!(
            "a pre-shared key has only letters, digits, `.` and `_`; character {} is another one",
            at + 1
        ));
    }
    match key.len() {
        8..=64 if key.starts_with('0') => Err("a pre-shared key must not start with 0".into()),
        8..=64 => Ok(Secret::from(key.as_bytes())),
        length => {
            Err(format!("a pre-shared key has 8 to 64 characters, and this one has {length}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vgw-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = Folder::new("modes");
        for mode in [0o640, 0o604, 0o644, 0o620, 0o601] {
            let error =
                read_key(&folder.file("open", "a.good_key1\n", mode), check_key).unwrap_err();
            let expected =
                format!("mode {mode:04o} lets others read or change it; make it 0600 (chmod 600)");
            assert_eq!(error, expected);
        }
        for mode in [0o600, 0o400, 0o700] {
            let key = read_key(&folder.file("closed", "a.good_key1\n", mode), check_key).unwrap();
            assert_eq!(key.expose(), b"a.good_key1", "the end of the line is no part of the key");
            fs::remove_file(folder.0.join("closed")).unwrap();
        }
    }

    #[test]
    fn a_key_against_the_rules_is_refused_and_not_shown() {
        let folder = Folder::new("rules");
        for bad in ["short", "0starts.with.zero", "has space in it", &"x".repeat(5000)] {
            let error = read_key(&folder.file("key", bad, 0o600), check_key).unwrap_err();
            assert!(!error.contains(bad), "{error}");
        }
        for (key, error) in [
            ("seven77", "a pre-shared key has 8 to 64 characters, and this one has 7"),
            (&"a".repeat(65), "a pre-shared key has 8 to 64 characters, and this one has 65"),
            ("0abcdefgh", "a pre-shared key must not start with 0"),
            (
                "two words",
                "a pre-shared key has only letters, digits, `.` and `_`; character 4 is another one",
            ),
        ] {
            assert_eq!(check_key(key).unwrap_err(), error);
        }
        assert_eq!(check_key("abc.DEF_123").unwrap().expose(), b"abc.DEF_123");
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(read_key(&folder.0, check_key).unwrap_err(), "is not a file");
        let missing = read_key(&folder.0.join("missing"), check_key).unwrap_err();
        assert!(missing.starts_with("cannot be read: "), "{missing}");
    }

    #[test]
    fn a_configuration_names_the_tunnel_whose_key_is_missing() {
        let folder = Folder::new("tunnel");
        let file = folder.file(
            "vgw.toml",
            r#"
            [vpn_gateway]
            id = "vgw-1"
            vpc_cidrs = ["10.0.0.0/16"]
            [[customer_gateway]]
            id = "cgw-1"
            identity = "branch.example"
            [[vpn_connection]]
            id = "vpn-1"
            customer_gateway = "cgw-1"
            static_routes = ["192.168.0.0/16"]
            [[vpn_connection.tunnel]]
            outside_address = "198.51.100.10"
            tunnel_inside_cidr = "169.254.10.0/30"
            pre_shared_key_file = "psk-1"
            [[vpn_connection.tunnel]]
            outside_address = "198.51.100.11"
            tunnel_inside_cidr = "169.254.11.0/30"
            pre_shared_key_file = "psk-2"
            "#,
            0o644,
        );
        folder.file("psk-1", "a.good_key1\n", 0o600);
        let error = load(Role::Vgw, &file).unwrap_err();
        assert!(error.exit_code() == 2);
        let (file_name, folder_name) = (file.display(), folder.0.display());
        let expected = format!(
            "{file_name}: vpn-1/tunnel 2: pre_shared_key_file {folder_name}/psk-2: cannot be read: "
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
        folder.file("psk-2", "another.key_2", 0o600);
        let (config, secrets) = load(Role::Vgw, &file).unwrap();
        assert_eq!((config.connections.len(), secrets.len()), (1, 2));
        let error = load(Role::Vgw, &folder.0.join("no.toml")).unwrap_err().to_string();
        assert!(error.contains("no.toml: cannot be read: "), "{error}");
    }
}
