//! A response as bytes: the headers of every response, and the JSON of every error.

use std::time::SystemTime;

use ureq::http::StatusCode;

use crate::model::{Code, run_result};
use crate::util::{shorten, visible};

/// The largest size of an error message. This is enough for a request with hundreds of faults.
pub const ERROR_BYTES_MAX: usize = 12 * 1024;

/// The `Retry-After` of a caller that was rejected.
const RETRY_AFTER_SECONDS: &str = "5";

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Headers in addition to those of every answer.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body. The answer to a `HEAD` omits it.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns an answer with a JSON document.
    pub fn json(status: u16, body: String) -> Self {
        Self::new(status, "application/json", body)
    }

    /// Returns an answer with a body of this media type.
    pub fn new(status: u16, content_type: &'static str, mut body: String) -> Self {
        // A body that grew by doubling may occupy twice its length for as long as it is sent to a slow client.
        body.shrink_to_fit();
        Self { status, headers: vec![("Content-Type", content_type)], body: body.into_bytes() }
    }

    /// Returns an answer with a JSON document that has this code.
    pub fn of_code(code: Code, body: String) -> Self {
        let response = Self::json(code.http_status(), body);
        match code {
            Code::ShuttingDown | Code::TooManyRequests => response.with_header("Retry-After", RETRY_AFTER_SECONDS),
            _ => response,
        }
    }

    /// Returns an error in the format of the API. `status` may be more specific than the code's own status.
    pub fn error(status: u16, code: Code, message: &str) -> Self {
        // The text has no control characters but line ends and tabs, so JSON escaping at most doubles its length.
        let body = run_result::error_json(code, &shorten(&visible(message), ERROR_BYTES_MAX / 2));
        Self { status, ..Self::of_code(code, body) }
    }

    /// Returns a 404 answer.
    pub fn not_found() -> Self {
        Self::error(404, Code::RequestInvalid, "there is nothing at this path")
    }

    /// Returns a 405 answer that names the methods of the path, such as `GET, HEAD`.
    pub fn method_not_allowed(allowed: &'static str) -> Self {
        let message = format!("this path takes {allowed}");
        Self::error(405, Code::RequestInvalid, &message).with_header("Allow", allowed)
    }

    /// Returns a 401 answer that names what would be accepted: `Bearer`, or `Basic realm="…"`.
    pub fn unauthorized(challenge: &'static str) -> Self {
        let message = "this needs the token of SYNC_API_TOKEN, as `Authorization: Bearer …`";
        Self::error(401, Code::Unauthorized, message).with_header("WWW-Authenticate", challenge)
    }

    /// Returns the answer with one more header. Its value is a constant, so that no text of a request can begin a new
    /// header line.
    pub fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns the bytes to send at the time `now`, without the body if the request is a `HEAD`.
    pub fn into_bytes(self, is_head: bool, now: SystemTime) -> Vec<u8> {
        // The phrase may be empty: clients use the number.
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n",
            self.status,
            reason.unwrap_or_default(),
            httpdate::HttpDate::from(now),
            self.body.len(),
        );
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let mut bytes = if is_head { Vec::new() } else { self.body };
        // A large body is neither copied nor moved to a place of twice its size.
        bytes.reserve_exact(head.len());
        bytes.splice(..0, head.into_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(response: &Response, is_head: bool, expected: &str) {
        let bytes = response.clone().into_bytes(is_head, SystemTime::UNIX_EPOCH);
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    const COMMON: &str = "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n";

    #[test]
    fn an_answer_has_these_bytes_and_a_head_request_gets_no_body() {
        let response = Response::json(200, "{}".to_owned());
        let head = format!(
            "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close\r\nContent-Length: 2\r\n\
             {COMMON}Content-Type: application/json\r\n\r\n"
        );
        check(&response, false, &format!("{head}{{}}"));
        check(&response, true, &head);
    }

    #[test]
    fn an_error_is_valid_json_for_any_message() {
        let body = Response::error(400, Code::RequestInvalid, "a \"b\"\r\n\u{1b}[31m \\ ü").body;
        let expected = r#"{"success":false,"code":"request_invalid","message":"a \"b\"�\n�[31m \\ ü"}"#;
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn each_refusal_has_the_header_of_its_status() {
        assert_eq!(Response::method_not_allowed("GET, HEAD").headers[1], ("Allow", "GET, HEAD"));
        assert_eq!(Response::unauthorized("Bearer").headers[1], ("WWW-Authenticate", "Bearer"));
        let unavailable = Response::error(503, Code::TooManyRequests, "full");
        assert_eq!((unavailable.status, unavailable.headers[1]), (503, ("Retry-After", "5")));
    }
}
