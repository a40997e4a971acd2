//! The source of a secret: a variable, or a file that is read for each use.

use std::path::{Path, PathBuf};

use crate::config::headers::parse_headers;
use crate::model::names;
use crate::util::{Secret, files};

/// The largest secret. A key has a few kilobytes, so a larger file is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The source of a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The checked value of the variable.
    Value(Secret),
    /// A file, which the variable with the suffix `_FILE` names.
    File {
        /// The variable's name, without `_FILE`.
        variable: &'static str,
        /// The file, read for each use.
        path: PathBuf,
    },
}

impl SecretSource {
    /// Returns the current secret. A token is trimmed; a key keeps its lines and ends with a line break.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is not a regular file, has more than 64 KiB, is empty, or is not a valid
    /// secret. The message names the variable, and the path if it looks like one.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File { variable, path } => read_secret(variable, path)
                .map_err(|why| format!("{variable}_FILE: cannot take the secret from {}: {why}", shown(path))),
        }
    }
}

/// Returns the path for a message, unless it may be the secret itself.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with(['/', '.']) { names::quoted(&text) } else { "the file that it names".to_owned() }
}

fn read_secret(variable: &str, path: &Path) -> Result<Secret, String> {
    let bytes = files::read_named_file(path, SECRET_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    checked_secret(variable, &text).map_err(|why| ["it ", why].concat())
}

pub(super) fn checked_secret(variable: &str, text: &str) -> Result<Secret, &'static str> {
    match variable {
        "GIT_SSH_KEY" | "GIT_SIGNING_KEY" => checked_key(text),
        "WINDMILL_TOKEN" => checked_windmill_token(text),
        "WINDMILL_HEADERS" => {
            let text = text.trim();
            parse_headers(text).map(|_| Secret::new(text))
        }
        _ if variable.ends_with("_URL") => checked_address(text),
        _ => checked_token(text),
    }
}

/// Checks an address whose path is the secret.
fn checked_address(text: &str) -> Result<Secret, &'static str> {
    let address = checked_token(text)?;
    let rest = ["https://", "http://"].iter().find_map(|scheme| address.expose().strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace) => Ok(address),
        _ => Err("is not an http(s) address"),
    }
}

/// Returns the token as it is sent. It has to be one line, because it goes into a header.
pub(crate) fn checked_token(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty");
    }
    if text.contains(char::is_control) {
        return Err("has a line break or another control character in it");
    }
    Ok(Secret::new(text))
}

/// Checks a token that goes into a header without encoding.
pub(crate) fn checked_windmill_token(text: &str) -> Result<Secret, &'static str> {
    let token = checked_token(text)?;
    if token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token)
    } else {
        Err("has a space or another character that no Windmill token has: copy it again")
    }
}

/// Returns a key in the form that `ssh` reads: without Windows line ends, and with a line break after the last line.
fn checked_key(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim_end();
    if text.is_empty() {
        return Err("is empty");
    }
    Ok(Secret::new(text.replace("\r\n", "\n") + "\n"))
}
