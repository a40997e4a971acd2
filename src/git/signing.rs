//! Writes the SSH key that signs commits into files for git and `ssh-keygen`. It tests the key at the start of a run,
//! so that nothing is pulled for a commit that cannot be signed.

use std::path::PathBuf;

use crate::git::{ANSWER_BYTES_MAX, GitError, ssh_key};
use crate::model::Code;
use crate::process::run::Failure;
use crate::process::run_env::RunEnv;
use crate::util::Secret;

const SETTING: &str = "GIT_SIGNING_KEY";

/// Writes the key and its public half into the folder of the run. Returns the path of the key.
///
/// # Errors
/// [`GitError`], for example if the key cannot be read or has a passphrase. The text names the setting.
pub fn prepare(run_env: &RunEnv, key: &Secret) -> Result<PathBuf, GitError> {
    let refused = |message| GitError::Remote { code: Code::ConfigInvalid, message, is_passing: false };
    let path = run_env.run_dir.write("signing_key", key.expose().as_bytes())?;
    let invocation = run_env.invocation("ssh-keygen", run_env.run_dir.path())?;
    // With an empty passphrase, `ssh-keygen` does not ask for one.
    let invocation = invocation.arguments(["-y", "-P", "", "-f"]).arguments([&path]).capture(ANSWER_BYTES_MAX);
    let finished = run_env.run(invocation, &mut |_| true).map_err(|failure| match failure {
        Failure::Expired(expired) => GitError::Expired(expired),
        failure => refused(format!("{SETTING} is set, and commits cannot be signed: {failure}")),
    })?;
    if !finished.is_success() {
        return Err(refused(ssh_key::fault_of(SETTING, key).unwrap_or_else(|| {
            let printed = finished.tail_text();
            format!("{SETTING} is not a private key without a passphrase that ssh-keygen can read: {printed}")
        })));
    }
    run_env.run_dir.write("signing_key.pub", &finished.stdout)?;
    Ok(path)
}
