//! Explains what is wrong with a text that should be an SSH private key. `ssh` itself prints an error of its library.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::util::Secret;

/// The start of a decoded key in OpenSSH's own format. The length of the cipher's name and that name follow.
const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";

/// Returns why `ssh` cannot use a key, in a text that names its setting, or `None` if no reason is visible. It returns
/// only the first reason that applies.
pub fn fault_of(setting: &str, key: &Secret) -> Option<String> {
    const PUBLIC: [&str; 6] =
        ["ssh-", "ecdsa-", "sk-", "-----BEGIN PUBLIC", "-----BEGIN SSH2 PUBLIC", "---- BEGIN SSH2"];
    let text = key.expose().trim();
    let reasons = [
        (
            PUBLIC.iter().any(|start| text.starts_with(start)),
            "it is a public key; the private one is in the file of the same name without .pub",
        ),
        (
            text.contains("\\n"),
            "it has \\n where a line should end; put it into a file and name that by the variable with _FILE",
        ),
        (!text.starts_with("-----BEGIN"), "it does not begin with -----BEGIN"),
        (!text.contains("-----END"), "it has no line that begins with -----END, so a part of it is missing"),
        (
            text.lines().count() < 3,
            "its lines were joined into one; put it into a file and name that by the variable with _FILE",
        ),
        (has_passphrase(text), "it has a passphrase; `ssh-keygen -p -N '' -f KEY` removes it"),
    ];
    let (_, why) = reasons.into_iter().find(|(holds, _)| *holds)?;
    Some([setting, " is not a private key without a passphrase: ", why].concat())
}

fn has_passphrase(text: &str) -> bool {
    if text.contains("BEGIN ENCRYPTED ") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return true;
    }
    let body: String = text.lines().map(str::trim).filter(|line| !line.starts_with('-')).collect();
    let content = STANDARD.decode(body).unwrap_or_default();
    // The name of the cipher follows its length of four bytes.
    let cipher = content.strip_prefix(OPENSSH_MAGIC).and_then(|rest| rest.get(4..));
    cipher.is_some_and(|cipher| !cipher.starts_with(b"none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a key in OpenSSH's format that is complete up to its cipher.
    fn key(cipher: &str) -> String {
        let length = u8::try_from(cipher.len()).unwrap();
        let content = [OPENSSH_MAGIC, &[0, 0, 0, length], cipher.as_bytes(), b"the rest"].concat();
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
