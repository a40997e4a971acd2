//! The certificates that TLS trusts: the system's and those of `CA_BUNDLE_FILE`, as values for our client and as
//! a file for git.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};

use crate::util::{RunDir, files};

/// The only setting that is part of the environment of the tools.
pub const CA_BUNDLE_FILE: &str = "CA_BUNDLE_FILE";

/// The largest size of a bundle. The list that systems ship has 0.2 MB, so a larger file is the wrong file.
const BUNDLE_BYTES_MAX: u64 = 4 << 20;
/// Where systems keep the certificates that they trust, in the order of the search.
const SYSTEM_FILES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Readers of PEM need not accept longer lines (RFC 7468, 2).
const LINE_CHARACTERS: usize = 64;

fn named<'a>(environment: &'a [(String, String)], variable: &str) -> Option<&'a str> {
    environment.iter().find(|(name, _)| name == variable).map(|(_, path)| path.as_str())
}

/// Returns the certificates in `CA_BUNDLE_FILE`, each as its DER bytes; an empty list if it is not set.
///
/// # Errors
/// The file cannot be read, is too large, holds no certificate, or holds a damaged one. The message names the setting
/// and the file.
pub fn bundle(environment: &[(String, String)]) -> Result<Vec<Vec<u8>>, String> {
    let Some(path) = named(environment, CA_BUNDLE_FILE) else { return Ok(Vec::new()) };
    let refused = |why: &str| format!("{CA_BUNDLE_FILE}: cannot take the certificates from {path}: {why}");
    let content = files::read_named_file(Path::new(path), BUNDLE_BYTES_MAX).map_err(|why| refused(&why))?;
    let found = certificates(&content).map_err(|why| refused(&why))?;
    if found.is_empty() {
        let why = if content.is_empty() { "it is empty" } else { "it holds no certificate in PEM form" };
        return Err(refused(why));
    }
    Ok(found)
}

/// Returns all certificates in a PEM text. Other sections, such as keys, and remarks are ignored.
fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let number = found.len() + 1;
        match certificate {
            Ok(der) if is_certificate(&der) => found.push(der.to_vec()),
            Err(pem::Error::MissingSectionEnd { .. }) => return Err(format!("certificate {number} has no end")),
            _ => return Err(format!("certificate {number} is damaged")),
        }
    }
    Ok(found)
}

#[cfg(not(target_family = "wasm"))]
fn is_certificate(der: &[u8]) -> bool {
    webpki::anchor_from_trusted_cert(&der.into()).is_ok()
}

#[cfg(target_family = "wasm")]
fn is_certificate(der: &[u8]) -> bool {
    !der.is_empty()
}

/// Returns what the system trusts, in PEM form: the file that `SSL_CERT_FILE` names, or the first of [`SYSTEM_FILES`]
/// that can be read.
fn system(environment: &[(String, String)]) -> Option<Vec<u8>> {
    let files = named(environment, "SSL_CERT_FILE").into_iter().chain(SYSTEM_FILES);
    files.into_iter().find_map(|file| fs::read(file).ok())
}

/// Returns all certificates that our own client trusts, as DER. A system certificate that cannot be read is skipped.
///
/// # Errors
/// Returns the errors of [`bundle`].
#[cfg(not(target_family = "wasm"))]
pub fn roots(environment: &[(String, String)]) -> Result<Vec<Vec<u8>>, String> {
    let own = bundle(environment)?;
    let system = system(environment).unwrap_or_default();
    if system.is_empty() && own.is_empty() {
        log::warn!("no file of trusted certificates was found, so no https server is trusted; set {CA_BUNDLE_FILE}");
    }
    let trusted = CertificateDer::pem_slice_iter(&system).filter_map(|certificate| Some(certificate.ok()?.to_vec()));
    Ok(trusted.chain(own).collect())
}

/// Returns the environment for the programs of a run and for our own requests. If `environment` has a bundle, whose
/// certificates are `own`, git gets a file in the run's folder with the certificates that it trusts without the bundle,
/// followed by the bundle. `wmill` talks only to this process, without TLS.
///
/// # Errors
/// The file cannot be written.
pub fn for_run(
    environment: &[(String, String)],
    own: &[Vec<u8>],
    run_dir: &RunDir,
) -> io::Result<Vec<(String, String)>> {
    const VARIABLE: &str = "GIT_SSL_CAINFO";
    let mut all = environment.to_vec();
    if own.is_empty() {
        return Ok(all);
    }
    let own: String = own.iter().map(|der| to_pem(der)).collect();
    let of_git = named(environment, VARIABLE).and_then(|file| fs::read(file).ok());
    let others = of_git.or_else(|| system(environment)).unwrap_or_default();
    let file = run_dir.write("ca-git.pem", &[others.as_slice(), b"\n", own.as_bytes()].concat())?;
    all.retain(|(name, _)| name != VARIABLE);
    all.push((VARIABLE.to_owned(), file.to_string_lossy().into_owned()));
    Ok(all)
}

/// Encodes a certificate as PEM, without the keys, remarks and line ends in the user's file that some readers cannot
/// parse.
fn to_pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let lines = encoded.as_bytes().chunks(LINE_CHARACTERS).map(String::from_utf8_lossy);
    lines.fold(format!("{BEGIN}\n"), |text, line| text + &line + "\n") + END + "\n"
}

// Without TLS, no code can check whether bytes are a certificate.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_written_as_it_was_read() {
        let der = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.der().to_vec();
        let text = to_pem(&der);
        assert!(text.lines().all(|line| line.len() <= LINE_CHARACTERS), "{text}");
        let windows = format!("a remark\r\n{}and more", text.replace('\n', "\r\n"));
        assert_eq!(certificates(windows.as_bytes()), Ok(vec![der.clone()]));
        assert_eq!(certificates(text.repeat(2).as_bytes()).map(|all| all.len()), Ok(2));
        assert_eq!(certificates(b"no certificate"), Ok(Vec::new()));
    }

    #[test]
    fn a_damaged_certificate_is_named_by_its_number() {
        let der = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.der().to_vec();
        let good = to_pem(&der);
        for (bad, why) in [
            (good.replace(END, ""), "certificate 2 has no end"),
            (good.replacen('M', "!", 1), "certificate 2 is damaged"),
            (to_pem(&der[..der.len() / 2]), "certificate 2 is damaged"),
            (to_pem(b""), "certificate 2 is damaged"),
        ] {
            assert_eq!(certificates((good.clone() + &bad).as_bytes()), Err(why.to_owned()));
        }
    }
}
