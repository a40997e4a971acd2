//! The key that signs commits, as git and `ssh-keygen` take it: a file that only we may read, with its public half beside
//! it. It is tried before anything else is done, so that nothing is pulled for a commit that cannot be signed.

use std::io;
use std::path::PathBuf;

use crate::deadline::Expired;
use crate::secret::Secret;
use crate::subprocess::Failure;
use crate::workplace::{ProgramLog, Workplace};

const SETTING: &str = "GIT_SIGNING_KEY";
/// A public key has a line; that of RSA with 16,384 bits has 3 KB.
const PUBLIC_KEY_BYTES_MAX: usize = 16 * 1024;

/// Why there is no key to sign with.
#[derive(Debug)]
pub enum SigningError {
    /// The key, or `ssh-keygen` is missing; in words that name the setting.
    Setting(String),
    /// The time was over, or the service is ending.
    Expired(Expired),
    /// The folder of the run cannot be written.
    Disk(io::Error),
}

/// Writes the key and its public half into the folder of the run; the path of the key.
///
/// # Errors
/// [`SigningError`]: a key that cannot be read or wants a passphrase among them.
pub fn prepare(place: &Workplace, key: &Secret) -> Result<PathBuf, SigningError> {
    let path = place.scratch.write("signing_key", key.expose().as_bytes()).map_err(SigningError::Disk)?;
    let invocation = place.invocation("ssh-keygen", place.scratch.path()).map_err(SigningError::Disk)?;
    // With an empty passphrase, so that it does not ask for one.
    let invocation = invocation.arguments(["-y", "-P", "", "-f"]).argument(&path).capture(PUBLIC_KEY_BYTES_MAX);
    let mut log = ProgramLog::new("ssh-keygen", log::Level::Debug);
    let finished = place.run(invocation, &mut |line| log.line(line)).map_err(|failure| match failure {
        Failure::Expired(expired) => SigningError::Expired(expired),
        failure => SigningError::Setting(format!("{SETTING} is set, and commits cannot be signed: {failure}")),
    })?;
    if !finished.is_success() {
        let said = finished.tail_text();
        let why = format!("{SETTING} is no private key without a passphrase that ssh-keygen can read: {said}");
        return Err(SigningError::Setting(why));
    }
    place.scratch.write("signing_key.pub", &finished.stdout).map_err(SigningError::Disk)?;
    Ok(path)
}
