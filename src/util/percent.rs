//! Percent-encoding of URLs (RFC 3986), in both directions.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const NOT_RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IN_A_PATH: &AsciiSet = &NOT_RESERVED.remove(b'/');

/// Encodes a part of a path or query: all characters except letters, digits and `-._~`.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, NOT_RESERVED).to_string()
}

/// Encodes a path: as [`encode`] does, but keeps the slashes.
pub fn encode_path(text: &str) -> String {
    utf8_percent_encode(text, IN_A_PATH).to_string()
}

/// Decodes a text. Returns `None` if a percent sign is not followed by two hexadecimal digits, or if the result is not
/// UTF-8.
pub fn decode(text: &str) -> Option<String> {
    if !is_well_formed(text) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// Returns whether two hexadecimal digits follow each percent sign.
pub fn is_well_formed(text: &str) -> bool {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, encode: fn(&str) -> String, expected: &str) {
        assert_eq!(encode(text), expected);
        assert_eq!(decode(expected).as_deref(), Some(text));
    }

    #[test]
    fn an_encoded_text_can_be_decoded() {
        check("azAZ09-._~", encode, "azAZ09-._~");
        check("f/a b", encode, "f%2Fa%20b");
        check("f/a b", encode_path, "f/a%20b");
        check("50%?#&+'\"\n", encode_path, "50%25%3F%23%26%2B%27%22%0A");
        check("\u{fc}\u{20ac}", encode_path, "%C3%BC%E2%82%AC");
        check("", encode_path, "");
    }

    #[test]
    fn a_malformed_encoding_is_not_decoded() {
        assert_eq!(decode("%c3%bc+").as_deref(), Some("\u{fc}+"), "in lower case too, and a plus sign is one");
        for text in ["%", "a%2", "%zz", "%+1", "%c3", "%ff"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
