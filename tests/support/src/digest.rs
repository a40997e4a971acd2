//! SHA-256 of a text, in hexadecimal digits.

use std::fmt::Write as _;

/// All 64 digits.
pub fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The first 16 digits: enough to tell a few apart.
pub fn short_name(text: &str) -> String {
    sha256(text)[..16].to_owned()
}
