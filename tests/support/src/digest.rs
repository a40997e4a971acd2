//! SHA-256 of a text, in hexadecimal digits.

use std::fmt::Write as _;

/// Returns all 64 digits.
pub fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Returns the first 16 digits, which is enough to distinguish a few texts.
pub fn short_name(text: &str) -> String {
    sha256(text)[..16].to_owned()
}
