//! Reads JSON as a stream. It computes a digest of the meaning of the JSON, and passes keys and strings to the code
//! that checks them.
//!
//! Windmill keeps some objects in hash maps, so each export of the same workspace can have another order. The digest
//! ignores the order of keys and the space between tokens, and nothing else: the order of an array, each character of a
//! string and each digit of a number count. Two texts with the same digest mean the same to every JSON parser, even if
//! a key occurs twice. The limits below bound the memory for a text of any size.

use std::io::{self, BufRead};

use miniserde::json;

use crate::util::{Algorithm, Digest, hash_of};

/// The most open objects and arrays. Windmill's own parser stops at 128; a value of a database may be deeper.
const DEPTH_MAX: usize = 500;
/// The most members of all open objects together, at 64 bytes each: 16 MB.
const MEMBERS_MAX: usize = 250_000;
/// The most bytes of a key or a string that the visitor gets. No file system accepts a name of this length.
const SHOWN_BYTES_MAX: usize = 4096;

/// The end of a string that the visitor gets only in part, or that cannot be decoded. So the string is not treated as
/// harmless.
pub const CUT: &str = "\0";

/// The digest of a value.
pub type Hash = [u8; 32];

/// An event of the reader, in the order of the text. Its path has a key for each object around it, and an empty string
/// for each array.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A key, which is the last one of the path. Keys are without escapes. One that is long or cannot be decoded has
    /// the beginning of what is written, and then [`CUT`].
    Key,
    /// A string that is a value, in the same form as a key.
    Text(&'a str),
    /// A number, `true`, `false` or `null`, as written.
    Word(&'a str),
    /// An object or an array begins.
    Open,
}

/// A function that gets the path and the event.
pub type Visitor<'v> = dyn FnMut(&[String], Event<'_>) + 'v;

/// Returns the digest of the JSON text in `input`, which is read to its end.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the text is not JSON, or exceeds a limit. Any other error means that the text
/// could not be read.
pub fn digest(input: &mut dyn BufRead, visitor: &mut Visitor<'_>) -> io::Result<Hash> {
    let mut reader = Reader { input, visitor, path: Vec::new(), members: 0 };
    let hash = reader.value()?;
    if reader.token()?.is_none() { Ok(hash) } else { Err(strange("two values")) }
}

fn strange(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

struct Reader<'a, 'v> {
    input: &'a mut dyn BufRead,
    visitor: &'a mut Visitor<'v>,
    /// The last key of each open object, and an empty string for each open array.
    path: Vec<String>,
    /// The number of members of the open objects.
    members: usize,
}

impl Reader<'_, '_> {
    /// Reads a value, and returns its digest. The limit of the depth bounds the recursion.
    fn value(&mut self) -> io::Result<Hash> {
        match self.token()?.ok_or_else(|| strange("it ends early"))? {
            bracket @ (b'{' | b'[') => self.container(bracket),
            b'"' => {
                let (hash, text) = self.string()?;
                (self.visitor)(&self.path, Event::Text(&text));
                Ok(hash)
            }
            first => self.literal(first),
        }
    }

    /// Whether another value follows in the innermost object or array. `is_first` if none was read yet.
    fn has_next(&mut self, end: u8, is_first: bool) -> io::Result<bool> {
        if is_first && self.peek_token()? != Some(end) {
            return Ok(true);
        }
        match self.token()? {
            Some(b',') if !is_first => Ok(true),
            Some(byte) if byte == end => Ok(false),
            _ => Err(strange("a value is followed by neither a comma nor an end")),
        }
    }

    /// Reads an object or an array. Its opening bracket has been read.
    fn container(&mut self, bracket: u8) -> io::Result<Hash> {
        if self.path.len() >= DEPTH_MAX {
            return Err(strange("it is nested more than 500 levels deep"));
        }
        (self.visitor)(&self.path, Event::Open);
        self.path.push(String::new());
        let (mut digest, mut members, mut is_first) = (begin(bracket), Vec::new(), true);
        // In ASCII, a closing bracket comes two after its opening one.
        while self.has_next(bracket + 2, is_first)? {
            is_first = false;
            if bracket == b'[' {
                digest.update(&self.value()?);
                continue;
            }
            self.members += 1;
            if self.members > MEMBERS_MAX {
                return Err(strange("its objects have more than 250,000 members"));
            }
            members.push((self.key()?, self.value()?));
        }
        self.path.pop();
        self.members -= members.len();
        // The sort is stable: if a key occurs twice, its last value stays the last.
        members.sort_by_key(|(key, _)| *key);
        for (key, value) in members {
            digest.update(&key);
            digest.update(&value);
        }
        Ok(digest.finish_bytes())
    }

    /// Reads `"key":` within the innermost object.
    fn key(&mut self) -> io::Result<Hash> {
        if self.token()? != Some(b'"') {
            return Err(strange("a key is not a string"));
        }
        let (hash, key) = self.string()?;
        if let Some(last) = self.path.last_mut() {
            *last = key;
        }
        (self.visitor)(&self.path, Event::Key);
        if self.token()? != Some(b':') {
            return Err(strange("a key is not followed by a colon"));
        }
        Ok(hash)
    }

    /// Returns the digest of a string as written, and the string as far as the visitor gets it. Its opening quote has
    /// been read.
    fn string(&mut self) -> io::Result<(Hash, String)> {
        let (mut digest, mut shown) = (begin(b'"'), Vec::new());
        let mut is_escaped = false;
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return Err(strange("a string has no end"));
            }
            let end = chunk.iter().position(|byte| {
                let is_end = *byte == b'"' && !is_escaped;
                is_escaped = *byte == b'\\' && !is_escaped;
                is_end
            });
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if part.iter().any(|byte| *byte < 0x20) {
                return Err(strange("a string has a control character"));
            }
            digest.update(part);
            shown.extend_from_slice(&part[..part.len().min(SHOWN_BYTES_MAX - shown.len())]);
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                return Ok((digest.finish_bytes(), decoded(&shown)));
            }
        }
    }

    /// Reads a number, `true`, `false` or `null`.
    fn literal(&mut self, first: u8) -> io::Result<Hash> {
        let mut written = vec![first];
        let is_of_literal = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        while let Some(byte) = self.peek()?.filter(is_of_literal) {
            if written.len() >= SHOWN_BYTES_MAX {
                return Err(strange("a number is too long"));
            }
            written.push(byte);
            self.input.consume(1);
        }
        let is_number = first == b'-' || first.is_ascii_digit();
        if !is_number && ![&b"true"[..], b"false", b"null"].contains(&&written[..]) {
            return Err(strange("something is neither a string nor a number"));
        }
        (self.visitor)(&self.path, Event::Word(&String::from_utf8_lossy(&written)));
        Ok(hash_of(&[b"1", &written]))
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.input.fill_buf()?.first().copied())
    }

    /// Returns the next byte that is not white space, without consuming it.
    fn peek_token(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.peek()? {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.input.consume(1),
                other => return Ok(other),
            }
        }
    }

    fn token(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek_token()?;
        self.input.consume(usize::from(byte.is_some()));
        Ok(byte)
    }
}

/// Returns the string that is written like this, or its beginning as it is written, and then [`CUT`].
fn decoded(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(written);
    // JSON.parse also accepts half of a surrogate pair, which a Rust string cannot hold.
    let decoded = match text.contains('\\') {
        true => json::from_str(&["\"", &text, "\""].concat()).ok(),
        false => Some(text.to_string()),
    };
    let whole = decoded.filter(|_| written.len() < SHOWN_BYTES_MAX);
    whole.unwrap_or_else(|| [&text, CUT].concat())
}

/// Begins a digest that differs from those of all values of other kinds.
fn begin(kind: u8) -> Digest {
    let mut digest = Digest::new(Algorithm::Sha256);
    digest.update(&[kind]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Hash {
        digest(&mut text.as_bytes(), &mut |_, _| {}).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    #[track_caller]
    fn check_same(left: &str, right: &str) {
        assert_eq!(of(left), of(right), "{left} and {right}");
    }

    #[track_caller]
    fn check_differ(left: &str, right: &str) {
        assert_ne!(of(left), of(right), "{left} and {right}");
    }

    #[test]
    fn the_order_of_keys_and_space_do_not_change_the_digest() {
        check_same(r#"{"a":1,"b":[1,2]}"#, "\n{ \"b\" : [ 1 ,\t2 ] , \"a\" : 1 }\r\n");
        check_same(r#"[{"x":{"a":1,"b":2}}]"#, r#"[{"x":{"b":2,"a":1}}]"#);
        check_same("{}", "{ }");
        check_same("[]", "[ ]");
    }

    #[test]
    fn everything_else_changes_the_digest() {
        let all = [
            "{}",
            "[]",
            "\"\"",
            "null",
            "true",
            "false",
            "0",
            "1",
            "-1",
            "1.0",
            "\"1\"",
            "\"null\"",
            "[1,2]",
            "[2,1]",
            "[[1],2]",
            "[1,[2]]",
            "[[1,2]]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            r#"{"b":1}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a b":1}"#,
            r#"[{"a":1}]"#,
            r#"["a",1]"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#""a\"b""#,
            r#""a\\""#,
            "9007199254740993",
            "9007199254740992",
        ];
        for (index, left) in all.iter().enumerate() {
            all[..index].iter().for_each(|right| check_differ(left, right));
        }
    }

    #[test]
    fn a_text_that_is_not_json_has_no_digest() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "\"",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "[1",
            "[1,",
            "[1 2]",
            "{a:1}",
            "{\"a\" 1}",
            "nul",
            "1 2",
            "[]]",
            "{]",
            "[}",
            "{,}",
            "[,]",
            "\"a\nb\"",
            "<html>",
            "{\"a\":1,}",
            "\"\\\"",
        ] {
            let error = digest(&mut text.as_bytes(), &mut |_, _| {}).expect_err(text);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
        }
        let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        of(&deep(DEPTH_MAX));
        assert!(digest(&mut deep(DEPTH_MAX + 1).as_bytes(), &mut |_, _| {}).is_err());
    }

    // In Node's WASI this test takes half a minute, and Node.js 20 crashes when it ends after that.
    #[cfg(not(target_family = "wasm"))]
    #[test]
    fn objects_with_too_many_members_have_no_digest() {
        let wide = |members: usize| {
            let members: Vec<_> = (0..members).map(|number| format!("\"{number}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        of(&wide(MEMBERS_MAX));
        assert!(digest(&mut wide(MEMBERS_MAX + 1).as_bytes(), &mut |_, _| {}).is_err());
        // Only members that are open at the same time count.
        of(&format!("[{0},{0}]", wide(MEMBERS_MAX / 2 + 1)));
    }

    #[test]
    fn the_size_of_the_buffer_does_not_change_the_result() {
        let text = r#"{"a\u002f":["x\"y\\",{"é":null}],"b":-1.5e3}"#;
        for size in 1..20 {
            let read = digest(&mut io::BufReader::with_capacity(size, text.as_bytes()), &mut |_, _| {}).expect("JSON");
            assert_eq!(read, of(text), "{size}");
        }
    }

    #[test]
    fn keys_and_texts_are_shown_without_escapes() {
        let shown_of = |text: &str| {
            let mut shown = Vec::new();
            let result = digest(&mut text.as_bytes(), &mut |path, event| match event {
                Event::Key => shown.push(format!("{} {}:", path.len(), path[path.len() - 1])),
                Event::Text(text) => shown.push(format!("{} {text}", path.len())),
                Event::Word(_) | Event::Open => {}
            });
            result.map(|_| shown).expect("JSON")
        };
        let text = r#"{"\u002e\u002e/a":{"b":["c",1]},"d":"\u00e9\n"}"#;
        assert_eq!(shown_of(text), ["1 ../a:", "2 b:", "3 c", "1 d:", "1 é\n"]);
        let half = shown_of(r#"["\u002e\ud800","\ud83d\ude00\u002e"]"#);
        assert_eq!(half, [r"1 \u002e\ud800".to_owned() + CUT, "1 😀.".to_owned()]);
        let long = shown_of(&format!("\"{}\"", "x".repeat(SHOWN_BYTES_MAX + 1)));
        assert_eq!(long[0].len(), "0 ".len() + SHOWN_BYTES_MAX + 1);
    }

    #[test]
    fn a_path_has_the_keys_of_objects_and_an_empty_text_for_arrays() {
        let mut paths = Vec::new();
        let text = r#"{"a":[{"b":1}],"c":{"d":2,"e":3}}"#;
        digest(&mut text.as_bytes(), &mut |path, event| {
            if let Event::Word(word) = event {
                paths.push(format!("{}={word}", path.join("/")));
            }
        })
        .expect("JSON");
        assert_eq!(paths, ["a//b=1", "c/d=2", "c/e=3"]);
    }
}
