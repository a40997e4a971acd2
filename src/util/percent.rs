//! Percent-encoding as URLs have it (RFC 3986), there and back. It does not know what the parts of a URL are.

/// `text` with `%` and two digits for each byte that is no letter, no digit and none of `-._~`, nor in `kept`.
#[must_use]
pub fn encode(text: &str, kept: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The text that was encoded; `None` where a percent sign is not followed by two hexadecimal digits, and where the
/// outcome is not UTF-8.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, kept: &str, expected: &str) {
        assert_eq!(encode(text, kept), expected);
        assert_eq!(decode(expected).as_deref(), Some(text));
    }

    #[test]
    fn what_is_encoded_can_be_decoded() {
        check("azAZ09-._~", "", "azAZ09-._~");
        check("f/a b", "", "f%2Fa%20b");
        check("f/a b", "/", "f/a%20b");
        check("50%?#&+'\"\n", "/", "50%25%3F%23%26%2B%27%22%0A");
        check("\u{fc}\u{20ac}", "/", "%C3%BC%E2%82%AC");
        check("", "/", "");
    }

    #[test]
    fn what_encodes_nothing_is_not_decoded() {
        assert_eq!(decode("%c3%bc+").as_deref(), Some("\u{fc}+"), "in lower case too, and a plus sign is one");
        for text in ["%", "a%2", "%zz", "%+1", "%c3", "%ff"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
