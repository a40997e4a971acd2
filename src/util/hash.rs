//! Digests of content, with a key or without. `ring` is in the binary for TLS and computes these too; where there is no
//! TLS, the sha crates do. It does not know what is digested.

/// Which digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 20 bytes; what most git repositories name their objects by.
    Sha1,
    /// 32 bytes.
    Sha256,
}

/// A digest of what is fed to it.
pub struct Digest(platform::Context);

impl Digest {
    /// Nothing fed yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(platform::new(algorithm))
    }

    /// Feeds it.
    pub fn update(&mut self, bytes: &[u8]) {
        platform::update(&mut self.0, bytes);
    }

    /// The digest as lower-case hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        hex(platform::finish(self.0).as_ref())
    }
}

/// A digest of blocks under a key. Who makes the blocks and does not know the key cannot make two with the same.
///
/// It is the tags of AES-256-GCM, for which most processors have instructions; fewer have those for SHA-256, without
/// which that takes ten times as long.
pub struct KeyedDigest {
    sealer: platform::Sealer,
    blocks: u64,
    tags: Digest,
}

/// A key for [`KeyedDigest`], as 64 hexadecimal digits in text.
#[derive(Clone, PartialEq, Eq)]
pub struct DigestKey([u8; 32]);

impl DigestKey {
    /// A new one; nothing where the system has no randomness.
    #[must_use]
    pub fn random() -> Option<Self> {
        platform::random().map(Self)
    }

    /// From its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        (is_hex && text.len() == 64).then_some(Self(key))
    }

    /// Its text.
    #[must_use]
    pub fn to_text(&self) -> String {
        hex(&self.0)
    }
}

impl KeyedDigest {
    /// Nothing fed yet.
    #[must_use]
    pub fn new(key: &DigestKey) -> Self {
        Self { sealer: platform::sealer(&key.0), blocks: 0, tags: Digest::new(Algorithm::Sha256) }
    }

    /// Feeds it a block, whose content is lost; whether that could be done. The same content in other blocks has another
    /// digest.
    #[must_use]
    pub fn update(&mut self, block: &mut [u8]) -> bool {
        let tag = platform::seal(&self.sealer, self.blocks, block);
        self.blocks += 1;
        tag.inspect(|tag| self.tags.update(tag.as_ref())).is_some()
    }

    /// The digest as lower-case hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        self.tags.finish()
    }
}

/// A short name, 16 hexadecimal digits, that differs where `text` differs.
#[must_use]
pub fn short_name(text: &str) -> String {
    let mut digest = Digest::new(Algorithm::Sha256);
    digest.update(text.as_bytes());
    let mut name = digest.finish();
    name.truncate(16);
    name
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(not(target_family = "wasm"))]
mod platform {
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256};
    use ring::rand::{SecureRandom as _, SystemRandom};

    pub(super) use ring::digest::Context;

    pub(super) type Sealer = Option<LessSafeKey>;

    pub(super) fn random() -> Option<[u8; 32]> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).ok().map(|()| key)
    }

    pub(super) fn sealer(key: &[u8; 32]) -> Sealer {
        UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
    }

    /// The tag alone is of use, and is seen by nobody: so each stream may number its blocks from the beginning.
    pub(super) fn seal(sealer: &Sealer, number: u64, block: &mut [u8]) -> Option<impl AsRef<[u8]> + use<>> {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        sealer.as_ref()?.seal_in_place_separate_tag(nonce, Aad::empty(), block).ok()
    }

    pub(super) fn new(algorithm: super::Algorithm) -> Context {
        Context::new(match algorithm {
            super::Algorithm::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            super::Algorithm::Sha256 => &SHA256,
        })
    }

    pub(super) fn update(context: &mut Context, bytes: &[u8]) {
        context.update(bytes);
    }

    pub(super) fn finish(context: Context) -> impl AsRef<[u8]> {
        context.finish()
    }
}

#[cfg(target_family = "wasm")]
mod platform {
    use sha1::Digest as _;

    pub(super) type Sealer = [u8; 32];

    /// Nothing is read here that a key would be needed for.
    pub(super) fn random() -> Option<[u8; 32]> {
        None
    }

    pub(super) fn sealer(key: &[u8; 32]) -> Sealer {
        *key
    }

    pub(super) fn seal(sealer: &Sealer, number: u64, block: &mut [u8]) -> Option<impl AsRef<[u8]> + use<>> {
        let mut digest = sha2::Sha256::new();
        digest.update(sealer);
        digest.update(number.to_be_bytes());
        digest.update(block);
        Some(digest.finalize().to_vec())
    }

    pub(super) enum Context {
        Sha1(sha1::Sha1),
        Sha256(sha2::Sha256),
    }

    pub(super) fn new(algorithm: super::Algorithm) -> Context {
        match algorithm {
            super::Algorithm::Sha1 => Context::Sha1(sha1::Sha1::new()),
            super::Algorithm::Sha256 => Context::Sha256(sha2::Sha256::new()),
        }
    }

    pub(super) fn update(context: &mut Context, bytes: &[u8]) {
        match context {
            Context::Sha1(digest) => digest.update(bytes),
            Context::Sha256(digest) => digest.update(bytes),
        }
    }

    pub(super) fn finish(context: Context) -> impl AsRef<[u8]> {
        match context {
            Context::Sha1(digest) => digest.finalize().to_vec(),
            Context::Sha256(digest) => digest.finalize().to_vec(),
        }
    }
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
    fn a_digest_under_a_key_tells_blocks_keys_and_order_apart() {
        let key = |digit: &str| DigestKey::parse(&digit.repeat(64)).expect("a key");
        let of = |key: &DigestKey, blocks: &[&[u8]]| {
            let mut digest = KeyedDigest::new(key);
            assert!(blocks.iter().all(|block| digest.update(&mut block.to_vec())));
            digest.finish()
        };
        let large = vec![b'x'; 128 << 10];
        let mut other = large.clone();
        other[100_000] ^= 1;
        let all: [&[&[u8]]; 7] = [&[], &[b"ab"], &[b"a", b"b"], &[b"b", b"a"], &[b"ab\0"], &[&large], &[&other]];
        let mut seen = std::collections::BTreeSet::new();
        for blocks in all {
            assert_eq!(of(&key("1"), blocks), of(&key("1"), blocks));
            assert!(seen.insert(of(&key("1"), blocks)), "{} blocks", blocks.len());
            assert!(blocks.is_empty() || seen.insert(of(&key("2"), blocks)), "under another key");
        }
        assert_eq!(key("a").to_text(), "a".repeat(64));
        for wrong in ["", &"1".repeat(63), &"1".repeat(65), &"g".repeat(64), &"+1".repeat(32)] {
            assert!(DigestKey::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        check(Algorithm::Sha1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d");
        check(Algorithm::Sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(short_name("abc"), "ba7816bf8f01cfea");
    }
}
