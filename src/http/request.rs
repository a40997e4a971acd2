//! Parses a request head, and refuses what two parsers could understand differently. It is a pure function over bytes.
//!
//! `httparse` splits names and values; the request line, line ends, framing and target are checked here.

pub use ureq::http::Method;

use super::response::Response;
use crate::model::Code;
use crate::util::{Secret, percent};

/// The largest size of a request line, its headers and the blank line. Our requests need 300 bytes; proxies allow
/// 8 KiB.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The largest size of a request target. Our longest path has 8 bytes; no client sends more than this limit by mistake.
pub const TARGET_BYTES_MAX: usize = 2 * 1024;

/// The largest size of a method's name. The longest registered one, `UPDATEREDIRECTREF`, has 17 bytes.
pub const METHOD_BYTES_MAX: usize = 32;

/// The most header lines of a request. Browsers behind a proxy send about 30.
pub const HEADERS_MAX: usize = 64;

/// The largest size of a body. The fields of `POST /sync` are names, URLs and tokens: a few hundred bytes, or a few
/// thousand with an SSH key.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The largest size of a DNS host name.
const HOST_BYTES_MAX: usize = 255;

/// The longest request line, with its end: method, target, version, two spaces.
const REQUEST_LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + TARGET_BYTES_MAX + " HTTP/1.1 \r\n".len();

/// A request without its body. Every field is checked.
#[derive(Debug)]
pub struct Head {
    /// The method. Methods are case-sensitive, so `get` is an unknown one.
    pub method: Method,
    /// The target up to the `?`, with its escapes unchanged. It begins with `/`, and is printable ASCII.
    pub path: String,
    /// The part of the target after the `?`.
    pub query: Option<String>,
    /// The length of the body that follows, at most [`BODY_BYTES_MAX`]; 0 without `Content-Length`.
    pub body_bytes: usize,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The host that `Host` names, without the port and the brackets of an IPv6 address.
    pub host_name: Option<String>,
    /// Whether a web page sent it. `Origin` and `Sec-Fetch-Site` show this: browsers add them, and pages cannot remove
    /// them.
    pub is_from_page: bool,
    /// `Content-Type`, as sent.
    pub content_type: Option<String>,
    /// `Authorization`, as sent.
    pub authorization: Option<Secret>,
}

/// Returns the answer to a request that is refused. It contains no text of the request.
fn refused(status: u16, message: &str) -> Response {
    Response::error(status, Code::RequestInvalid, message)
}

fn bad(message: &str) -> Response {
    refused(400, message)
}

/// Parses a head at the beginning of `received`, and returns it with its length. The body follows it. Returns `None` if
/// the head is not complete; the function can be called again with more bytes at the end.
///
/// An error that is already certain is returned before the head is complete, so that a peer that speaks TLS or HTTP/0.9
/// is answered at once. Errors are found in the order of the bytes, so that the answer does not depend on how the bytes
/// were split.
///
/// # Errors
///
/// The answer to the first rule that is broken, with its status: 400, 411, 413, 414, 415, 417, 431, 501 or 505.
pub fn parse_head(received: &[u8]) -> Result<Option<(Head, usize)>, Response> {
    // RFC 9112, 2.2: old clients may leave one empty line before the request line. A second one is an error.
    let bytes = received.strip_prefix(b"\r\n").unwrap_or(received);
    let Some(line_end) = find(b"\r\n", bytes, REQUEST_LINE_BYTES_MAX)? else {
        let is_too_long = bytes.len() > REQUEST_LINE_BYTES_MAX;
        return if is_too_long { Err(refused(414, "the request line is too long")) } else { Ok(None) };
    };
    let (line, rest) = bytes.split_at(line_end);
    let line = parse_request_line(line)?;
    // Without header lines, the end of the request line is the first part of this mark.
    let Some(fields_end) = find(b"\r\n\r\n", rest, HEAD_BYTES_MAX - line_end)? else {
        let is_too_long = bytes.len() > HEAD_BYTES_MAX;
        return if is_too_long { Err(refused(431, "the head is longer than 8 KiB")) } else { Ok(None) };
    };
    let (fields, body) = rest.split_at(fields_end + b"\r\n\r\n".len());
    Ok(Some((build_head(line, &fields[b"\r\n".len()..])?, received.len() - body.len())))
}

/// Returns where `mark` begins, if all of it is within the first `bytes_max` bytes. Checks the bytes up to its end, or
/// all of these: each line has to end in CR LF, and the tab is the only other control character. Parsers differ on all
/// the others.
fn find(mark: &[u8], bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Response> {
    let bytes = &bytes[..bytes.len().min(bytes_max)];
    let begin = bytes.windows(mark.len()).position(|window| window == mark);
    let mut previous = 0;
    for byte in &bytes[..begin.map_or(bytes.len(), |begin| begin + mark.len())] {
        match (previous, *byte) {
            (b'\r', b'\n') => {}
            (_, b'\n') => return Err(bad("a line ends in a bare LF")),
            (b'\r', _) => return Err(bad("a CR without its LF")),
            (_, b'\r' | b'\t' | b' '..=b'~' | 0x80..) => {}
            _ => return Err(bad("a control character in the head")),
        }
        previous = *byte;
    }
    Ok(begin)
}

/// Whether these bytes begin a `HEAD` request. The answer to a refused `HEAD` request has no body either.
pub fn begins_head_request(received: &[u8]) -> bool {
    received.strip_prefix(b"\r\n").unwrap_or(received).starts_with(b"HEAD ")
}

impl Head {
    /// Checks that the body, if there is one, is declared to be JSON in UTF-8.
    ///
    /// # Errors
    ///
    /// 415 if it is not. A form or a page of another site can send other types without asking the server, so none of
    /// them is taken for JSON.
    pub fn require_json(&self) -> Result<(), Response> {
        if self.body_bytes == 0 {
            return Ok(());
        }
        let mut parts = self.content_type.as_deref().unwrap_or_default().split(';').map(str::trim);
        if !parts.next().is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json")) {
            return Err(refused(415, "a body must come with `Content-Type: application/json`"));
        }
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            if name.eq_ignore_ascii_case("charset") && !value.trim_matches('"').eq_ignore_ascii_case("utf-8") {
                return Err(refused(415, "a body must be UTF-8"));
            }
        }
        Ok(())
    }

    /// Returns the token of `Authorization: Bearer …`.
    pub fn bearer_token(&self) -> Option<&[u8]> {
        self.credentials("Bearer").map(str::as_bytes)
    }

    /// Returns the password of `Authorization: Basic …`.
    pub fn basic_password(&self) -> Option<Vec<u8>> {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.decode(self.credentials("Basic")?).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        Some(pair[colon + 1..].to_vec())
    }

    fn credentials(&self, scheme: &str) -> Option<&str> {
        let (sent, credentials) = self.authorization.as_ref()?.expose().split_once(' ')?;
        sent.eq_ignore_ascii_case(scheme).then(|| credentials.trim_start_matches(' '))
    }
}

/// Returns the method, the target and the minor version of HTTP.
fn parse_request_line(line: &[u8]) -> Result<(Method, &str, u8), Response> {
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return Err(bad("the request line is not `method target version`, with one space between"));
    };
    // The version is checked first, because the rest may mean something else in another version.
    let minor_version = match version.strip_prefix(b"HTTP/") {
        // A higher minor version is treated as the highest that is known (RFC 9110, 2.5).
        Some([b'1', b'.', minor @ b'0'..=b'9']) => (minor - b'0').min(1),
        Some([b'0'..=b'9', b'.', b'0'..=b'9']) => return Err(refused(505, "this speaks HTTP/1.1 and HTTP/1.0")),
        _ => return Err(bad("the request line does not end in an HTTP version")),
    };
    if method.len() > METHOD_BYTES_MAX {
        return Err(refused(501, "no method has such a long name"));
    }
    let method = Method::from_bytes(method).map_err(|_| bad("the method is not a token"))?;
    Ok((method, check_target(target)?, minor_version))
}

/// Accepts only the origin form, with the characters that RFC 3986 permits in a path and a query.
fn check_target(target: &[u8]) -> Result<&str, Response> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(refused(414, "the request target is longer than 2 KiB"));
    }
    if target.first() != Some(&b'/') {
        return Err(bad("the request target does not begin with `/`"));
    }
    let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(byte);
    let text = str::from_utf8(target).ok().filter(|_| target.iter().all(permitted));
    let text = text.ok_or_else(|| bad("the request target has characters that must be percent-encoded"))?;
    if !percent::is_well_formed(text) {
        return Err(bad("a malformed percent-escape in the request target"));
    }
    Ok(text)
}

/// Builds the head from the parts of its first line and the lines that follow it.
fn build_head((method, target, minor_version): (Method, &str, u8), lines: &[u8]) -> Result<Head, Response> {
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let fields = match httparse::parse_headers(lines, &mut storage) {
        // If the parser found another end than this code, a part of the head would be read as a body.
        Ok(httparse::Status::Complete((used, headers))) if used == lines.len() => headers,
        Err(httparse::Error::TooManyHeaders) => return Err(refused(431, "more than 64 header lines")),
        Err(httparse::Error::HeaderValue) => return Err(bad("a malformed header value")),
        _ => return Err(bad("a malformed header line")),
    };
    // Returns the value of a header that may be sent at most once: with two, parsers differ on which one counts.
    let single = |name: &str| {
        let mut values = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(bad("a header that may come once at most came twice")),
        }
    };
    let text =
        |name: &str| single(name)?.map(str::from_utf8).transpose().map_err(|_| bad("a header value is not UTF-8"));
    let host_name = match single("Host")? {
        Some(host) => Some(parse_host(host)?),
        None if minor_version == 0 => None,
        None => return Err(bad("an HTTP/1.1 request needs `Host`")),
    };
    let body_bytes = body_length(single("Transfer-Encoding")?, single("Content-Length")?, minor_version)?;
    if body_bytes > 0 && matches!(method, Method::GET | Method::HEAD) {
        // Such a body has no meaning, and a proxy may take it for the next request.
        return Err(bad("a GET or HEAD request with a body"));
    }
    if body_bytes > 0 && single("Content-Encoding")?.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(refused(415, "a body must not be compressed"));
    }
    // HTTP/1.0 does not know `Expect`, so it is ignored there.
    let expectation = single("Expect")?.filter(|_| minor_version > 0);
    if expectation.is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(refused(417, "no expectation but `100-continue` is known"));
    }
    let is_of_page = |field: &httparse::Header<'_>| {
        field.name.eq_ignore_ascii_case("Origin")
            || field.name.eq_ignore_ascii_case("Sec-Fetch-Site") && !field.value.eq_ignore_ascii_case(b"none")
    };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    Ok(Head {
        method,
        path: path.to_owned(),
        query,
        body_bytes,
        expects_continue: expectation.is_some() && body_bytes > 0,
        host_name,
        is_from_page: fields.iter().any(is_of_page),
        content_type: text("Content-Type")?.map(str::to_owned),
        authorization: text("Authorization")?.map(Secret::new),
    })
}

/// Returns the host without the port and the brackets. Accepts host names, addresses, and addresses in brackets, with
/// or without a port. No other host is a DNS name.
fn parse_host(host: &[u8]) -> Result<String, Response> {
    let (name, port) = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !host.ends_with(b"]") => (&host[..colon], &host[colon + 1..]),
        _ => (host, &b""[..]),
    };
    let (name, is_permitted): (_, fn(&u8) -> bool) = match name {
        [b'[', address @ .., b']'] => (address, |byte| byte.is_ascii_hexdigit() || b":.".contains(byte)),
        _ => (name, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)),
    };
    let port_is_sound = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    if name.is_empty() || name.len() > HOST_BYTES_MAX || !name.iter().all(is_permitted) || !port_is_sound {
        return Err(bad("a malformed `Host`"));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Returns the length of the body that follows: 0, or the value of `Content-Length`. Transfer codings are refused.
fn body_length(coding: Option<&[u8]>, length: Option<&[u8]>, minor_version: u8) -> Result<usize, Response> {
    if let Some(coding) = coding {
        // RFC 9112, 6.1 and 6.3: with both headers, or in HTTP/1.0, the sender may want two parsers to disagree.
        if length.is_some() || minor_version == 0 {
            return Err(bad("`Transfer-Encoding` beside `Content-Length`, or in HTTP/1.0"));
        }
        if coding.eq_ignore_ascii_case(b"chunked") {
            return Err(refused(411, "a chunked body is not taken, send `Content-Length`"));
        }
        return Err(refused(501, "this transfer coding is not known, send `Content-Length`"));
    }
    let digits = length.unwrap_or(b"0");
    // `str::parse` would accept a `+`.
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad("`Content-Length` is not a number"));
    }
    let value = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    value.filter(|value| *value <= BODY_BYTES_MAX).ok_or_else(|| refused(413, "the body is longer than 64 KiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn complete(bytes: &[u8]) -> Head {
        match parse_head(bytes) {
            Ok(Some((head, _))) => head,
            other => panic!("not a complete head: {other:?}"),
        }
    }

    #[track_caller]
    fn check_json(content_type: &str, expected: Option<u16>) {
        let head = complete(
            format!("POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Type: {content_type}\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(head.require_json().err().map(|refusal| refusal.status), expected, "{content_type}");
    }

    #[test]
    fn a_head_is_parsed_into_its_parts() {
        let bytes = b"POST /sync?a=1?b HTTP/1.1\r\nhost: a:80\r\nContent-Length: 7\r\nExpect: 100-Continue\r\n\
            Content-Type: application/json\r\nAuthorization: bearer t0ken\r\n\r\n{\"a\":1}";
        let Ok(Some((head, bytes_used))) = parse_head(bytes) else { panic!("not complete") };
        assert_eq!(&bytes[bytes_used..], b"{\"a\":1}");
        assert_eq!((&head.method, head.path.as_str(), head.query.as_deref()), (&Method::POST, "/sync", Some("a=1?b")));
        assert_eq!((head.body_bytes, head.expects_continue), (7, true));
        assert_eq!(head.content_type.as_deref(), Some("application/json"));
        assert_eq!(head.bearer_token(), Some(&b"t0ken"[..]));
        assert!(!format!("{head:?}").contains("t0ken"), "a head must not print its token");
    }

    #[test]
    fn every_part_of_a_valid_head_is_incomplete() {
        let bytes = b"\r\nGET /health HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        for length in 0..bytes.len() {
            assert!(matches!(parse_head(&bytes[..length]), Ok(None)), "{length} bytes");
        }
        assert_eq!(complete(bytes).path, "/health");
    }

    #[test]
    fn the_host_has_no_port_and_no_brackets() {
        for (host, name) in [
            ("a", "a"),
            ("a:80", "a"),
            ("a:", "a"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("[::1]", "::1"),
            ("[::1]:80", "::1"),
        ] {
            let head = complete(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            assert_eq!(head.host_name.as_deref(), Some(name), "{host}");
        }
        assert_eq!(complete(b"GET / HTTP/1.0\r\n\r\n").host_name, None);
    }

    #[test]
    fn a_request_of_a_web_page_is_recognized_by_its_headers() {
        for (header, expected) in [
            ("Origin: http://a", true),
            ("origin: null", true),
            ("Sec-Fetch-Site: cross-site", true),
            ("sec-fetch-site: same-origin", true),
            ("Sec-Fetch-Site: none", false),
            ("X-Origin: http://a", false),
        ] {
            let head = complete(format!("POST /sync HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n").as_bytes());
            assert_eq!(head.is_from_page, expected, "{header}");
        }
    }

    #[test]
    fn credentials_are_found_by_their_scheme() {
        let head = |value: &str| complete(format!("GET / HTTP/1.0\r\nAuthorization: {value}\r\n\r\n").as_bytes());
        assert_eq!(head("Basic dXNlcjpwYTpzcw==").basic_password(), Some(b"pa:ss".to_vec()));
        assert_eq!(head("Basic dXNlcg==").basic_password(), None, "no colon");
        assert_eq!(head("Basic %%%").basic_password(), None, "no base64");
        assert_eq!(head("Basic dXNlcjpwYTpzcw==").bearer_token(), None);
        assert_eq!(head("Bearer a b").bearer_token(), Some(&b"a b"[..]));
        assert_eq!(head("Bearer").bearer_token(), None);
        assert_eq!(head("").bearer_token(), None);
    }

    #[test]
    fn only_json_in_utf_8_counts_as_json() {
        check_json("application/json", None);
        check_json("Application/JSON; charset=UTF-8", None);
        check_json("application/json;charset=\"utf-8\"", None);
        check_json("application/json; charset=latin1", Some(415));
        check_json("application/jsonx", Some(415));
        check_json("text/plain; application/json", Some(415));
        check_json("application/x-www-form-urlencoded", Some(415));
        check_json("", Some(415));
        let bodiless = complete(b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\r\n");
        assert_eq!(bodiless.require_json(), Ok(()));
    }
}
