//! Bytes in, status out: what the real listener does with requests good and bad, one row each.
//! Each form that is accepted stands beside the nearest one that is refused.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::request::{BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, Head, Method, Parsed, TARGET_BYTES_MAX, parse_head};
use super::response::Response;
use crate::secret::Secret;
use crate::server::{Caller, Handler, Server, Weight};

/// Status of a connection that was closed without an answer.
const NO_ANSWER: u16 = 0;

#[rustfmt::skip]
const ROWS: &[(&[u8], u16, &str)] = &[
    // The request line
    (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", 200, "the plain request"),
    (b"\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n", 200, "one empty line before it"),
    (b"\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two empty lines before it"),
    (b" GET /health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a space before it"),
    (b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two spaces after the method"),
    (b"GET /health  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two spaces before the version"),
    (b"GET /health HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "a space after the version"),
    (b"GET\t/health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a tab after the method"),
    (b"GET /health\tHTTP/1.1\r\nHost: a\r\n\r\n", 400, "a tab before the version"),
    (b"GET /health x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "four words"),
    (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two words"),
    (b"GET\r\nHost: a\r\n\r\n", 400, "one word"),
    // Methods
    (b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n", 200, "HEAD where GET works"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\n\r\n", 200, "POST"),
    (b"POST /health HTTP/1.1\r\nHost: a\r\n\r\n", 405, "POST where GET works"),
    (b"GET /sync HTTP/1.1\r\nHost: a\r\n\r\n", 405, "GET where POST works"),
    (b"HEAD /sync HTTP/1.1\r\nHost: a\r\n\r\n", 405, "HEAD where POST works"),
    (b"get /health HTTP/1.1\r\nHost: a\r\n\r\n", 405, "methods are case-sensitive"),
    (b"DELETE /health HTTP/1.1\r\nHost: a\r\n\r\n", 405, "DELETE"),
    (b"OPTIONS /health HTTP/1.1\r\nHost: a\r\n\r\n", 405, "OPTIONS"),
    (b"TRACE /health HTTP/1.1\r\nHost: a\r\n\r\n", 405, "TRACE"),
    (b"M-SEARCH!#$%&'*+.^_`|~ /health HTTP/1.1\r\nHost: a\r\n\r\n", 405, "every character of a token"),
    (b"G@T /health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "not a token"),
    (b"GET: /health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a colon is not of a token"),
    (b"G\xc3\x89T /health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "raw UTF-8 in the method"),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF /health HTTP/1.1\r\nHost: a\r\n\r\n", 405, "32 bytes of method"),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG /health HTTP/1.1\r\nHost: a\r\n\r\n", 501, "33 bytes of method"),
    // Versions
    (b"GET /health HTTP/1.0\r\n\r\n", 200, "HTTP/1.0, which has no Host"),
    (b"GET /health HTTP/1.2\r\nHost: a\r\n\r\n", 200, "a later minor version is read as 1.1"),
    (b"GET /health HTTP/1.2\r\n\r\n", 400, "and needs what 1.1 needs"),
    (b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n", 505, "another major version"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "the preface of HTTP/2"),
    (b"GET /health HTTP/0.9\r\nHost: a\r\n\r\n", 505, "HTTP/0.9 by name"),
    (b"GET /health\r\n\r\n", 400, "HTTP/0.9 as it was"),
    (b"GET /health http/1.1\r\nHost: a\r\n\r\n", 400, "the name is case-sensitive"),
    (b"GET /health HTTP/1\r\nHost: a\r\n\r\n", 400, "no minor version"),
    (b"GET /health HTTP/1.\r\nHost: a\r\n\r\n", 400, "no digit of a minor version"),
    (b"GET /health HTTP/1.10\r\nHost: a\r\n\r\n", 400, "two digits"),
    (b"GET /health HTTP/11\r\nHost: a\r\n\r\n", 400, "no dot"),
    (b"GET /health HTTP/1.x\r\nHost: a\r\n\r\n", 400, "not a digit"),
    (b"GET /health HTTPS/1.1\r\nHost: a\r\n\r\n", 400, "another protocol"),
    // Targets
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404, "the root, of which this handler has nothing"),
    (b"GET /health?verbose=1&x=%2F/? HTTP/1.1\r\nHost: a\r\n\r\n", 200, "a query"),
    (b"GET /health? HTTP/1.1\r\nHost: a\r\n\r\n", 200, "an empty query"),
    (b"GET /health#top HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a fragment"),
    (b"GET /health/ HTTP/1.1\r\nHost: a\r\n\r\n", 404, "another path"),
    (b"GET //health HTTP/1.1\r\nHost: a\r\n\r\n", 404, "another path, not another host"),
    (b"GET /../health HTTP/1.1\r\nHost: a\r\n\r\n", 404, "dot segments are not resolved"),
    (b"GET health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "no slash at the beginning"),
    (b"GET http://a/health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "absolute form"),
    (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400, "authority form"),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "asterisk form"),
    (b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a query alone"),
    (b"GET /%68ealth HTTP/1.1\r\nHost: a\r\n\r\n", 404, "escapes are kept as they are"),
    (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 404, "an escaped NUL stays escaped"),
    (b"GET /%c3%A9 HTTP/1.1\r\nHost: a\r\n\r\n", 404, "escaped UTF-8"),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "raw UTF-8"),
    (b"GET /health?\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "raw latin-1 in the query"),
    (b"GET /% HTTP/1.1\r\nHost: a\r\n\r\n", 400, "an escape without digits"),
    (b"GET /%a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "an escape with one digit"),
    (b"GET /%ag HTTP/1.1\r\nHost: a\r\n\r\n", 400, "an escape with no hex digit"),
    (b"GET /health?x=%%30 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "an escape within an escape"),
    (b"GET /-._~!$&'()*+,;=:@ HTTP/1.1\r\nHost: a\r\n\r\n", 404, "all that a path may hold"),
    (b"GET /a\"b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw quote"),
    (b"GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw less-than"),
    (b"GET /a>b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw greater-than"),
    (b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw backslash"),
    (b"GET /a^b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw caret"),
    (b"GET /a`b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw backtick"),
    (b"GET /a{b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw opening brace"),
    (b"GET /a|b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw bar"),
    (b"GET /a}b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw closing brace"),
    (b"GET /a[b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw opening bracket"),
    (b"GET /a]b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw closing bracket"),
    (b"GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw DEL"),
    (b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a raw NUL"),
    // Line ends
    (b"GET /health HTTP/1.1\nHost: a\r\n\r\n", 400, "a bare LF after the request line"),
    (b"GET /health HTTP/1.1\r\nHost: a\n\r\n", 400, "a bare LF after a header"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\n\n", 400, "a bare LF at the end"),
    (b"\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a bare LF at the beginning"),
    (b"GET /health HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, "a bare CR within the head"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, "two CR"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\r\n", 400, "two CR at the end"),
    (b"GET /health\r HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a CR in the target"),
    // Host
    (b"GET /health HTTP/1.1\r\n\r\n", 400, "no Host"),
    (b"GET /health HTTP/1.1\r\nhOsT: a\r\n\r\n", 200, "names do not care for case"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "Host twice"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400, "Host twice, in two spellings"),
    (b"GET /health HTTP/1.0\r\nHost: a\r\n\r\n", 200, "HTTP/1.0 may send it"),
    (b"GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, "once"),
    (b"GET /health HTTP/1.1\r\nHost:\r\n\r\n", 400, "an empty Host"),
    (b"GET /health HTTP/1.1\r\nHost: windmill_git-sync.x:8080\r\n\r\n", 200, "a name of compose, with a port"),
    (b"GET /health HTTP/1.1\r\nHost:a\r\n\r\n", 200, "no space after the colon"),
    (b"GET /health HTTP/1.1\r\nHost: \t a \t\r\n\r\n", 200, "white space around the value"),
    (b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "white space within it"),
    (b"GET /health HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "a list"),
    (b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "a path"),
    (b"GET /health HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "a user"),
    (b"GET /health HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", 400, "raw UTF-8"),
    (b"GET /health HTTP/1.1\r\nHost: a:\r\n\r\n", 200, "an empty port, which the grammar has"),
    (b"GET /health HTTP/1.1\r\nHost: a:80x\r\n\r\n", 400, "a port that is none"),
    (b"GET /health HTTP/1.1\r\nHost: a:123456\r\n\r\n", 400, "a port of six digits"),
    (b"GET /health HTTP/1.1\r\nHost: :80\r\n\r\n", 400, "a port alone"),
    (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n", 200, "an address"),
    (b"GET /health HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, "an IPv6 address with a port"),
    (b"GET /health HTTP/1.1\r\nHost: [::ffff:1.2.3.4]\r\n\r\n", 200, "an IPv6 address without"),
    (b"GET /health HTTP/1.1\r\nHost: ::1\r\n\r\n", 400, "an IPv6 address without brackets"),
    (b"GET /health HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "one bracket"),
    (b"GET /health HTTP/1.1\r\nHost: []\r\n\r\n", 400, "empty brackets"),
    (b"GET /health HTTP/1.1\r\nHost: [g::1]\r\n\r\n", 400, "no address in the brackets"),
    (b"GET /health HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, "more after the brackets"),
    // Header lines
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX_1.~: b\tc \r\n\r\n", 200, "odd, and allowed"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\xff\r\n\r\n", 200, "opaque bytes in a value that is not read"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, "a NUL in a value"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n", 400, "a vertical tab in a value"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", 400, "a DEL in a value"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX: a\x1b[31m\r\n\r\n", 400, "a terminal's escape in a value"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400, "a space before the colon"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", 400, "a tab before the colon"),
    (b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n", 400, "a space before Host's colon"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400, "obsolete folding by a space"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", 400, "obsolete folding by a tab"),
    (b"GET /health HTTP/1.1\r\n Host: a\r\n\r\n", 400, "a space before the first header"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, "no name"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n", 400, "no colon"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n", 400, "a name that is no token"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\n\xc3\xa9: b\r\n\r\n", 400, "a name in raw UTF-8"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n\r\n", 200, "an upgrade that is not taken"),
    // Content-Length
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 200, "a body"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}", 200, "in lower case"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n", 200, "an empty body"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 0002\r\n\r\n{}", 200, "leading zeros, which the grammar has"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2 \r\n\r\n{}", 200, "white space after it"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400, "twice the same"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-length: 3\r\n\r\n{} ", 400, "twice, not the same"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2, 2\r\n\r\n{}", 400, "a list"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: +2\r\n\r\n{}", 400, "a plus"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: -2\r\n\r\n{}", 400, "a minus"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 0x2\r\n\r\n{}", 400, "hexadecimal"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2.0\r\n\r\n{}", 400, "a fraction"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1 2\r\n\r\n{}", 400, "white space within it"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2_0\r\n\r\n{}", 400, "an underscore"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: \xd9\xa2\r\n\r\n{}", 400, "digits of another script"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length:\r\n\r\n{}", 400, "an empty one"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length : 2\r\n\r\n{}", 400, "a space before the colon"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 65537\r\n\r\n", 413, "one byte too many"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 18446744073709551616\r\n\r\n", 413, "more than 64 bits"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 18446744073709551618\r\n\r\n{}", 413, "that would wrap to 2"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{}", 400, "a body cut off"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n", 400, "a body that never begins"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}GET /x HTTP/1.1\r\n", 200, "what comes after is not read"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, "GET that says it has none"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 400, "GET with a body"),
    (b"HEAD /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 400, "HEAD with a body"),
    (b"POST /sync HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 200, "HTTP/1.0 with a body"),
    // Transfer-Encoding
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "chunked, which a client can do without"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n", 411, "in another case"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "two codings"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "a coding that is not known"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501, "a coding that was abolished"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 501, "an empty one"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "twice"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "before Content-Length"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "after Content-Length"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: identity\r\n\r\n{}", 400, "of any kind, with Content-Length"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "a space before the colon"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, "a vertical tab before it"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "hidden in a folded line"),
    (b"POST /sync HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "in HTTP/1.0"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "on a GET"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X\r\n\r\n", 200, "TE and Trailer are something else"),
    // Expect
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}", 200, "the one that is known"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n{}", 200, "in another case"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continued\r\n\r\n{}", 417, "another one"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue, x\r\n\r\n{}", 417, "a list"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect:\r\n\r\n{}", 417, "an empty one"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n{}", 400, "twice"),
    (b"POST /sync HTTP/1.0\r\nExpect: x\r\n\r\n", 200, "HTTP/1.0 has none"),
    // What a body is
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Type: application/json; charset=utf-8\r\n\r\n{}", 200, "JSON in UTF-8"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Type: application/json; charset=utf-16\r\n\r\n{}", 415, "JSON in UTF-16"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\n{}", 415, "text"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n{}", 415, "a form, curl's default"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 415, "nothing said"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\r\n", 200, "text, without a body"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 400, "two types"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Type: \xff\r\n\r\n{}", 400, "a type that is no text"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Encoding: identity\r\n\r\n{}", 200, "not compressed"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{}", 415, "compressed"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Encoding: identity, gzip\r\n\r\n{}", 415, "compressed, in a list"),
    (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n\r\n", 200, "compressed, without a body"),
    // The token
    (b"GET /status HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0ken\r\n\r\n", 200, "the right one"),
    (b"GET /status HTTP/1.1\r\nHost: a\r\nAuthorization: bearer  t0ken\r\n\r\n", 200, "the scheme in another case"),
    (b"GET /status HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0kem\r\n\r\n", 401, "a wrong one"),
    (b"GET /status HTTP/1.1\r\nHost: a\r\nAuthorization: t0ken\r\n\r\n", 401, "no scheme"),
    (b"GET /status HTTP/1.1\r\nHost: a\r\nAuthorization: Basic t0ken\r\n\r\n", 401, "another scheme"),
    (b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n", 401, "none"),
    (b"GET /status HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0ken\r\nAuthorization: Bearer t0kem\r\n\r\n", 400, "two"),
    (b"GET /status HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\r\n\r\n", 400, "no text"),
    (b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n", 405, "answered without its body"),
    // Cut off, and no HTTP at all
    (b"", 0, "nothing: there is nobody to answer"),
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
];

/// The rows at the limits: too long to be written down.
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

fn all_rows() -> Vec<(Vec<u8>, u16, &'static str)> {
    let written = ROWS.iter().map(|(bytes, status, reason)| (bytes.to_vec(), *status, *reason));
    written.chain(long_rows()).collect()
}

/// A service with the routes that the rows need.
struct Routes;

impl Handler for Routes {
    fn weight(&self, head: &Head) -> Weight {
        if head.path == "/sync" { Weight::Heavy } else { Weight::Light }
    }

    fn before_body(&self, head: &Head) -> Option<Response> {
        let allowed = match head.path.as_str() {
            "/health" | "/status" => "GET, HEAD",
            "/sync" => "POST",
            _ => return Some(Response::not_found()),
        };
        if !allowed.split(", ").any(|method| method == head.method.as_str()) {
            return Some(Response::method_not_allowed(allowed));
        }
        if head.path == "/status" && !head.bearer_token().is_some_and(|token| Secret::new("t0ken").matches(token)) {
            return Some(Response::unauthorized("Bearer"));
        }
        head.require_json().err().map(|refusal| Response::from(&refusal))
    }

    fn handle(&self, head: &Head, body: Vec<u8>, _caller: &Caller<'_>) -> Response {
        assert_eq!(body.len(), head.body_bytes, "the handler gets the whole body and nothing more");
        Response::json(200, format!("{{\"body_bytes\":{}}}", body.len()))
    }
}

/// Sends the bytes, closes that side, and returns all that comes back.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Checks what holds for every answer, and returns its status.
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

#[test]
fn every_row_gets_its_status() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let (address, stop) = (server.local_addr().unwrap(), server.stop_handle());
    let serving = std::thread::spawn(move || server.run(Arc::new(Routes)));
    let mut faults = Vec::new();
    for (bytes, expected, reason) in all_rows() {
        let answer = exchange(address, &bytes);
        let got = status_of(&answer, bytes.starts_with(b"HEAD "));
        if got != Ok(expected) {
            faults.push(format!("{reason}: expected {expected}, got {got:?}: {answer}"));
        }
    }
    stop.stop();
    assert_eq!(serving.join().unwrap().wait(Duration::from_secs(10)), 0);
    assert!(faults.is_empty(), "{} rows of {}:\n{}", faults.len(), all_rows().len(), faults.join("\n"));
}

#[test]
fn no_row_is_read_otherwise_when_it_arrives_byte_by_byte() {
    /// What a head comes to: `None` while it is incomplete.
    fn verdict(bytes: &[u8]) -> Option<Result<(Method, String, usize), u16>> {
        match parse_head(bytes) {
            Ok(Parsed::Incomplete) => None,
            Ok(Parsed::Complete { head, bytes_used }) => Some(Ok((head.method, head.path, bytes_used))),
            Err(refusal) => Some(Err(refusal.status)),
        }
    }
    for (bytes, _, reason) in all_rows() {
        // The long rows in larger pieces: they are long by one character over and over.
        let piece_bytes = if bytes.len() > 1000 { 61 } else { 1 };
        let first = (0..bytes.len()).step_by(piece_bytes).find_map(|length| verdict(&bytes[..length]));
        let first = first.or_else(|| verdict(&bytes));
        assert_eq!(first, verdict(&bytes), "{reason}");
    }
}
