//! The HTTP client for the few small questions that we ask ourselves: no redirects, an end to every wait, the system's
//! certificates. It does not know whom it asks.

use std::time::Duration;

/// Where systems keep the certificates that they trust, in the order in which they are looked for.
#[cfg(not(target_family = "wasm"))]
const CERTIFICATE_FILES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A client for `url` that gives up after `timeout`.
///
/// A redirect is an answer like any other: to follow it would take a token elsewhere. So is every status.
/// `environment` may name a file of certificates (`SSL_CERT_FILE`).
#[must_use]
pub fn client(url: &str, timeout: Duration, environment: &[(String, String)]) -> ureq::Agent {
    let configuration = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("windmill-git-sync/", env!("CARGO_PKG_VERSION")));
    #[cfg(not(target_family = "wasm"))]
    let configuration =
        if url.starts_with("https:") { configuration.tls_config(tls(environment)) } else { configuration };
    #[cfg(target_family = "wasm")]
    let _ = (url, environment);
    configuration.build().into()
}

#[cfg(not(target_family = "wasm"))]
fn tls(environment: &[(String, String)]) -> ureq::tls::TlsConfig {
    use std::sync::Arc;
    use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(certificates(environment))))
        .build()
}

/// All certificates that can be read; without any, every https server is refused.
#[cfg(not(target_family = "wasm"))]
fn certificates(environment: &[(String, String)]) -> Vec<ureq::tls::Certificate<'static>> {
    let named = environment.iter().find(|(name, _)| name == "SSL_CERT_FILE").map(|(_, path)| path.as_str());
    let mut files = named.into_iter().chain(CERTIFICATE_FILES);
    let Some(bundle) = files.find_map(|file| std::fs::read(file).ok()) else {
        log::warn!("no file of trusted certificates was found, so no https server will be trusted; set SSL_CERT_FILE");
        return Vec::new();
    };
    let certificate = |item| match item {
        Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    ureq::tls::parse_pem(&bundle).filter_map(certificate).collect()
}
