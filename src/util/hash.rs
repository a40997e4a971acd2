//! Hashes of content, a set that holds only hashes, and random words.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};

use sha2::digest::DynDigest;

/// The algorithm of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 20 bytes. Most git repositories use it for object ids.
    Sha1,
    /// 32 bytes.
    Sha256,
}

/// A digest of the bytes that are added to it.
pub struct Digest(Box<dyn DynDigest>);

impl Digest {
    /// Makes a digest of no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha1 => Box::new(sha1::Sha1::default()),
            Algorithm::Sha256 => Box::new(sha2::Sha256::default()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest as lower-case hexadecimal digits.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }

    /// Returns the bytes of a SHA-256; for a shorter digest, zeros follow its bytes.
    pub fn finish_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(&*self.0.finalize()).for_each(|(byte, of_digest)| *byte = *of_digest);
        bytes
    }
}

/// A set that holds a hash of 8 bytes in place of each value, so that very many values take little memory. The hash has
/// a random key, so no one can choose two values with the same hash.
#[derive(Default)]
pub struct HashedSet {
    key: RandomState,
    hashes: HashSet<u64>,
}

impl HashedSet {
    /// Adds a value. Returns whether it is new.
    pub fn insert(&mut self, value: impl Hash) -> bool {
        self.hashes.insert(self.key.hash_one(value))
    }

    /// Whether the value was added.
    pub fn contains(&self, value: impl Hash) -> bool {
        self.hashes.contains(&self.key.hash_one(value))
    }

    /// Returns the number of values.
    pub fn count(&self) -> usize {
        self.hashes.len()
    }
}

/// Returns 32 random hexadecimal digits, or `None` if the system gives no random numbers.
pub fn random_word() -> Option<String> {
    #[cfg(not(target_family = "wasm"))]
    {
        use ring::rand::{SecureRandom as _, SystemRandom};
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).ok().map(|()| hex(&bytes))
    }
    // On WebAssembly, no program that needs a random word is started.
    #[cfg(target_family = "wasm")]
    None
}

/// Returns the SHA-256 of all parts together.
pub fn hash_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Digest::new(Algorithm::Sha256);
    parts.iter().for_each(|part| digest.update(part));
    digest.finish_bytes()
}

/// Returns a short name of 16 hexadecimal digits, different for each `text`.
pub fn short_name(text: &str) -> String {
    hex(&hash_of(&[text.as_bytes()])[..8])
}

/// Returns the bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(algorithm: Algorithm, content: &str, expected: &str) {
        let mut digest = Digest::new(algorithm);
        for byte in content.bytes() {
            digest.update(&[byte]);
        }
        assert_eq!(digest.finish(), expected);
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        check(Algorithm::Sha1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d");
        check(Algorithm::Sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(short_name("abc"), "ba7816bf8f01cfea");
    }
}
