//! A string that cannot be printed. Only one method returns its text, so that each use can be found.

use std::fmt;

use crate::util::hash_of;

/// A token, a key or a URL with one in it.
///
/// `Debug` prints `[redacted]`; there is no `Display` and no serialization. [`Secret::expose`] is the only way to the
/// text, so every use can be found by its name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Box<str>);

impl Secret {
    /// Makes a secret of this text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself. Every call is a place where the secret leaves this type.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether `candidate` is this secret. The time of the comparison reveals nothing about the secret, because
    /// hashes are compared: their equal bytes do not show how similar the candidate is.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        hash_of(&[self.0.as_bytes()]) == hash_of(&[candidate])
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[redacted]");
        assert_eq!(format!("{:#?}", Some(Secret::new("hunter2"))).matches("hunter2").count(), 0);
    }

    #[test]
    fn only_equal_bytes_match() {
        let secret = Secret::new("abc");
        assert!(secret.matches(b"abc"));
        for other in [&b"ab"[..], b"abcd", b"abd", b"ABC", b"abcabc", b""] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert!(Secret::new("").matches(b""));
        assert!(!Secret::new("").matches(b"\0"));
    }
}
