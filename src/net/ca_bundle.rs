//! The certificates that TLS trusts: the system's and those of `CA_BUNDLE_FILE`, as values for our client and as
//! a file for git.

use std::fs;
use std::io;
use std::path::Path;

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

fn named<'a>(environment: &'a [(String, String)], variable: &str) -> Option<&'a str> {
    environment.iter().find(|(name, _)| name == variable).map(|(_, path)| path.as_str())
}

/// Returns the content of `CA_BUNDLE_FILE`, whose certificates are valid; it is empty if the setting is not set.
///
/// # Errors
/// The file cannot be read, is too large, holds no certificate, or holds a damaged one. The message names the setting
/// and the file.
pub fn bundle(environment: &[(String, String)]) -> Result<Vec<u8>, String> {
    let Some(path) = named(environment, CA_BUNDLE_FILE) else { return Ok(Vec::new()) };
    let refused = |why: &str| format!("{CA_BUNDLE_FILE}: cannot take the certificates from {path}: {why}");
    let content = files::read_named_file(Path::new(path), BUNDLE_BYTES_MAX).map_err(|why| refused(&why))?;
    match check(&content) {
        Ok(0) if content.is_empty() => Err(refused("it is empty")),
        Ok(0) => Err(refused("it holds no certificate in PEM form")),
        Ok(_) => Ok(content),
        Err(why) => Err(refused(&why)),
    }
}

/// Returns the number of certificates in a PEM text. Other sections, such as keys, and remarks are ignored.
fn check(text: &[u8]) -> Result<usize, String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text) {
        count += 1;
        match certificate {
            Ok(der) if is_certificate(&der) => {}
            Err(pem::Error::MissingSectionEnd { .. }) => return Err(format!("certificate {count} has no end")),
            _ => return Err(format!("certificate {count} is damaged")),
        }
    }
    Ok(count)
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
    let trusted = [system, own].concat();
    let certificates = CertificateDer::pem_slice_iter(&trusted);
    Ok(certificates.filter_map(|certificate| Some(certificate.ok()?.to_vec())).collect())
}

/// Returns the environment for the programs of a run and for our own requests. If the bundle, whose content is `own`,
/// is not empty, git gets a file in the run's folder with the certificates that it trusts without the bundle, followed
/// by the bundle. `wmill` talks only to this process, without TLS.
///
/// # Errors
/// The file cannot be written.
pub fn for_run(environment: &[(String, String)], own: &[u8], run_dir: &RunDir) -> io::Result<Vec<(String, String)>> {
    const VARIABLE: &str = "GIT_SSL_CAINFO";
    let mut all = environment.to_vec();
    if own.is_empty() {
        return Ok(all);
    }
    let of_git = named(environment, VARIABLE).and_then(|file| fs::read(file).ok());
    let others = of_git.or_else(|| system(environment)).unwrap_or_default();
    let file = run_dir.write("ca-git.pem", &[&others, &b"\n"[..], own].concat())?;
    all.retain(|(name, _)| name != VARIABLE);
    all.push((VARIABLE.to_owned(), file.to_string_lossy().into_owned()));
    Ok(all)
}

// Without TLS, no code can check whether bytes are a certificate.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    fn certificate() -> rcgen::Certificate {
        rcgen::generate_simple_self_signed(["h".to_owned()]).expect("a certificate").cert
    }

    #[test]
    fn certificates_are_counted() {
        let pem = certificate().pem();
        let windows = format!("a remark\r\n{}and more", pem.replace('\n', "\r\n"));
        assert_eq!(check(windows.as_bytes()), Ok(1));
        assert_eq!(check(pem.repeat(2).as_bytes()), Ok(2));
        assert_eq!(check(b"no certificate"), Ok(0));
    }

    #[test]
    fn a_damaged_certificate_is_named_by_its_number() {
        let good = certificate().pem();
        let lines: Vec<&str> = good.lines().collect();
        let (last, start) = lines.split_last().unwrap();
        for (bad, why) in [
            (start.join("\n"), "certificate 2 has no end"),
            (good.replacen("\nM", "\n!", 1), "certificate 2 is damaged"),
            ([&lines[..2], &[*last]].concat().join("\n"), "certificate 2 is damaged"),
            ([lines[0], *last].join("\n"), "certificate 2 is damaged"),
        ] {
            assert_eq!(check((good.clone() + &bad).as_bytes()), Err(why.to_owned()), "{bad}");
        }
    }
}
