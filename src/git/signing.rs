//! The SSH key that signs commits, as files for git and `ssh-keygen`. It is tried at the start of a run, so that
//! nothing is pulled for a commit that cannot be signed.

use std::io;
use std::path::PathBuf;

use crate::git::ssh_key;
use crate::process::run::Failure;
use crate::process::run_env::{ProgramLog, RunEnv};
use crate::util::deadline::Expired;
use crate::util::secret::Secret;

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
pub fn prepare(run_env: &RunEnv, key: &Secret) -> Result<PathBuf, SigningError> {
    let path = run_env.run_dir.write("signing_key", key.expose().as_bytes()).map_err(SigningError::Disk)?;
    let invocation = run_env.invocation("ssh-keygen", run_env.run_dir.path()).map_err(SigningError::Disk)?;
    // With an empty passphrase, so that it does not ask for one.
    let invocation = invocation.arguments(["-y", "-P", "", "-f"]).argument(&path).capture(PUBLIC_KEY_BYTES_MAX);
    let mut log = ProgramLog::new("ssh-keygen", log::Level::Debug);
    let finished = run_env.run(invocation, &mut |line| log.line(line)).map_err(|failure| match failure {
        Failure::Expired(expired) => SigningError::Expired(expired),
        failure => SigningError::Setting(format!("{SETTING} is set, and commits cannot be signed: {failure}")),
    })?;
    if !finished.is_success() {
        let why = ssh_key::fault_of(SETTING, key).unwrap_or_else(|| {
            let said = finished.tail_text();
            format!("{SETTING} is not a private key without a passphrase that ssh-keygen can read: {said}")
        });
        return Err(SigningError::Setting(why));
    }
    run_env.run_dir.write("signing_key.pub", &finished.stdout).map_err(SigningError::Disk)?;
    Ok(path)
}
