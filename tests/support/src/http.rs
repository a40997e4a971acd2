//! A small HTTP/1.1 server that answers one request per connection and fails on demand, and a client for one request.
//! It knows nothing about Windmill or git, and it is not made for speed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::process::PATIENCE;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;

/// A request with its whole body, without the transfer coding.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    pub fn query_text(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Returns the fields of the query, not decoded: the tests ask nothing that needs decoding.
    pub fn query(&self) -> BTreeMap<String, String> {
        self.query_text()
            .split('&')
            .filter(|field| !field.is_empty())
            .map(|field| field.split_once('=').unwrap_or((field, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What a server records about a request.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// The header as sent, so that a test can see where a secret was sent.
    pub authorization: Option<String>,
    /// Whether the authorization was valid.
    pub authorized: bool,
    /// Whether our own program sent the request, and not a tool that it started.
    pub is_ours: bool,
    pub headers: Vec<(String, String)>,
}

impl LoggedRequest {
    pub fn of(request: &Request, authorized: bool) -> Self {
        Self {
            method: request.method.clone(),
            target: request.target.clone(),
            authorization: request.header("authorization").map(str::to_owned),
            authorized,
            is_ours: is_ours(request),
            headers: request.headers.clone(),
        }
    }
}

/// Returns true if our own program sent the request, by its `User-Agent`.
pub fn is_ours(request: &Request) -> bool {
    request.header("user-agent").is_some_and(|agent| agent.starts_with("windmill-git-sync/"))
}

/// An answer to send.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Shared, because the same archive of many megabytes is sent many times.
    pub body: Arc<Vec<u8>>,
}

impl Response {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::shared(status, content_type, Arc::new(body.into()))
    }

    pub fn shared(status: u16, content_type: &str, body: Arc<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type".to_owned(), content_type.to_owned())], body }
    }

    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Arc::default() }
    }

    pub fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, "application/json", body)
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A fault in an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The server never answers.
    Hang,
    /// The server closes the connection without an answer.
    Close,
    /// The answer has this status and a short text.
    Status(u16),
    /// The answer has this status, content type and body.
    Answer(u16, &'static str, String),
    /// The answer has this status and a `Retry-After` of this many seconds.
    Later(u16, u32),
    /// The answer is the HTML page of a gateway whose upstream is down.
    GatewayPage(u16),
    /// The answer is a 302 to the same path and query below another base.
    Redirect(String),
    /// The server announces the whole length, sends half of the body, and closes the connection.
    CutHalfway,
    /// The same, but the connection stays open and silent.
    HangHalfway,
    /// The server sends the body in this many pieces, with this pause before each.
    Slow(u32, Duration),
}

/// Which requests fail, and how often.
#[derive(Default)]
pub struct Faults(Mutex<Vec<Planned>>);

struct Planned {
    needle: String,
    fault: Fault,
    times_left: Option<usize>,
}

impl Faults {
    /// Makes every request fail whose target contains `needle`, or only the next `times` ones.
    pub fn plan(&self, needle: &str, fault: Fault, times: Option<usize>) {
        self.0.lock().unwrap().push(Planned { needle: needle.to_owned(), fault, times_left: times });
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().clear();
    }

    /// Returns the fault for this target, and counts it.
    pub fn take(&self, target: &str) -> Option<Fault> {
        let mut planned = self.0.lock().unwrap();
        let at = planned.iter().position(|plan| target.contains(&plan.needle) && plan.times_left != Some(0))?;
        let plan = &mut planned[at];
        if let Some(left) = &mut plan.times_left {
            *left -= 1;
        }
        Some(plan.fault.clone())
    }
}

/// An answer, and its fault.
pub struct Reply {
    pub response: Response,
    pub fault: Option<Fault>,
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self { response, fault: None }
    }
}

/// A listener on its own port of 127.0.0.1. When dropped, it closes every connection.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    open: BTreeMap<u64, TcpStream>,
    next: u64,
    hanging: usize,
}

impl Server {
    /// Answers each request with the result of `handler`, on its own thread.
    pub fn start(handler: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_raw(move |stream, hanging| {
            // A client may disconnect at any time.
            let _ = converse(stream, &handler, hanging);
        })
    }

    /// Like [`Server::start`], one level lower: each connection has its own thread, and `handler` speaks the protocol.
    pub fn start_raw(handler: impl Fn(&TcpStream, &dyn Fn(&TcpStream)) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on 127.0.0.1");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let of_acceptor = Arc::clone(&shared);
        let handler = Arc::new(handler);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(id) = of_acceptor.admit(&stream) else {
                    return;
                };
                let shared = Arc::clone(&of_acceptor);
                let handler = Arc::clone(&handler);
                thread::spawn(move || {
                    handler(&stream, &|stream| shared.hang(stream));
                    let _ = stream.shutdown(Shutdown::Both);
                    shared.state.lock().unwrap().open.remove(&id);
                });
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a [`Fault`] makes a request hang whose client is still connected.
    #[track_caller]
    pub fn wait_until_hanging(&self) {
        let state = self.shared.state.lock().unwrap();
        let (_state, waited) =
            self.shared.changed.wait_timeout_while(state, PATIENCE, |state| state.hanging == 0).unwrap();
        assert!(!waited.timed_out(), "no request came to hang");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        state.stopping = true;
        for stream in state.open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        // Wakes the acceptor, which then sees that it must stop.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Records the connection, so that it can be closed from outside. Returns `None` if the server must stop.
    fn admit(&self, stream: &TcpStream) -> Option<u64> {
        let mut state = self.state.lock().unwrap();
        if state.stopping {
            return None;
        }
        state.next += 1;
        let id = state.next;
        state.open.insert(id, stream.try_clone().ok()?);
        Some(id)
    }

    /// Sends nothing until the client goes or the server is dropped.
    fn hang(&self, mut stream: &TcpStream) {
        self.state.lock().unwrap().hanging += 1;
        self.changed.notify_all();
        let mut buffer = [0; 1024];
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
        self.state.lock().unwrap().hanging -= 1;
    }
}

fn converse(
    stream: &TcpStream,
    handler: &(impl Fn(Request) -> Reply + ?Sized),
    hang: &dyn Fn(&TcpStream),
) -> io::Result<()> {
    let request = read_request(stream)?;
    let target = request.target.clone();
    let head_only = request.method == "HEAD";
    let Reply { response, fault } = handler(request);
    let (response, sent) = match fault {
        None => (response, Sent::Whole),
        Some(Fault::Hang) => {
            hang(stream);
            return Ok(());
        }
        Some(Fault::Close) => return Ok(()),
        Some(Fault::Status(status)) => (Response::text(status, "as the test wants it"), Sent::Whole),
        Some(Fault::Answer(status, content_type, body)) => (Response::new(status, content_type, body), Sent::Whole),
        Some(Fault::Later(status, seconds)) => {
            (Response::text(status, "later").with_header("retry-after", seconds.to_string()), Sent::Whole)
        }
        Some(Fault::GatewayPage(status)) => (gateway_page(status), Sent::Whole),
        Some(Fault::Redirect(base)) => {
            let location = format!("{}{target}", base.trim_end_matches('/'));
            let response = Response::empty(302).with_header("location", location);
            (response, Sent::Whole)
        }
        Some(Fault::CutHalfway) => (response, Sent::Half),
        Some(Fault::HangHalfway) => (response, Sent::HalfThenHang),
        Some(Fault::Slow(pieces, pause)) => (response, Sent::Slowly(pieces, pause)),
    };
    write_response(stream, &response, head_only, &sent)?;
    if matches!(sent, Sent::HalfThenHang) {
        hang(stream);
    }
    Ok(())
}

enum Sent {
    Whole,
    Half,
    HalfThenHang,
    Slowly(u32, Duration),
}

fn gateway_page(status: u16) -> Response {
    let body = format!(
        "<html>\r\n<head><title>{status} Bad Gateway</title></head>\r\n<body>\r\n\
         <center><h1>{status} Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    );
    Response::new(status, "text/html", body)
}

fn write_response(mut stream: &TcpStream, response: &Response, head_only: bool, sent: &Sent) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", response.body.len()));
    stream.write_all(head.as_bytes())?;
    if head_only {
        return Ok(());
    }
    let body = &response.body;
    match *sent {
        Sent::Whole => stream.write_all(body),
        Sent::Half | Sent::HalfThenHang => stream.write_all(&body[..body.len() / 2]),
        Sent::Slowly(pieces, pause) => {
            let size = body.len().div_ceil(pieces.max(1) as usize).max(1);
            body.chunks(size).try_for_each(|piece| {
                thread::sleep(pause);
                stream.write_all(piece)
            })
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Answer",
    }
}

fn read_request(stream: &TcpStream) -> io::Result<Request> {
    let mut input = Input::new(stream);
    let head = input.read_head()?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).map_err(io::Error::other)?;
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        headers: owned(parsed.headers),
        body: Vec::new(),
    };
    if request.header("expect").is_some() {
        let mut stream = stream;
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = input.read_body(&request.headers, Unannounced::Nothing)?;
    Ok(request)
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_owned(), value)
        })
        .collect()
}

/// How a body without an announced length ends: a request has none, an answer's ends with the connection.
enum Unannounced {
    Nothing,
    ToTheEnd,
}

struct Input<'a> {
    stream: &'a TcpStream,
    pending: Vec<u8>,
}

impl<'a> Input<'a> {
    fn new(stream: &'a TcpStream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Appends received bytes to `pending`. Returns false at the end.
    fn more(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let count = loop {
            match self.stream.read(&mut buffer) {
                // The kernel does not restart a read with a timeout after the machine or the process was stopped for a
                // moment.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                count => break count?,
            }
        };
        self.pending.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    fn through(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let found = self.pending[searched..].windows(mark.len()).position(|window| window == mark);
            if let Some(at) = found {
                let rest = self.pending.split_off(searched + at + mark.len());
                return Ok(std::mem::replace(&mut self.pending, rest));
            }
            searched = self.pending.len().saturating_sub(mark.len() - 1);
            if self.pending.len() > HEAD_BYTES_MAX || !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_head(&mut self) -> io::Result<Vec<u8>> {
        self.through(b"\r\n\r\n")
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            if !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.pending.split_off(length);
        Ok(std::mem::replace(&mut self.pending, rest))
    }

    fn read_body(&mut self, headers: &[(String, String)], unannounced: Unannounced) -> io::Result<Vec<u8>> {
        let value =
            |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        if value("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks();
        }
        match (value("content-length"), unannounced) {
            (Some(length), _) => self.exactly(length.parse().map_err(io::Error::other)?),
            (None, Unannounced::Nothing) => Ok(Vec::new()),
            (None, Unannounced::ToTheEnd) => {
                while self.more()? {}
                Ok(std::mem::take(&mut self.pending))
            }
        }
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.through(b"\r\n")?;
            let text = String::from_utf8_lossy(&line);
            let size = text.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            let mut chunk = self.exactly(size + 2)?;
            chunk.truncate(size);
            body.append(&mut chunk);
            if size == 0 {
                // git and curl send no trailers, so nothing follows the empty line after the last chunk.
                return Ok(body);
            }
        }
    }
}

/// The answer of a server.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON. Panics with the body if it is not JSON.
    #[track_caller]
    pub fn json(&self) -> miniserde::json::Value {
        let text = self.text();
        miniserde::json::from_str(&text).unwrap_or_else(|_| panic!("status {}, and not JSON: {text}", self.status))
    }
}

/// Sends one request with `Connection: close` and returns the answer.
pub fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let bytes = [head.as_bytes(), body].concat();
    ask_raw(address, &bytes)
}

/// Sends these bytes unchanged and returns the answer.
pub fn ask_raw(address: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A server may refuse a request before it has read all of it. Then its answer counts, not the closed connection.
    let written = stream.write_all(bytes);
    let mut input = Input::new(&stream);
    let head = input.read_head().or_else(|error| written.and(Err(error)))?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed.parse(&head).map_err(io::Error::other)?;
    let status = parsed.code.unwrap_or_default();
    let headers = owned(parsed.headers);
    let body =
        if bytes.starts_with(b"HEAD ") { Vec::new() } else { input.read_body(&headers, Unannounced::ToTheEnd)? };
    Ok(Answer { status, headers, body })
}
