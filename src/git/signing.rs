//! Writes the SSH key that signs commits into files for git and `ssh-keygen`. It tests the key at the start of a run,
//! so that nothing is pulled for a commit that cannot be signed.

use std::io;
use std::path::PathBuf;

use crate::git::ssh_key;
use crate::process::run::Failure;
use crate::process::run_env::RunEnv;
use crate::util::deadline::Expired;
use crate::util::secret::Secret;

const SETTING: &str = "GIT_SIGNING_KEY";
/// The limit for a public key, which is one line. An RSA key of 16,384 bits has 3 KB.
const PUBLIC_KEY_BYTES_MAX: usize = 16 * 1024;

/// Why commits cannot be signed.
#[derive(Debug)]
pub enum SigningError {
    /// The key cannot be used, or `ssh-keygen` is missing. The text names the setting.
    Setting(String),
    /// The deadline passed, or the service is ending.
    Expired(Expired),
    /// The folder of the run cannot be written.
    Disk(io::Error),
}

/// Writes the key and its public half into the folder of the run. Returns the path of the key.
///
/// # Errors
/// [`SigningError`], for example if the key cannot be read or has a passphrase.
pub fn prepare(run_env: &RunEnv, key: &Secret) -> Result<PathBuf, SigningError> {
    let path = run_env.run_dir.write("signing_key", key.expose().as_bytes()).map_err(SigningError::Disk)?;
    let invocation = run_env.invocation("ssh-keygen", run_env.run_dir.path()).map_err(SigningError::Disk)?;
    // With an empty passphrase, `ssh-keygen` does not ask for one.
    let invocation = invocation.arguments(["-y", "-P", "", "-f"]).argument(&path).capture(PUBLIC_KEY_BYTES_MAX);
    let finished = run_env.run(invocation, &mut |_| {}).map_err(|failure| match failure {
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
