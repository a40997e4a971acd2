//! git's object ids, and the entries of its trees.

use std::fmt;
use std::io::{self, Read};

/// How a repository names its objects. A local repository of one format cannot push to a remote of the other.
pub use crate::util::Algorithm as ObjectFormat;
use crate::util::Digest;

/// The id of a commit, tree or blob: the 40 hexadecimal digits of a SHA-1, or the 64 of a SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(Box<str>);

impl ObjectId {
    /// Parses lower-case hexadecimal digits, as git prints them. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hexadecimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (is_hexadecimal && matches!(text.len(), 40 | 64)).then(|| Self(text.into()))
    }

    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the object format of the repository that the id comes from.
    pub fn format(&self) -> ObjectFormat {
        if self.0.len() == 40 { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 }
    }

    /// Returns the id of a blob with this content.
    ///
    /// # Errors
    /// Fails if `content` cannot be read. If it is not `length` bytes long, that is not an error, but the id belongs to
    /// no blob.
    pub fn of_blob(mut content: impl Read, length: u64, format: ObjectFormat) -> io::Result<Self> {
        let mut digest = Digest::new(format);
        digest.update(format!("blob {length}\0").as_bytes());
        let mut chunk = [0; 8192];
        while let length @ 1.. = content.read(&mut chunk)? {
            digest.update(&chunk[..length]);
        }
        Self::parse(&digest.finish()).ok_or_else(|| io::Error::other("a digest is not an object id"))
    }
}

/// `{:.10}` shows the first ten digits.
impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// The mode of a link.
pub(super) const LINK: u32 = 0o120_000;
/// The mode of a folder, as an entry of its parent tree.
pub(super) const FOLDER: u32 = 0o040_000;

/// An entry of a tree or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `0o100644`, `0o100755`, `0o120000` (a link), `0o160000` (a submodule) or, in a single tree, `0o040000` (a
    /// folder).
    pub mode: u32,
    /// The id of its content.
    pub object: ObjectId,
}

impl Entry {
    /// Returns whether it is a regular file, executable or not.
    pub fn is_file(&self) -> bool {
        matches!(self.mode, 0o100_644 | 0o100_755)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn object_ids_have_all_digits_in_lower_case() {
        assert!(ObjectId::parse(A).is_some());
        assert!(ObjectId::parse(&"0".repeat(64)).is_some_and(|id| id.format() == ObjectFormat::Sha256));
        for text in ["", &A[1..], &A.to_uppercase(), &format!("{A}a"), "--upload-pack=evil aaaaaaaaaaaaaaaaaaaaaa"] {
            assert!(ObjectId::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn blob_ids_are_the_same_as_those_of_git() {
        let id = |content: &[u8], format| {
            ObjectId::of_blob(content, content.len() as u64, format).expect("memory can be read")
        };
        let hello = id(b"hello\n", ObjectFormat::Sha1);
        assert_eq!(hello.as_str(), "ce013625030ba8dba906f756967f9e9ca394464a");
        let empty = id(b"", ObjectFormat::Sha256);
        assert_eq!(empty.as_str(), "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813");
    }
}
