//! What is negotiated: each row of the matrix in charon's spelling and in ours.

/// A cipher in four spellings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cipher {
    /// In a proposal of `swanctl.conf`.
    swan: &'static str,
    /// In `--list-sas`, and in our `ike_suite`.
    shown: &'static str,
    /// In our `esp_suite`.
    esp: &'static str,
    aead: bool,
}

const CIPHERS: [Cipher; 5] = [
    Cipher { swan: "aes256gcm16", shown: "AES_GCM_16-256", esp: "AES256-GCM-16", aead: true },
    Cipher { swan: "aes128gcm16", shown: "AES_GCM_16-128", esp: "AES128-GCM-16", aead: true },
    Cipher {
        swan: "chacha20poly1305",
        shown: "CHACHA20_POLY1305",
        esp: "CHACHA20-POLY1305",
        aead: true,
    },
    Cipher { swan: "aes256", shown: "AES_CBC-256", esp: "AES256", aead: false },
    Cipher { swan: "aes128", shown: "AES_CBC-128", esp: "AES128", aead: false },
];

/// A hash: in a proposal, in the name of a PRF, and as integrity.
const HASHES: [(&str, &str, &str); 3] = [
    ("256", "PRF_HMAC_SHA2_256", "HMAC_SHA2_256_128"),
    ("384", "PRF_HMAC_SHA2_384", "HMAC_SHA2_384_192"),
    ("512", "PRF_HMAC_SHA2_512", "HMAC_SHA2_512_256"),
];

/// A group: in a proposal, in `--list-sas`, in our status.
const GROUPS: [(&str, &str, &str); 7] = [
    ("x25519", "CURVE_25519", "CURVE_25519"),
    ("ecp256", "ECP_256", "ECP_256"),
    ("ecp384", "ECP_384", "ECP_384"),
    ("ecp521", "ECP_521", "ECP_521"),
    ("modp2048", "MODP_2048", "MODP_2048"),
    ("modp3072", "MODP_3072", "MODP_3072"),
    ("modp4096", "MODP_4096", "MODP_4096"),
];

/// The suite of an IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    /// charon's proposal.
    pub swan: String,
    /// How both sides show it.
    pub shown: String,
}

/// The suite of a Child SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspSuite {
    /// charon's proposal, without group and ESN.
    pub swan: String,
    /// How charon shows it.
    pub shown: String,
    /// How we show it.
    pub ours: String,
}

/// A group for the rekey of a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// charon's keyword.
    pub swan: &'static str,
    /// How charon shows it.
    pub shown: &'static str,
    /// How we show it.
    pub ours: &'static str,
}

/// Every combination of encryption, integrity, PRF and group: 189.
pub fn ike_suites() -> Vec<IkeSuite> {
    let mut all = Vec::new();
    for (group, group_shown, _) in GROUPS {
        for cipher in CIPHERS {
            let integrity: &[Option<usize>] =
                if cipher.aead { &[None] } else { &[Some(0), Some(1), Some(2)] };
            for integrity in integrity {
                for (prf, prf_shown, _) in HASHES {
                    let mut suite =
                        IkeSuite { swan: cipher.swan.into(), shown: cipher.shown.into() };
                    if let Some((hash, _, shown)) = integrity.map(|index| HASHES[index]) {
                        suite.swan += &format!("-sha{hash}");
                        suite.shown += &format!("/{shown}");
                    }
                    suite.swan += &format!("-prfsha{prf}-{group}");
                    suite.shown += &format!("/{prf_shown}/{group_shown}");
                    all.push(suite);
                }
            }
        }
    }
    all
}

/// Every suite of ESP: three AEADs, and AES-CBC with each key size and hash.
pub fn esp_suites() -> Vec<EspSuite> {
    let mut all = Vec::new();
    for cipher in CIPHERS {
        if cipher.aead {
            let (swan, shown, ours) = (cipher.swan.into(), cipher.shown.into(), cipher.esp.into());
            all.push(EspSuite { swan, shown, ours });
            continue;
        }
        for (hash, _, shown) in HASHES {
            all.push(EspSuite {
                swan: format!("{}-sha{hash}", cipher.swan),
                shown: format!("{}/{shown}", cipher.shown),
                ours: format!("{}/SHA2-{hash}", cipher.esp),
            });
        }
    }
    all
}

/// No group, and every group.
pub fn pfs_groups() -> Vec<Option<Group>> {
    let all = GROUPS.into_iter().map(|(swan, shown, ours)| Some(Group { swan, shown, ours }));
    std::iter::once(None).chain(all).collect()
}
