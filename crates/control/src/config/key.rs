//! WireGuard keys as `wg` writes them: 32 octets in base64.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand_core::RngCore;
use sa::Secret;
use zeroize::Zeroizing;

const OCTETS: usize = 32;
const CHARACTERS: usize = 44;

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; OCTETS]);

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        decode(text).map(|octets| Self(*octets))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A private or a pre-shared key from its text.
///
/// # Errors
/// What a key looks like; never the text itself.
pub fn parse_secret(text: &str) -> Result<Secret, String> {
    decode(text).map(|octets| Secret::from(&octets[..]))
}

/// The text of a private or a pre-shared key, without end of line. The caller must not log it.
#[must_use]
pub fn print_secret(key: &Secret) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(CHARACTERS));
    STANDARD.encode_string(key.expose(), &mut text);
    text
}

/// A new private key, clamped as X25519 uses it (RFC 7748 5).
#[must_use]
pub fn generate_private(rng: &mut dyn RngCore) -> Secret {
    let mut octets = Zeroizing::new([0; OCTETS]);
    rng.fill_bytes(&mut *octets);
    octets[0] &= 0xf8;
    octets[31] = octets[31] & 0x7f | 0x40;
    Secret::from(&octets[..])
}

/// A new pre-shared key.
#[must_use]
pub fn generate_preshared(rng: &mut dyn RngCore) -> Secret {
    let mut octets = Zeroizing::new([0; OCTETS]);
    rng.fill_bytes(&mut *octets);
    Secret::from(&octets[..])
}

/// The public key of a private one.
///
/// # Errors
/// It does not have 32 octets.
pub fn public_key(private: &Secret) -> Result<PublicKey, String> {
    dataplane::public_key(private).map(PublicKey).ok_or_else(wrong)
}

fn decode(text: &str) -> Result<Zeroizing<[u8; OCTETS]>, String> {
    // The decoder wants room for what the length alone would allow.
    let mut room = Zeroizing::new([0; OCTETS + 1]);
    let right = text.len() == CHARACTERS;
    let length = right.then(|| STANDARD.decode_slice(text, &mut *room).ok()).flatten();
    match room.first_chunk::<OCTETS>() {
        Some(octets) if length == Some(OCTETS) => Ok(Zeroizing::new(*octets)),
        _ => Err(wrong()),
    }
}

fn wrong() -> String {
    "a WireGuard key is 32 octets in base64: 44 characters, the last one `=`".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The X25519 key pair of Alice in RFC 7748 section 6.1.
    #[test]
    fn the_public_key_of_rfc_7748() {
        let private = parse_secret("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").unwrap();
        let public = public_key(&private).unwrap();
        assert_eq!(public.to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
        assert_eq!(public.to_string().parse(), Ok(public));
        assert_eq!(*print_secret(&private), "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=");
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let good = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        for bad in [
            "",
            &good[..43],
            &good.replace('=', "A"),
            &good.replace('X', "-"),
            // The last two bits are not zero.
            &good.replace("Co=", "Cp="),
            &format!("{good} "),
            "770076d0a7318a57d3c16c17251b26645df4c2f87ebc0992",
        ] {
            assert_eq!(parse_secret(bad).unwrap_err(), wrong(), "{bad}");
        }
    }
}
