//! An HTTP proxy that records its requests: plain requests with a whole URL, and tunnels (`CONNECT`). Only the proxy
//! can resolve the host names of a test, so each request that arrives came through it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::http::Server;

/// The user for [`PROXY_PASSWORD`].
pub const PROXY_USER: &str = "way-out";
/// A password that is easy to find where it must not be. Its last character has to be encoded in a URL.
pub const PROXY_PASSWORD: &str = "proxy-password-PLANTED-9999-0ddba11@";

/// A proxy on its own port. It stops when dropped.
pub struct Proxy {
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    routes: Mutex<Vec<(String, SocketAddr)>>,
    asked: Mutex<Vec<String>>,
}

impl Proxy {
    /// Starts a proxy that accepts only requests with the user and the password.
    pub fn start() -> Self {
        let shared = Arc::new(Shared { routes: Mutex::default(), asked: Mutex::default() });
        let of_server = Arc::clone(&shared);
        let server = Server::start_raw(move |stream, _| {
            // A client may disconnect at any time.
            let _ = of_server.converse(stream);
        });
        Self { server, shared }
    }

    /// Sends connections for `host:port` to this address from now on.
    pub fn route(&self, host_and_port: &str, to: SocketAddr) {
        self.shared.routes.lock().unwrap().push((host_and_port.to_owned(), to));
    }

    /// Returns the value for `http_proxy`.
    pub fn url(&self) -> String {
        self.url_with(PROXY_PASSWORD)
    }

    /// Returns the same URL with another password.
    pub fn url_with(&self, password: &str) -> String {
        format!("http://{PROXY_USER}:{}@{}", password.replace('@', "%40"), self.server.address())
    }

    /// Returns user and password in the form in which they are sent.
    pub fn credentials() -> String {
        STANDARD.encode(format!("{PROXY_USER}:{PROXY_PASSWORD}"))
    }

    /// Returns `CONNECT host:port` or `GET http://host:port/…` for each request, in order of arrival. Refused ones
    /// begin with `407`.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.shared.asked.lock().unwrap().clear();
    }
}

impl Shared {
    fn converse(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut input = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let first = head.first().cloned().unwrap_or_default();
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let wanted = format!("basic {}", Proxy::credentials()).to_ascii_lowercase();
        let sent = |line: &String| line.to_ascii_lowercase() == format!("proxy-authorization: {wanted}");
        let is_known = head.iter().any(sent);
        let refused = if is_known { "" } else { "407 " };
        self.asked.lock().unwrap().push(format!("{refused}{method} {target}"));
        if !is_known {
            return stream.write_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"way out\"\r\n\
                  Content-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
        let (authority, path) = match target.strip_prefix("http://") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => (target, ""),
        };
        let Some(to) = self.find(authority) else {
            return stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        let mut upstream = TcpStream::connect(to)?;
        if method == "CONNECT" {
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        } else {
            let rest = head.iter().skip(1).filter(|line| !line.to_ascii_lowercase().starts_with("proxy-"));
            let lines: String = rest.map(|line| format!("{line}\r\n")).collect();
            write!(upstream, "{method} /{path} HTTP/1.1\r\n{lines}\r\n")?;
        }
        // Bytes that came directly after the head are in the buffer already.
        upstream.write_all(input.buffer())?;
        pass_both_ways(stream, &upstream);
        Ok(())
    }

    fn find(&self, authority: &str) -> Option<SocketAddr> {
        let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        self.routes.lock().unwrap().iter().find(|(known, _)| *known == authority).map(|(_, to)| *to)
    }
}

fn pass_both_ways(client: &TcpStream, upstream: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            pass(upstream, client);
            let _ = client.shutdown(Shutdown::Both);
        });
        pass(client, upstream);
        let _ = upstream.shutdown(Shutdown::Write);
    });
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
