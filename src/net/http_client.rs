//! The HTTP client for our own requests: no redirects, a limit for every wait, and the certificates of `ca_bundle`.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use ureq::SendBody;
use ureq::http::{HeaderMap, Request};
use ureq::middleware::MiddlewareNext;
use ureq::unversioned::transport::DefaultConnector;

use crate::net::proxy;
use crate::net::resolver::ThreadedResolver;
#[cfg(not(target_family = "wasm"))]
use crate::net::tls;
use crate::util::{Deadline, Expired};

/// Returns a client for `url` that gives up after `timeout`, and sends `headers` with each request.
///
/// The client does not follow redirects, because that would send a token elsewhere. No status is an error.
/// `environment` may name proxies, and files of certificates (`SSL_CERT_FILE`, `CA_BUNDLE_FILE`).
pub fn client(url: &str, timeout: Duration, headers: HeaderMap, environment: &[(String, String)]) -> ureq::Agent {
    let with_headers = move |mut request: Request<SendBody<'_>>, next: MiddlewareNext<'_>| {
        request.headers_mut().extend(headers.clone());
        next.handle(request)
    };
    let configuration = ureq::Agent::config_builder()
        .middleware(with_headers)
        .timeout_global(Some(timeout))
        .max_redirects(0)
        // No connection is reused, because the server may close it meanwhile. Also, if the server sends an answer in
        // two parts on a reused connection, it sends the second one only after our acknowledgement, which is delayed by
        // 40 ms.
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("windmill-git-sync/", env!("CARGO_PKG_VERSION")));
    let proxy = proxy::for_url(url, environment);
    // This call is needed without a proxy too: without it, the client takes a proxy from the environment.
    let configuration = configuration.proxy(proxy.and_then(|proxy| ureq::Proxy::new(proxy).ok()));
    #[cfg(not(target_family = "wasm"))]
    let configuration = if [Some(url), proxy].into_iter().flatten().any(is_https) {
        configuration.tls_config(tls::configuration(environment))
    } else {
        configuration
    };
    ureq::Agent::with_parts(configuration.build(), DefaultConnector::default(), ThreadedResolver)
}

/// An answer for which a separate thread waits, because a blocked client does not notice a cancel.
pub struct Pending<T>(Receiver<T>);

impl<T: Send + 'static> Pending<T> {
    /// Starts `ask` in a thread. `ask` has its own time limit.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(ask: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (sender, answer) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("ask".to_owned());
        thread
            .spawn(move || sender.send(ask()).ok())
            .map_err(|error| io::Error::new(error.kind(), format!("cannot start a thread: {error}")))?;
        Ok(Self(answer))
    }
}

impl<T> Pending<T> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`Expired`], if `deadline` ends before the answer is there, or if the thread has panicked.
    pub fn wait(self, deadline: &Deadline) -> Result<T, Expired> {
        loop {
            match self.0.recv_timeout(deadline.next_wait()?) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Expired::TimedOut),
            }
        }
    }
}

#[cfg(not(target_family = "wasm"))]
fn is_https(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
}

/// Whether this status is transient: the server may soon answer differently.
pub fn is_passing(status: u16) -> bool {
    // 501 and 505 are about features that the server does not support.
    matches!(status, 408 | 429 | 500 | 502..=504 | 506..=599)
}

/// Whether this error is transient: another request may soon get an answer. An invalid certificate is not transient.
pub fn is_passing_error(error: &ureq::Error) -> bool {
    use ureq::Error;
    match error {
        Error::Io(_) => !error.to_string().contains("certificate"),
        // Only the text of the error has the answer of a proxy.
        Error::ConnectProxyFailed(why) => why.contains("responded 5") || why.contains("did not respond"),
        Error::Timeout(_) | Error::HostNotFound | Error::ConnectionFailed => true,
        Error::Protocol(_) | Error::LargeResponseHeader(..) => true,
        _ => false,
    }
}
