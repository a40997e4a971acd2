//! Parses `WINDMILL_HEADERS`: additional headers for a Windmill behind an access proxy.

use ureq::http::HeaderName;

use crate::util::Secret;

/// The most headers in the setting. An access proxy needs two or three.
const HEADERS_MAX: usize = 20;
/// Headers that this program sets itself, and headers that control how a message is framed or forwarded.
const REFUSED: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Returns the names and values of the headers. The text has one `Name: value` per line, or several in one line,
/// separated by commas. A single line is split only if each part is a header.
///
/// # Errors
/// Returns why the text is refused, without showing any part of it.
pub fn parse_headers(text: &str) -> Result<Vec<(String, Secret)>, &'static str> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let parts = match *lines {
        [line] if line.split(',').all(|part| split_header(part).is_some()) => line.split(',').collect(),
        _ => lines,
    };
    if parts.is_empty() {
        return Err("is empty");
    }
    if parts.len() > HEADERS_MAX {
        return Err("has more than 20 headers");
    }
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for part in parts {
        let (name, value) = parse_header(part)?;
        if headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Err("has a header twice");
        }
        headers.push((name.to_owned(), Secret::new(value)));
    }
    Ok(headers)
}

/// Returns the texts before and after the colon, if the first one is a valid header name.
fn split_header(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once(':')?;
    HeaderName::from_bytes(name.trim().as_bytes()).is_ok().then_some((name.trim(), value.trim()))
}

fn parse_header(text: &str) -> Result<(&str, &str), &'static str> {
    let (name, value) = split_header(text).ok_or("has a line that is not a header: give `Name: value`, one a line")?;
    if REFUSED.iter().any(|refused| name.eq_ignore_ascii_case(refused)) {
        return Err("has a header that is ours to set (Authorization, Host, or one of the message's framing)");
    }
    if value.is_empty() || !value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Err("has a header whose value is empty, or has a character that no header takes");
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let headers = parse_headers(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(headers, expected, "{text}");
    }

    #[test]
    fn headers_are_lines_or_separated_by_commas() {
        check("X-A: b", &[("X-A", "b")]);
        check(
            "CF-Access-Client-Id: x.access\nCF-Access-Client-Secret:y\r\n",
            &[("CF-Access-Client-Id", "x.access"), ("CF-Access-Client-Secret", "y")],
        );
        check("A: b, C: d:e", &[("A", "b"), ("C", "d:e")]);
        check("Cookie: a=1, b=2", &[("Cookie", "a=1, b=2")]);
        check("A: b, c\nD: e, F: g", &[("A", "b, c"), ("D", "e, F: g")]);
    }

    #[test]
    fn reserved_and_malformed_headers_are_refused() {
        let twenty_one: Vec<_> = (0..21).map(|number| format!("X-{number}: y")).collect();
        for text in [
            "",
            " \n ",
            "X-A",
            "X-A b",
            ": b",
            "X A: b",
            "X-\u{e4}: b",
            "X-A:",
            "X-A: \u{e4}",
            "X-A: b\u{1}",
            "X-A: b\nX-a: c",
            "authorization: Bearer x",
            "HOST: h",
            "Content-Length: 1",
            "Transfer-Encoding: chunked",
            "Connection: close",
            "A: b, Host: h",
            &twenty_one.join("\n"),
        ] {
            assert!(parse_headers(text).is_err(), "{text}");
        }
    }
}
