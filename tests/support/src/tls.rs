//! Our own certificate authorities, and TLS in front of the stand-ins, which use plain connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::git::Remote;
use super::http::Server;

/// A certificate authority. Only clients that get its certificate trust it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Returns its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Starts TLS in front of the plain server of this URL, with a certificate for `127.0.0.1`.
    pub fn front(&self, plain: &str) -> TlsFront {
        self.front_named(plain, "127.0.0.1")
    }

    /// Like [`Authority::front`], with a certificate for this name.
    pub fn front_named(&self, plain: &str, name: &str) -> TlsFront {
        self.serve(plain, &CertificateParams::new([name.to_owned()]).unwrap())
    }

    /// Like [`Authority::front`], with a certificate that expired some years ago.
    pub fn front_expired(&self, plain: &str) -> TlsFront {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.serve(plain, &params)
    }

    fn serve(&self, plain: &str, params: &CertificateParams) -> TlsFront {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let (config, backend) = (Arc::new(config), address_in(plain));
        let server = Server::start_raw(move |stream, _| {
            // A client that does not trust the certificate may close the connection.
            let _ = converse(stream, &config, backend);
        });
        TlsFront { server, backend }
    }
}

/// TLS in front of one plain server. It stops when dropped.
pub struct TlsFront {
    server: Server,
    backend: SocketAddr,
}

impl TlsFront {
    /// Returns the plain server's URL, changed to lead through this one.
    #[track_caller]
    pub fn https(&self, plain: &str) -> String {
        let through = plain.replace(&format!("http://{}", self.backend), &format!("https://{}", self.server.address()));
        assert_ne!(through, plain, "that is another server's");
        through
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns the remote, reached through this server.
    pub fn remote(&self, plain: &impl Remote) -> OtherUrl {
        OtherUrl { url: self.https(&plain.url()), credentials: plain.credentials() }
    }
}

/// A remote that is reached by another URL than its own.
pub struct OtherUrl {
    pub url: String,
    pub credentials: Vec<(String, String)>,
}

impl Remote for OtherUrl {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn credentials(&self) -> Vec<(String, String)> {
        self.credentials.clone()
    }
}

/// Returns the address of the server in a URL.
#[track_caller]
pub fn address_in(url: &str) -> SocketAddr {
    let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    authority.parse().unwrap_or_else(|_| panic!("no address in {url}"))
}

fn converse(stream: &TcpStream, config: &Arc<ServerConfig>, backend: SocketAddr) -> io::Result<()> {
    let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        let mut both_ways = stream;
        tls.complete_io(&mut both_ways)?;
    }
    let upstream = TcpStream::connect(backend)?;
    let tls = Mutex::new(tls);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = pass_answer(stream, &upstream, &tls);
            let _ = stream.shutdown(Shutdown::Both);
        });
        let _ = pass_request(stream, &upstream, &tls);
        let _ = upstream.shutdown(Shutdown::Write);
    });
    Ok(())
}

/// Never holds the lock while it waits for one side.
fn pass_request(mut stream: &TcpStream, mut upstream: &TcpStream, tls: &Mutex<ServerConnection>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut count = 0;
    loop {
        let mut input = &buffer[..count];
        let mut plain = Vec::new();
        // Data that came with the end of the handshake is there before the first read.
        loop {
            let mut tls = tls.lock().unwrap();
            if !input.is_empty() {
                tls.read_tls(&mut input)?;
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            match tls.reader().read_to_end(&mut plain) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ if input.is_empty() => break,
                _ => {}
            }
        }
        upstream.write_all(&plain)?;
        count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
    }
}

fn pass_answer(mut stream: &TcpStream, mut upstream: &TcpStream, tls: &Mutex<ServerConnection>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = upstream.read(&mut buffer)?;
        let mut tls = tls.lock().unwrap();
        if count == 0 {
            tls.send_close_notify();
        }
        tls.writer().write_all(&buffer[..count])?;
        while tls.wants_write() {
            tls.write_tls(&mut stream)?;
        }
        if count == 0 {
            return Ok(());
        }
    }
}
