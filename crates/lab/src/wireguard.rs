//! Keys of WireGuard sites. They protect nothing but the lab's own traffic.

use crate::random::SplitMix;
use crate::settings::{FOLDER, File};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toml::Table;
use x25519_dalek::{PublicKey, StaticSecret};

/// Whose key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The VGW's, one for all sites.
    Vgw,
    /// A site's, by its number.
    Site(usize),
}

/// The keys that `own` needs to talk to `peer`: entries of a `[[wireguard_connection]]`, and the
/// files that they name.
pub fn keys(seed: u64, own: Owner, peer: Owner) -> (Table, Vec<File>) {
    let site = match (own, peer) {
        (Owner::Site(site), _) | (_, Owner::Site(site)) => site,
        (Owner::Vgw, Owner::Vgw) => 0,
    };
    let peer = PublicKey::from(&StaticSecret::from(private(seed, peer)));
    let preshared = format!("wg-{}.psk", site + 1);
    let files = vec![
        file("wg.key", &private(seed, own)),
        file(&preshared, &octets(seed, 0x0100 + site as u64)),
    ];
    let table = [
        ("private_key_file", "wg.key".to_owned()),
        ("peer_public_key", STANDARD.encode(peer.as_bytes())),
        ("preshared_key_file", preshared),
    ];
    (table.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect(), files)
}

fn private(seed: u64, owner: Owner) -> [u8; 32] {
    octets(
        seed,
        match owner {
            Owner::Vgw => 0x0200,
            Owner::Site(site) => 0x0201 + site as u64,
        },
    )
}

fn octets(seed: u64, what: u64) -> [u8; 32] {
    let mut random = SplitMix::new(seed ^ what << 40);
    let mut out = [0; 32];
    for chunk in out.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.next_u64().to_be_bytes());
    }
    out
}

fn file(name: &str, key: &[u8; 32]) -> File {
    File { path: format!("{FOLDER}/{name}"), text: STANDARD.encode(key) + "\n", secret: true }
}
