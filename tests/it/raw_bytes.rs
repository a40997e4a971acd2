//! Bytes in, status out, reason: what the real listener does with valid and invalid requests, one row each. A section
//! says once how all its rows begin and end. Each accepted form is next to the most similar refused one. The
//! routes are defined in this file, so that the rows are only about HTTP.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use windmill_git_sync::http::request::{BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, Head, TARGET_BYTES_MAX};
use windmill_git_sync::http::response::Response;
use windmill_git_sync::http::server::{Caller, Draining, Handler, Limits, Server, Stop};
use windmill_git_sync::util::secret::Secret;

/// The status of a connection that was closed without an answer.
const NO_ANSWER: u16 = 0;

/// Bytes in, status out, reason.
type Row = (&'static [u8], u16, &'static str);

/// Rows with a common beginning and end.
struct Section {
    about: &'static str,
    /// The bytes before those of each row.
    before: &'static [u8],
    /// The bytes after those of each row.
    after: &'static [u8],
    rows: &'static [Row],
}

/// Rows in which the client sends everything and then closes its side.
#[rustfmt::skip]
const SECTIONS: &[Section] = &[
    Section {
        about: "The request line",
        before: b"",
        after: b"\r\nHost: a\r\n\r\n",
        rows: &[
            (b"GET /health HTTP/1.1", 200, "the plain request"),
            (b"\r\nGET /health HTTP/1.1", 200, "one empty line before it"),
            (b"\r\n\r\nGET /health HTTP/1.1", 400, "two empty lines before it"),
            (b" GET /health HTTP/1.1", 400, "a space before it"),
            (b"GET  /health HTTP/1.1", 400, "two spaces after the method"),
            (b"GET /health  HTTP/1.1", 400, "two spaces before the version"),
            (b"GET /health HTTP/1.1 ", 400, "a space after the version"),
            (b"GET\t/health HTTP/1.1", 400, "a tab after the method"),
            (b"GET /health\tHTTP/1.1", 400, "a tab before the version"),
            (b"GET /health x HTTP/1.1", 400, "four words"),
            (b"GET HTTP/1.1", 400, "two words"),
            (b"GET", 400, "one word"),
        ],
    },
    Section {
        about: "Methods",
        before: b"",
        after: b" /health HTTP/1.1\r\nHost: a\r\n\r\n",
        rows: &[
            (b"HEAD", 200, "HEAD where GET works"),
            (b"POST", 405, "POST where GET works"),
            (b"get", 405, "methods are case-sensitive"),
            (b"DELETE", 405, "DELETE"),
            (b"PUT", 405, "PUT"),
            (b"PATCH", 405, "PATCH"),
            (b"OPTIONS", 405, "OPTIONS"),
            (b"TRACE", 405, "TRACE"),
            (b"M-SEARCH!#$%&'*+.^_`|~", 405, "every character of a token"),
            (b"G@T", 400, "not a token"),
            (b"GET:", 400, "a token has no colon"),
            (b"G\xc3\x89T", 400, "raw UTF-8 in the method"),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF", 405, "32 bytes of method"),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", 501, "33 bytes of method"),
        ],
    },
    Section {
        about: "Methods of the routes",
        before: b"",
        after: b"",
        rows: &[
            (b"POST /sync HTTP/1.1\r\nHost: a\r\n\r\n", 200, "POST"),
            (b"GET /sync HTTP/1.1\r\nHost: a\r\n\r\n", 405, "GET where POST works"),
            (b"HEAD /sync HTTP/1.1\r\nHost: a\r\n\r\n", 405, "HEAD where POST works"),
        ],
    },
    Section {
        about: "Versions",
        before: b"GET /health ",
        after: b"\r\nHost: a\r\n\r\n",
        rows: &[
            (b"HTTP/1.2", 200, "a later minor version is read as 1.1"),
            (b"HTTP/2.0", 505, "another major version"),
            (b"HTTP/0.9", 505, "HTTP/0.9 by name"),
            (b"http/1.1", 400, "the name is case-sensitive"),
            (b"HTTP/1", 400, "no minor version"),
            (b"HTTP/1.", 400, "no digit of a minor version"),
            (b"HTTP/1.10", 400, "two digits"),
            (b"HTTP/11", 400, "no dot"),
            (b"HTTP/1.x", 400, "not a digit"),
            (b"HTTPS/1.1", 400, "another protocol"),
        ],
    },
    Section {
        about: "Versions with other rules",
        before: b"",
        after: b"",
        rows: &[
            (b"GET /health HTTP/1.0\r\n\r\n", 200, "HTTP/1.0, which has no Host"),
            (b"GET /health HTTP/1.2\r\n\r\n", 400, "HTTP/1.2 needs a Host, like 1.1"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "the preface of HTTP/2"),
            (b"GET /health\r\n\r\n", 400, "a request of HTTP/0.9"),
        ],
    },
    Section {
        about: "Targets",
        before: b"GET ",
        after: b" HTTP/1.1\r\nHost: a\r\n\r\n",
        rows: &[
            (b"/", 404, "the root, for which there is no route here"),
            (b"/health?verbose=1&x=%2F/?", 200, "a query"),
            (b"/health?", 200, "an empty query"),
            (b"/health#top", 400, "a fragment"),
            (b"/health/", 404, "another path"),
            (b"/health;a=b", 404, "a parameter is part of the path"),
            (b"//health", 404, "another path, not another host"),
            (b"/../health", 404, "dot segments are not resolved"),
            (b"health", 400, "no slash at the beginning"),
            (b"http://a/health", 400, "absolute form"),
            (b"?a", 400, "a query alone"),
            (b"/%68ealth", 404, "escapes are not decoded"),
            (b"/%00", 404, "an escaped NUL stays escaped"),
            (b"/health%0d%0aX:%20y", 404, "an escaped line end stays escaped"),
            (b"/%c3%A9", 404, "escaped UTF-8"),
            (b"/\xc3\xa9", 400, "raw UTF-8"),
            (b"/health?\xe9", 400, "raw latin-1 in the query"),
            (b"/%", 400, "an escape without digits"),
            (b"/%a", 400, "an escape with one digit"),
            (b"/%ag", 400, "an escape with a digit that is not hexadecimal"),
            (b"/health?x=%%30", 400, "an escape within an escape"),
            (b"/-._~!$&'()*+,;=:@", 404, "every character that a path permits"),
            (b"/a\"b", 400, "a raw quote"),
            (b"/a<b", 400, "a raw less-than"),
            (b"/a>b", 400, "a raw greater-than"),
            (b"/a\\b", 400, "a raw backslash"),
            (b"/a^b", 400, "a raw caret"),
            (b"/a`b", 400, "a raw backtick"),
            (b"/a{b", 400, "a raw opening brace"),
            (b"/a|b", 400, "a raw bar"),
            (b"/a}b", 400, "a raw closing brace"),
            (b"/a[b", 400, "a raw opening bracket"),
            (b"/a]b", 400, "a raw closing bracket"),
            (b"/a\x7fb", 400, "a raw DEL"),
            (b"/a\0b", 400, "a raw NUL"),
        ],
    },
    Section {
        about: "Targets of other forms",
        before: b"",
        after: b"",
        rows: &[
            (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400, "authority form"),
            (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "asterisk form"),
        ],
    },
    Section {
        about: "Line ends",
        before: b"",
        after: b"",
        rows: &[
            (b"GET /health HTTP/1.1\nHost: a\r\n\r\n", 400, "a bare LF after the request line"),
            (b"GET /health HTTP/1.1\r\nHost: a\n\r\n", 400, "a bare LF after a header"),
            (b"GET /health HTTP/1.1\r\nHost: a\r\n\n", 400, "a bare LF at the end"),
            (b"\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a bare LF at the beginning"),
            (b"GET /health HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, "a bare CR within the head"),
            (b"GET /health HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, "two CR"),
            (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\r\n", 400, "two CR at the end"),
            (b"GET /health\r HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a CR in the target"),
        ],
    },
    Section {
        about: "Host",
        before: b"GET /health HTTP/1.1\r\n",
        after: b"\r\n\r\n",
        rows: &[
            (b"hOsT: a", 200, "names are case-insensitive"),
            (b"Host: a\r\nHost: a", 400, "Host twice"),
            (b"Host: a\r\nhost: b", 400, "Host twice, in two spellings"),
            (b"Host:", 400, "an empty Host"),
            (b"Host: windmill_git-sync.x:8080", 200, "a name of compose, with a port"),
            (b"Host:a", 200, "no space after the colon"),
            (b"Host: \t a \t", 200, "white space around the value"),
            (b"Host: a b", 400, "white space within it"),
            (b"Host: a, b", 400, "a list"),
            (b"Host: a/b", 400, "a path"),
            (b"Host: u@a", 400, "a user"),
            (b"Host: \xc3\xa9", 400, "raw UTF-8"),
            (b"Host: a:", 200, "an empty port, which the grammar has"),
            (b"Host: a:80x", 400, "a port that is not a number"),
            (b"Host: a:123456", 400, "a port of six digits"),
            (b"Host: :80", 400, "a port alone"),
            (b"Host: 127.0.0.1:80", 200, "an address"),
            (b"Host: [::1]:80", 200, "an IPv6 address with a port"),
            (b"Host: [::ffff:1.2.3.4]", 200, "an IPv6 address without"),
            (b"Host: ::1", 400, "an IPv6 address without brackets"),
            (b"Host: [::1", 400, "one bracket"),
            (b"Host: []", 400, "empty brackets"),
            (b"Host: [g::1]", 400, "no address in the brackets"),
            (b"Host: [::1]x", 400, "more after the brackets"),
        ],
    },
    Section {
        about: "Host, and requests without it",
        before: b"",
        after: b"",
        rows: &[
            (b"GET /health HTTP/1.1\r\n\r\n", 400, "no Host"),
            (b"GET /health HTTP/1.0\r\nHost: a\r\n\r\n", 200, "HTTP/1.0 may send it"),
            (b"GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, "but only once"),
        ],
    },
    Section {
        about: "Header lines",
        before: b"GET /health HTTP/1.1\r\nHost: a\r\n",
        after: b"\r\n\r\n",
        rows: &[
            (b"X-Empty:\r\nX_1.~: b\tc ", 200, "unusual, and permitted"),
            (b"Content_Length: 5\r\nTransfer_Encoding: chunked", 200, "names that only look like others"),
            (b"X: \xc3\xa9\xff", 200, "opaque bytes in a value that is not read"),
            (b"X: a\0b", 400, "a NUL in a value"),
            (b"X: a\x0bb", 400, "a vertical tab in a value"),
            (b"X: a\x7fb", 400, "a DEL in a value"),
            (b"X: a\x1b[31m", 400, "a terminal's escape in a value"),
            (b"X : b", 400, "a space before the colon"),
            (b"X\t: b", 400, "a tab before the colon"),
            (b"X: b\r\n c", 400, "obsolete folding by a space"),
            (b"X: b\r\n\tc", 400, "obsolete folding by a tab"),
            (b": b", 400, "no name"),
            (b"nothing", 400, "no colon"),
            (b"X(y): b", 400, "a name that is not a token"),
            (b"\xc3\xa9: b", 400, "a name in raw UTF-8"),
            (b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c", 200, "an upgrade that is ignored"),
        ],
    },
    Section {
        about: "Header lines, the first one",
        before: b"",
        after: b"",
        rows: &[
            (b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n", 400, "a space before Host's colon"),
            (b"GET /health HTTP/1.1\r\n Host: a\r\n\r\n", 400, "a space before the first header"),
        ],
    },
    Section {
        about: "Content-Length",
        before: b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n",
        after: b"\r\n\r\n{}",
        rows: &[
            (b"Content-Length: 2", 200, "a body"),
            (b"content-length: 2", 200, "in lower case"),
            (b"Content-Length: 0002", 200, "leading zeros, which the grammar has"),
            (b"Content-Length: 2 ", 200, "white space after it"),
            (b"Content-Length:\t2", 200, "a tab before it"),
            (b"Content-Length: 2\r\nContent-Length: 2", 400, "twice the same"),
            (b"Content-Length: 2, 2", 400, "a list"),
            (b"Content-Length: +2", 400, "a plus"),
            (b"Content-Length: -2", 400, "a minus"),
            (b"Content-Length: 0x2", 400, "hexadecimal"),
            (b"Content-Length: 2.0", 400, "a fraction"),
            (b"Content-Length: 1 2", 400, "white space within it"),
            (b"Content-Length: 2_0", 400, "an underscore"),
            (b"Content-Length: \xd9\xa2", 400, "digits of another script"),
            (b"Content-Length:", 400, "an empty one"),
            (b"Content-Length : 2", 400, "a space before the colon"),
            (b"Content-Length: 18446744073709551618", 413, "a number that would wrap to 2"),
            (b"Content-Length: 3", 400, "a body cut off"),
        ],
    },
    Section {
        about: "Content-Length that does not fit the body or the method",
        before: b"",
        after: b"",
        rows: &[
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n", 200, "an empty body"),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-length: 3\r\n\r\n{} ", 400, "twice, not the same"),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 65537\r\n\r\n", 413, "one byte too many"),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 18446744073709551616\r\n\r\n", 413, "more than 64 bits"),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n", 400, "a body that never begins"),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}GET /x HTTP/1.1\r\n", 200, "bytes after it are not read"),
            (b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, "GET with an empty body"),
            (b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 400, "GET with a body"),
            (b"HEAD /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 400, "HEAD with a body"),
            (b"POST /sync HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 200, "HTTP/1.0 with a body"),
        ],
    },
    Section {
        about: "Transfer-Encoding: no coding is supported",
        before: b"POST /sync HTTP/1.1\r\nHost: a\r\n",
        after: b"\r\n\r\n0\r\n\r\n",
        rows: &[
            (b"Transfer-Encoding: chunked", 411, "chunked, which a client can do without"),
            (b"transfer-encoding: CHUNKED", 411, "in another case"),
            (b"Transfer-Encoding: gzip, chunked", 501, "two codings"),
            (b"Transfer-Encoding: xchunked", 501, "an unknown coding"),
            (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, "twice"),
            (b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400, "before Content-Length"),
            (b"Content-Length: 0\r\nTransfer-Encoding: chunked", 400, "after Content-Length"),
            (b"Transfer-Encoding : chunked", 400, "a space before the colon"),
            (b"Transfer-Encoding: \x0bchunked", 400, "a vertical tab before it"),
            (b"X: y\r\n Transfer-Encoding: chunked", 400, "hidden in a folded line"),
        ],
    },
    Section {
        about: "Transfer-Encoding with other headers",
        before: b"",
        after: b"",
        rows: &[
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501, "an obsolete coding"),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 501, "an empty one"),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: identity\r\n\r\n{}", 400, "any coding, with Content-Length"),
            (b"POST /sync HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "in HTTP/1.0"),
            (b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "on a GET"),
            (b"GET /health HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X\r\n\r\n", 200, "TE and Trailer are other headers"),
        ],
    },
    Section {
        about: "Expect, with the body in the same request",
        before: b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n",
        after: b"\r\n\r\n{}",
        rows: &[
            (b"Expect: 100-continue", 200, "the supported one"),
            (b"Expect: 100-Continue", 200, "in another case"),
            (b"Expect: 100-continued", 417, "another one"),
            (b"Expect: 100-continue, x", 417, "a list"),
            (b"Expect:", 417, "an empty one"),
            (b"Expect: 100-continue\r\nExpect: 100-continue", 400, "twice"),
        ],
    },
    Section {
        about: "Expect, in HTTP/1.0",
        before: b"",
        after: b"",
        rows: &[
            (b"POST /sync HTTP/1.0\r\nExpect: x\r\n\r\n", 200, "HTTP/1.0 has no Expect"),
        ],
    },
    Section {
        about: "The type and coding of a body",
        before: b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n",
        after: b"\r\n\r\n{}",
        rows: &[
            (b"Content-Type: application/json; charset=utf-8", 200, "JSON in UTF-8"),
            (b"Content-Type: application/json; charset=utf-16", 415, "JSON in UTF-16"),
            (b"Content-Type: text/plain", 415, "text"),
            (b"Content-Type: application/x-www-form-urlencoded", 415, "a form, curl's default"),
            (b"Content-Type: \xff", 400, "a type that is not text"),
            (b"Content-Type: application/json\r\nContent-Type: text/plain", 400, "two types"),
            (b"Content-Type: application/json\r\nContent-Encoding: identity", 200, "not compressed"),
            (b"Content-Type: application/json\r\nContent-Encoding: gzip", 415, "compressed"),
            (b"Content-Type: application/json\r\nContent-Encoding: identity, gzip", 415, "compressed, in a list"),
        ],
    },
    Section {
        about: "A body without a type, and types without a body",
        before: b"",
        after: b"",
        rows: &[
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 415, "no Content-Type"),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\r\n", 200, "text, without a body"),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n\r\n", 200, "compressed, without a body"),
        ],
    },
    Section {
        about: "The token",
        before: b"GET /status HTTP/1.1\r\nHost: a\r\n",
        after: b"\r\n\r\n",
        rows: &[
            (b"Authorization: Bearer t0ken", 200, "the right one"),
            (b"Authorization: bearer  t0ken", 200, "the scheme in another case"),
            (b"Authorization: Bearer t0kem", 401, "a wrong one"),
            (b"Authorization: t0ken", 401, "no scheme"),
            (b"Authorization: Basic t0ken", 401, "another scheme"),
            (b"Authorization: Bearer t0ken\r\nAuthorization: Bearer t0kem", 400, "two"),
            (b"Authorization: Bearer \xff", 400, "not text"),
        ],
    },
    Section {
        about: "A request without the token",
        before: b"",
        after: b"",
        rows: &[
            (b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n", 401, "none"),
            (b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n", 405, "answered without its body"),
        ],
    },
    Section {
        about: "Incomplete requests, and other protocols",
        before: b"",
        after: b"",
        rows: &[
            (b"", 0, "nothing: no client waits for an answer"),
            (b"\r\n", 400, "an empty line"),
            (b"GET", 400, "a method cut off"),
            (b"GET /health HTTP/1.1\r\nHost: a\r\n", 400, "the last line is missing"),
            (b"GET /health HTTP/1.1\r\nHost: a\r\n\r", 400, "the last byte is missing"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "TLS"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", 400, "SSH"),
            (b"*1\r\n$4\r\nPING\r\n", 400, "redis"),
            (b"\x05\x01\x00", 400, "SOCKS"),
            (b"\xff\xfe\xfd", 400, "bytes"),
            (b"\0\0\0\0", 400, "zeros"),
            (b"{\"workspace\":\"a\"}", 400, "a body without its head"),
        ],
    },
];

/// Rows in which the client sends this and keeps its side open. 100 is the interim answer, after which the server waits
/// for more.
#[rustfmt::skip]
const LEFT_OPEN: &[Row] = &[
    (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", 200, "an answer, although more could follow"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\n\r", 408, "one byte less"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\n", 408, "the last line never comes"),
    (b"GET", 408, "the method never ends"),
    (b"\r\n", 408, "an empty line"),
    (b"", 0, "nothing: browsers open connections in advance, so this is not an error"),
    // An invalid request is refused before the head is complete.
    (b"GET /health HTTP/2.0\r\n", 505, "another major version"),
    (b"GET /health HTTP/1.1\n", 400, "a bare LF"),
    (b"GET /health\r\n", 400, "HTTP/0.9"),
    (b"GET http://a/health HTTP/1.1\r\n", 400, "absolute form"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "TLS"),
    // Bodies.
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 200, "the whole body"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{", 408, "one byte less"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n", 408, "a body that never begins"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 411, "the server does not wait for chunks"),
    // Expect: the server asks for the body when the head gives no reason to refuse it.
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", 100, "go on"),
    (b"POST /private HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0ken\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", 100, "go on, with the right token"),
    (b"POST /private HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0kem\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", 401, "a wrong token"),
    (b"POST /private HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", 401, "no token"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 65536\r\nExpect: 100-continue\r\n\r\n", 100, "the longest body"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 65537\r\nExpect: 100-continue\r\n\r\n", 413, "one byte more"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", 415, "not JSON"),
    (b"POST /absent HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", 404, "no route"),
    (b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", 405, "not with this method"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", 200, "no body to ask for"),
    (b"POST /sync HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", 408, "HTTP/1.0 has no interim answers"),
];

/// Returns the rows at the limits, which are too long to be written here.
fn long_rows() -> Vec<(Vec<u8>, u16, &'static str)> {
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(bytes - 1));
    let head = |bytes: usize| {
        let (begin, end) = ("GET /health HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n");
        format!("{begin}{}{end}", "x".repeat(bytes - begin.len() - end.len()))
    };
    let headers = |count: usize| format!("GET /health HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let host = |bytes: usize| format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(bytes));
    let body = |bytes: usize| {
        let head = "POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length";
        format!("{head}: {bytes}\r\n\r\n{}", " ".repeat(bytes))
    };
    let rows = [
        (target(TARGET_BYTES_MAX), 404, "the longest target"),
        (target(TARGET_BYTES_MAX + 1), 414, "one byte more of target"),
        (target(HEAD_BYTES_MAX), 414, "a target as long as a head may be"),
        (format!("GET /{}", "a".repeat(HEAD_BYTES_MAX)), 414, "a target without end"),
        ("A".repeat(HEAD_BYTES_MAX + 1), 414, "a method without end"),
        (head(HEAD_BYTES_MAX), 200, "the longest head"),
        (head(HEAD_BYTES_MAX + 1), 431, "one byte more of head"),
        (format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(HEAD_BYTES_MAX)), 431, "a header without end"),
        (headers(HEADERS_MAX), 200, "the most headers"),
        (headers(HEADERS_MAX + 1), 431, "one header more"),
        (host(255), 200, "the longest host name"),
        (host(256), 400, "one byte more of host name"),
        (body(BODY_BYTES_MAX), 200, "the longest body"),
        (body(BODY_BYTES_MAX + 1), 413, "one byte more of body, all of it sent"),
        (body(8 * BODY_BYTES_MAX), 413, "a body that is far too long, all of it sent"),
        (format!("{}{}", body(2), "x".repeat(BODY_BYTES_MAX)), 200, "a flood behind a body"),
    ];
    rows.map(|(bytes, status, reason)| (bytes.into_bytes(), status, reason)).into()
}

/// Returns all rows whose client closes its side: bytes, status, and where to find them.
fn ended_rows() -> Vec<(Vec<u8>, u16, String)> {
    let written = SECTIONS.iter().flat_map(|section| {
        section.rows.iter().map(|(bytes, status, reason)| {
            let bytes = [section.before, bytes, section.after].concat();
            (bytes, *status, format!("{}: {reason}", section.about))
        })
    });
    let long = long_rows().into_iter().map(|(bytes, status, reason)| (bytes, status, format!("limits: {reason}")));
    written.chain(long).collect()
}

/// Returns the bytes of every row, for other tests.
pub(crate) fn all_bytes() -> Vec<Vec<u8>> {
    let left_open = LEFT_OPEN.iter().map(|(bytes, ..)| bytes.to_vec());
    ended_rows().into_iter().map(|(bytes, ..)| bytes).chain(left_open).collect()
}

/// A service with the routes that the rows need.
struct Routes;

impl Handler for Routes {
    fn before_body(&self, head: &Head) -> Option<Response> {
        let allowed = match head.path.as_str() {
            "/health" | "/status" => "GET, HEAD",
            "/sync" | "/private" => "POST",
            _ => return Some(Response::not_found()),
        };
        if !allowed.split(", ").any(|method| method == head.method.as_str()) {
            return Some(Response::method_not_allowed(allowed));
        }
        let is_open = matches!(head.path.as_str(), "/health" | "/sync");
        if !is_open && !head.bearer_token().is_some_and(|token| Secret::new("t0ken").matches(token)) {
            return Some(Response::unauthorized("Bearer"));
        }
        head.require_json().err()
    }

    fn handle(&self, head: &Head, body: Vec<u8>, _caller: &Caller) -> Response {
        assert_eq!(body.len(), head.body_bytes, "the handler gets the whole body and nothing more");
        Response::json(200, format!("{{\"body_bytes\":{}}}", body.len()))
    }
}

/// The listener with these routes.
struct Listener {
    address: SocketAddr,
    stop: Stop,
    serving: std::thread::JoinHandle<Draining>,
}

impl Listener {
    fn start(limits: Limits) -> Self {
        let mut server = Server::bind("127.0.0.1:0").unwrap();
        server.limits = limits;
        let (address, stop) = (server.local_addr().unwrap(), server.stop_handle());
        let serving = std::thread::spawn(move || server.run(Arc::new(Routes)));
        Self { address, stop, serving }
    }

    /// Connects and sends the bytes.
    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // A client that is refused early may be unable to send everything. Only the answer counts.
        let _ = stream.write_all(bytes);
        stream
    }

    /// Ends the listener, and asserts that no connection is left.
    #[track_caller]
    fn end(self) {
        self.stop.stop();
        assert_eq!(self.serving.join().unwrap().wait(Duration::from_secs(10)), 0);
    }
}

fn all_that_comes_back(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Checks what must hold for every answer, and returns its status.
fn status_of(answer: &str, is_head_request: bool) -> Result<u16, &'static str> {
    if answer.is_empty() {
        return Ok(NO_ANSWER);
    }
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no end of the head")?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).ok_or("no status line")?;
    let status: u16 = status_line[..3].parse().map_err(|_| "no status")?;
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let header = |name: &str| {
        let mut values = headers.iter().filter(|header| header.0 == name).map(|header| header.1);
        values.next().filter(|_| values.next().is_none())
    };
    let date = header("Date").ok_or("no Date")?;
    httpdate::parse_http_date(date).map_err(|_| "a malformed Date")?;
    let length: usize = header("Content-Length").and_then(|value| value.parse().ok()).ok_or("no length")?;
    let is_sound = header("Connection") == Some("close")
        && header("Cache-Control") == Some("no-store")
        && header("X-Content-Type-Options") == Some("nosniff")
        && header("Content-Type") == Some("application/json")
        && body.len() == if is_head_request { 0 } else { length }
        && (status != 405 || header("Allow").is_some())
        && (status != 401 || header("WWW-Authenticate").is_some());
    if !is_sound {
        return Err("not all that every answer has");
    }
    if status >= 400 && !is_head_request && !body.starts_with(r#"{"success":false,"code":""#) {
        return Err("an error that is not in the form of errors");
    }
    Ok(status)
}

/// The failed rows, collected so that all are reported at once.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn look(&mut self, bytes: &[u8], answer: &str, expected: u16, row: &str) {
        let got = status_of(answer, bytes.starts_with(b"HEAD "));
        if got != Ok(expected) {
            self.0.push(format!("{row}: expected {expected}, got {got:?}: {answer}"));
        }
    }

    #[track_caller]
    fn must_be_none_of(self, rows: usize) {
        assert!(self.0.is_empty(), "{} rows of {rows}:\n{}", self.0.len(), self.0.join("\n"));
    }
}

#[test]
fn every_row_gets_its_status() {
    let listener = Listener::start(Limits::default());
    let (rows, mut faults) = (ended_rows(), Faults::default());
    for (bytes, expected, row) in &rows {
        let stream = listener.send(bytes);
        stream.shutdown(Shutdown::Write).unwrap();
        faults.look(bytes, &all_that_comes_back(stream), *expected, row);
    }
    listener.end();
    faults.must_be_none_of(rows.len());
}

#[test]
fn every_row_whose_client_stays_connected_gets_its_status() {
    const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    let short = Duration::from_secs(1);
    let listener = Listener::start(Limits { timeout: short, ..Limits::default() });
    // All requests are sent first, because many of them wait for a timeout.
    let streams: Vec<_> = LEFT_OPEN.iter().map(|(bytes, ..)| listener.send(bytes)).collect();
    let mut faults = Faults::default();
    for ((bytes, expected, row), mut stream) in LEFT_OPEN.iter().zip(streams) {
        let mut interim = [0; INTERIM.len()];
        if *expected == 100 {
            stream.read_exact(&mut interim).unwrap();
            assert_eq!(str::from_utf8(&interim), Ok(INTERIM), "{row}");
        }
        // A client that got 100 and sends nothing runs into the timeout too.
        let expected = if *expected == 100 { 408 } else { *expected };
        faults.look(bytes, &all_that_comes_back(stream), expected, row);
    }
    listener.end();
    faults.must_be_none_of(LEFT_OPEN.len());
}

#[test]
fn the_table_has_the_expected_size_and_no_duplicates() {
    let mut all = all_bytes();
    assert!(all.len() >= 240, "{} rows", all.len());
    let left_open = LEFT_OPEN.len();
    let mut ended = all.drain(..all.len() - left_open).collect::<Vec<_>>();
    let rows = ended.len();
    ended.sort();
    ended.dedup();
    assert_eq!(ended.len(), rows, "a row is there twice");
}
