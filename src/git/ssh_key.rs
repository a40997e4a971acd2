//! Explains what is wrong with a text that should be an SSH private key, and prepares the key that signs commits.

use std::io;
use std::path::PathBuf;

use crate::git::ANSWER_BYTES_MAX;
use crate::model::{BackupError, Code, Result};
use crate::process::{Failure, RunEnv};
use crate::util::Secret;

/// The setting of the key that signs commits.
const SETTING: &str = "GIT_SIGNING_KEY";
/// How a key in OpenSSH's own format begins in Base64. The length of the cipher's name and that name follow.
const OPENSSH: &str = "b3BlbnNzaC1rZXktdjEAAAAA";
/// How the rest of it begins if the name of the cipher is `none`.
const NO_CIPHER: &str = "BG5vbm";

/// Writes the key and its public half into the folder of the run. Returns the path of the key.
///
/// # Errors
/// [`BackupError`], for example if the key cannot be read or has a passphrase. The text names the setting.
pub fn prepare_signing(run_env: &RunEnv, key: &Secret) -> Result<PathBuf> {
    let refused = |message| BackupError::new(Code::ConfigInvalid, message);
    let path = run_env.run_dir.write("signing_key", key.expose().as_bytes())?;
    let invocation = run_env.invocation("ssh-keygen", run_env.run_dir.path())?;
    // With an empty passphrase, `ssh-keygen` does not ask for one.
    let invocation = invocation.arguments(["-y", "-P", "", "-f"]).arguments([&path]).capture(ANSWER_BYTES_MAX);
    let finished = run_env.run(invocation, &mut |_| true).map_err(|failure| match failure {
        Failure::Expired(expired) => expired.into(),
        Failure::Io(error) if error.kind() == io::ErrorKind::StorageFull => error.into(),
        failure => refused(format!("{SETTING} is set, and commits cannot be signed: {failure}")),
    })?;
    if !finished.is_success() {
        return Err(refused(fault_of(SETTING, key).unwrap_or_else(|| {
            let printed = finished.tail.join("\n");
            format!("{SETTING} is not a private key without a passphrase that ssh-keygen can read: {printed}")
        })));
    }
    run_env.run_dir.write("signing_key.pub", &finished.stdout)?;
    Ok(path)
}

/// Returns why `ssh` cannot use a key, in a text that names its setting, or `None` if no reason is visible. It returns
/// only the first reason that applies. `ssh` itself prints an error of its library.
pub fn fault_of(setting: &str, key: &Secret) -> Option<String> {
    const PUBLIC: [&str; 6] =
        ["ssh-", "ecdsa-", "sk-", "-----BEGIN PUBLIC", "-----BEGIN SSH2 PUBLIC", "---- BEGIN SSH2"];
    let text = key.expose().trim();
    let why = if PUBLIC.iter().any(|start| text.starts_with(start)) {
        "it is a public key; the private one is in the file of the same name without .pub"
    } else if text.contains("\\n") {
        "it has \\n where a line should end; put it into a file and name that by the variable with _FILE"
    } else if !text.starts_with("-----BEGIN") {
        "it does not begin with -----BEGIN"
    } else if !text.contains("-----END") {
        "it has no line that begins with -----END, so a part of it is missing"
    } else if text.lines().count() < 3 {
        "its lines were joined into one; put it into a file and name that by the variable with _FILE"
    } else if has_passphrase(text) {
        "it has a passphrase; `ssh-keygen -p -N '' -f KEY` removes it"
    } else {
        return None;
    };
    Some([setting, " is not a private key without a passphrase: ", why].concat())
}

fn has_passphrase(text: &str) -> bool {
    let cipher = text.lines().find_map(|line| line.trim().strip_prefix(OPENSSH));
    text.contains("BEGIN ENCRYPTED ")
        || text.contains("Proc-Type: 4,ENCRYPTED")
        || cipher.is_some_and(|cipher| !cipher.starts_with(NO_CIPHER))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Returns a key in OpenSSH's format that is complete up to its cipher.
    fn key(cipher: &str) -> String {
        let length = u8::try_from(cipher.len()).unwrap();
        let content = [&b"openssh-key-v1\0"[..], &[0, 0, 0, length], cipher.as_bytes(), b"the rest"].concat();
        let body = STANDARD.encode(content);
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let message = fault_of("GIT_SSH_KEY", &Secret::new(text)).unwrap_or_default();
        let start = "GIT_SSH_KEY is not a private key without a passphrase: ";
        assert!(message.starts_with(start) && message.contains(expected), "{text}: {message}");
    }

    #[test]
    fn the_fault_of_a_key_is_named() {
        let good = key("none");
        check(&good.replace('\n', "\\n"), "has \\n where");
        check(&good.trim().replace('\n', " "), "joined into one");
        check(&good.replace("-----END", ""), "a part of it is missing");
        check("ssh-ed25519 AAAA me@here\n", "public key");
        check(&key("aes256-ctr"), "passphrase; `ssh-keygen");
        check(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nx\n-----END ENCRYPTED PRIVATE KEY-----",
            "passphrase; `ssh-keygen",
        );
        for text in ["hunter2", "/run/secrets/key", "PuTTY-User-Key-File-3: ssh-ed25519", &STANDARD.encode(&good)] {
            check(text, "does not begin");
        }
    }

    #[test]
    fn no_fault_is_found_in_a_key_that_ssh_may_accept() {
        for text in [&*key("none"), "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"] {
            assert_eq!(fault_of("GIT_SSH_KEY", &Secret::new(text)), None, "{text}");
        }
    }
}
