//! A server on the loopback address, on a port that the system chooses. It serves one program that we start, as long as
//! that program runs. The program gets a secret word instead of a token. Requests without this word are refused.

use std::io::{self, BufWriter, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ureq::http;

use super::sockets::{self, TimedSocket};
use crate::util::{Secret, hash, wait_while};

/// The most simultaneous connections. wmill opens two, and no other program uses the server.
const CONNECTIONS_MAX: usize = 8;
/// The largest head of a request. wmill sends a few headers of its own.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// The time limit for the head of a request. wmill sends it in one piece, also on a busy machine.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// The largest body that is accepted. The largest one is the shared UI or a fileset: Windmill takes some megabytes at
/// most.
const BODY_BYTES_MAX: usize = 256 << 20;
/// The longest pause in which wmill sends no byte of a body, or reads none of an answer. The end of the run stops wmill
/// earlier.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The most bytes of one read or write.
const CHUNK_BYTES: usize = 64 << 10;
/// The longest wait at the end for connections that are being served. Their program has ended, so they end at once,
/// unless the server waits for an answer of Windmill.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// A request with its whole body.
pub type Request = http::Request<Vec<u8>>;

/// An answer.
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The headers about the body, without its length.
    pub headers: Vec<(&'static str, String)>,
    /// The length of the body. Without it, the body is sent in chunks.
    pub length: Option<u64>,
    /// The body.
    pub body: Box<dyn Read + 'a>,
}

impl<'a> Answer<'a> {
    /// Returns an answer with a body of this type and length.
    pub fn new(status: u16, content_type: &str, length: u64, body: impl Read + 'a) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self { status, headers, length: Some(length), body: Box::new(body) }
    }

    /// Returns an answer with this text.
    pub fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain", text.len() as u64, io::Cursor::new(text.as_bytes().to_vec()))
    }

    /// Sends the answer. If the body ends before its length, or fails, the connection ends there too, and the client
    /// notices.
    fn send(mut self, stream: &TcpStream) -> io::Result<()> {
        // A client that closes after the head must not miss a short body.
        let mut stream = BufWriter::with_capacity(CHUNK_BYTES, stream);
        write!(stream, "HTTP/1.1 {} \r\nConnection: close\r\n", self.status)?;
        for (name, value) in &self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        if let Some(length) = self.length {
            write!(stream, "Content-Length: {length}\r\n\r\n")?;
            if io::copy(&mut self.body.take(length), &mut stream)? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        } else {
            stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n")?;
            let mut chunk = vec![0; CHUNK_BYTES];
            while let count @ 1.. = self.body.read(&mut chunk)? {
                write!(stream, "{count:x}\r\n")?;
                stream.write_all(&chunk[..count])?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")?;
        }
        // The connection is not read any more after that: a client of this server sends one request.
        stream.flush()?;
        stream.get_ref().shutdown(Shutdown::Write)
    }
}

/// The function that is called with each request. It passes its answer to the second function, which sends it.
type AnswerRequest = dyn Fn(Request, &dyn Fn(Answer<'_>) -> io::Result<()>) -> io::Result<()> + Send + Sync;

/// The server, which ends when it is dropped.
pub struct LoopbackServer {
    address: SocketAddr,
    /// The accepting thread ends when this is closed. `None` only while the server is dropped.
    running: Option<(PipeWriter, JoinHandle<()>)>,
    /// The accepting thread and each connection that is served have one more reference.
    shared: Arc<Shared>,
}

struct Shared {
    word: Secret,
    /// The path that is answered without the word.
    open_path: Option<&'static str>,
    answer: Box<AnswerRequest>,
}

impl LoopbackServer {
    /// Starts the server. Each connection has its own thread, so that a silent one does not block the others. If no
    /// thread can be started, the accepting thread serves the connection.
    ///
    /// `answer` gets the requests with the word, and GET requests of `open_path`.
    ///
    /// # Errors
    /// The socket or the thread cannot be created, or there is no randomness for the word.
    pub fn start(
        open_path: Option<&'static str>,
        answer: impl Fn(Request, &dyn Fn(Answer<'_>) -> io::Result<()>) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let word = hash::random_word().ok_or_else(|| io::Error::other("the system has no randomness"))?;
        #[expect(clippy::disallowed_methods, reason = "`http` alone binds")]
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let (address, (stopped, stop)) = (listener.local_addr()?, io::pipe()?);
        let shared = Arc::new(Shared { word: Secret::new(word), open_path, answer: Box::new(answer) });
        let own = Arc::clone(&shared);
        let accept = move || {
            sockets::accept_until_stopped(&listener, &stopped, |stream, _| {
                if served(&own) >= CONNECTIONS_MAX {
                    return;
                }
                let stream = Arc::new(stream);
                let (of_thread, aside) = (Arc::clone(&own), Arc::clone(&stream));
                let thread = thread::Builder::new().name("loopback".to_owned());
                if thread.spawn(move || of_thread.serve(&aside)).is_err() {
                    own.serve(&stream);
                }
            });
        };
        let thread = thread::Builder::new().name("loopback".to_owned()).spawn(accept)?;
        Ok(Self { address, running: Some((stop, thread)), shared })
    }

    /// Returns the URL to which a client appends its paths.
    pub fn base_url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Returns the secret word that replaces a token. Only this server accepts it.
    pub fn word(&self) -> &Secret {
        &self.shared.word
    }

    /// Returns how many connections are being served.
    #[cfg(test)]
    pub fn served(&self) -> usize {
        served(&self.shared)
    }

    /// Returns the address on which it listens.
    #[cfg(test)]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LoopbackServer {
    fn drop(&mut self) {
        // This closes the pipe.
        if let Some(thread) = self.running.take().map(|(_stop, thread)| thread) {
            let _ = thread.join();
        }
        wait_while(END_TIME_MAX, || Arc::strong_count(&self.shared) > 1);
    }
}

/// Returns how many connections are being served, while the accepting thread runs.
fn served(shared: &Arc<Shared>) -> usize {
    Arc::strong_count(shared).saturating_sub(2)
}

impl Shared {
    fn serve(&self, stream: &TcpStream) {
        if let Err(error) = self.answer(stream) {
            log::debug!("a request of wmill was not answered: {error}");
        }
    }

    fn answer(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let Some((head, rest)) = read_head(stream)? else { return Answer::text(400, "Bad request").send(stream) };
        let bearer = head.headers().get("authorization").and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let has_word = bearer.is_some_and(|token| self.word.matches(token));
        let is_open = head.method() == http::Method::GET && self.open_path.is_some_and(|open| *head.uri() == *open);
        if !has_word && !is_open {
            return Answer::text(401, "Unauthorized").send(stream);
        }
        // Otherwise another program on this machine could fill our memory.
        let request = if has_word { read_body(stream, head, rest)? } else { head.map(|()| Vec::new()) };
        (self.answer)(request, &|answer| answer.send(stream))
    }
}

/// Reads the head of a request, and returns it with the bytes that came after it; `None` if it is malformed.
fn read_head(stream: &TcpStream) -> io::Result<Option<(http::Request<()>, Vec<u8>)>> {
    let mut socket = TimedSocket { stream, deadline: Instant::now() + HEAD_TIME_MAX };
    let (mut received, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
    while received.len() <= HEAD_BYTES_MAX {
        match socket.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => received.extend_from_slice(&chunk[..length]),
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&received) {
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(bytes)) => {
                return Ok(head_of(&parsed).map(|head| (head, received.split_off(bytes))));
            }
            Err(_) => break,
        }
    }
    Ok(None)
}

fn head_of(parsed: &httparse::Request<'_, '_>) -> Option<http::Request<()>> {
    let target = parsed.path.filter(|target| target.starts_with('/'))?;
    let head = http::Request::builder().method(parsed.method?).uri(target);
    let head = parsed.headers.iter().fold(head, |head, header| head.header(header.name, header.value));
    head.body(()).ok()
}

/// Reads the rest of the body, which begins with `body`.
fn read_body(mut stream: &TcpStream, head: http::Request<()>, mut body: Vec<u8>) -> io::Result<Request> {
    let length: Option<usize> = match ["transfer-encoding", "content-length"].map(|name| head.headers().get(name)) {
        [None, None] => Some(0),
        [None, Some(length)] => length.to_str().ok().and_then(|length| length.parse().ok()),
        [Some(_), _] => None,
    };
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the length of its body");
    let length = length.filter(|length| *length <= BODY_BYTES_MAX).ok_or_else(invalid)?;
    let left = length.saturating_sub(body.len());
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    if Read::by_ref(&mut stream).take(left as u64).read_to_end(&mut body)? < left {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(head.map(|()| body))
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn start() -> LoopbackServer {
        LoopbackServer::start(Some("/open"), |request, send| {
            let echo = [request.uri().path().as_bytes(), request.body()].concat();
            send(Answer::text(201, &String::from_utf8_lossy(&echo)))
        })
        .expect("a server")
    }

    fn connect(server: &LoopbackServer) -> TcpStream {
        let stream = TcpStream::connect(server.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream
    }

    /// Returns the answer to a request with this word, or the part that arrived before the connection broke.
    fn ask(server: &LoopbackServer, request: &str, word: &str, body: &str) -> String {
        let mut stream = connect(server);
        let head = format!("{request} HTTP/1.1\r\nAuthorization: Bearer {word}\r\n");
        let _ = stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    fn is_answered(server: &LoopbackServer) -> bool {
        ask(server, "GET /x", server.word().expose(), "").ends_with("\r\n\r\n/x")
    }

    /// How long a test waits. A busy machine needs a part of it.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn only_a_program_with_the_word_is_answered() {
        let server = start();
        let word = server.word().expose();
        let body = " ".repeat(9_000_000);
        assert!(ask(&server, "POST /x", word, &body).starts_with("HTTP/1.1 201 "));
        assert!(ask(&server, "POST /x?y", word, "z").ends_with("Content-Length: 3\r\n\r\n/xz"));
        assert!(ask(&server, "GET /open", "a word", "z").ends_with("\r\n\r\n/open"), "its body is not read");
        for (request, word) in [("GET /x", "a word"), ("GET /x", &word[1..]), ("POST /open", ""), ("GET /open?x", "")] {
            assert!(ask(&server, request, word, "").starts_with("HTTP/1.1 401 "), "{request}");
        }
        for malformed in ["no HTTP", "GET x", "GET http://y/x"] {
            assert!(ask(&server, malformed, word, "").starts_with("HTTP/1.1 400 "), "{malformed}");
        }
    }

    #[test]
    fn a_body_is_sent_with_a_length_or_in_chunks_and_ends_early_if_it_fails() {
        let server = LoopbackServer::start(None, |request, send| {
            let length = request.uri().query().map(|length| length.parse().expect("a number"));
            let sent = send(Answer { length, ..Answer::text(200, "four") });
            assert_eq!(sent.is_ok(), length != Some(9));
            sent
        });
        let server = server.expect("a server");
        let body = |target: &str| {
            let answer = ask(&server, target, server.word().expose(), "");
            answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
        };
        assert_eq!([body("GET /?4"), body("GET /?9"), body("GET /")], ["four", "four", "4\r\nfour\r\n0\r\n\r\n"]);
    }

    #[test]
    fn a_connection_above_the_limit_is_closed() {
        let server = start();
        let silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect(&server)).collect();
        wait_while(PATIENCE, || server.served() < CONNECTIONS_MAX);
        assert_eq!(server.served(), CONNECTIONS_MAX);
        assert!(!is_answered(&server));
        drop(silent);
        // The places become free a moment later.
        wait_while(PATIENCE, || server.served() > 0);
        assert!(is_answered(&server));
    }

    #[test]
    fn a_dropped_server_accepts_no_more() {
        let server = start();
        assert!(is_answered(&server));
        let address = server.address();
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_dropped_server_waits_for_requests_in_progress() {
        let (done, address) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::new()));
        let (counted, known) = (Arc::clone(&done), Arc::clone(&address));
        let server = LoopbackServer::start(None, move |request, send| {
            send(Answer::text(200, request.uri().path()))?;
            // It is still being served when the server has begun to end, and accepts no more.
            wait_while(PATIENCE, || known.get().is_none_or(|address| TcpStream::connect(address).is_ok()));
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let server = server.expect("a server");
        assert!(is_answered(&server));
        address.set(server.address()).expect("set once");
        drop(server);
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}
