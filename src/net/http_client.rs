//! The HTTP client for the questions that we ask ourselves: no redirects, an end to every wait, and those whom
//! `trust` trusts. It does not know whom it asks.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::deadline::{Deadline, Expired, Interrupt};
use crate::proxy;

/// A client for `url` that gives up after `timeout`.
///
/// A redirect is an answer like any other: to follow it would take a token elsewhere. So is every status.
/// `environment` may name proxies, and files of certificates (`SSL_CERT_FILE`, `CA_BUNDLE_FILE`).
#[must_use]
pub fn client(url: &str, timeout: Duration, environment: &[(String, String)]) -> ureq::Agent {
    let configuration = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        // A connection that is used again may be closed by the server meanwhile; and where the server sends an answer in
        // two pieces, the second waits there for our acknowledgement, which waits for more: 40 ms.
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("windmill-git-sync/", env!("CARGO_PKG_VERSION")));
    let proxy = proxy::for_url(url, environment);
    // Given even where there is none: the client would look into the environment by itself.
    let configuration = configuration.proxy(proxy.and_then(|proxy| ureq::Proxy::new(proxy).ok()));
    #[cfg(not(target_family = "wasm"))]
    let configuration = if [Some(url), proxy].into_iter().flatten().any(is_https) {
        configuration.tls_config(tls::configuration(environment))
    } else {
        configuration
    };
    configuration.build().into()
}

/// An answer that a thread of its own waits for: a client that waits for a server hears no interrupt. Dropped, nobody
/// wants it any more.
pub struct Pending<T> {
    slot: Arc<(Mutex<Option<T>>, Condvar)>,
    unwanted: Interrupt,
}

impl<T: Send + 'static> Pending<T> {
    /// Starts `ask`, which has an end of its own, and ends earlier where it sees that it is unwanted.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(ask: impl FnOnce(&Interrupt) -> T + Send + 'static) -> io::Result<Self> {
        let pending = Self { slot: Arc::default(), unwanted: Interrupt::default() };
        let (slot, unwanted) = (Arc::clone(&pending.slot), pending.unwanted.clone());
        std::thread::Builder::new().name("ask".to_owned()).spawn(move || {
            let answer = ask(&unwanted);
            *slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            slot.1.notify_one();
        })?;
        Ok(pending)
    }
}

impl<T> Pending<T> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`Expired`].
    pub fn wait(self, deadline: &Deadline) -> Result<T, Expired> {
        let mut answer = self.slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = answer.take() {
                return Ok(answer);
            }
            let wait = deadline.next_wait()?;
            answer = self.slot.1.wait_timeout(answer, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.unwanted.raise();
    }
}

#[cfg(not(target_family = "wasm"))]
fn is_https(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
}

/// Whether a server that answers with this status may answer otherwise in a moment.
#[must_use]
pub fn is_passing(status: u16) -> bool {
    // 501 and 505 say what a server cannot do.
    matches!(status, 408 | 429 | 500 | 502..=504 | 506..=599)
}

/// Whether a question that had no answer may have one in a moment. A certificate does not become another.
#[must_use]
pub fn is_passing_error(error: &ureq::Error) -> bool {
    use ureq::Error;
    match error {
        Error::Io(_) => !error.to_string().contains("certificate"),
        // A proxy tells what it answered by these words alone.
        Error::ConnectProxyFailed(why) => why.contains("responded 5") || why.contains("did not respond"),
        Error::Timeout(_) | Error::HostNotFound | Error::ConnectionFailed | Error::Protocol(_) => true,
        _ => false,
    }
}

#[cfg(not(target_family = "wasm"))]
mod tls {
    //! TLS with what every server of the last ten years speaks, and nothing beside it: code that is never needed would
    //! be a tenth of the binary.

    use std::sync::Arc;

    use ring::rand::SecureRandom as _;
    use rustls::SignatureScheme;
    use rustls::crypto::ring::{cipher_suite, kx_group};
    use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::sign::SigningKey;
    use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
    use webpki::ring::{
        ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        RSA_PSS_2048_8192_SHA384_LEGACY_KEY, RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    };

    use crate::trust;

    pub(super) fn configuration(environment: &[(String, String)]) -> TlsConfig {
        TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(provider()))
            .root_certs(RootCerts::Specific(Arc::new(certificates(environment))))
            .build()
    }

    /// AES in both versions of TLS, the one group that RFC 8446 asks of every server (9.1), and no keys of our own.
    fn provider() -> CryptoProvider {
        CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            ],
            kx_groups: vec![kx_group::SECP256R1],
            signature_verification_algorithms: SIGNATURES,
            secure_random: &Randomness,
            key_provider: &NoKeys,
        }
    }

    /// How certificates and handshakes may be signed: ECDSA on two curves, and RSA.
    const SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
        all: &[
            ECDSA_P256_SHA256,
            ECDSA_P256_SHA384,
            ECDSA_P384_SHA256,
            ECDSA_P384_SHA384,
            RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
            RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
            RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
            RSA_PKCS1_2048_8192_SHA256,
            RSA_PKCS1_2048_8192_SHA384,
            RSA_PKCS1_2048_8192_SHA512,
        ],
        mapping: &[
            // TLS 1.2 names no curve, so each hash is good for either.
            (SignatureScheme::ECDSA_NISTP256_SHA256, &[ECDSA_P256_SHA256, ECDSA_P384_SHA256]),
            (SignatureScheme::ECDSA_NISTP384_SHA384, &[ECDSA_P384_SHA384, ECDSA_P256_SHA384]),
            (SignatureScheme::RSA_PSS_SHA256, &[RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
            (SignatureScheme::RSA_PSS_SHA384, &[RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
            (SignatureScheme::RSA_PSS_SHA512, &[RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
            (SignatureScheme::RSA_PKCS1_SHA256, &[RSA_PKCS1_2048_8192_SHA256]),
            (SignatureScheme::RSA_PKCS1_SHA384, &[RSA_PKCS1_2048_8192_SHA384]),
            (SignatureScheme::RSA_PKCS1_SHA512, &[RSA_PKCS1_2048_8192_SHA512]),
        ],
    };

    #[derive(Debug)]
    struct Randomness;

    impl SecureRandom for Randomness {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
            ring::rand::SystemRandom::new().fill(bytes).map_err(|_| GetRandomFailed)
        }
    }

    /// We show no certificate of our own, so nothing is ever signed.
    #[derive(Debug)]
    struct NoKeys;

    impl KeyProvider for NoKeys {
        fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
            Err(rustls::Error::General("no key of our own is used".to_owned()))
        }
    }

    /// Without any, every https server is refused; so it is with a bundle that was spoiled since it was checked.
    fn certificates(environment: &[(String, String)]) -> Vec<Certificate<'static>> {
        let roots = trust::roots(environment).unwrap_or_else(|why| {
            log::error!("{why}");
            Vec::new()
        });
        roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
    }
}
